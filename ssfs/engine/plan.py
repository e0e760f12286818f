"""What a look at one path means, compared with what was recorded: pure functions.

The rules are DESIGN.md section 4 step 3: size, mtime, ctime and inode all as recorded mean unchanged, unless
the record was made so soon after the last change that a second change could hide behind the same
times (kernels before 6.13 keep coarse timestamps). Drivers in `ssfs.engine.comparison` read the disk and the
catalog; nothing is decided there that could be decided here.
"""

import enum
import os
import struct

import blake3

from ssfs.model.entry import Entry, Flag, Kind, kind_of_mode, signed_inode

RACY_S = 2
"""A change this close before the reading may be followed by another one under the same ctime."""

_NS = 10**9
_INODE_WRAP = 1 << 64
_REREAD = Flag.RACY | Flag.STALE | Flag.UNSTABLE | Flag.INCOMPLETE
_UNPROVEN = Flag.RACY | Flag.UNSTABLE
"""A stale row still says what its content was read as: of a directory that could not be listed for one
night, nothing has to be read again."""
_FILE_NUMBER = struct.Struct("<QQ")


class Verdict(enum.Enum):
    """What the comparison of one file with its record says about its content."""

    SAME = enum.auto()
    """Certainly what it was."""
    CHECK = enum.auto()
    """Probably what it was: the digest decides."""
    CHANGED = enum.auto()
    """Another content, or another file."""


def seen(entry_id: int, parent: int, name: bytes, status: os.stat_result, root_dev: int) -> Entry:
    """The row of what was just seen; digest, target and flags still empty.

    A kind of 0 means: not backed up (a socket).
    """
    inode = status.st_ino
    kind = kind_of_mode(status.st_mode)
    dev = 0 if status.st_dev == root_dev else status.st_dev
    return Entry(
        entry_id,
        parent,
        name,
        kind,
        status.st_mode & 0o7777,
        status.st_uid,
        status.st_gid,
        *divmod(status.st_mtime_ns, _NS),
        status.st_size if kind == Kind.FILE else 0,
        b"",
        b"",
        dev,
        signed_inode(inode),
        *divmod(status.st_ctime_ns, _NS),
        0,
        0 if status.st_nlink < 2 or kind == Kind.DIRECTORY else link_group(dev, inode),
        status.st_rdev if kind in (Kind.CHARACTER_DEVICE, Kind.BLOCK_DEVICE) else 0,
    )


def link_group(dev: int, ino: int) -> int:
    """The number that all hard links of one file share: made of what tells files apart.

    Not an entry's id: the file of that entry may be replaced while its other links live on. A link
    that comes or goes changes the ctime of all, so that their rows are made anew together.
    """
    digest = blake3.blake3(_FILE_NUMBER.pack(dev, ino)).digest(length=8)
    return int.from_bytes(digest, "little") >> 1 or 1


def is_untouched(record: Entry, status: os.stat_result) -> bool:
    """Whether nothing at all changed since the record: the common case, made cheap.

    The device number is left out: it changes when a NAS boots (FIELD.md, "device id moved").
    """
    return (
        record.ctime_s * _NS + record.ctime_ns == status.st_ctime_ns
        and record.mtime_s * _NS + record.mtime_ns == status.st_mtime_ns
        and (record.size == status.st_size or record.kind != Kind.FILE)
        and record.ino & (_INODE_WRAP - 1) == status.st_ino
        and record.mode == status.st_mode & 0o7777
        and record.uid == status.st_uid
        and record.gid == status.st_gid
        and not record.flags & _REREAD
    )


def lacks_link_group(record: Entry, status: os.stat_result) -> bool:
    """Whether a hard link was recorded as a file of its own: by a run that did not go by inode numbers."""
    return not record.link_group and status.st_nlink > 1 and record.kind != Kind.DIRECTORY


def is_renumbered(record: Entry, status: os.stat_result) -> bool:
    """Whether a file is as recorded but for its inode number, which no file can change."""
    return (
        record.kind == Kind.FILE
        and record.ino & (_INODE_WRAP - 1) != status.st_ino
        and record.size == status.st_size
        and record.mtime_s * _NS + record.mtime_ns == status.st_mtime_ns
        and record.ctime_s * _NS + record.ctime_ns == status.st_ctime_ns
    )


def renumbered(record: Entry, status: os.stat_result) -> Entry:
    """The record with the inode number of what is there now, for who does not compare them."""
    return record._replace(ino=signed_inode(status.st_ino))


def judge_content(record: Entry, now: Entry) -> Verdict:
    """What a file's look now says about the content recorded earlier."""
    if (record.size, record.mtime_s, record.mtime_ns) != (now.size, now.mtime_s, now.mtime_ns):
        return Verdict.CHANGED
    same_change = (record.ctime_s, record.ctime_ns, record.ino) == (
        now.ctime_s,
        now.ctime_ns,
        now.ino,
    )
    return Verdict.SAME if same_change and not record.flags & _UNPROVEN else Verdict.CHECK


def is_racy(entry: Entry, read_at_s: float) -> bool:
    """Whether the entry changed so shortly before it was read (or "after" it) that times lie."""
    return entry.ctime_s > read_at_s - RACY_S


def is_only_bookkeeping(record: Entry, now: Entry) -> bool:
    """Whether two rows differ in nothing a user would see in the version."""
    neutral = record._replace(
        dev=now.dev, ino=now.ino, ctime_s=now.ctime_s, ctime_ns=now.ctime_ns, flags=now.flags
    )
    if now.kind == Kind.DIRECTORY:
        # A directory's mtime follows from changes that are counted themselves.
        neutral = neutral._replace(mtime_s=now.mtime_s, mtime_ns=now.mtime_ns)
    return neutral == now
