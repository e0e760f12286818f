"""What the tests of ssfs.delta share: bases in memory and the whole way there and back."""

import itertools
import os
import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from ssfs.delta.coded import Delta, Raw
from ssfs.delta.patch import apply_delta
from ssfs.delta.segment import SegmentCoder
from ssfs.delta.signature import LoadedSignature, signature


def noise(size_bytes: int, seed: int = 1) -> bytes:
    """Content that matches nothing but itself."""
    return random.Random(seed).randbytes(size_bytes)


@contextmanager
def memory_file(content: bytes) -> Iterator[int]:
    """A descriptor of a file with that content."""
    fd = os.memfd_create("basis")
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(fd, view) :]
        yield fd
    finally:
        os.close(fd)


def load(basis: bytes) -> LoadedSignature:
    """The basis's signature after a trip through fragments."""
    with memory_file(basis) as fd:
        fragments = signature(fd, len(basis))
        return LoadedSignature.from_fragments(fragments, basis_bytes=len(basis))


def encode(
    loaded: LoadedSignature, new: bytes, lengths: Iterable[int] = ()
) -> list[tuple[int, Delta | Raw]]:
    """The new content in segments, of the given lengths or as the coder wants them."""
    coder = SegmentCoder(loaded)
    wanted = itertools.cycle(lengths) if lengths else None
    rest, parts = memoryview(new), []
    while rest:
        segment = rest[: next(wanted) if wanted else coder.wanted_bytes]
        parts.append((len(segment), coder.encode(segment)))
        rest = rest[len(segment) :]
    return parts


def decode(basis_fd: int, parts: list[tuple[int, Delta | Raw]]) -> bytes:
    """The new content again."""
    out = bytearray()
    for length, part in parts:
        if isinstance(part, Raw):
            out += part.payload
        else:
            assert apply_delta(basis_fd, part.payload, out.extend, limit=length) == length
    return bytes(out)


def sent_bytes(parts: list[tuple[int, Delta | Raw]]) -> int:
    """What travels."""
    return sum(len(part.payload) for _, part in parts)
