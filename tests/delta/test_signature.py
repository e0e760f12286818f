"""Signatures: their shape, and what is refused when one comes from a peer."""

import math
import os
import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssfs.delta import signature as module
from ssfs.delta.errors import DeltaError
from ssfs.delta.signature import (
    LoadedSignature,
    block_length,
    signature,
    signature_size,
)
from ssfs.errors import InternalError
from tests.delta.support import load, memory_file, noise

MAGIC = 0x72730147


def encoded(basis: bytes) -> bytes:
    with memory_file(basis) as fd:
        return b"".join(signature(fd, len(basis)))


def header(magic=MAGIC, block=2048, strong=16) -> bytes:
    return struct.pack(">III", magic, block, strong)


@given(st.integers(0, 1 << 63))
def test_block_length_is_an_odd_multiple_of_128_near_the_root(size):
    length = block_length(size)
    assert length % 256 == 128
    assert length == 1152 or length == 4_194_176 or abs(length - math.isqrt(size)) <= 128
    assert 1152 <= length <= 4_194_176


@pytest.mark.parametrize("size", [0, 1, 1151, 1152, 1153, 100_000, 3_000_000])
def test_signature_has_the_announced_size(size):
    data = encoded(noise(size))
    assert len(data) == signature_size(size)
    assert data[:12] == header(block=block_length(size))


def test_reader_function_and_descriptor_give_the_same_signature():
    basis = noise(3_000_000)
    rest = memoryview(basis)

    def read(count: int) -> bytes:
        nonlocal rest
        count = min(count, 70_001)  # short reads, not in step with the blocks
        piece, rest = bytes(rest[:count]), rest[count:]
        return piece

    assert b"".join(signature(read, len(basis))) == encoded(basis)


def test_fragments_have_a_bounded_size(monkeypatch):
    basis = noise(1_000_000)
    whole = encoded(basis)
    monkeypatch.setattr(module, "FRAGMENT_BYTES", 1000)
    with memory_file(basis) as fd:
        fragments = list(signature(fd, len(basis)))
    assert [len(f) for f in fragments[:-1]] == [1000] * (len(whole) // 1000)
    assert b"".join(fragments) == whole


def test_basis_that_changed_its_size_is_signed_up_to_the_announced_one():
    basis = noise(50_000)
    with memory_file(basis + b"grown") as fd:
        assert b"".join(signature(fd, len(basis))) == encoded(basis)
    with memory_file(basis[:-10_000]) as fd:
        short = b"".join(signature(fd, len(basis)))
    assert len(short) < signature_size(len(basis))
    LoadedSignature.from_fragments([short], len(basis)).close()


def test_reading_a_basis_leaves_its_position_alone():
    with memory_file(noise(5000)) as fd:
        os.lseek(fd, 77, os.SEEK_SET)
        list(signature(fd, 5000))
        assert os.lseek(fd, 0, os.SEEK_CUR) == 77


@pytest.mark.parametrize(
    "data",
    [
        b"",
        header()[:11],
        header() + b"x" * 19,
        header() + b"x" * 21,
        header(magic=0x72730137) + b"x" * 20,
        header(magic=0x72730236) + b"x" * 20,
        header(strong=0),
        header(strong=8) + b"x" * 12,
        header(strong=32) + b"x" * 36,
        header(strong=0xFFFFFFFF),
        header(block=0) + b"x" * 20,
        header(block=1) + b"x" * 20,
        header(block=(64 << 20) + 1) + b"x" * 20,
        header(block=0xFFFFFFFF) + b"x" * 20,
        header() + b"x" * 20 * 50,  # a basis of 100,000 bytes has 49 blocks
    ],
)
def test_malformed_signature_is_refused(data):
    with pytest.raises(DeltaError):
        LoadedSignature.from_fragments([data], basis_bytes=100_000)


def test_signature_fed_byte_by_byte_is_loaded():
    data = encoded(noise(10_000))
    with LoadedSignature.from_fragments(bytes([b]) for b in data) as loaded:
        assert (loaded.blocks, loaded.block_bytes) == (9, 1152)


def test_too_long_a_signature_is_refused_before_its_end(monkeypatch):
    monkeypatch.setattr(module, "MAX_SIGNATURE_BYTES", 1000)
    loaded = LoadedSignature()
    loaded.feed(header() + b"x" * 980)
    with pytest.raises(DeltaError, match="longer"):
        loaded.feed(b"x" * 20)


def unmix(value: int) -> int:
    """A weak sum that librsync's table puts at `value`: its mixing, backwards."""
    value ^= value >> 16
    value = value * pow(0xC2B2AE35, -1, 1 << 32) & 0xFFFFFFFF
    value ^= value >> 13 ^ value >> 26
    value = value * pow(0x85EBCA6B, -1, 1 << 32) & 0xFFFFFFFF
    return value ^ value >> 16


def test_sums_that_collide_in_the_table_are_refused():
    strong = random.Random(1)
    alike = [struct.pack(">I", 7) + strong.randbytes(16) for _ in range(20_000)]
    aimed = [struct.pack(">I", unmix(i << 15)) + strong.randbytes(16) for i in range(20_000)]
    for sums in (alike, aimed):
        with pytest.raises(DeltaError, match="alike"):
            LoadedSignature.from_fragments([header(), *sums])


def test_signature_of_a_file_of_zeros_is_no_attack():
    with LoadedSignature.from_fragments([header(), *[bytes(20)] * 20_000]) as loaded:
        assert loaded.blocks == 20_000


def test_signature_out_of_order_is_our_own_mistake():
    loaded = LoadedSignature()
    with pytest.raises(InternalError), loaded.borrow():
        pass
    loaded.feed(encoded(b"abc"))
    loaded.finish()
    with pytest.raises(InternalError):
        loaded.finish()
    with pytest.raises(InternalError):
        loaded.feed(b"x")
    loaded.close()
    loaded.close()
    with pytest.raises(InternalError), loaded.borrow():
        pass


def test_close_waits_for_running_deltas():
    loaded = load(noise(5000))
    with loaded.borrow() as sums:
        loaded.close()
        sums.delta_job().close()  # still there
        with pytest.raises(InternalError), loaded.borrow():
            pass
    with pytest.raises(InternalError):
        sums.delta_job()
