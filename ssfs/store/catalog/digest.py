"""The logical digest of a catalog: a sum of row digests, kept in O(changes) (FORMAT.md).

A sum and not a chain, so that a change subtracts the old row and adds the new one in any order; modulo
2^256 over BLAKE3 an accidental collision is out of the question. It protects against mistakes of
either end, not against a client that lies about its own files.
"""

import blake3
import msgspec

MODULUS = 1 << 256

_encode = msgspec.msgpack.Encoder().encode
_blake3 = blake3.blake3


def row_digest(row: tuple[object, ...]) -> int:
    """The number that stands for one row."""
    return int.from_bytes(_blake3(_encode(row)).digest(), "little")


def rows_digest(rows: list[tuple[object, ...]]) -> int:
    """The sum of the rows' numbers, not reduced."""
    return sum(map(row_digest, rows))


def digest_bytes(total: int) -> bytes:
    """The sum as stored: 32 bytes, little endian."""
    return (total % MODULUS).to_bytes(32, "little")
