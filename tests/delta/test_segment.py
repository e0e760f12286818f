"""Segments: what is sent, and how little work it takes to find that out."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssfs.delta import segment as module
from ssfs.delta.coded import Delta, Raw
from ssfs.delta.librsync import Pinned, signature_job
from ssfs.delta.segment import SegmentCoder, delta
from ssfs.delta.signature import LoadedSignature
from tests.delta.support import decode, encode, load, memory_file, noise, sent_bytes

MIB = 1 << 20

edits = st.lists(
    st.tuples(
        st.sampled_from(["insert", "delete", "overwrite", "append", "truncate", "zeros", "move"]),
        st.floats(0, 1),
        st.integers(0, 9000),
    ),
    max_size=6,
)


def edited(content: bytes, steps: list[tuple[str, float, int]]) -> bytes:
    new = bytearray(content)
    for kind, place, length in steps:
        at = int(place * len(new))
        fresh = noise(length, seed=at + length)
        match kind:
            case "insert":
                new[at:at] = fresh
            case "delete":
                del new[at : at + length]
            case "overwrite":
                new[at : at + length] = fresh
            case "append":
                new += fresh
            case "truncate":
                del new[at:]
            case "zeros":
                new[at : at + length] = bytes(length)
            case _:  # move
                new[:0] = new[at : at + length]
    return bytes(new)


@pytest.mark.slow
@settings(deadline=None, max_examples=150)
@given(
    st.integers(0, 60_000),
    edits,
    st.lists(st.integers(1, 50_000), max_size=3),
)
def test_every_edit_survives_the_round_trip(size, steps, lengths):
    basis = edited(noise(size), [("zeros", 0.5, size // 8)])
    new = edited(basis, steps)
    with load(basis) as loaded, memory_file(basis) as fd:
        assert decode(fd, encode(loaded, new, lengths)) == new
        assert decode(fd, [(len(new), Delta(delta(loaded, new)))]) == new


@pytest.mark.parametrize("size", [1, 1151, 1152, 1153, 5000, 300_000])
def test_unchanged_file_costs_a_few_bytes(size):
    basis = noise(size)
    with load(basis) as loaded:
        parts = encode(loaded, basis)
    assert sent_bytes(parts) <= min(size, 20)


@pytest.fixture(scope="module")
def big():
    content = noise(40 * MIB)
    with load(content) as loaded, memory_file(content) as fd:
        yield content, loaded, fd


@pytest.mark.slow
def test_ten_overwritten_blocks_cost_less_than_a_hundredth(big):
    content, loaded, fd = big
    chance, new = random.Random(5), bytearray(content)
    for _ in range(10):
        at = chance.randrange(len(new) - 4096)
        new[at : at + 4096] = chance.randbytes(4096)
    parts = encode(loaded, bytes(new))
    assert sent_bytes(parts) < len(new) // 100
    assert decode(fd, parts) == new


@pytest.mark.parametrize("lengths", [[], [8 * MIB], [5_000_001]])
def test_insertion_at_the_start_costs_less_than_a_hundredth(big, lengths):
    content, loaded, fd = big
    new = noise(100, seed=9) + content
    parts = encode(loaded, new, lengths)
    assert sent_bytes(parts) < len(new) // 100
    assert decode(fd, parts) == new


def test_wanted_lengths_make_an_insertion_cost_one_block(big):
    content, loaded, _ = big
    new = noise(100, seed=9) + content
    assert sent_bytes(encode(loaded, new)) < 2 * loaded.block_bytes
    assert sent_bytes(encode(loaded, new, [8 * MIB])) > 4 * loaded.block_bytes


@pytest.fixture
def scanned(monkeypatch):
    """Bytes that went through librsync, per job."""
    jobs: list[int] = []
    run = module._run

    def counting(loaded, piece, room, clock):
        jobs.append(len(piece))
        return run(loaded, piece, room, clock)

    monkeypatch.setattr(module, "_run", counting)
    return jobs


def test_new_content_goes_raw_after_a_glance(big, scanned):
    _, loaded, _ = big
    new = noise(40 * MIB, seed=2)
    parts = encode(loaded, new)
    assert all(isinstance(part, Raw) for _, part in parts)
    assert sent_bytes(parts) == len(new)
    assert 0 < sum(scanned) < len(new) // 32
    assert len(scanned) >= len(parts)  # every segment was looked at


def test_raw_segments_are_the_callers_memory(big):
    _, loaded, _ = big
    new = bytearray(noise(MIB, seed=2))
    part = SegmentCoder(loaded).encode(new)
    new[7:12] = b"seven"
    assert isinstance(part, Raw)
    assert bytes(part.payload[7:12]) == b"seven"


@pytest.mark.slow
def test_old_content_after_a_lot_of_new_is_found_again(big):
    content, loaded, fd = big
    new = noise(8 * MIB, seed=2) * 8 + content
    parts = encode(loaded, new)
    assert sent_bytes(parts) < 8 * MIB * 8 + MIB * 9
    assert decode(fd, parts) == new


def test_mixed_segment_is_a_delta(big):
    content, loaded, fd = big
    new = bytearray(content[: 8 * MIB])
    block = loaded.block_bytes
    for at in range(0, len(new), 5 * block):  # two blocks of five
        new[at : at + 2 * block] = noise(2 * block, seed=at)
    parts = encode(loaded, bytes(new), [len(new)])
    assert [type(part) for _, part in parts] == [Delta]
    assert sent_bytes(parts) < 0.7 * len(new)
    assert decode(fd, parts) == new


def test_delta_that_saves_less_than_a_tenth_is_not_sent(big, scanned, monkeypatch):
    # All probes, so that the last twentieth is seen now and then.
    monkeypatch.setattr(SegmentCoder, "_blind_probes", lambda *_: 8)
    content, loaded, _ = big
    length = 8 * MIB
    new = noise(length - length // 20, seed=4) + content[: length // 20]
    coder = SegmentCoder(loaded)
    for _ in range(16):
        assert isinstance(coder.encode(new), Raw)
    assert 1 <= scanned.count(length) <= 2  # and the whole was not tried again and again


def test_huge_blocks_are_probed_now_and_then(scanned):
    block = 256 << 10
    basis = noise(8 * MIB)
    with memory_file(basis), signature_job(block) as job:
        out = memoryview(bytearray(4096))
        with Pinned(basis) as source, Pinned(out) as target:
            step = job.step(source.address, len(basis), target.address, 4096, is_last=True)
        assert step.is_done
    fresh = noise(8 * MIB, seed=2)
    with LoadedSignature.from_fragments([bytes(out[: step.produced])]) as loaded:
        coder = SegmentCoder(loaded)
        for _ in range(10):
            assert isinstance(coder.encode(fresh), Raw)
        assert 4 <= len(scanned) <= 7
        found = [isinstance(coder.encode(basis), Delta) for _ in range(5)]
        assert any(found[:4])
        assert found[4]


def test_job_that_eats_cpu_is_abandoned_but_not_for_ever(big):
    content, loaded, _ = big
    now = [0.0]
    speed = [1000.0]

    def clock() -> float:
        now[0] += speed[0]
        return now[0]

    coder = SegmentCoder(loaded, clock)
    segment = content[: 2 * MIB]
    assert isinstance(coder.encode(segment), Raw)
    speed[0] = 0.0
    later = [isinstance(coder.encode(segment), Delta) for _ in range(3)]
    assert later == [False, True, True]


def test_wanted_length_is_whole_blocks_and_bounded(big):
    _, loaded, _ = big
    assert SegmentCoder(loaded).wanted_bytes % loaded.block_bytes == 0
    for block in (512, 1152, 14_208, MIB, 4_194_176, 64 * MIB):
        loaded_block = LoadedSignature()
        loaded_block.block_bytes = block
        assert 7 * MIB < SegmentCoder(loaded_block).wanted_bytes <= 16 * MIB


def test_empty_things():
    with load(b"") as loaded, memory_file(b"") as fd:
        assert encode(loaded, b"") == []
        assert isinstance(SegmentCoder(loaded).encode(b""), Raw)
        assert isinstance(SegmentCoder(loaded).encode(b"new"), Raw)
        assert decode(fd, [(3, Delta(delta(loaded, b"new")))]) == b"new"
        assert decode(fd, [(0, Delta(delta(loaded, b"")))]) == b""
