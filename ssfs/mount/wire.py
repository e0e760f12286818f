"""What the kernel and a mount say to each other, byte by byte (linux/fuse.h; protocol 7.31 is the least).

Pure: bytes in, bytes out. A message of the kernel is a `Request`; what is answered is a payload, to which `ssfs.mount.pump`
adds the header. Numbers are in the machine's own byte order.
"""

import enum
import struct
from collections.abc import Iterable
from typing import NamedTuple

from ssfs.mount.attributes import BLOCK_BYTES, Attributes

_NS = 1_000_000_000

_IN_HEADER = struct.Struct("=IIQQIIIHH")
_OUT_HEADER = struct.Struct("=IiQ")
_INIT_IN = struct.Struct("=IIIII")
_INIT_OUT = struct.Struct("=IIIIHHIIHHII24x")
# fuse_attr: number, size, blocks, three times, their nanoseconds, mode, nlink, uid, gid, rdev, blksize, flags.
_ATTRIBUTES = "QQQqqqIIIIIIIIII"
# fuse_entry_out: number, generation, two timeouts, their nanoseconds, attributes.
_ENTRY = struct.Struct("=QQQQII" + _ATTRIBUTES)
_GETATTR = struct.Struct("=QII" + _ATTRIBUTES)
# fuse_direntplus: an entry, then number, cookie, length of the name, type.
_LINE = struct.Struct("=QQQQII" + _ATTRIBUTES + "QQII")
_OPEN_IN = struct.Struct("=I")
_OPEN_OUT = struct.Struct("=QIi")
_READ_IN = struct.Struct("=QQI")
_HANDLE_IN = struct.Struct("=Q")
_SIZE_IN = struct.Struct("=II")
_SIZE_OUT = struct.Struct("=II")
_LSEEK_IN = struct.Struct("=QQI")
_LSEEK_OUT = struct.Struct("=Q")
_VANISHED = struct.Struct("=QII")
_STATFS = struct.Struct("=QQQQQIIII24x")
_U32 = 0xFFFF_FFFF


class Opcode(enum.IntEnum):
    """What is asked for: all that is answered otherwise than by "not implemented"."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    READLINK = 5
    SYMLINK = 6
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    LINK = 13
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    SETXATTR = 21
    GETXATTR = 22
    LISTXATTR = 23
    REMOVEXATTR = 24
    INIT = 26
    OPENDIR = 27
    RELEASEDIR = 29
    CREATE = 35
    DESTROY = 38
    BATCH_FORGET = 42
    FALLOCATE = 43
    READDIRPLUS = 44
    RENAME2 = 45
    LSEEK = 46
    TMPFILE = 51


class Capability(enum.IntFlag):
    """What both sides may agree upon."""

    ASYNC_READ = 1 << 0
    EXPORT_SUPPORT = 1 << 4
    """Lookups of "." and "..", as NFS needs them."""
    DO_READDIRPLUS = 1 << 13
    """Listings come with attributes."""
    PARALLEL_DIROPS = 1 << 18
    POSIX_ACL = 1 << 20
    """The kernel enforces ACLs."""
    MAX_PAGES = 1 << 22
    CACHE_SYMLINKS = 1 << 23
    INIT_EXT = 1 << 30
    PASSTHROUGH = 1 << 37
    """Files are read from the store by the kernel itself."""


class OpenFlag(enum.IntFlag):
    """How the kernel treats what was opened."""

    KEEP_CACHE = 1 << 1
    CACHE_DIR = 1 << 3
    PASSTHROUGH = 1 << 7


_WANTED = (
    Capability.ASYNC_READ
    | Capability.EXPORT_SUPPORT
    | Capability.DO_READDIRPLUS
    | Capability.PARALLEL_DIROPS
    | Capability.POSIX_ACL
    | Capability.MAX_PAGES
    | Capability.CACHE_SYMLINKS
    | Capability.INIT_EXT
    | Capability.PASSTHROUGH
)
_NEEDED = Capability.DO_READDIRPLUS
_MAJOR, _MINOR, _LEAST_MINOR = 7, 40, 31
_BACKGROUND = 64
"""How many requests for data ahead of a reader may be under way."""
_PAGES = 256
"""A read asks for a MiB at most."""

MESSAGE_BYTES = 16384
"""No request that is not a change is longer; the kernel refuses a shorter buffer than it may need."""
_WRITE_BYTES = 4096
_NAME_VANISHED = 3


class Request(NamedTuple):
    """One message of the kernel.

    Attributes:
        opcode: What is asked for; see `Opcode`.
        unique: Names the request in its answer.
        inode: The number of what it is about.
        body: What else it says.
    """

    opcode: int
    unique: int
    inode: int
    body: bytes


def decode_request(message: bytes) -> Request:
    """Take a message apart."""
    _, opcode, unique, inode, *_ = _IN_HEADER.unpack_from(message)
    return Request(opcode, unique, inode, message[_IN_HEADER.size :])


def encode_header(unique: int, length: int, number: int = 0) -> bytes:
    """The header of an answer: with a payload of `length` bytes, or the errno why there is none."""
    return _OUT_HEADER.pack(_OUT_HEADER.size + length, -number, unique)


def encode_vanished(directory: int, name: bytes) -> bytes:
    """What tells the kernel, unasked, that a name leads nowhere any more (FUSE_NOTIFY_INVAL_ENTRY)."""
    payload = _VANISHED.pack(directory, len(name), 0) + name + b"\0"
    # Where an answer has its errno, such a message has its number; it answers nothing.
    return _OUT_HEADER.pack(_OUT_HEADER.size + len(payload), _NAME_VANISHED, 0) + payload


# -- the first message -----------------------------------------------------------------------------


def agree(body: bytes) -> bytes | None:
    """The answer to INIT; None if this kernel is too old."""
    if len(body) < _INIT_IN.size:
        body += bytes(_INIT_IN.size - len(body))
    major, minor, read_ahead, flags, more_flags = _INIT_IN.unpack_from(body)
    if flags & Capability.INIT_EXT:
        flags |= more_flags << 32
    common = Capability(flags & _WANTED)
    if major != _MAJOR or minor < _LEAST_MINOR or not common & _NEEDED:
        return None
    has_passthrough = bool(common & Capability.PASSTHROUGH)
    return _INIT_OUT.pack(
        _MAJOR,
        min(minor, _MINOR),
        read_ahead,
        common & _U32,
        _BACKGROUND,
        _BACKGROUND * 3 // 4,
        _WRITE_BYTES,
        1,  # times have nanoseconds
        _PAGES,
        0,
        common >> 32,
        int(has_passthrough),  # how deep file systems may lie on each other below us
    )


# -- what is asked ---------------------------------------------------------------------------------


def decode_name(body: bytes) -> bytes:
    """LOOKUP: a name."""
    return body.partition(b"\0")[0]


def decode_open(body: bytes) -> int:
    """OPEN: the flags of open(2)."""
    (flags,) = _OPEN_IN.unpack_from(body)
    return int(flags)


def decode_read(body: bytes) -> tuple[int, int, int]:
    """READ, READDIRPLUS: handle, offset (or cookie), size."""
    handle, offset, size = _READ_IN.unpack_from(body)
    return handle, offset, size


def decode_handle(body: bytes) -> int:
    """RELEASE, RELEASEDIR: a handle."""
    (handle,) = _HANDLE_IN.unpack_from(body)
    return int(handle)


def decode_xattr(body: bytes) -> tuple[int, bytes]:
    """GETXATTR, LISTXATTR: for how many bytes there is room (0: what is the size?), and a name."""
    size, _ = _SIZE_IN.unpack_from(body)
    return size, decode_name(body[_SIZE_IN.size :])


def decode_lseek(body: bytes) -> tuple[int, int, int]:
    """LSEEK: handle, offset, whence."""
    handle, offset, whence = _LSEEK_IN.unpack_from(body)
    return handle, offset, whence


# -- answers ---------------------------------------------------------------------------------------


def _split(timeout_s: float) -> tuple[int, int]:
    whole = int(timeout_s)
    return whole, int((timeout_s - whole) * _NS)


def _packed(attributes: Attributes) -> tuple[int, ...]:
    inode, mode, nlink, uid, gid, rdev, size, data_bytes, mtime_ns, _, _ = attributes
    seconds, ns = divmod(mtime_ns, _NS)
    blocks = -(-data_bytes // BLOCK_BYTES)
    return (
        *(inode, size, blocks, seconds, seconds, seconds, ns, ns, ns),
        *(mode, nlink, uid, gid, rdev & _U32, 4096, 0),
    )


def encode_entry(attributes: Attributes, generation: int) -> bytes:
    """LOOKUP."""
    name_s, name_ns = _split(attributes.name_timeout_s)
    other_s, other_ns = _split(attributes.timeout_s)
    return _ENTRY.pack(
        attributes.inode, generation, name_s, other_s, name_ns, other_ns, *_packed(attributes)
    )


def encode_attributes(attributes: Attributes) -> bytes:
    """GETATTR."""
    return _GETATTR.pack(*_split(attributes.timeout_s), 0, *_packed(attributes))


def encode_listing(
    lines: Iterable[tuple[int, bytes, Attributes]], size: int, generation: int
) -> bytes:
    """READDIRPLUS: as many lines (cookie, name, attributes) as there is room for."""
    pieces = []
    pack, fixed = _LINE.pack, _LINE.size
    timeouts_s: tuple[float, float] = (-1.0, -1.0)
    name_s = name_ns = other_s = other_ns = 0
    for cookie, name, attributes in lines:
        length = len(name)
        size -= (fixed + length + 7) & ~7
        if size < 0:
            break
        inode, mode, nlink, uid, gid, rdev, file_size, data_bytes, mtime_ns, *timeouts = attributes
        if (timeouts[0], timeouts[1]) != timeouts_s:
            timeouts_s = (timeouts[0], timeouts[1])
            (name_s, name_ns), (other_s, other_ns) = map(_split, timeouts_s)
        seconds, ns = divmod(mtime_ns, _NS)
        pieces.append(
            pack(
                *(inode, generation, name_s, other_s, name_ns, other_ns),
                *(inode, file_size, (data_bytes + 511) >> 9, seconds, seconds, seconds, ns, ns, ns),
                *(mode, nlink, uid, gid, rdev & _U32, 4096, 0),
                *(inode, cookie, length, (mode >> 12) & 15),
            )
        )
        pieces.append(name + bytes(-length & 7))
    return b"".join(pieces)


def encode_open(handle: int, flags: int, backing: int = 0) -> bytes:
    """OPEN, OPENDIR; `flags` are of `OpenFlag`."""
    return _OPEN_OUT.pack(handle, flags, backing)


def encode_xattr(value: bytes, size: int) -> bytes | None:
    """GETXATTR, LISTXATTR; None if there is too little room."""
    if not size:
        return _SIZE_OUT.pack(len(value), 0)
    return value if len(value) <= size else None


def encode_offset(offset: int) -> bytes:
    """LSEEK."""
    return _LSEEK_OUT.pack(offset)


class Space(NamedTuple):
    """What statvfs(2) says.

    Attributes:
        blocks: Of `fragment` bytes.
        free: Of them for root.
        available: Of them for others.
        files: Inodes.
        free_files: Of them.
        block: Bytes that are best read at once.
        name_max: Bytes in a name.
        fragment: Bytes of a block.
    """

    blocks: int
    free: int
    available: int
    files: int
    free_files: int
    block: int
    name_max: int
    fragment: int


def encode_space(space: Space) -> bytes:
    """STATFS."""
    return _STATFS.pack(*space, 0)
