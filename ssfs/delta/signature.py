"""Block sums of a basis: made where the basis is, loaded where the new file is.

On the wire a signature is librsync's own format: magic, block length, strong sum length (4 bytes
each, big-endian), then a 4 byte weak and a 16 byte strong sum per block. A loaded one comes from
the peer, so `LoadedSignature` checks all of that, and that looking sums up will not take for ever,
before librsync sees it.

Measured, 2 cores, librsync 2.3.2, 200 MB from the page cache: signing 500 MB/s; loading
the 14,000 sums 1.5 ms.
"""

import math
import os
import struct
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import NoReturn, Self

from ssfs.delta.errors import DeltaError
from ssfs.delta.librsync import (
    SIGNATURE_MAGIC,
    STRONG_BYTES,
    LibrsyncError,
    Pinned,
    Sums,
    signature_job,
)
from ssfs.errors import InternalError

FRAGMENT_BYTES = 256 << 10
"""The most that `signature` yields at once."""

MIN_BLOCK_BYTES = 512
MAX_BLOCK_BYTES = 64 << 20
"""What a peer may use: smaller blocks let a delta grow beyond its content, larger never match."""

MAX_SIGNATURE_BYTES = 512 << 20
"""26 million blocks: librsync multiplies their number by ten in an int."""

_HEADER = struct.Struct(">III")
_SUM_BYTES = 4 + STRONG_BYTES
_READ_BYTES = 1 << 20
_UNIT_BYTES = 128  # BLAKE2b's own block, so that no strong sum ends in a padded one
_LEAST_UNITS = 9
_MOST_UNITS = 32767


def block_length(size_bytes: int) -> int:
    """The block length for a basis of this size: about its square root.

    One changed byte costs a block and every block costs 20 bytes of signature; both together are
    least near the root. Below 1152 bytes there is nothing to gain: that is the best length for
    about 65 KiB, and a smaller file could save a few hundred bytes. Above 4 MiB (16 TiB) a block
    would outgrow the segment it must be found in.

    An odd multiple of 128: the rolling sum multiplies by powers of an odd number, which repeat
    soonest in power-of-two steps, and zero runs then collide (seen above 64 KiB).
    """
    units = math.isqrt(max(size_bytes, 0)) // _UNIT_BYTES
    return _UNIT_BYTES * (min(max(units, _LEAST_UNITS), _MOST_UNITS) | 1)


def signature_size(size_bytes: int) -> int:
    """Bytes of the signature of a basis of this size."""
    return _signature_bytes(size_bytes, block_length(size_bytes))


def _signature_bytes(basis_bytes: int, block_bytes: int) -> int:
    return _HEADER.size + -(-basis_bytes // block_bytes) * _SUM_BYTES


def signature(basis: int | Callable[[int], bytes], size_bytes: int) -> Generator[bytes, None, None]:
    """Sign the first `size_bytes` of a basis, in fragments of at most 256 KiB.

    Args:
        basis: A descriptor, read from offset 0 without moving its position, or a function that
            returns the next bytes, at most as many as asked for, and none at the end.
        size_bytes: The size that decides the block length; what the basis has beyond it is left
            out, and a basis that ends before it gets a shorter signature.

    Close the generator if you stop early: it holds a librsync job.

    Raises:
        OSError: The basis cannot be read.
    """
    block_bytes = block_length(size_bytes)
    # Whole blocks per read: librsync sums them where they are, and copies only what is left over.
    read_bytes = max(_READ_BYTES // block_bytes, 1) * block_bytes
    output = memoryview(bytearray(min(FRAGMENT_BYTES, signature_size(size_bytes))))
    filled = 0
    with signature_job(block_bytes) as job, Pinned(output) as target:
        for piece in _pieces(basis, size_bytes, read_bytes):
            with Pinned(piece) as source:
                used, is_done = 0, False
                while used < len(piece) or not (piece or is_done):
                    is_done, consumed, produced = job.step(
                        source.address + used,
                        len(piece) - used,
                        target.address + filled,
                        len(output) - filled,
                        is_last=not piece,
                    )
                    used += consumed
                    filled += produced
                    if filled == len(output) or is_done:
                        yield bytes(output[:filled])
                        filled = 0


def _pieces(
    basis: int | Callable[[int], bytes], size_bytes: int, read_bytes: int
) -> Iterator[bytes | memoryview]:
    """The basis in pieces, each valid until the next is asked for, then an empty one."""
    offset = 0
    if callable(basis):
        while offset < size_bytes and (data := basis(min(read_bytes, size_bytes - offset))):
            if len(data) > size_bytes - offset:
                raise InternalError("A reader returned more than it was asked for")
            offset += len(data)
            yield data
    else:
        buffer = memoryview(bytearray(min(read_bytes, max(size_bytes, 1))))
        while offset < size_bytes:
            got = os.preadv(basis, [buffer[: size_bytes - offset]], offset)
            if not got:
                break
            offset += got
            yield buffer[:got]
    yield b""


class LoadedSignature:
    """A peer's signature, ready to make deltas; the memory is librsync's until `close`.

    `feed` and `finish` belong to one thread; after that any number of threads may make deltas on
    it, and `close` lets those that run end first.

    Attributes:
        block_bytes: Its block length, 0 before `finish`.
        blocks: How many sums it has.
    """

    def __init__(self, basis_bytes: int | None = None) -> None:
        """An empty one.

        Args:
            basis_bytes: The size of the basis, if known: no signature may hold more sums than that
                size has blocks.
        """
        self.block_bytes = 0
        self.blocks = 0
        self._basis_bytes = basis_bytes
        self._encoded: bytearray | None = bytearray()
        self._sums: Sums | None = None
        self._users = 0
        self._is_closed = False
        self._lock = threading.Lock()

    @classmethod
    def from_fragments(
        cls, fragments: Iterable[bytes], basis_bytes: int | None = None
    ) -> "LoadedSignature":
        """Feed all fragments and finish.

        Raises:
            DeltaError: They are no usable signature.
        """
        loaded = cls(basis_bytes)
        for fragment in fragments:
            loaded.feed(fragment)
        loaded.finish()
        return loaded

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()

    def feed(self, fragment: bytes | memoryview) -> None:
        """Take the next bytes of the signature.

        Raises:
            DeltaError: It is already wrong or too long; what was fed is let go.
        """
        encoded = self._encoded
        if encoded is None:
            raise InternalError("A signature was fed after finish or close")
        encoded += fragment
        if len(encoded) >= _HEADER.size:
            most = self._check_header(encoded)
            if len(encoded) > most:
                self._reject("The signature is longer than its basis allows")

    def finish(self) -> None:
        """Check what was fed and load it.

        Raises:
            DeltaError: It is no usable signature; what was fed is let go.
        """
        encoded = self._encoded
        if encoded is None:
            raise InternalError("A signature was finished twice or after close")
        if len(encoded) < _HEADER.size or (len(encoded) - _HEADER.size) % _SUM_BYTES:
            self._reject("The signature is cut off")
        self.blocks = (len(encoded) - _HEADER.size) // _SUM_BYTES
        if self.blocks > _LEAST_SUSPICIOUS and _longest_chain(encoded) * self.blocks > _MOST_LOOKS:
            self._reject("The signature's weak sums are all alike")
        self._encoded = None
        try:
            self._sums = Sums(encoded)
        except LibrsyncError as error:
            raise DeltaError("The signature cannot be loaded") from error
        self.block_bytes = _HEADER.unpack_from(encoded)[1]

    @contextmanager
    def borrow(self) -> Iterator[Sums]:
        """The sums, which `close` leaves alone for as long as this is entered."""
        with self._lock:
            sums = self._sums
            if sums is None or self._is_closed:
                raise InternalError("A signature was used before finish or after close")
            self._users += 1
        try:
            yield sums
        finally:
            with self._lock:
                self._users -= 1
                self._free_if_unused()

    def close(self) -> None:
        """Free the memory, at once or when the last running delta ends; idempotent."""
        with self._lock:
            self._is_closed = True
            self._encoded = None
            self._free_if_unused()

    def _free_if_unused(self) -> None:
        if self._is_closed and not self._users and self._sums is not None:
            self._sums.close()

    def _check_header(self, encoded: bytearray) -> int:
        """The most bytes a signature with this header may have."""
        magic, block_bytes, strong_bytes = _HEADER.unpack_from(encoded)
        if magic != SIGNATURE_MAGIC or strong_bytes != STRONG_BYTES:
            self._reject("The signature is not of the agreed kind")
        if not MIN_BLOCK_BYTES <= block_bytes <= MAX_BLOCK_BYTES:
            self._reject("The signature's block length is absurd")
        if self._basis_bytes is None:
            return MAX_SIGNATURE_BYTES
        return min(_signature_bytes(self._basis_bytes, block_bytes), MAX_SIGNATURE_BYTES)

    def _reject(self, problem: str) -> NoReturn:
        self._encoded = None
        raise DeltaError(problem)


_LEAST_SUSPICIOUS = 1 << 14
"""With fewer blocks the worst signature costs less than a tenth of a second."""

_MOST_LOOKS = 1 << 28
"""Table entries looked at while loading, at some nanoseconds each."""


def _longest_chain(encoded: bytearray) -> int:
    """How many different sums librsync would have to try, at most, for one weak sum.

    Its table takes the low bits of MurmurHash3's finaliser of the weak sum and probes on from
    there. That is easily inverted: a million sums that all start at one place take hours to load.
    Equal sums, as of a file of zeros, are stored once and cost nothing.
    """
    sums = {bytes(encoded[at : at + _SUM_BYTES]) for at in range(12, len(encoded), _SUM_BYTES)}
    mask = (1 << (len(sums) - 1).bit_length()) - 1  # the table is at least that large
    places: Counter[int] = Counter()
    for entry in sums:
        mixed = int.from_bytes(entry[:4], "big")
        mixed = (mixed ^ mixed >> 16) * 0x85EBCA6B & 0xFFFFFFFF
        mixed = (mixed ^ mixed >> 13) * 0xC2B2AE35 & 0xFFFFFFFF
        places[(mixed ^ mixed >> 16) & mask] += 1
    return max(places.values())
