"""Two directory trees held against each other, field by field: what a backup must bring back.

    differences(left, right)        every difference, one line each; [] when the trees are equal
    assert_same_tree(left, right)   AssertionError with the first of them

Compared is, of every entry and of the two roots (each word is a field that `ignoring` may name):

    names        the same set of names in every directory (never ignored)
    type         file, directory, symlink, FIFO, character or block device (never ignored)
    mode         the twelve permission bits, with setuid, setgid and sticky
    owner group  by number
    mtime        to the nanosecond
    size         of files, in bytes
    content      of files, byte by byte
    holes        of files: the same map of data and holes, as SEEK_DATA and SEEK_HOLE tell it. File systems
                 differ in how finely they can tell, and some cannot at all: "holes elsewhere" ignores
                 this field for trees on different file systems, "holes" everywhere
    target       of symlinks, as bytes
    device       major and minor number of devices
    hard links   which paths of the tree are one inode. Names outside the tree do not count
    xattrs       all that the process may see, names and values, on entries of every type. POSIX ACLs are
                 among them (system.posix_acl_access and _default)

Directories have no size that could be compared. A socket in the left tree does not count: the right tree must
have nothing of its name. With "sockets" ignored, none of either tree counts. With "root" ignored, the roots'
own metadata do not count.

Both trees are walked together, in the order of the names' bytes, by one descriptor each that goes down and
comes up again: neither depth nor the length of a path has a limit, and no symlink below the roots is followed.
Memory holds the names of the directories on the way, and the inodes that have several names. What both trees
have as a hole is not read: files of terabytes take milliseconds. What cannot be read is a difference.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Collection, Generator, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

FIELDS = frozenset(
    {"mode", "owner", "group", "mtime", "size", "content", "holes", "holes elsewhere"}
    | {"target", "device", "hard links", "xattrs", "sockets", "root"}
)
"""What `ignoring` may name."""

_SHOWN = 20
_PIECE = 1 << 20
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_TYPES = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "FIFO",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
    stat.S_IFSOCK: "socket",
}

Extents = list[tuple[int, int]]
Difference = tuple[bytes, str, object, object]
T = TypeVar("T")
Yielding = Generator[Difference, None, T]
"""Differences as they are found, and a result after them."""


def assert_same_tree(
    left: Path | bytes, right: Path | bytes, *, ignoring: Collection[str] = ()
) -> None:
    """The trees are equal but for what is ignored.

    Raises:
        AssertionError: They are not; the first differences, one a line.
    """
    found = differences(left, right, ignoring=ignoring)
    if found:
        shown = "\n  ".join([*found[:_SHOWN], *["..."][: len(found) - _SHOWN]])
        names = f"{os.fsdecode(left)} | {os.fsdecode(right)}"
        raise AssertionError(f"{names}: {len(found)} differences:\n  {shown}")


def differences(
    left: Path | bytes, right: Path | bytes, *, ignoring: Collection[str] = ()
) -> list[str]:
    """What differs, one line for each entry and field: `PATH: FIELD: LEFT | RIGHT`.

    Args:
        left: A directory; what ought to be. It may be reached through symlinks.
        right: Another one; what is.
        ignoring: Fields (see above) that may differ.

    Returns:
        The lines in the order of the walk, a directory before what is in it.

    Raises:
        OSError: A root cannot be opened.
    """
    unknown = set(ignoring) - FIELDS
    if unknown:
        raise ValueError(f"No such field: {sorted(unknown)}")
    with _Place(left) as ours, _Place(right) as theirs:
        return [
            f"{path!r}: {field}: {one} | {other}"
            for path, field, one, other in _Comparison(ours, theirs, set(ignoring)).run()
        ]


class _Place:
    """An open directory of a tree. Goes down and up, holding one descriptor however deep it is."""

    def __init__(self, root: Path | bytes) -> None:
        self.fd = os.open(root, _DIRECTORY)
        self._above: list[tuple[int, int]] = []
        # Of each inode with several names the first that was met, by device and inode number.
        self._first_names: dict[tuple[int, int], bytes] = {}

    def __enter__(self) -> "_Place":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)

    def down(self, name: bytes) -> None:
        here = os.fstat(self.fd)
        self._move(name)
        self._above.append((here.st_dev, here.st_ino))

    def up(self) -> None:
        self._move(b"..")
        here = os.fstat(self.fd)
        expected = self._above.pop()
        assert (here.st_dev, here.st_ino) == expected, "a directory was moved while being compared"

    def _move(self, name: bytes) -> None:
        fd = os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=self.fd)
        os.close(self.fd)
        self.fd = fd

    def entries(self) -> dict[bytes, os.stat_result]:
        """Everything in this directory, by name."""
        return {
            os.fsencode(name): os.stat(name, dir_fd=self.fd, follow_symlinks=False)
            for name in os.listdir(self.fd)
        }

    def first_name(self, status: os.stat_result, path: bytes) -> bytes:
        """The first path that was met of this inode."""
        if status.st_nlink == 1:
            return path
        return self._first_names.setdefault((status.st_dev, status.st_ino), path)

    def xattrs(self, name: bytes) -> dict[str, bytes]:
        """Extended attributes of an entry of this directory; with an empty name of itself."""
        # The only way to a symlink's attributes by descriptor: they have no *at() calls.
        place = b"/proc/self/fd/%d/%s" % (self.fd, name or b".")
        try:
            names = os.listxattr(place, follow_symlinks=False)
        except OSError as error:
            if error.errno == errno.ENOTSUP:
                return {}
            raise
        return {key: os.getxattr(place, key, follow_symlinks=False) for key in names}


class _Comparison:
    """One walk over both trees."""

    def __init__(self, left: _Place, right: _Place, ignoring: set[str]) -> None:
        self._left = left
        self._right = right
        self._ignoring = ignoring
        self._parts: list[bytes] = []

    def run(self) -> Iterator[Difference]:
        if "root" not in self._ignoring:
            yield from self._entry(b"", os.fstat(self._left.fd), os.fstat(self._right.fd))
        # Of each directory on the way what is still to be compared, and the names to go down to.
        below = yield from self._directory()
        pending = [below]
        while pending:
            name = next(pending[-1], None)
            if name is None:
                pending.pop()
                if pending:
                    self._parts.pop()
                    self._left.up()
                    self._right.up()
            elif (yield from self._down(name)):
                below = yield from self._directory()
                pending.append(below)

    def _down(self, name: bytes) -> Yielding[bool]:
        """Go down both trees; or say why not, and stay."""
        try:
            self._left.down(name)
        except OSError as error:
            yield self._path(name), "names", error.strerror, "not looked at"
            return False
        try:
            self._right.down(name)
        except OSError as error:
            self._left.up()
            yield self._path(name), "names", "readable", error.strerror
            return False
        self._parts.append(name)
        return True

    def _directory(self) -> Yielding[Iterator[bytes]]:
        """Compare what is in the current directory; the directories to go down to."""
        try:
            left, right = self._left.entries(), self._right.entries()
        except OSError as error:
            yield self._path(b""), "unreadable", error.strerror, "not looked at"
            return iter(())
        below = []
        for name in sorted(left.keys() | right.keys()):
            ours, theirs = self._counted(left.get(name)), right.get(name)
            if "sockets" in self._ignoring:
                theirs = self._counted(theirs)
            if ours is None and theirs is None:
                continue
            if ours is None or theirs is None or _type(ours) != _type(theirs):
                field = "names" if ours is None or theirs is None else "type"
                yield self._path(name), field, _named(ours), _named(theirs)
                continue
            yield from self._entry(name, ours, theirs)
            if stat.S_ISDIR(ours.st_mode):
                below.append(name)
        return iter(below)

    def _counted(self, status: os.stat_result | None) -> os.stat_result | None:
        """None for a socket."""
        return None if status is not None and stat.S_ISSOCK(status.st_mode) else status

    def _path(self, name: bytes) -> bytes:
        return b"/".join([*self._parts, name])

    def _entry(
        self, name: bytes, left: os.stat_result, right: os.stat_result
    ) -> Iterator[Difference]:
        """Compare two entries of one type."""
        path = self._path(name)
        for field, ours, theirs in self._fields(name, left, right):
            if field not in self._ignoring and ours != theirs:
                yield path, field, ours, theirs
        try:
            yield from self._read(path, name, left, right)
        except OSError as error:
            yield path, "unreadable", error.strerror, "not looked at"

    def _fields(
        self, name: bytes, left: os.stat_result, right: os.stat_result
    ) -> Iterator[tuple[str, object, object]]:
        """What a look at the statuses tells."""
        yield "mode", oct(left.st_mode & 0o7777), oct(right.st_mode & 0o7777)
        yield "owner", left.st_uid, right.st_uid
        yield "group", left.st_gid, right.st_gid
        yield "mtime", left.st_mtime_ns, right.st_mtime_ns
        kind = stat.S_IFMT(left.st_mode)
        if kind == stat.S_IFREG:
            yield "size", left.st_size, right.st_size
        if kind in (stat.S_IFCHR, stat.S_IFBLK):
            yield "device", _device(left), _device(right)
        if kind != stat.S_IFDIR:
            path = self._path(name)
            yield (
                "hard links",
                self._left.first_name(left, path),
                self._right.first_name(right, path),
            )

    def _read(
        self, path: bytes, name: bytes, left: os.stat_result, right: os.stat_result
    ) -> Iterator[Difference]:
        """What must be read: targets, attributes, content."""
        if stat.S_ISLNK(left.st_mode) and "target" not in self._ignoring:
            targets = [os.readlink(name, dir_fd=place.fd) for place in (self._left, self._right)]
            if targets[0] != targets[1]:
                yield path, "target", *targets
        if "xattrs" not in self._ignoring:
            yield from _attributes(path, self._left.xattrs(name), self._right.xattrs(name))
        if stat.S_ISREG(left.st_mode) and left.st_size == right.st_size:
            yield from self._data(path, name, left, right)

    def _data(
        self, path: bytes, name: bytes, left: os.stat_result, right: os.stat_result
    ) -> Iterator[Difference]:
        elsewhere = left.st_dev != right.st_dev and "holes elsewhere" in self._ignoring
        with_holes = "holes" not in self._ignoring and not elsewhere
        if left.st_size == 0 or (not with_holes and "content" in self._ignoring):
            return
        with _opened(self._left, name) as one, _opened(self._right, name) as other:
            ours, theirs = data_extents(one, left.st_size), data_extents(other, left.st_size)
            if with_holes and ours != theirs:
                yield path, "holes", f"data at {_shown(ours)}", f"data at {_shown(theirs)}"
            if "content" not in self._ignoring:
                offset = _first_difference(one, other, _joined(ours, theirs))
                if offset is not None:
                    yield path, "content", f"differs from byte {offset} on", "differs"


@contextlib.contextmanager
def _opened(place: _Place, name: bytes) -> Iterator[int]:
    fd = os.open(name, _FILE, dir_fd=place.fd)
    try:
        yield fd
    finally:
        os.close(fd)


def data_extents(fd: int, size: int) -> Extents:
    """Where a file has data, as [start, end) in order; what lies between is holes."""
    extents: Extents = []
    end = 0
    while end < size:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # a hole up to the end
                break
            raise
        end = os.lseek(fd, start, os.SEEK_HOLE)
        extents.append((start, min(end, size)))
    return extents


def _joined(one: Extents, other: Extents) -> Iterator[tuple[int, int]]:
    """Where at least one of two files has data."""
    start = end = 0
    for first, last in sorted([*one, *other]):
        if first > end:
            yield start, end
            start = first
        end = max(end, last)
    yield start, end


def _first_difference(one: int, other: int, extents: Iterable[tuple[int, int]]) -> int | None:
    """The first byte in which two files differ, or None."""
    for start, end in extents:
        for offset in range(start, end, _PIECE):
            length = min(_PIECE, end - offset)
            ours, theirs = _read_all(one, length, offset), _read_all(other, length, offset)
            if ours != theirs:
                pairs = enumerate(zip(ours, theirs, strict=False))
                return offset + next((n for n, (a, b) in pairs if a != b), length)
    return None


def _read_all(fd: int, length: int, offset: int) -> bytes:
    """As much as there is: a file system may give less at a time."""
    pieces = []
    while length and (piece := os.pread(fd, length, offset)):
        pieces.append(piece)
        offset += len(piece)
        length -= len(piece)
    return b"".join(pieces)


def _attributes(
    path: bytes, left: dict[str, bytes], right: dict[str, bytes]
) -> Iterator[Difference]:
    for key in sorted(left.keys() | right.keys()):
        ours, theirs = left.get(key), right.get(key)
        if ours != theirs:
            yield path, f"xattrs {key!r}", _clipped(ours), _clipped(theirs)


def _clipped(value: bytes | None) -> str:
    if value is None:
        return "none"
    return repr(value) if len(value) <= 64 else f"{value[:48]!r}... ({len(value)} bytes)"


def _shown(extents: Extents) -> str:
    return f"{extents[:4]}{f' and {len(extents) - 4} more' if len(extents) > 4 else ''}"


def _type(status: os.stat_result) -> int:
    return stat.S_IFMT(status.st_mode)


def _named(status: os.stat_result | None) -> str:
    return "nothing" if status is None else _TYPES[_type(status)]


def _device(status: os.stat_result) -> tuple[int, int]:
    return os.major(status.st_rdev), os.minor(status.st_rdev)
