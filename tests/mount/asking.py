"""Requests as the kernel makes them, and what their answers say."""

import struct
from typing import NamedTuple

from ssfs.mount.attributes import Attributes, DirectoryItem
from ssfs.mount.operations import MountOperations
from ssfs.mount.wire import Opcode, Request

_LINE = struct.Struct("=QQQQIIQQQqqqIIIIIIIIIIQQII")
_ENTRY = struct.Struct("=QQQQIIQQQqqqIIIIIIIIII")


class Refused(Exception):
    """The answer is an errno."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.errno = number


class Found(NamedTuple):
    """What a lookup says."""

    inode: int
    timeout_s: int
    size: int
    times_ns: tuple[int, ...]
    mode: int
    nlink: int


async def ask(operations: MountOperations, opcode: int, inode: int = 1, body: bytes = b"") -> bytes:
    """The payload of an answer.

    Raises:
        Refused: It is an errno.
    """
    answer = await operations.answer(Request(opcode, 7, inode, body))
    if isinstance(answer, int):
        raise Refused(answer)
    assert answer is not None
    return bytes(answer)


async def look_up(operations: MountOperations, *names: bytes) -> Found:
    """Where a path leads."""
    found = Found(1, 0, 0, (), 0, 0)
    for name in names:
        found = decode_entry(await ask(operations, Opcode.LOOKUP, found.inode, name + b"\0"))
    return found


def decode_entry(payload: bytes) -> Found:
    fields = _ENTRY.unpack_from(payload)
    times = tuple(s * 10**9 + ns for s, ns in zip(fields[9:12], fields[12:15], strict=True))
    return Found(fields[0], fields[2], fields[7], times, fields[15], fields[16])


def decode_listing(payload: bytes) -> list[tuple[int, bytes, Found]]:
    """Cookie, name and entry of each line."""
    lines = []
    while payload:
        inode, cookie, length, kind = struct.unpack_from("=QQII", payload, _ENTRY.size)
        entry = decode_entry(payload)
        assert (inode, kind) == (entry.inode, entry.mode >> 12)
        begin = _ENTRY.size + 24
        lines.append((cookie, payload[begin : begin + length], entry))
        payload = payload[(begin + length + 7) & ~7 :]
    return lines


def decode_items(payload: bytes) -> list[DirectoryItem]:
    """The lines of a listing, as `ssfs.mount.attributes` says it; data in whole blocks."""
    items, begin = [], 0
    while begin < len(payload):
        (
            inode, _, name_s, other_s, name_ns, other_ns, again, size, blocks, s, s2, s3, ns, ns2, ns3,
            mode, nlink, uid, gid, rdev, _, _, twice, cookie, length, kind,
        ) = _LINE.unpack_from(payload, begin)  # fmt: skip
        assert (inode, inode) == (again, twice)
        assert kind == mode >> 12
        assert (s, s, ns, ns) == (s2, s3, ns2, ns3)
        attributes = Attributes(
            *(inode, mode, nlink, uid, gid, rdev, size, blocks * 512, s * 10**9 + ns),
            *(name_s + name_ns / 10**9, other_s + other_ns / 10**9),
        )
        begin += _LINE.size
        items.append(DirectoryItem(cookie, payload[begin : begin + length], attributes))
        begin = (begin + length + 7) & ~7
    return items


async def open_handle(operations: MountOperations, opcode: int, inode: int, flags: int = 0) -> int:
    """The handle of an opened file or directory."""
    handle, _, _ = struct.unpack(
        "=QIi", await ask(operations, opcode, inode, struct.pack("=II", flags, 0))
    )
    return handle


async def read(operations: MountOperations, handle: int, offset: int, size: int) -> bytes:
    return await ask(operations, Opcode.READ, 1, reading(handle, offset, size))


def reading(handle: int, offset: int, size: int) -> bytes:
    """What READ and READDIRPLUS say."""
    return struct.pack("=QQIIQII", handle, offset, size, 0, 0, 0, 0)


def releasing(handle: int) -> bytes:
    """What RELEASE and RELEASEDIR say."""
    return struct.pack("=QIIQ", handle, 0, 0, 0)
