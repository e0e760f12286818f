"""Source trees made from a seed, edited from a seed, and held against what a store made of them.

    build_tree(root, seed)              files of all sizes, directories, symlinks, odd names
    edit_tree(root, seed)               some edits of every kind; the same seed, the same edits
    remember(root)                      what the tree is now, to compare with after later edits
    compare_with_version(source, v)     source (or what was remembered of it) against catalog AND tree
    verify_version(v)                   the version against itself, needing nothing else

Both checks raise AssertionError with every difference they found, one a line. They read the store with SQL
and plain system calls where they can, so that they do not share the mistakes of the code under test.
"""

import contextlib
import grp
import os
import pwd
import random
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ssfs.fsio.sparse import find_layout
from ssfs.model.entry import Entry, Kind, kind_of_mode
from ssfs.model.version import VersionId, parse_version_id
from ssfs.source.reading import digest_file
from ssfs.store.catalog.digest import digest_bytes, rows_digest
from ssfs.store.catalog.schema import APPLICATION_ID, CATALOG_VERSION
from ssfs.store.version import Version

_SHOWN = 20
_COLUMNS = ", ".join(Entry._fields)
# What adds is there more than once, or a tree would shrink edit by edit.
_EDITS = (
    "new_file",
    "new_file",
    "new_directory",
    "new_directory",
    "append",
    "overwrite",
    "replace",
    "touch",
    "chmod",
    "chown",
    "new_file",
    "new_directory",
    "new_symlink",
    "rename_file",
    "rename_directory",
    "swap",
    "rotate",
    "copy",
    "remove_file",
    "remove_directory",
    "file_to_directory",
    "directory_to_file",
    "retarget",
)
_ODD_NAMES = (
    b"sp ace",
    b"new\nline",
    b"\xff\xfe",
    "grüße.txt".encode(),
    b"-dash",
    b".hidden",
    b"#x",
)


class Seen(NamedTuple):
    """One entry of a source, as far as a version must repeat it."""

    kind: int
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size: int
    digest: bytes
    target: bytes


SourceImage = dict[bytes, Seen]
"""What a source was at one time, by path below its root; b"" is the root."""

Found = dict[bytes, Entry]


# -- building -------------------------------------------------------------------------------------


def build_tree(
    root: Path,
    seed: int,
    *,
    directories: int = 8,
    files: int = 40,
    large_files: int = 1,
    large_bytes: int = 1 << 20,
) -> Path:
    """Make a tree in the new directory `root`; the same arguments make the same tree."""
    rng = random.Random(seed)
    root.mkdir(parents=True)
    places = [os.fsencode(root)]
    for number in range(directories):
        name = rng.choice(_ODD_NAMES) + b"-%d" % number if number % 4 == 3 else b"dir-%d" % number
        place = os.path.join(rng.choice(places), name)
        os.mkdir(place)
        places.append(place)
    for number in range(files):
        name = rng.choice(_ODD_NAMES) + b"-%d" % number if number % 7 == 6 else b"file-%d" % number
        path = os.path.join(rng.choice(places), name)
        _write(path, rng.randbytes(rng.choice((0, 1, 100, 3000, 5000, 20_000))))
        os.chmod(path, rng.choice((0o644, 0o600, 0o755, 0o4755, 0o000)))
        _set_time(path, rng)
    for number in range(large_files):
        _write(os.path.join(rng.choice(places), b"large-%d" % number), rng.randbytes(large_bytes))
    os.symlink(b"dir-0", os.path.join(places[0], b"link-to-directory"))
    os.symlink(rng.choice(_ODD_NAMES), os.path.join(rng.choice(places), b"dangling"))
    return root


def edit_tree(root: Path, seed: int, edits: int = 12, *, large_bytes: int = 1 << 20) -> list[str]:
    """Edit a tree at random; what was done, for a test's message."""
    rng = random.Random(seed)
    done = []
    for number in range(edits):
        edit = rng.choice(_EDITS)
        with contextlib.suppress(IndexError):  # nothing of the kind is there to choose from
            getattr(_Editor(os.fsencode(root), rng, seed, number, large_bytes), edit)()
            done.append(edit)
    return done


class _Editor:
    """One edit of a tree: a method each."""

    def __init__(
        self, root: bytes, rng: random.Random, seed: int, number: int, large_bytes: int
    ) -> None:
        self._root = root
        self._rng = rng
        self._new = b"new-%d-%d" % (seed, number)
        self._large_bytes = large_bytes
        self._files: list[bytes] = []
        self._directories: list[bytes] = []
        self._symlinks: list[bytes] = []
        for place, below, names in os.walk(root):
            below.sort()
            for name in sorted(below + names):
                path = os.path.join(place, name)
                if os.path.islink(path):
                    self._symlinks.append(path)
                else:
                    (self._directories if os.path.isdir(path) else self._files).append(path)

    def _place(self) -> bytes:
        return self._rng.choice([self._root, *self._directories])

    def _size(self) -> int:
        return self._rng.choice((0, 10, 3000, 5000, 150_000, self._large_bytes))

    def append(self) -> None:
        with open(self._rng.choice(self._files), "ab") as file:
            file.write(self._rng.randbytes(500))

    def overwrite(self) -> None:
        """In place, a few bytes: the size stays."""
        path = self._rng.choice([path for path in self._files if os.path.getsize(path)])
        with open(path, "r+b") as file:
            file.seek(self._rng.randrange(os.path.getsize(path)))
            file.write(self._rng.randbytes(1))

    def replace(self) -> None:
        """As editors save: another inode under the old name."""
        path = self._rng.choice(self._files)
        beside = os.path.join(os.path.dirname(path), self._new)
        _write(beside, self._rng.randbytes(self._size()))
        os.rename(beside, path)

    def touch(self) -> None:
        _set_time(self._rng.choice(self._files + self._directories), self._rng)

    def chmod(self) -> None:
        mode = self._rng.choice((0o700, 0o750, 0o777, 0o2755, 0o1777))
        os.chmod(self._rng.choice(self._files + self._directories), mode)

    def chown(self) -> None:
        if os.geteuid() == 0:
            paths = self._files + self._directories + self._symlinks
            os.lchown(self._rng.choice(paths), self._rng.choice((0, 1, 54321)), 2)

    def new_file(self) -> None:
        _write(os.path.join(self._place(), self._new), self._rng.randbytes(self._size()))

    def new_directory(self) -> None:
        path = os.path.join(self._place(), self._new)
        os.mkdir(path)
        for number in range(6):
            _write(os.path.join(path, b"inside-%d" % number), self._rng.randbytes(number * 1500))

    def new_symlink(self) -> None:
        os.symlink(b"../" + self._new, os.path.join(self._place(), self._new))

    def rename_file(self) -> None:
        os.rename(self._rng.choice(self._files), os.path.join(self._place(), self._new))

    def rename_directory(self) -> None:
        path = self._rng.choice(self._directories)
        places = [
            place
            for place in [self._root, *self._directories]
            if not (place + b"/").startswith(path + b"/")
        ]
        os.rename(path, os.path.join(self._rng.choice(places), self._new))

    def swap(self) -> None:
        first, second = self._rng.choice(self._files), self._rng.choice(self._files)
        if first != second:
            aside = os.path.join(self._root, self._new)
            os.rename(first, aside)
            os.rename(second, first)
            os.rename(aside, second)

    def rotate(self) -> None:
        # No file can be renamed over a directory.
        taken = {path[:-2] for path in self._directories if path.endswith((b".1", b".2"))}
        path = self._rng.choice([path for path in self._files if path not in taken])
        if os.path.exists(path + b".1"):
            os.rename(path + b".1", path + b".2")
        os.rename(path, path + b".1")
        _write(path, self._rng.randbytes(self._size()))

    def copy(self) -> None:
        with open(self._rng.choice(self._files), "rb") as file:
            _write(os.path.join(self._place(), self._new), file.read())

    def remove_file(self) -> None:
        os.unlink(self._rng.choice(self._files))

    def remove_directory(self) -> None:
        _remove(self._rng.choice(self._directories))

    def file_to_directory(self) -> None:
        path = self._rng.choice(self._files)
        os.unlink(path)
        os.mkdir(path)
        _write(os.path.join(path, b"inside"), b"was a file")

    def directory_to_file(self) -> None:
        path = self._rng.choice(self._directories)
        _remove(path)
        _write(path, b"was a directory")

    def retarget(self) -> None:
        path = self._rng.choice(self._symlinks)
        os.unlink(path)
        os.symlink(self._new, path)


def _write(path: bytes, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)


def _set_time(path: bytes, rng: random.Random) -> None:
    # Years 1935 to 2033, with nanoseconds.
    mtime_ns = rng.randrange(-(10**18), 2 * 10**18)
    os.utime(path, ns=(mtime_ns, mtime_ns))


def _remove(path: bytes) -> None:
    for place, below, names in os.walk(path, topdown=False):
        for name in names:
            os.unlink(os.path.join(place, name))
        for name in below:
            inside = os.path.join(place, name)
            os.unlink(inside) if os.path.islink(inside) else os.rmdir(inside)
    os.rmdir(path)


# -- comparing ------------------------------------------------------------------------------------


def remember(root: Path) -> SourceImage:
    """What a source is now, sockets left out."""
    image: SourceImage = {}
    for path, status in _walk(os.fsencode(root)):
        full = os.path.join(os.fsencode(root), path)
        kind = kind_of_mode(status.st_mode)
        image[path] = Seen(
            kind,
            status.st_mode & 0o7777,
            status.st_uid,
            status.st_gid,
            status.st_mtime_ns,
            status.st_size if kind == Kind.FILE else 0,
            _digest(full) if kind == Kind.FILE else b"",
            os.readlink(full) if kind == Kind.SYMLINK else b"",
        )
    return image


def compare_with_version(source: Path | SourceImage, version: Version | Path) -> None:
    """The version holds the source, entry by entry, in its catalog and in its tree.

    Raises:
        AssertionError: It does not; says where.
    """
    image = source if isinstance(source, dict) else remember(source)
    path = _path_of(version)
    with _catalog(path) as database:
        found = _entries_by_path(database)
        principals = set(database.execute("SELECT kind, number, name FROM principal"))
    wrong = [f"not in the catalog: {path!r}" for path in image.keys() - found.keys()]
    wrong += [f"not in the source: {path!r}" for path in found.keys() - image.keys()]
    for where, seen in image.items():
        if where not in found:
            continue
        entry = found[where]
        recorded = Seen(
            entry.kind,
            entry.mode,
            entry.uid,
            entry.gid,
            entry.mtime_s * 10**9 + entry.mtime_ns,
            entry.size,
            entry.digest,
            entry.target,
        )
        wrong += [
            f"{where!r}: {field} is {ours!r} in the catalog, {theirs!r} in the source"
            for field, ours, theirs in zip(Seen._fields, recorded, seen, strict=True)
            if ours != theirs
        ]
        wrong += _stored_wrongly(os.path.join(path, b"tree", where), where, seen)
    wrong += _principals_wrong(image, principals)
    _raise(wrong, path)


def _stored_wrongly(stored: bytes, where: bytes, seen: Seen) -> list[str]:
    """How what lies in tree/ differs from the source."""
    try:
        status = os.lstat(stored)
    except FileNotFoundError:
        if seen.kind in (Kind.FILE, Kind.DIRECTORY, Kind.SYMLINK):
            return [f"{where!r}: not in tree/"]
        return []
    if kind_of_mode(status.st_mode) != seen.kind:
        return [f"{where!r}: another kind in tree/"]
    if seen.kind == Kind.FILE and _digest(stored) != seen.digest:
        return [f"{where!r}: other content in tree/"]
    if seen.kind == Kind.SYMLINK and os.readlink(stored) != seen.target:
        return [f"{where!r}: another target in tree/"]
    return []


def _principals_wrong(image: SourceImage, principals: set[tuple[int, int, bytes]]) -> list[str]:
    """Names of the owners: those of this machine, which made the source."""
    wrong = []
    for kind, numbers in (
        (0, {s.uid for s in image.values()}),
        (1, {s.gid for s in image.values()}),
    ):
        for number in numbers:
            try:
                name = pwd.getpwuid(number).pw_name if kind == 0 else grp.getgrgid(number).gr_name
            except KeyError:
                continue
            if (kind, number, name.encode()) not in principals:
                wrong.append(f"principal {kind} {number} is not called {name!r}")
    return wrong


# -- verifying ------------------------------------------------------------------------------------


def verify_version(version: Version | Path) -> None:
    """The version is whole: record, catalog and tree agree, every byte has its digest.

    Raises:
        AssertionError: It is not; says what is wrong.
    """
    path = _path_of(version)
    record = Version(_id_of(path), path).record()
    wrong = []
    names = set(os.listdir(path))
    if not {b"version.toml", b"catalog.db", b"tree", b"lock"} <= names:
        wrong.append(f"only {sorted(names)} in the version's directory")
    if names - {b"version.toml", b"catalog.db", b"tree", b"lock", b"pin.toml", b"damage.toml"}:
        wrong.append(f"strange names in the version's directory: {sorted(names)}")
    with _catalog(path) as database:
        wrong += _catalog_wrong(database)
        rows = database.execute(f"SELECT {_COLUMNS} FROM entry").fetchall()
        meta = dict(database.execute("SELECT key, value FROM meta"))
        found = _entries_by_path(database)
        total = rows_digest(rows)
        for query in ("SELECT kind, number, name FROM principal", "SELECT * FROM xattr_set"):
            total += rows_digest(database.execute(query).fetchall())
    if len(found) != len(rows):
        wrong.append(f"{len(rows) - len(found)} rows have no path from the root")
    recomputed = digest_bytes(total)
    if meta["logical_digest"] != recomputed:
        wrong.append("the catalog's logical digest is not that of its rows")
    if record.catalog_digest != recomputed.hex():
        wrong.append("the record's catalog digest is not that of the rows")
    entries = [Entry._make(row) for row in rows]
    wrong += _counts_wrong(entries, meta)
    if (record.counts.entries, record.counts.bytes) != (meta["entries"], meta["bytes"]):
        wrong.append("the record's counts are not the catalog's")
    wrong += _tree_wrong(path, found)
    _raise(wrong, path)


def _catalog_wrong(database: sqlite3.Connection) -> list[str]:
    wrong = []
    ((check,),) = database.execute("PRAGMA integrity_check(1)").fetchall()
    if check != "ok":
        wrong.append(f"SQLite: {check}")
    ids = [
        database.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("application_id", "user_version")
    ]
    if ids != [APPLICATION_ID, CATALOG_VERSION]:
        wrong.append(f"catalog's application_id and user_version are {ids}")
    tables = {
        name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
    }
    if tables != {"entry", "principal", "xattr_set", "meta"}:
        wrong.append(f"catalog's tables are {sorted(tables)}")
    return wrong


def _counts_wrong(entries: list[Entry], meta: dict[str, int]) -> list[str]:
    expected = {
        "entries": len(entries),
        "files": sum(entry.kind == Kind.FILE for entry in entries),
        "directories": sum(entry.kind == Kind.DIRECTORY for entry in entries),
        "symlinks": sum(entry.kind == Kind.SYMLINK for entry in entries),
        "bytes": sum(entry.size for entry in entries),
    }
    wrong = [
        f"catalog counts {meta[key]} {key}, there are {count}"
        for key, count in expected.items()
        if meta[key] != count
    ]
    if meta["next_id"] <= max(entry.id for entry in entries):
        wrong.append("next_id was used already")
    return wrong


def _tree_wrong(path: bytes, found: Found) -> list[str]:
    """How tree/ differs from the catalog's rows."""
    tree = os.path.join(path, b"tree")
    wrong = []
    present = dict(_walk(tree))
    for where, entry in found.items():
        status = present.pop(where, None)
        has_data = entry.kind in (Kind.FILE, Kind.DIRECTORY, Kind.SYMLINK)
        if status is None:
            if has_data:
                wrong.append(f"{where!r}: in the catalog, not in tree/")
            continue
        if not has_data or kind_of_mode(status.st_mode) != entry.kind:
            wrong.append(f"{where!r}: another kind in tree/")
            continue
        wrong += _data_wrong(os.path.join(tree, where), where, entry, status)
    return wrong + [f"{where!r}: in tree/, not in the catalog" for where in present]


def _data_wrong(stored: bytes, where: bytes, entry: Entry, status: os.stat_result) -> list[str]:
    if entry.kind == Kind.SYMLINK:
        return [] if os.readlink(stored) == entry.target else [f"{where!r}: another target"]
    if entry.kind == Kind.DIRECTORY:
        return [] if status.st_mode & 0o7777 == 0o700 else [f"{where!r}: directory not 0700"]
    if status.st_mode & 0o7777 != 0o400:
        return [f"{where!r}: file not 0400"]
    if status.st_size != entry.size:
        return [f"{where!r}: {status.st_size} bytes in tree/, {entry.size} in the catalog"]
    return [] if _digest(stored) == entry.digest else [f"{where!r}: content has another digest"]


# -- reading --------------------------------------------------------------------------------------


def entries_by_path(version: Version | Path) -> Found:
    """The rows of a version's catalog, by path."""
    with _catalog(_path_of(version)) as database:
        return _entries_by_path(database)


def tree_inodes(version: Version | Path) -> dict[bytes, int]:
    """Inode numbers of the files in tree/, by path."""
    tree = os.path.join(_path_of(version), b"tree")
    return {path: s.st_ino for path, s in _walk(tree) if stat.S_ISREG(s.st_mode)}


def _walk(root: bytes) -> Iterator[tuple[bytes, os.stat_result]]:
    """Path below the root and status of everything but sockets, the root (b"") first."""
    yield b"", os.lstat(root)
    pending = [b""]
    while pending:
        below = pending.pop()
        with os.scandir(os.path.join(root, below)) as entries:
            for entry in entries:
                path = os.path.join(below, entry.name)
                status = os.lstat(os.path.join(root, path))
                if stat.S_ISSOCK(status.st_mode):
                    continue
                yield path, status
                if stat.S_ISDIR(status.st_mode):
                    pending.append(path)


def _entries_by_path(database: sqlite3.Connection) -> Found:
    """All rows that can be reached from the root, with their names."""
    children: dict[int, list[Entry]] = {}
    for row in database.execute(f"SELECT {_COLUMNS} FROM entry"):
        entry = Entry._make(row)
        children.setdefault(entry.parent, []).append(entry)
    found: Found = {}
    pending = [(b"", entry) for entry in children.get(0, [])]
    while pending:
        path, entry = pending.pop()
        found[path] = entry
        pending += [(os.path.join(path, row.name), row) for row in children.get(entry.id, [])]
    return found


@contextlib.contextmanager
def _catalog(path: bytes) -> Iterator[sqlite3.Connection]:
    uri = Path(os.fsdecode(os.path.join(path, b"catalog.db"))).absolute().as_uri()
    with contextlib.closing(sqlite3.connect(f"{uri}?mode=ro&immutable=1", uri=True)) as database:
        yield database


def _path_of(version: Version | Path) -> bytes:
    return version.path if isinstance(version, Version) else os.fsencode(version)


def _id_of(path: bytes) -> VersionId:
    from_name = parse_version_id(os.fsdecode(os.path.basename(path)))
    assert from_name is not None, f"{path!r} is no version's directory"
    return from_name


def _digest(path: bytes) -> bytes:
    with open(path, "rb", buffering=0) as file:
        layout = find_layout(file.fileno(), os.fstat(file.fileno()))
        digest, _ = digest_file(file.fileno(), layout, lambda _: None)
    return digest


def _raise(wrong: list[str], path: bytes) -> None:
    if wrong:
        shown = "\n  ".join(wrong[:_SHOWN])
        raise AssertionError(f"{os.fsdecode(path)}: {len(wrong)} differences:\n  {shown}")
