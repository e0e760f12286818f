"""Blocks: byte by byte, at random, damaged, and made by somebody who means no good."""

import contextlib
import itertools
import random

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from ssfs.errors import RemoteProtocolError
from ssfs.net.blocks import (
    END,
    HEADER,
    KEEP_ALIVE,
    LINK_VERSION,
    MAX_CONTENT_BYTES,
    BlockReader,
    Compressor,
    Kind,
    Preamble,
    encode_preamble,
)
from ssfs.net.compression import AUTO, OFF, Compression, at_level

HELLO = encode_preamble(Preamble())


def read(reader: BlockReader, *pieces: bytes) -> bytes:
    return b"".join(bytes(part) for piece in pieces for part in reader.receive(piece))


def plain(content: bytes) -> bytes:
    return HEADER.pack(len(content), Kind.PLAIN) + content


def compressed(payload: bytes) -> bytes:
    return HEADER.pack(len(payload), Kind.COMPRESSED) + payload


def split(stream: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    return [stream[a:b] for a, b in itertools.pairwise(edges)]


CONTENTS = st.lists(
    st.tuples(
        st.sampled_from(["plain", "compressed", "keep-alive"]),
        st.binary(min_size=1, max_size=200).flatmap(
            lambda part: st.integers(1, 500).map(lambda times: part * times)
        ),
    ),
    max_size=12,
)


@given(CONTENTS, st.lists(st.integers(0, 1 << 30), max_size=30), st.sampled_from([1, 3]))
def test_any_blocks_cut_anywhere_give_the_stream_back(contents, cuts, level):
    compressor = Compressor(level)
    stream, expected = bytearray(HELLO), b""
    for kind, content in contents:
        if kind == "keep-alive":
            stream += KEEP_ALIVE
            continue
        stream += plain(content) if kind == "plain" else compressor.block(content)
        expected += content
    stream += END
    reader = BlockReader()
    assert read(reader, *split(bytes(stream), cuts)) == expected
    assert reader.has_ended


def test_byte_by_byte():
    compressor = Compressor(3)
    text = b"the same words again and again, " * 100
    stream = HELLO + plain(text) + KEEP_ALIVE + b"".join(compressor.block(text) for _ in range(5))
    reader = BlockReader()
    got = read(reader, *(stream[at : at + 1] for at in range(len(stream))))
    assert got == text * 6
    assert not reader.has_ended


def test_every_block_can_be_read_when_it_is_there():
    """Also when it is as large as may be: nothing waits in the decompressor for the next one."""
    compressor, reader, rng = Compressor(3), BlockReader(), random.Random(2)
    assert read(reader, HELLO) == b""
    for size in (1, 131_072, 131_073, 500_000, MAX_CONTENT_BYTES):
        for content in (bytes(size), rng.randbytes(size)):
            assert read(reader, compressor.block(content)) == content


def test_plain_content_is_not_copied():
    received = HELLO + plain(b"content")
    (part,) = BlockReader().receive(received)
    assert isinstance(part, memoryview)
    assert part.obj is received


def test_like_batches_cost_less_in_one_frame_than_each_by_itself():
    batches = [
        b"".join(b"%d: /srv/home/file-%d.txt\n" % (n, n) for n in range(i, i + 50))
        for i in range(40)
    ]
    compressor = Compressor(3)
    together = sum(len(compressor.block(batch)) for batch in batches)
    alone = sum(len(zstandard.ZstdCompressor(level=3).compress(batch)) for batch in batches)
    assert together < alone / 2


@pytest.mark.parametrize("wish", [None, OFF, AUTO, at_level(1), at_level(19)])
@pytest.mark.parametrize("rate", [0, 1000, 1 << 40])
def test_preambles_arrive(wish: Compression | None, rate: int):
    reader = BlockReader()
    sent = encode_preamble(Preamble(wish, rate))
    read(reader, *(sent[at : at + 1] for at in range(len(sent) - 1)))
    assert reader.preamble is None
    read(reader, sent[-1:])
    assert reader.preamble == Preamble(wish, rate, LINK_VERSION)


def test_preamble_of_a_later_version_is_named():
    with pytest.raises(RemoteProtocolError, match="link version 2, we speak 1"):
        read(BlockReader(), encode_preamble(Preamble(version=2)))


def preamble_with(*, at: int, value: int) -> bytes:
    changed = bytearray(HELLO)
    changed[HEADER.size + at] = value
    return bytes(changed)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"HTTP/1.1 400 Bad Request", "'HTTP/1.1 400 Bad Request'"),
        (b"ssfslink", "does not speak ssfs"),
        (preamble_with(at=0, value=0), "does not speak ssfs"),
        (plain(b"no preamble first, but as long as one"), "does not speak ssfs"),
        (HEADER.pack(257, Kind.PREAMBLE), "does not speak ssfs"),
        (preamble_with(at=10, value=9), "asks for compression 9"),
        (preamble_with(at=10, value=3), "asks for compression 3, 0"),
        (preamble_with(at=12, value=1), "asks for 1 bytes/s"),
        (HELLO + HELLO, "kind 0"),
        (HELLO + HEADER.pack(0, 4), "kind 4"),
        (HELLO + HEADER.pack(MAX_CONTENT_BYTES + 1, Kind.PLAIN), "1048577 bytes"),
        (HELLO + HEADER.pack(1 << 31, Kind.COMPRESSED), "2147483648 bytes"),
        (HELLO + HEADER.pack(0, Kind.COMPRESSED), "kind 2"),
        (HELLO + HEADER.pack(1, Kind.END), "kind 3"),
        (HELLO + END + b"x", "went on"),
        (HELLO + compressed(b"no zstandard at all"), "damaged"),
    ],
)
def test_what_is_no_block_is_an_error(said: bytes, reason: str):
    with pytest.raises(RemoteProtocolError, match=reason):
        read(BlockReader(), said)
    with pytest.raises(RemoteProtocolError, match=reason if len(said) > 30 else None):
        read(BlockReader(), *(said[at : at + 1] for at in range(len(said))))


def open_frame():
    """A frame with as large a window as is allowed."""
    parameters = zstandard.ZstdCompressionParameters.from_level(
        3, window_log=20, write_content_size=False
    )
    return zstandard.ZstdCompressor(compression_params=parameters).compressobj()


@pytest.mark.parametrize("size", [MAX_CONTENT_BYTES + 1, 64 << 20])
def test_bomb_is_noticed_before_it_is_big(size: int):
    frame = open_frame()
    bomb = b"".join(frame.compress(bytes(1 << 20)) for _ in range(size >> 20))
    bomb += frame.compress(bytes(size & 0xFFFFF)) + frame.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
    assert len(bomb) < 100_000
    reader = BlockReader()
    with pytest.raises(RemoteProtocolError, match="expands too far"):
        read(reader, HELLO, compressed(bomb))


def test_bomb_in_parts_is_noticed_too():
    frame = open_frame()
    bomb = frame.compress(bytes(MAX_CONTENT_BYTES)) + frame.compress(b"x")
    bomb += frame.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
    with pytest.raises(RemoteProtocolError, match="expands too far"):
        read(BlockReader(), HELLO, *(compressed(bomb)[at : at + 1] for at in range(len(bomb) + 5)))


def test_window_that_takes_too_much_memory_is_refused():
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=27)
    frame = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    payload = frame.compress(b"a") + frame.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
    with pytest.raises(RemoteProtocolError, match="damaged content"):
        read(BlockReader(), HELLO, compressed(payload))


@given(st.binary(max_size=300), st.booleans())
def test_noise_ends_in_a_clean_error_or_waits_for_more(noise, is_after_greeting):
    reader = BlockReader()
    with contextlib.suppress(RemoteProtocolError):
        assert len(read(reader, HELLO * is_after_greeting + noise)) <= len(noise)


@given(st.integers(0, 1 << 30), st.integers(1, 255))
def test_flipped_bits_never_break_the_reader(position, flip):
    compressor = Compressor(3)
    stream = bytearray(
        HELLO
        + plain(b"plain")
        + compressor.block(b"words " * 50)
        + compressor.block(bytes(5000))
        + END
    )
    stream[position % len(stream)] ^= flip
    reader = BlockReader()
    try:
        got = read(reader, bytes(stream))
    except RemoteProtocolError:
        return
    assert len(got) <= MAX_CONTENT_BYTES * 3
