"""Several files as one basis: signatures, deltas and patches across the seams."""

import contextlib
import itertools
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssfs.delta.basis import Basis
from ssfs.delta.commands import MAGIC
from ssfs.delta.errors import DeltaError
from ssfs.delta.patch import apply_delta
from ssfs.delta.signature import LoadedSignature, signature
from tests.delta.support import decode, encode, memory_file, noise, sent_bytes


@contextlib.contextmanager
def basis_of(*contents: bytes):
    with contextlib.ExitStack() as stack:
        yield Basis([stack.enter_context(memory_file(content)) for content in contents])


def read_all(basis: Basis, start: int, step: int) -> bytes:
    found = bytearray()
    buffer = memoryview(bytearray(step))
    while got := basis.read_at(buffer, start + len(found)):
        found += buffer[:got]
    return bytes(found)


@settings(max_examples=60)
@given(
    st.lists(st.binary(max_size=40), min_size=1, max_size=4),
    st.integers(0, 170),
    st.integers(1, 90),
)
def test_files_read_as_one_from_any_position(contents, start, step):
    with basis_of(*contents) as basis:
        whole = b"".join(contents)
        assert basis.size_bytes == len(whole)
        assert read_all(basis, start, step) == whole[start:]


@pytest.mark.parametrize("seams", [(), (100_000,), (7, 131_072, 131_073), (0, 262_144)])
def test_signature_of_the_parts_is_that_of_the_whole(seams):
    content = noise(300_000)
    edges = [0, *seams, len(content)]
    with (
        memory_file(content) as fd,
        basis_of(*(content[a:b] for a, b in itertools.pairwise(edges))) as basis,
    ):
        expected = b"".join(signature(fd, len(content)))
        assert b"".join(signature(basis.for_signature(), basis.size_bytes)) == expected


def test_half_received_and_old_file_make_the_new_one():
    half, old = noise(1_500_000, seed=1), noise(2_000_000, seed=2)
    new = half + noise(50_000, seed=3) + old[300_000:]
    with basis_of(half, old) as basis:
        pieces = signature(basis.for_signature(), basis.size_bytes)
        with LoadedSignature.from_fragments(pieces, basis.size_bytes) as loaded:
            parts = encode(loaded, new)
        assert sent_bytes(parts) < 70_000
        assert decode(basis, parts) == new


def test_copy_across_the_seams_is_one_copy():
    out = bytearray()
    with basis_of(b"abc", b"", b"defg", b"hi") as basis:
        made = MAGIC + b"\x45\x01\x07\x00"
        assert apply_delta(basis, made, out.extend, limit=7) == 7
        with pytest.raises(DeltaError, match="beyond the end"):
            apply_delta(basis, MAGIC + b"\x45\x01\x09\x00", out.extend, limit=9)
    assert out == b"bcdefgh"


def test_part_that_shrinks_ends_the_basis_there():
    with memory_file(bytes(1000)) as first, memory_file(b"x" * 1000) as second:
        basis = Basis([first, second])
        os.ftruncate(first, 500)
        assert read_all(basis, 0, 300) == bytes(500)
        with pytest.raises(DeltaError, match="ended before"):
            apply_delta(basis, MAGIC + b"\x46\x00\x07\xd0\x00", lambda _: None, limit=2000)
        assert len(b"".join(signature(basis.for_signature(), 2000))) == 12 + 20


def test_part_that_grows_does_not_shift_the_next():
    with memory_file(b"abc") as first, memory_file(b"def") as second:
        basis = Basis([first, second])
        os.pwrite(first, b"more", 3)
        assert read_all(basis, 0, 2) == b"abcdef"


def test_close_closes_every_part_once():
    fds = [os.memfd_create("part") for _ in range(3)]
    with Basis(fds) as basis:
        basis.close()
    for fd in fds:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)
