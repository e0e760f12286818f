"""Patches: what a delta may do to us, which is nothing."""

import os
import random

import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from ssfs.delta.commands import MAGIC
from ssfs.delta.errors import DeltaError
from ssfs.delta.patch import apply_delta
from ssfs.delta.segment import delta
from ssfs.errors import PeerError
from tests.delta.support import load, memory_file, noise


def copy(position: int, length: int) -> bytes:
    return b"\x54" + position.to_bytes(8, "big") + length.to_bytes(8, "big")


def test_pieces_are_bounded_and_add_up():
    basis = noise(3_500_000)
    pieces: list[bytes] = []
    with memory_file(basis) as fd:
        made = MAGIC + copy(0, len(basis)) + b"\x03new" + copy(5, 10) + b"\x00"
        written = apply_delta(fd, made, lambda view: pieces.append(bytes(view)), limit=1 << 30)
    assert b"".join(pieces) == basis + b"new" + basis[5:15]
    assert written == len(basis) + 13
    assert max(map(len, pieces)) <= 1 << 20


def test_limit_is_exact_and_nothing_is_written_beyond_it():
    out = bytearray()
    with memory_file(bytes(100)) as fd:
        made = MAGIC + copy(0, 100) + b"\x00"
        assert apply_delta(fd, made, out.extend, limit=100) == 100
        with pytest.raises(DeltaError, match="expands"):
            apply_delta(fd, made, out.extend, limit=99)
    assert len(out) == 100


def test_huge_expansion_of_a_sparse_basis_is_refused():
    out = bytearray()
    with memory_file(b"") as fd:
        os.ftruncate(fd, 1 << 40)
        with pytest.raises(DeltaError, match="expands"):
            apply_delta(fd, MAGIC + copy(0, 1 << 40) + b"\x00", out.extend, limit=1 << 20)
    assert not out


def test_error_is_the_peers():
    with memory_file(b"x") as fd, pytest.raises(PeerError):
        apply_delta(fd, b"garbage", lambda _: None, limit=10)


def test_basis_that_shrinks_meanwhile_is_an_error_and_no_crash():
    with memory_file(noise(3 << 20)) as fd:

        def write(_view: memoryview) -> None:
            os.ftruncate(fd, 1_500_000)

        with pytest.raises(DeltaError, match="ended before"):
            apply_delta(fd, MAGIC + copy(0, 3 << 20) + b"\x00", write, limit=3 << 20)


def test_failing_write_passes():
    def write(_view: memoryview) -> None:
        raise BrokenPipeError("no more")

    with memory_file(b"x" * 10) as fd, pytest.raises(BrokenPipeError, match="no more"):
        apply_delta(fd, MAGIC + copy(0, 10) + b"\x00", write, limit=10)


def test_failing_read_passes(tmp_path):
    path = tmp_path / "basis"
    path.write_bytes(b"x" * 10)
    fd = os.open(path, os.O_WRONLY)
    try:
        with pytest.raises(OSError, match="Bad file descriptor"):
            apply_delta(fd, MAGIC + copy(0, 10) + b"\x00", lambda _: None, limit=10)
    finally:
        os.close(fd)


def outcome(fd: int, made: bytes, limit: int) -> str:
    out = bytearray()
    try:
        written = apply_delta(fd, made, out.extend, limit=limit)
    except DeltaError:
        assert not out
        return "refused"
    assert written == len(out) <= limit
    return "applied"


def mutated(original: bytes, chance: random.Random) -> bytes:
    made = bytearray(original)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(made) + 1)
        match chance.randrange(5):
            case 0:
                del made[at:]
            case 1:
                made[at : at + 1] = chance.randbytes(1)
            case 2:
                made[at:at] = bytes([chance.randrange(0x41, 0x56)]) + chance.randbytes(9)
            case 3:
                made[at : at + 8] = chance.choice([b"\xff" * 8, b"\x80" + bytes(7), bytes(8)])
            case _:
                del made[at : at + chance.randrange(20)]
    return bytes(made)


def test_mutated_deltas_are_refused_or_stay_within_bounds():
    chance = random.Random(20240501)
    basis = noise(60_000)
    new = basis[20_000:30_000] + b"some new words" + basis[:20_000] + noise(90, seed=3)
    with load(basis) as loaded, memory_file(basis) as fd:
        original = delta(loaded, new)
        counts = {"refused": 0, "applied": 0}
        for _ in range(5000):
            counts[outcome(fd, mutated(original, chance), len(new))] += 1
    assert counts["refused"] > 1000
    assert counts["applied"] > 100


@pytest.mark.slow
@seed(7)
@settings(max_examples=500, database=None, deadline=None)
@given(st.binary(max_size=200), st.booleans())
def test_random_bytes_are_refused_or_stay_within_bounds(data, is_ended):
    with memory_file(bytes(1000)) as fd:
        outcome(fd, MAGIC + data + b"\x00" * is_ended, limit=5000)
        assert outcome(fd, b"x" + data, limit=5000) == "refused"
