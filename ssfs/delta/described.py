"""What one end of a restore has of a file, described for the other end, which has the file itself.

A basis as long as the file was most likely written to in place, or hurt: sums of its blocks find what is where it was.
They take a fifth of the time of a signature at both ends. In any other basis something may have been inserted, and only a
signature finds what has moved.
"""

from collections.abc import Iterator

from ssfs.delta.basis import Basis
from ssfs.delta.blocks import MAGIC, SUM_BYTES, AlignedCoder, BlockSums, SumsRecorder, block_length
from ssfs.delta.coded import Delta, Raw
from ssfs.delta.errors import DeltaError
from ssfs.delta.segment import SegmentCoder
from ssfs.delta.signature import FRAGMENT_BYTES, LoadedSignature, signature, signature_size

_LEAST_BLOCK_BYTES = 16 << 10
"""All sums travel, whatever is lost: those of 4 KiB would be four times as many bytes."""
_READ_BYTES = 1 << 20
_ENCODED_BYTES = 64
"""What sums take beside themselves, at most."""


def description_size(size_bytes: int) -> int:
    """The most bytes that describe a basis of this size."""
    blocks = -(-size_bytes // block_length(size_bytes, _LEAST_BLOCK_BYTES))
    return max(signature_size(size_bytes), blocks * SUM_BYTES + _ENCODED_BYTES)


def describe(basis: Basis, file_bytes: int) -> Iterator[bytes]:
    """Describe a basis of a file of this size, in pieces of at most 256 KiB.

    Raises:
        OSError: The basis cannot be read.
    """
    if basis.size_bytes != file_bytes:
        yield from signature(basis.for_signature(), basis.size_bytes)
        return
    sums = _sums_of(basis)
    if sums is not None:
        encoded = sums.encode()
        for at in range(0, len(encoded), FRAGMENT_BYTES):
            yield encoded[at : at + FRAGMENT_BYTES]


def _sums_of(basis: Basis) -> BlockSums | None:
    """The sums of a basis; None if it has become shorter meanwhile."""
    recorder = SumsRecorder(basis.size_bytes, _LEAST_BLOCK_BYTES)
    buffer = memoryview(bytearray(min(_READ_BYTES, basis.size_bytes)))
    position = 0
    while got := basis.read_at(buffer[: basis.size_bytes - position], position):
        recorder.take(buffer[:got])
        position += got
    return recorder.finish() if position == basis.size_bytes else None


class InPlaceCoder:
    """Makes the delta of each segment of a file against a basis of the same length, by the sums of its blocks."""

    def __init__(self, sums: BlockSums) -> None:
        """A coder at the start of the file."""
        self._recorder = SumsRecorder(sums.size, _LEAST_BLOCK_BYTES)
        self._aligned = AlignedCoder(sums)
        self.wanted_bytes = self._aligned.wanted_bytes

    def encode(self, segment: memoryview) -> Delta | Raw:
        """The next segment, `wanted_bytes` long unless it is the last."""
        self._recorder.take(segment)
        coded = self._aligned.encode(segment, self._recorder.last_sums(len(segment)))
        return coded if coded is not None else Raw(segment)


class DescribedBasis:
    """The other end's basis, as far as its description has come; `close` frees it."""

    def __init__(self) -> None:
        self._begun = bytearray()
        self._signature: LoadedSignature | None = None
        self._sums: BlockSums | None = None

    def feed(self, piece: bytes | memoryview) -> None:
        """Take the next bytes.

        Raises:
            DeltaError: They are of no description.
        """
        if self._signature is not None:
            self._signature.feed(piece)
            return
        self._begun += piece
        if len(self._begun) >= len(MAGIC) and not self._begun.startswith(MAGIC):
            self._signature = LoadedSignature()
            self._signature.feed(bytes(self._begun))
            self._begun = bytearray()

    def finish(self) -> None:
        """All has come; check it and load it.

        Raises:
            DeltaError: It is no usable description.
        """
        if self._signature is not None:
            self._signature.finish()
            return
        try:
            self._sums = BlockSums.decode(bytes(self._begun), _LEAST_BLOCK_BYTES)
        except ValueError as error:
            raise DeltaError(f"The sums of a basis are {error}") from error
        self._begun = bytearray()

    def coder(self) -> SegmentCoder | InPlaceCoder:
        """What makes deltas against it, after `finish`."""
        if self._sums is not None:
            return InPlaceCoder(self._sums)
        assert self._signature is not None
        return SegmentCoder(self._signature)

    def close(self) -> None:
        """Free the memory; idempotent."""
        if self._signature is not None:
            self._signature.close()
        self._begun = bytearray()
