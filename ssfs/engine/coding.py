"""How the content of one large file travels: segment by segment, as deltas where there is a basis, else as it is.

A basis is compared with by sums of its blocks that this client has kept (`ssfs.delta.blocks`), as long as they are where
they were, else by a signature that the server has made (`ssfs.delta.segment`).
"""

from typing import NamedTuple, Protocol

from ssfs.delta.blocks import AlignedCoder, BlockSums, SumsRecorder
from ssfs.delta.coded import Delta, Raw
from ssfs.delta.segment import SegmentCoder
from ssfs.delta.signature import LoadedSignature
from ssfs.source.reading import READ_BYTES

KEPT_FROM_BYTES = 16 << 20
"""Of a shorter file no sums are kept: its signature costs little, and there may be very many."""


class KnownBasis(NamedTuple):
    """What a large file may be sent as a delta against.

    Attributes:
        number: Which one (PROTOCOL.md, step 5); 0 for none.
        size: How long its stream is.
        sums: Those of its blocks, if they are known and most of them are in the file where they were.
    """

    number: int
    size: int
    sums: BlockSums | None = None


WHOLE = KnownBasis(0, 0)
"""No basis."""


class Signatures(Protocol):
    """Where signatures come from."""

    def want_signature(self, basis: int, basis_bytes: int) -> None:
        """Ask for one."""
        ...

    def wait_signature(self, basis: int) -> None:
        """Wait until it has come."""
        ...

    def signature(self, number: int) -> LoadedSignature | None:
        """What has come."""
        ...


class FileCoder:
    """Codes the segments of one file, in order.

    Attributes:
        has_basis: Whether there is something deltas can be against.
    """

    def __init__(self, basis: KnownBasis, stream_bytes: int, signatures: Signatures) -> None:
        """A coder at the start of a stream that is probably so long."""
        self._basis = basis
        self._signatures = signatures
        self._recorder = SumsRecorder(stream_bytes) if stream_bytes >= KEPT_FROM_BYTES else None
        self._aligned = AlignedCoder(basis.sums) if basis.sums is not None else None
        signature = signatures.signature(basis.number) if self._aligned is None else None
        self._coder = SegmentCoder(signature) if signature is not None else None
        self.has_basis = bool(self._aligned or self._coder)

    @property
    def wanted_bytes(self) -> int:
        """How long the next segment is to be; the last may be shorter."""
        coder = self._aligned or self._coder
        return coder.wanted_bytes if coder is not None else READ_BYTES

    def encode(self, segment: memoryview) -> Delta | Raw:
        """The next segment."""
        if self._recorder is not None:
            self._recorder.take(segment)
            if self._aligned is not None:
                coded = self._aligned.encode(segment, self._recorder.last_sums(len(segment)))
                if coded is not None:
                    return coded
                self._give_up_aligned()
        return self._coder.encode(segment) if self._coder is not None else Raw(segment)

    def _give_up_aligned(self) -> None:
        """From here on blocks are not where they were: wait for what finds them anywhere."""
        self._aligned = None
        self._signatures.want_signature(self._basis.number, self._basis.size)
        self._signatures.wait_signature(self._basis.number)
        signature = self._signatures.signature(self._basis.number)
        self._coder = SegmentCoder(signature) if signature is not None else None

    def sums(self) -> BlockSums | None:
        """The sums of the blocks of all of it; None where they are not worth keeping."""
        return self._recorder.finish() if self._recorder is not None else None
