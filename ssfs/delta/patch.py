"""Basis + delta -> new content, on the side that holds the basis.

The delta comes from the peer: it is measured first, and only then run. What may still fail is the
basis, which can shrink in the meantime. Whether the result is right only the digest of the whole
file can say; that is the caller's to compare.

Measured, 2 cores, librsync 2.3.2, 200 MB into the page cache: 380 MB/s for a delta
with an edit every 60 kB, output written to a file; reading and copying alone run at 5 GB/s.
"""

from collections.abc import Callable

from ssfs.delta import commands
from ssfs.delta.basis import Basis
from ssfs.delta.errors import DeltaError
from ssfs.delta.librsync import BasisReader, LibrsyncError, Pinned, patch_job
from ssfs.errors import InternalError

_OUTPUT_BYTES = 1 << 20


def apply_delta(
    basis: int | Basis, delta: bytes | bytearray, write: Callable[[memoryview], None], *, limit: int
) -> int:
    """Write what the delta makes of the basis.

    Args:
        basis: A descriptor of a regular file, or several files as one. Stays the caller's to
            close; positions of descriptors are neither used nor moved.
        delta: A complete delta, from `ssfs.delta.segment`.
        write: Takes each piece of at most 1 MiB, all of it; the memory is used again afterwards.
        limit: The most bytes that may come out.

    Returns:
        The bytes written.

    Raises:
        DeltaError: The delta is malformed, expands beyond the limit or refers to more than the
            basis has. Only when the basis shrank meanwhile has anything been written by then.
        OSError: The basis cannot be read; whatever `write` raises passes as well.
    """
    if isinstance(basis, int):
        basis = Basis([basis])
    expected = commands.measure(delta, basis_bytes=basis.size_bytes, limit=limit).length
    output = memoryview(bytearray(min(_OUTPUT_BYTES, max(expected, 1))))
    written = fed = 0
    with Pinned(delta) as source, Pinned(output) as target:
        reader = BasisReader(basis, output, target.address)
        with patch_job(reader) as job:
            is_done = False
            while not is_done:
                try:
                    is_done, consumed, produced = job.step(
                        source.address + fed,
                        source.size_bytes - fed,
                        target.address,
                        target.size_bytes,
                        is_last=True,
                    )
                except LibrsyncError:
                    if isinstance(reader.failure, EOFError):
                        raise DeltaError("The basis ended before the delta did") from reader.failure
                    if reader.failure is not None:
                        raise reader.failure from None
                    raise
                fed += consumed
                written += produced
                if produced:
                    write(output[:produced])
    if written != expected:
        raise InternalError("librsync and ssfs disagree about the length of a delta")
    return written
