"""The delta format, as far as we must know it: what a delta does before librsync runs it.

librsync's own patch job believes a delta: a dozen bytes expand to exabytes, some releases put
lengths into C ints, and Debian compiles its assertions in, which end the process. So a delta is
walked here first. That is cheap, because a run of matching blocks is one command
(measured: 5 us for 8 MiB of matching data).

A delta is the magic, then commands, then END (0), numbers big-endian:

    01..40          literal of that many bytes, which follow
    41..44          literal, its length in 1, 2, 4 or 8 bytes
    45..54          copy: position in 1, 2, 4 or 8 bytes, then length in 1, 2, 4 or 8 bytes
    55..ff          not assigned
"""

import struct
from typing import NamedTuple

from ssfs.delta.errors import DeltaError

MAGIC = bytes.fromhex("72730236")

_END, _LITERAL, _COPY, _UNASSIGNED = 0x00, 0x41, 0x45, 0x55
_LONGEST_LITERAL = 1 << 30
"""An int holds twice this, and no delta of a segment is so long."""

END = bytes([_END])
_LONG_LITERAL = struct.Struct(">BI")
_LONG_COPY = struct.Struct(">BQI")


def literal(content: memoryview) -> tuple[bytes, memoryview]:
    """The command that makes these bytes (less than 1 GiB), in two parts."""
    return _LONG_LITERAL.pack(_LITERAL + 2, len(content)), content


def copy(position: int, size: int) -> bytes:
    """The command that copies `size` bytes (less than 4 GiB) of the basis."""
    return _LONG_COPY.pack(_COPY + (3 << 2 | 2), position, size)


class Extent(NamedTuple):
    """What a delta amounts to.

    Attributes:
        length: Bytes of the new content.
        copied: How many of them come from the basis.
        tail: Literal bytes after the last copy.
    """

    length: int
    copied: int
    tail: int


def measure(delta: bytes | bytearray, *, basis_bytes: int, limit: int) -> Extent:
    """Walk a delta and prove that it stays within the basis and the limit.

    Raises:
        DeltaError: It does not, or is no delta from its first byte to its last.
    """
    if delta[:4] != MAGIC:
        raise DeltaError("The delta does not start with its magic number")
    length = copied = tail = 0
    end, at = len(delta), 4
    while at < end:
        code = delta[at]
        at += 1
        if code == _END:
            if at != end:
                raise DeltaError("The delta goes on after its end")
            return Extent(length, copied, tail)
        if code < _COPY:
            at, size = _literal(delta, at, code)
            tail += size
        else:
            at, size = _copy(delta, at, code, basis_bytes)
            copied += size
            tail = 0
        length += size
        if length > limit:
            raise DeltaError("The delta expands beyond what was announced")
    raise DeltaError("The delta is cut off")


def _literal(delta: bytes | bytearray, at: int, code: int) -> tuple[int, int]:
    """Where a literal ends, and its length."""
    size = code
    if code >= _LITERAL:
        data_at = at + (1 << (code - _LITERAL))
        size = int.from_bytes(delta[at:data_at], "big")
        at = data_at
    if at + size > len(delta) or not 0 < size <= _LONGEST_LITERAL:
        raise DeltaError("A literal in the delta has an impossible length")
    return at + size, size


def _copy(delta: bytes | bytearray, at: int, code: int, basis_bytes: int) -> tuple[int, int]:
    """Where a copy command ends, and how many bytes it copies."""
    if code >= _UNASSIGNED:
        raise DeltaError("The delta holds a command that does not exist")
    kind = code - _COPY
    size_at = at + (1 << (kind >> 2))
    end = size_at + (1 << (kind & 3))
    position = int.from_bytes(delta[at:size_at], "big")
    size = int.from_bytes(delta[size_at:end], "big")
    if end > len(delta) or not size or position + size > basis_bytes:
        raise DeltaError("The delta copies from beyond the end of its basis")
    return end, size
