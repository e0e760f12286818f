"""Sums of blocks: what is in place is copied, what has moved is told, and every result is right."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssfs.delta import blocks as module
from ssfs.delta.blocks import AlignedCoder, BlockSums, SumsRecorder, block_length
from ssfs.delta.coded import SEGMENT_BYTES, Delta, Raw
from ssfs.delta.patch import apply_delta
from tests.delta.support import memory_file, noise
from tests.delta.test_segment import edited, edits

KIB = 1 << 10


def sums_of(content: bytes, lengths: tuple[int, ...] = ()) -> BlockSums:
    """Taken in pieces of these lengths, then the rest at once."""
    recorder = SumsRecorder(len(content))
    view = memoryview(content)
    for length in lengths:
        recorder.take(view[:length])
        view = view[length:]
    recorder.take(view)
    sums = recorder.finish()
    assert sums is not None
    return sums


def coded(basis: bytes, new: bytes) -> list[Delta | Raw | None]:
    """What becomes of each segment, up to the first that is worth a signature."""
    recorder = SumsRecorder(len(new))
    coder = AlignedCoder(sums_of(basis))
    answers: list[Delta | Raw | None] = []
    for at in range(0, len(new), coder.wanted_bytes):
        segment = memoryview(new)[at : at + coder.wanted_bytes]
        recorder.take(segment)
        answers.append(coder.encode(segment, recorder.last_sums(len(segment))))
        if answers[-1] is None:
            break
    return answers


def made(basis: bytes, answers: list[Delta | Raw | None]) -> bytes:
    """What a server makes of them."""
    out = bytearray()
    with memory_file(basis) as fd:
        for answer in answers:
            if isinstance(answer, Delta):
                apply_delta(fd, answer.payload, out.extend, limit=SEGMENT_BYTES)
            elif answer is not None:
                out += answer.payload
    return bytes(out)


def sent(answers: list[Delta | Raw | None]) -> int:
    return sum(len(answer.payload) for answer in answers if answer is not None)


@pytest.fixture
def small_segments(monkeypatch: pytest.MonkeyPatch) -> int:
    """Many segments in little content."""
    monkeypatch.setattr(module, "SEGMENT_BYTES", 64 * KIB)
    return 64 * KIB


def test_block_length_is_what_file_systems_write_and_grows_with_large_files():
    assert block_length(0) == block_length(512 << 20) == 4096
    assert block_length((512 << 20) + 1) == 8192
    assert block_length(1 << 40) == block_length(1 << 50) == SEGMENT_BYTES


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 60_000), st.lists(st.integers(1, 20_000), max_size=5))
def test_sums_do_not_depend_on_how_the_content_came(size, lengths):
    content = noise(size)
    sums = sums_of(content, tuple(lengths))
    assert sums == sums_of(content)
    assert len(sums.sums) == -(-size // 4096) * module.SUM_BYTES
    assert BlockSums.decode(sums.encode()) == sums


def test_a_sum_is_the_xxh3_that_the_protocol_names():
    # What xxhsum -H2 says of these bytes: other implementations must be able to make them.
    sums = sums_of(bytes(4096) + b"ssfs").sums.hex()
    assert sums == "3ee8dc4f9e7ee49593d76fe148c689bac50db2ca9cd2227d8a490ef9c741e727"


@settings(deadline=None, max_examples=150)
@given(st.integers(0, 400_000), edits)
def test_every_edit_survives_the_round_trip(size, steps):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SEGMENT_BYTES", 64 * KIB)
        basis = noise(size)
        new = edited(basis, steps)
        answers = coded(basis, new)
        result = made(basis, answers)
        if answers and answers[-1] is None:
            assert new.startswith(result)
        else:
            assert result == new


def test_what_is_in_place_is_not_sent(small_segments):
    basis = noise(1 << 20)
    new = bytearray(basis)
    changed = random.Random(1).sample(range(256), 20)
    for block in changed:
        new[block * 4096 + 7] ^= 1
    answers = coded(basis, bytes(new))
    assert made(basis, answers) == new
    assert 20 * 4096 <= sent(answers) < 20 * 4096 + 256 * 20
    unchanged = coded(basis, basis)
    assert sent(unchanged) < 30 * len(unchanged)


def test_what_was_appended_is_sent_as_it_is(small_segments):
    basis = noise(200 * KIB + 100)
    new = basis + noise(300 * KIB, seed=5)
    answers = coded(basis, new)
    assert made(basis, answers) == new
    assert isinstance(answers[-1], Raw)
    assert sent(answers) < 300 * KIB + 4096 + 500


def test_moved_blocks_are_worth_a_signature_from_there_on(small_segments):
    basis = noise(1 << 20)
    assert coded(basis, b"x" + basis) == [None]
    middle = 512 * KIB
    answers = coded(basis, basis[:middle] + b"x" + basis[middle:])
    assert answers[-1] is None
    assert made(basis, answers) == basis[:middle]


def test_growing_while_it_is_read_is_right_all_the_same(small_segments):
    """A segment that ended inside a block is followed by another one: nothing is where it was."""
    basis = noise(256 * KIB)
    recorder = SumsRecorder(len(basis))
    coder = AlignedCoder(sums_of(basis))
    answers = []
    for start, end in ((0, 5000), (5000, 5000 + 64 * KIB)):
        segment = memoryview(basis)[start:end]
        recorder.take(segment)
        answers.append(coder.encode(segment, recorder.last_sums(len(segment))))
    assert made(basis, answers) == basis[: 5000 + 64 * KIB]


def test_recorder_gives_no_sums_of_blocks_of_another_length():
    recorder = SumsRecorder(600 << 20)
    recorder.take(memoryview(noise(100 * KIB)))
    assert recorder.finish() is None


@pytest.mark.parametrize("spoil", ["flip", "cut", "longer", "empty", "text"])
def test_spoilt_sums_are_none(spoil):
    content = bytearray(sums_of(noise(40_000)).encode())
    match spoil:
        case "flip":
            content[30] ^= 1
        case "cut":
            del content[-3:]
        case "longer":
            content += b"\0"
        case "empty":
            content.clear()
        case _:
            content[:] = b"x" * 4000
    with pytest.raises(ValueError, match=r"."):
        BlockSums.decode(bytes(content))
