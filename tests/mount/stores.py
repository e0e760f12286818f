"""Stores made by hand, so that what a mount shows does not depend on how a sync works."""

import datetime
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import blake3

from ssfs.clock import SystemClock
from ssfs.model.entry import GROUP, ROOT_ID, USER, Entry, Kind, Principal, kind_of_mode
from ssfs.model.policy import Policy
from ssfs.model.version import (
    Counts,
    RootMetadata,
    VersionId,
    VersionRecord,
    free_shift,
    timed_name,
)
from ssfs.store.catalog.writer import CatalogWriter
from ssfs.store.store import Store, Task
from ssfs.store.textfile import FORMAT
from ssfs.store.trash import empty_trash, move_to_trash
from ssfs.store.version import Version, encode_record

DAY = datetime.datetime(2024, 5, 1, 12, 0, 0, tzinfo=datetime.UTC)
NEXT_DAY = DAY + datetime.timedelta(days=1)
OWNERS = (Principal(USER, 0, b"root"), Principal(GROUP, 0, b"root"))


def make_store(path: Path) -> Store:
    return Store.create(os.fsencode(path), Policy(), "UTC", SystemClock())


def make_task(path: Path, point: str = "main", task: str = "docs") -> Task:
    """A task without versions, in a new store."""
    store = make_store(path)
    return add_task(store, point, task)


def add_task(store: Store, point: str = "main", task: str = "docs") -> Task:
    return store.create_point(point).claim_task(task, "client", f"/{task}", SystemClock())


def entry(entry_id: int, parent: int, name: bytes, kind: Kind, **fields: Any) -> Entry:
    """A row; what is not given is nothing special."""
    row = Entry(entry_id, parent, name, int(kind), 0o644, *(0,) * 5, b"", b"", *(0,) * 5)
    return row._replace(**fields)


def directory(entry_id: int, parent: int, name: bytes, **fields: Any) -> Entry:
    return entry(entry_id, parent, name, Kind.DIRECTORY, **{"mode": 0o755, **fields})


def walk(source: Path) -> Iterable[Entry]:
    """The rows of a real tree."""
    ids = {os.fsencode(source): ROOT_ID}
    yield _row(os.lstat(source), ROOT_ID, 0, b"", os.fsencode(source))
    for base, directories, files in os.walk(os.fsencode(source)):
        for name in sorted(directories + files):
            path = os.path.join(base, name)
            ids[path] = len(ids) + 1
            yield _row(os.lstat(path), ids[path], ids[base], name, path)


def _row(status: os.stat_result, entry_id: int, parent: int, name: bytes, path: bytes) -> Entry:
    kind = Kind(kind_of_mode(status.st_mode))
    seconds, ns = divmod(status.st_mtime_ns, 10**9)
    row = entry(
        entry_id,
        parent,
        name,
        kind,
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        mtime_s=seconds,
        mtime_ns=ns,
        rdev=status.st_rdev,
    )
    if kind == Kind.FILE:
        digest = blake3.blake3(Path(os.fsdecode(path)).read_bytes()).digest()
        return row._replace(size=status.st_size, digest=digest)
    if kind == Kind.SYMLINK:
        return row._replace(target=os.readlink(path))
    return row


def add_version(
    task: Task,
    source: Path | Iterable[Entry],
    time: datetime.datetime = DAY,
    *,
    owners: Iterable[Principal] = OWNERS,
    root: RootMetadata | None = None,
) -> Version:
    """Commit a version: of a real tree, whose files are copied, or of rows without any file."""
    version_id = VersionId(task.next_sequence(), time)
    staging = Path(os.fsdecode(task.path)) / "staging"
    (staging / "tree").mkdir(parents=True)
    rows = walk(source) if isinstance(source, Path) else source
    catalog = CatalogWriter.open_writer(os.fsencode(staging / "catalog.db"), durable=False)
    paths: dict[int, bytes] = {ROOT_ID: b"."}
    top = None
    for row in rows:
        catalog.put(row)
        if row.id == ROOT_ID:
            top = row
            continue
        if isinstance(source, Path):
            path = paths[row.parent] + b"/" + row.name
            _copy(row, os.fsencode(source) + b"/" + path, os.fsencode(staging) + b"/tree/" + path)
            if row.kind == Kind.DIRECTORY:
                paths[row.id] = path
    assert top is not None
    insert = "INSERT INTO principal VALUES (?, ?, ?)"
    catalog.run(insert, [tuple(owner) for owner in owners])
    catalog.checkpoint()
    entries = catalog.counter("entries")
    catalog.close()
    (staging / "lock").touch(mode=0o600)
    record = VersionRecord(
        FORMAT,
        str(version_id),
        version_id.sequence,
        time,
        time,
        timed_name(time, task.point.store.zone, version_id.sequence, names_of(task)),
        1.0,
        "client",
        "/docs",
        "",
        "",
        Counts(entries=entries),
        root or RootMetadata(top.mode, top.uid, top.gid, "root", "root", top.mtime_s, top.mtime_ns),
        shift_s=free_shift(time, (version.record().second for version in task.versions())),
    )
    (staging / "version.toml").write_bytes(encode_record(record))
    committed = staging.parent / "versions" / str(version_id)
    staging.rename(committed)
    return Version(version_id, os.fsencode(committed))


def names_of(task: Task) -> list[str]:
    return [version.record().name for version in task.versions()]


def _copy(row: Entry, source: bytes, target: bytes) -> None:
    match Kind(row.kind):
        case Kind.DIRECTORY:
            os.mkdir(target, 0o700)
        case Kind.SYMLINK:
            os.symlink(row.target, target)
        case Kind.FIFO | Kind.CHARACTER_DEVICE | Kind.BLOCK_DEVICE:
            pass
        case Kind.FILE:
            Path(os.fsdecode(target)).write_bytes(Path(os.fsdecode(source)).read_bytes())
            os.chmod(target, 0o400)


def expire(task: Task, version: Version) -> None:
    """What expiry does: out of sight."""
    with task.guard() as guard:
        move_to_trash(version, guard)


def collect(task: Task) -> int:
    """Delete what nobody reads; how many versions went."""
    return empty_trash(task.path)


class HandClock:
    """Seconds pass when a test says so; the time of day is the machine's, as that of its files is.

    Attributes:
        time: The time of day instead of the machine's.
    """

    def __init__(self) -> None:
        self.seconds = 1000.0
        self.time: datetime.datetime | None = None

    def now(self) -> datetime.datetime:
        return self.time or datetime.datetime.now(datetime.UTC)

    def monotonic_s(self) -> float:
        return self.seconds

    def advance(self, seconds: float) -> None:
        self.seconds += seconds
