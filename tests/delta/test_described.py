"""What a restore says of the file it has, and the deltas that the other end makes of that."""

import os
import random

import pytest

from ssfs.delta.basis import Basis
from ssfs.delta.blocks import MAGIC, BlockSums
from ssfs.delta.coded import Delta, Raw
from ssfs.delta.described import DescribedBasis, InPlaceCoder, describe, description_size
from ssfs.delta.errors import DeltaError
from ssfs.delta.patch import apply_delta
from ssfs.delta.segment import SegmentCoder

SIZE = 20_000_123  # more than two segments, and no whole blocks


@pytest.fixture
def opened(tmp_path):
    """Makes bases of bytes, closed in the end."""
    bases = []

    def make(*contents: bytes) -> Basis:
        parts = []
        for content in contents:
            path = tmp_path / str(len(os.listdir(tmp_path)))
            path.write_bytes(content)
            parts.append(os.open(path, os.O_RDONLY))
        bases.append(Basis(parts))
        return bases[-1]

    yield make
    for basis in bases:
        basis.close()


def heard(pieces) -> DescribedBasis:
    described = DescribedBasis()
    for piece in pieces:
        described.feed(piece)
    described.finish()
    return described


def rebuilt(file: bytes, described: DescribedBasis, basis: Basis) -> tuple[bytes, int]:
    """What becomes of the file when it travels, and how many bytes travel."""
    coder = described.coder()
    result = bytearray()
    travelled = 0
    at = 0
    while at < len(file):
        segment = memoryview(file)[at : at + coder.wanted_bytes]
        at += len(segment)
        coded = coder.encode(segment)
        travelled += len(coded.payload)
        if isinstance(coded, Delta):
            apply_delta(basis, coded.payload, result.extend, limit=len(segment))
        else:
            result += coded.payload
    return bytes(result), travelled


def test_a_basis_as_long_as_the_file_is_described_by_sums(opened):
    file = random.Random(1).randbytes(SIZE)
    hurt = bytearray(file)
    hurt[0] ^= 1
    hurt[9_000_000:9_000_100] = bytes(100)
    hurt[-1] ^= 1
    basis = opened(bytes(hurt))
    pieces = list(describe(basis, SIZE))
    assert b"".join(pieces).startswith(MAGIC)
    described = heard(pieces)
    assert isinstance(described.coder(), InPlaceCoder)
    result, travelled = rebuilt(file, described, basis)
    assert result == file
    # Two blocks, and the last one, which is always sent.
    assert 2 * 16384 < travelled < 3 * 16384 + 200


def test_a_basis_of_another_length_is_described_by_a_signature(opened):
    basis = opened(b"inserted" + (file := random.Random(2).randbytes(1 << 20)))
    described = heard(describe(basis, len(file)))
    assert isinstance(described.coder(), SegmentCoder)
    result, travelled = rebuilt(file, described, basis)
    assert result == file
    assert travelled < 5000


def test_a_basis_of_several_files_is_read_as_one(opened):
    file = random.Random(3).randbytes(300_000)
    basis = opened(file[:100_001], file[100_001:])
    result, travelled = rebuilt(file, heard(describe(basis, len(file))), basis)
    assert result == file
    assert travelled < 16384


def test_nothing_in_its_place_is_sent_as_it_is(opened):
    file = random.Random(4).randbytes(100_000)
    basis = opened(random.Random(5).randbytes(100_000))
    coder = heard(describe(basis, len(file))).coder()
    coded = coder.encode(memoryview(file))
    assert isinstance(coded, Raw)
    assert coded.payload == file


def test_it_may_come_byte_by_byte(opened):
    file = random.Random(6).randbytes(100_000)
    for size in (len(file), len(file) + 1):
        whole = b"".join(describe(opened(file), size))
        described = heard(whole[at : at + 1] for at in range(len(whole)))
        result, _ = rebuilt(file, described, opened(file))
        assert result == file


def test_no_description_is_longer_than_foreseen(opened):
    for size in (1 << 14, (1 << 20) + 1, 5_000_000):
        basis = opened(bytes(size))
        for of in (size, size + 1):
            assert sum(map(len, describe(basis, of))) <= description_size(size)
    # Of the longest file that fits into a client's credit it is the signature that decides.
    assert description_size(600 << 30) < 16 << 20


def test_a_basis_that_was_cut_meanwhile_is_none(opened, tmp_path):
    basis = opened(bytes(100_000))
    os.truncate(tmp_path / "0", 50_000)
    assert list(describe(basis, 100_000)) == []


@pytest.mark.parametrize(
    "hurt",
    [
        lambda encoded: encoded[:4],
        lambda encoded: encoded[:-1],
        lambda encoded: encoded + b"\0",
        lambda encoded: encoded[:30] + b"\xff" + encoded[31:],
        lambda encoded: BlockSums(4096, 100_000, bytes(25 * 16)).encode(),
        lambda encoded: BlockSums(16384, 1 << 62, bytes(7 * 16)).encode(),
        lambda encoded: BlockSums(16384, 100_000, bytes(6 * 16)).encode(),
    ],
)
def test_what_is_no_description_is_refused(opened, hurt):
    encoded = b"".join(describe(opened(bytes(100_000)), 100_000))
    heard([encoded])
    with pytest.raises(DeltaError):
        heard([hurt(encoded)])
