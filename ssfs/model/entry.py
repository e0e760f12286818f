"""Entries: one path each with all its metadata, as catalogs keep them and the wire carries them.

An `Entry` is a plain named tuple because a sync touches hundreds of thousands of them a second
or so; a NamedTuple is built and compared in C. Column order is part of two formats (FORMAT.md,
"Logical digest", and PROTOCOL.md): never reorder, only append with a new format number.
"""

import enum
import stat
from typing import NamedTuple, NewType

RelPath = NewType("RelPath", bytes)
"""A path below a source's root: names joined by b"/", no leading slash; b"" is the root itself."""

ROOT_ID = 1
"""Entry id of a source's root directory, in every catalog."""

MAX_ENTRY_ID = 1 << 40
"""Entry ids are smaller: a mount packs the id of a version above these bits (`ssfs.mount`)."""

NAME_MAX_BYTES = 255


class Kind(enum.IntEnum):
    """What an entry is. The values are stored."""

    FILE = 1
    DIRECTORY = 2
    SYMLINK = 3
    FIFO = 4
    CHARACTER_DEVICE = 5
    BLOCK_DEVICE = 6


KIND_NAMES = {
    Kind.FILE: "file",
    Kind.DIRECTORY: "directory",
    Kind.SYMLINK: "symlink",
    Kind.FIFO: "fifo",
    Kind.CHARACTER_DEVICE: "character device",
    Kind.BLOCK_DEVICE: "block device",
}
"""What answers and tables call them."""


class Flag(enum.IntFlag):
    """What is special about an entry's content. The values are stored."""

    STALE = 1
    """It, or what it lies in, could not be read: this is how the version before has it."""
    UNSTABLE = 2
    """It changed while it was read, several times over."""
    RACY = 4
    """Read so soon after its last change that equal times would prove nothing next time."""
    INCOMPLETE = 8
    """Of a directory: something in it could not be seen or read, and was never recorded, so that it has no row."""


class Entry(NamedTuple):
    """One path of one version.

    Attributes:
        id: Stable over versions while the entry lives.
        parent: Id of its directory; 0 for the root.
        name: One path component; b"" for the root.
        kind: A `Kind` value.
        mode: The twelve permission bits.
        uid: Owner's number on the source's machine (name: the catalog's principals).
        gid: Group's number likewise.
        mtime_s: Modification time, seconds since 1970, floored; may be negative.
        mtime_ns: Its nanoseconds, 0..999999999.
        size: Bytes of content; 0 unless a file.
        digest: BLAKE3 of the content, 32 bytes; b"" unless a file.
        target: Where a symlink points; b"" unless a symlink.
        dev: Source's device number; 0 for the one that holds the root.
        ino: Source's inode number, wrapped to signed 64 bit.
        ctime_s: Source's ctime, like mtime.
        ctime_ns: Its nanoseconds.
        flags: `Flag` bits.
        link_group: Entries of a version with the same number > 0 are hard links of one file.
        rdev: Device number of a device entry.
        xattrs: Key into the catalog's xattr sets; b"" for none.
        holes: Data extents of a sparse file; b"" when it has no holes.
    """

    id: int
    parent: int
    name: bytes
    kind: int
    mode: int
    uid: int
    gid: int
    mtime_s: int
    mtime_ns: int
    size: int
    digest: bytes
    target: bytes
    dev: int
    ino: int
    ctime_s: int
    ctime_ns: int
    flags: int
    link_group: int = 0
    rdev: int = 0
    xattrs: bytes = b""
    holes: bytes = b""


_PLACE = {name: place for place, name in enumerate(Entry._fields)}


def changed(entry: Entry, **fields: int | bytes) -> Entry:
    """The row with some of its fields changed: `_replace`, in a third of the time; for what is done once a file.

    Raises:
        KeyError: There is no such field.
    """
    row: list[int | bytes] = list(entry)
    for name, field in fields.items():
        row[_PLACE[name]] = field
    return tuple.__new__(Entry, row)


class Principal(NamedTuple):
    """What the source's machine calls a user (kind 0) or group (kind 1) number."""

    kind: int
    number: int
    name: bytes


USER = 0
GROUP = 1
MAX_OWNER = (1 << 32) - 2
"""Of a user or a group; the next number is how chown is told to leave an owner as it is."""

_NS = 1_000_000_000
FORMAT_OF_KIND: dict[int, int] = {
    Kind.FILE: stat.S_IFREG,
    Kind.DIRECTORY: stat.S_IFDIR,
    Kind.SYMLINK: stat.S_IFLNK,
    Kind.FIFO: stat.S_IFIFO,
    Kind.CHARACTER_DEVICE: stat.S_IFCHR,
    Kind.BLOCK_DEVICE: stat.S_IFBLK,
}
"""The file type bits of a stat mode, by `Kind`."""
_KIND_OF_FORMAT = {fmt: int(kind) for kind, fmt in FORMAT_OF_KIND.items()}


def kind_of_mode(st_mode: int) -> int:
    """The `Kind` value of a stat mode; 0 for what is not backed up (a socket)."""
    return _KIND_OF_FORMAT.get(stat.S_IFMT(st_mode), 0)


def st_mode(entry: Entry) -> int:
    """A full stat mode, file type bits included."""
    return FORMAT_OF_KIND[entry.kind] | entry.mode


def mtime_ns_of(entry: Entry) -> int:
    """An entry's modification time in nanoseconds since 1970; may be negative."""
    return entry.mtime_s * _NS + entry.mtime_ns


def signed_inode(ino: int) -> int:
    """An inode number wrapped to signed 64 bit, as SQLite holds it."""
    return ino - (1 << 64) if ino >= 1 << 63 else ino


def is_valid_name(name: bytes) -> bool:
    """Whether a peer may call an entry so: one path component that leads nowhere else."""
    return (
        0 < len(name) <= NAME_MAX_BYTES
        and name not in (b".", b"..")
        and b"/" not in name
        and b"\0" not in name
    )
