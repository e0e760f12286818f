"""What is fetched of a server's file: each byte once for who reads in order, little more than asked for else."""

import os
import random

import blake3
import pytest
import trio

from ssfs.engine.browse.requests import BytesQuestion, VersionRef
from ssfs.errors import CorruptStore
from ssfs.model.entry import Entry, Kind
from ssfs.mount.remote.content import (
    HEAD_PIECE_BYTES,
    MOST_AHEAD,
    PIECE_BYTES,
    Pieces,
    RemoteContent,
)
from ssfs.protocol.browsing import BytesEnd, WantBytes
from ssfs.protocol.messages import FileRaw
from tests.mount.stores import entry

REF = VersionRef("main", "docs", "000001-2024-05-01T020000Z")
CONTENT = random.Random(1).randbytes(7 * PIECE_BYTES + 12_345)
READ_BYTES = 128 << 10


class AnsweringServer:
    """A server that has one file, and answers in frames of some size when it is waited for.

    Attributes:
        asked: What was asked for: offset and count.
        location: For messages.
    """

    location = "there"

    def __init__(self, content: bytes, frame_bytes: int = PIECE_BYTES) -> None:
        self.asked: list[tuple[int, int]] = []
        self._content = content
        self._frame_bytes = frame_bytes

    def begin(self, question: BytesQuestion) -> trio.Event:
        assert isinstance(question.request, WantBytes)
        self.asked.append((question.request.offset, question.request.count))
        return trio.Event()

    async def wait(self, question: BytesQuestion, _answered: trio.Event) -> None:
        await trio.lowlevel.checkpoint()
        if question.is_done:
            return
        assert isinstance(question.request, WantBytes)
        begin, end = question.request.offset, question.request.offset + question.request.count
        for offset in range(begin, end, self._frame_bytes):
            frame = self._content[offset : min(offset + self._frame_bytes, end)]
            question.hear(FileRaw(frame))
        question.hear(BytesEnd())
        question.finish(None)


def row(content: bytes) -> Entry:
    digest = blake3.blake3(content).digest()
    return entry(3, 1, b"file", Kind.FILE, size=len(content), digest=digest)


def opened(server: AnsweringServer, content: bytes = CONTENT) -> RemoteContent:
    return RemoteContent(Pieces(server), REF, row(content))


async def read(content: RemoteContent, offset: int, size: int) -> bytes:
    return b"".join(await content.read(offset, size))


@pytest.mark.parametrize("frame_bytes", [PIECE_BYTES, 512 << 10, 100_000])
@pytest.mark.parametrize("size", [READ_BYTES, PIECE_BYTES, 777_777])
async def test_who_reads_in_order_has_each_byte_fetched_once(size: int, frame_bytes: int):
    server = AnsweringServer(CONTENT, frame_bytes)
    content = opened(server)
    for offset in range(0, len(CONTENT), size):
        expected = CONTENT[offset : offset + size]
        assert await read(content, offset, len(expected)) == expected
    ranges = sorted(server.asked)
    assert ranges == server.asked
    assert ranges[0][0] == 0
    ends = [offset + count for offset, count in ranges]
    assert ends == [offset for offset, _ in ranges[1:]] + [len(CONTENT)]


async def test_beginning_of_a_large_file_costs_no_large_piece():
    server = AnsweringServer(CONTENT)
    assert await read(opened(server), 0, 4096) == CONTENT[:4096]
    assert server.asked == [(0, HEAD_PIECE_BYTES), (HEAD_PIECE_BYTES, HEAD_PIECE_BYTES)]


async def test_no_more_is_fetched_ahead_than_a_line_holds():
    content = bytes(40 * PIECE_BYTES)
    server = AnsweringServer(content)
    reader = opened(server, content)
    for offset in range(0, 10 * PIECE_BYTES, READ_BYTES):
        await reader.read(offset, READ_BYTES)
        ahead = max(end for begin, count in server.asked for end in [begin + count])
        assert ahead - offset <= (MOST_AHEAD + 1) * PIECE_BYTES


async def test_reads_here_and_there_fetch_what_they_ask_for():
    rng = random.Random(2)
    server = AnsweringServer(CONTENT)
    content = opened(server)
    for number in range(50):
        # Never near where the last one ended.
        offset = (5, 1, 3)[number % 3] * PIECE_BYTES + rng.randrange(500_000)
        server.asked.clear()
        assert await read(content, offset, 3000) == CONTENT[offset : offset + 3000]
        assert server.asked == [(offset, 3000)]


async def test_any_order_of_reads_gives_the_right_bytes():
    rng = random.Random(3)
    content = opened(AnsweringServer(CONTENT, 300_000))
    offset = 0
    for _ in range(300):
        if rng.random() < 0.3:
            offset = rng.randrange(len(CONTENT))
        size = min(rng.choice([1, 4096, READ_BYTES, PIECE_BYTES]), len(CONTENT) - offset)
        assert await read(content, offset, size) == CONTENT[offset : offset + size]
        offset = (offset + size) % len(CONTENT)


async def test_whole_read_of_what_is_not_stored_fails_at_its_end():
    wrong = bytearray(CONTENT)
    wrong[3_000_000] ^= 1
    content = RemoteContent(Pieces(AnsweringServer(bytes(wrong))), REF, row(CONTENT))
    sizes = range(0, len(CONTENT), PIECE_BYTES)
    for offset in sizes[:-1]:
        await content.read(offset, PIECE_BYTES)
    with pytest.raises(CorruptStore):
        await content.read(sizes[-1], len(CONTENT) - sizes[-1])
    assert content.is_doubtful


async def test_many_files_that_are_read_hold_little():
    pieces = Pieces(server := AnsweringServer(CONTENT))
    readers = [RemoteContent(pieces, REF, row(CONTENT)._replace(id=number)) for number in range(30)]
    for offset in range(0, 3 * PIECE_BYTES, READ_BYTES):
        for reader in readers:
            assert await read(reader, offset, 5) == CONTENT[offset : offset + 5]
    assert pieces.held_bytes <= 64 << 20
    for reader in readers:
        reader.close()
    assert pieces.held_bytes == 0
    assert server.asked


async def test_files_of_no_and_of_few_bytes():
    for content in (b"", b"x", os.urandom(HEAD_PIECE_BYTES), os.urandom(PIECE_BYTES + 1)):
        reader = opened(AnsweringServer(content), content)
        assert await read(reader, 0, len(content)) == content
