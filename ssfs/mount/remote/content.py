"""The content of a server's files: fetched in pieces, ahead of who reads one after the other.

A file is cut into pieces, the first of them small, for who looks at its beginning only. Who reads in order gets more and more pieces fetched ahead of
them, several under way at a time; who reads here and there gets what they asked for and no more. The kernel keeps what it was given, so
pieces go as soon as the reader is past them. All files together hold at most `HELD_BYTES` of what nobody waits for.

A file that is read from its start to its end is digested on the way; if it is not what the catalog says, the
last read fails.
"""

import bisect
import collections
import errno
from collections.abc import Iterator

import blake3
from typing_extensions import override

from ssfs.engine.browse.requests import BytesQuestion, VersionRef
from ssfs.errors import CorruptStore
from ssfs.model.entry import Entry
from ssfs.model.layout import Layout
from ssfs.mount.remote.server import Server
from ssfs.protocol.browsing import MAX_RANGE_BYTES
from ssfs.store.opened import RangeReader

PIECE_BYTES = 1 << 20
"""As much as the kernel asks for at most, and a server sends in one frame."""
HEAD_PIECE_BYTES = 256 << 10
"""Those before the first `PIECE_BYTES` of a file."""
MOST_AHEAD = 12
"""Pieces: what a line of 1 Gbit/s holds at 100 ms."""
HELD_BYTES = 64 << 20

_HEAD_PIECES = PIECE_BYTES // HEAD_PIECE_BYTES
_LEAST_HELD_BYTES = 32 << 10
"""What a piece counts for at least: there is more to it than its bytes."""


class _Piece:
    """A piece that is here or on its way.

    Attributes:
        size: Its bytes.
        readers: How many reads need it: until they have it, it is not dropped.
    """

    def __init__(self, server: Server, question: BytesQuestion, size: int) -> None:
        self._server = server
        self._question = question
        self.size = size
        self.readers = 0
        self._answered = server.begin(question)

    @property
    def is_here(self) -> bool:
        return self._question.is_done and self._question.failure is None

    async def content(self) -> memoryview:
        """Its bytes; raises as `Server.wait`."""
        await self._server.wait(self._question, self._answered)
        content = memoryview(self._question.content)
        if len(content) != self.size:
            # Dropped by one who waited less long. The kernel would take what is missing for zeros.
            raise OSError(errno.EIO, "The server does not answer", self._server.location)
        return content

    def drop(self) -> None:
        """Do without it, unless a read needs it."""
        if not self.readers:
            self._question.is_dropped = True


class Pieces:
    """What is held of all open files.

    Attributes:
        held_bytes: How much that is.
        wrong: Files, by version and entry id, that were not what the catalog says when they were last read whole.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self.wrong: set[tuple[VersionRef, int]] = set()
        # In the order of their last use.
        self._held: collections.OrderedDict[tuple[RemoteContent, int], _Piece] = (
            collections.OrderedDict()
        )
        self.held_bytes = 0

    def find(self, of: "RemoteContent", index: int) -> _Piece | None:
        """The piece, if it is held."""
        piece = self._held.get((of, index))
        if piece is not None:
            self._held.move_to_end((of, index))
        return piece

    def is_full(self) -> bool:
        """Whether nothing more should be fetched ahead."""
        return self.held_bytes + PIECE_BYTES > HELD_BYTES

    def add(self, of: "RemoteContent", index: int, piece: _Piece) -> None:
        """Hold a piece; others may have to go."""
        self._held[of, index] = piece
        self.held_bytes += _weight(piece)
        while self.held_bytes > HELD_BYTES:
            self.drop(*next(iter(self._held)))

    def drop(self, of: "RemoteContent", index: int) -> None:
        """Do without the piece."""
        piece = self._held.pop((of, index), None)
        if piece is not None:
            self.held_bytes -= _weight(piece)
            piece.drop()


class RemoteContent(RangeReader):
    """The content of an open file of a server."""

    def __init__(self, pieces: Pieces, ref: VersionRef, entry: Entry) -> None:
        """Fetch nothing yet."""
        self._pieces = pieces
        self._ref = ref
        self._entry = entry
        self._count = _index_at(entry.size - 1) + 1 if entry.size else 0
        self._last = -1
        self._ahead = 0
        self._mine: set[int] = set()
        self._extents = Layout.of(entry.size, entry.holes).extents() if entry.holes else None
        self._hasher = None if entry.holes else blake3.blake3()
        self._digested = 0
        self._is_wrong = False

    @override
    async def read(self, offset: int, size: int) -> list[memoryview]:
        if not size:
            return []
        first, last = _index_at(offset), _index_at(offset + size - 1)
        if not self._is_in_order(first):
            self._last, self._ahead = last, 0
            return await self._read_directly(offset, size)
        if last > self._last:
            self._ahead = min(2 * self._ahead + 1, MOST_AHEAD)
            self._last = last
        wanted: list[_Piece | None] = []
        try:
            for index in range(first, last + 1):
                piece = self._fetch(index)
                if piece is not None:
                    piece.readers += 1
                wanted.append(piece)
            self._fetch_ahead(last)
            parts = await self._collect(first, wanted, offset, size)
        finally:
            for piece in wanted:
                if piece is not None:
                    piece.readers -= 1
        for index in [index for index in self._mine if index < first - 1]:
            self._drop(index)
        return parts

    def _fetch_ahead(self, last: int) -> None:
        for index in range(last + 1, min(last + 1 + self._ahead, self._count)):
            if self._pieces.is_full():
                break
            self._fetch(index)

    async def _collect(
        self, first: int, wanted: list[_Piece | None], offset: int, size: int
    ) -> list[memoryview]:
        """A range, from the pieces that have it, digested on the way."""
        parts = []
        for index, piece in enumerate(wanted, first):
            try:
                content = await piece.content() if piece else memoryview(self._zeros(index))
            except BaseException:
                # To be fetched anew by the next who asks.
                self._drop(index)
                raise
            await self._digest(index, content)
            start = offset - _start_of(index)
            parts.append(content[max(start, 0) : start + size])
        if self._is_wrong:
            self._pieces.wrong.add((self._ref, self._entry.id))
            raise CorruptStore(
                f"{self._pieces.server.location}: the data of entry {self._entry.id} of version "
                f"{self._ref.version} is not what the catalog says"
            )
        return parts

    @property
    @override
    def is_doubtful(self) -> bool:
        return (self._ref, self._entry.id) in self._pieces.wrong

    def _is_in_order(self, first: int) -> bool:
        return first in self._mine or self._last <= first <= self._last + 1

    def _fetch(self, index: int) -> _Piece | None:
        """The piece, asked for now if it is not here yet; None if it is all hole."""
        piece = self._pieces.find(self, index)
        if piece is None:
            offset, size = _start_of(index), self._size_of(index)
            if not self._has_data(offset, size):
                return None
            piece = self._ask(offset, size)
            self._pieces.add(self, index, piece)
            self._mine.add(index)
        return piece

    def _ask(self, offset: int, size: int) -> _Piece:
        question = BytesQuestion(self._ref, self._entry.id, offset, size)
        return _Piece(self._pieces.server, question, size)

    async def _read_directly(self, offset: int, size: int) -> list[memoryview]:
        parts = []
        for start, count in _ranges(offset, size):
            if self._has_data(start, count):
                parts.append(await self._ask(start, count).content())
            else:
                parts.append(memoryview(bytes(count)))
        return parts

    def _zeros(self, index: int) -> bytes:
        return bytes(self._size_of(index))

    def _size_of(self, index: int) -> int:
        return min(_start_of(index + 1), self._entry.size) - _start_of(index)

    def _has_data(self, offset: int, size: int) -> bool:
        if self._extents is None:
            return True
        index = bisect.bisect_right(self._extents, (offset, self._entry.size))
        before = self._extents[index - 1] if index else (0, 0)
        is_in_before = before[0] + before[1] > offset
        is_in_next = index < len(self._extents) and self._extents[index][0] < offset + size
        return is_in_before or is_in_next

    async def _digest(self, index: int, content: memoryview) -> None:
        """Digest a piece, if it is the next one; and those behind it that came earlier."""
        while self._hasher is not None and index == self._digested:
            self._hasher.update(content)
            self._digested += 1
            index += 1
            if index == self._count:
                self._is_wrong = self._hasher.digest() != self._entry.digest
                if not self._is_wrong:
                    self._pieces.wrong.discard((self._ref, self._entry.id))
                return
            piece = self._pieces.find(self, index) if index <= self._last else None
            if piece is None or not piece.is_here:
                return
            content = await piece.content()

    def _drop(self, index: int) -> None:
        self._mine.discard(index)
        self._pieces.drop(self, index)

    @override
    def close(self) -> None:
        for index in list(self._mine):
            self._drop(index)


def _weight(piece: _Piece) -> int:
    return max(piece.size, _LEAST_HELD_BYTES)


def _index_at(offset: int) -> int:
    """Which piece has the byte at an offset."""
    if offset < PIECE_BYTES:
        return offset // HEAD_PIECE_BYTES
    return _HEAD_PIECES - 1 + offset // PIECE_BYTES


def _start_of(index: int) -> int:
    """Where a piece begins."""
    if index < _HEAD_PIECES:
        return index * HEAD_PIECE_BYTES
    return (index - _HEAD_PIECES + 1) * PIECE_BYTES


def _ranges(offset: int, size: int) -> Iterator[tuple[int, int]]:
    """A range as those that may be asked for."""
    for start in range(offset, offset + size, MAX_RANGE_BYTES):
        yield start, min(MAX_RANGE_BYTES, offset + size - start)
