"""Where in a file its data is: the extents of a sparse file, and the digest of its content.

What a file holds beyond its holes, one extent after the other, is its **stream**: that is what is read, sent and stored.
A file without holes is its stream. Rows keep the extents of a sparse file in `holes` (FORMAT.md), and the
digest of its content covers where they are.
"""

import bisect
import itertools
import struct
from collections.abc import Iterator, Sequence

import blake3
import msgspec

MAX_EXTENTS = 8192
"""Of a file with more of them the smallest holes are taken for data."""

_DIGEST_CONTEXT = "ssfs 2026-11 content of a sparse file"
_EXTENT = struct.Struct("<QQ")
_MAX_SIZE = (1 << 63) - 1

_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(list[int])


class Layout:
    """Where a file of some size has data.

    Attributes:
        size: The file's, holes included.
        holes: The extents as rows keep them; b"" for a file without holes.
        data_bytes: Length of the stream.
    """

    __slots__ = ("_lengths", "_offsets", "_starts", "data_bytes", "holes", "size")

    def __init__(self, size: int, extents: Sequence[tuple[int, int]] | None = None) -> None:
        """A file of `size` bytes.

        Args:
            size: Bytes.
            extents: (offset, length) of its data, rising, not touching each other; None: all of it.
        """
        self.size = size
        self.holes = b""
        self.data_bytes = size
        self._offsets: list[int] = []
        self._lengths: list[int] = []
        self._starts: list[int] = []
        if extents is None or (len(extents) == 1 and extents[0] == (0, size)):
            return
        self._offsets = [offset for offset, _ in extents]
        self._lengths = [length for _, length in extents]
        ends = list(itertools.accumulate(self._lengths))
        self._starts = [0, *ends[:-1]] if ends else []
        self.data_bytes = ends[-1] if ends else 0
        numbers: list[int] = []
        end = 0
        for offset, length in extents:
            numbers += (offset - end, length)
            end = offset + length
        self.holes = _encode(numbers)

    @classmethod
    def of(cls, size: int, holes: bytes) -> "Layout":
        """The layout that a row describes.

        Raises:
            ValueError: It describes none.
        """
        if not holes:
            return cls(size)
        try:
            numbers = _decoder.decode(holes)
        except msgspec.DecodeError as error:
            raise ValueError(str(error)) from error
        extents = []
        end = 0
        for gap, length in zip(numbers[::2], numbers[1::2], strict=True):
            if gap < (1 if end else 0) or length < 1 or end + gap + length > min(size, _MAX_SIZE):
                raise ValueError("extents that overlap, touch or lie outside of the file")
            extents.append((end + gap, length))
            end += gap + length
        layout = cls(size, extents)
        if len(extents) > MAX_EXTENTS or layout.holes != holes:
            raise ValueError("extents of a file without holes, or too many")
        return layout

    @property
    def is_sparse(self) -> bool:
        """Whether there are holes."""
        return bool(self.holes)

    def extents(self) -> list[tuple[int, int]]:
        """(offset, length) of its data."""
        if not self.is_sparse:
            return [(0, self.size)] if self.size else []
        return list(zip(self._offsets, self._lengths, strict=True))

    def pieces(self, position: int, count: int) -> Iterator[tuple[int, int]]:
        """(offset in the file, length) of `count` bytes of the stream from a position on."""
        if not self.is_sparse:
            yield position, count
            return
        index = bisect.bisect_right(self._starts, position) - 1
        while count > 0 and 0 <= index < len(self._starts):
            inside = position - self._starts[index]
            length = min(count, self._lengths[index] - inside)
            yield self._offsets[index] + inside, length
            position += length
            count -= length
            index += 1


class ContentHasher:
    """The digest of a file's content, fed with its stream from the beginning on."""

    def __init__(self, layout: Layout | None = None) -> None:
        """A hasher for a file of this layout; None: without holes."""
        self._heads: list[tuple[int, bytes]] = []
        self._position = 0
        if layout is None or not layout.is_sparse:
            self._hasher = blake3.blake3()
            return
        # A context of its own: no other file can hold bytes that are digested alike.
        self._hasher = blake3.blake3(derive_key_context=_DIGEST_CONTEXT)
        position = 0
        for offset, length in layout.extents():
            self._heads.append((position, _EXTENT.pack(offset, length)))
            position += length
        self._heads.reverse()

    def update(self, content: bytes | memoryview) -> None:
        """The next bytes of the stream."""
        view = memoryview(content)
        while self._heads and self._heads[-1][0] < self._position + len(view):
            start, head = self._heads.pop()
            before = start - self._position
            self._hasher.update(view[:before])
            self._hasher.update(head)
            view = view[before:]
            self._position = start
        self._hasher.update(view)
        self._position += len(view)

    def digest(self) -> bytes:
        """32 bytes."""
        return self._hasher.digest()


def content_digest(layout: Layout | None, content: bytes | memoryview) -> bytes:
    """The digest of a file whose whole stream this is; None: it has no holes."""
    if layout is None or not layout.is_sparse:
        return blake3.blake3(content).digest()
    hasher = ContentHasher(layout)
    hasher.update(content)
    return hasher.digest()


def data_bytes(size: int, holes: bytes) -> int:
    """Length of the stream of a file that a row describes.

    Raises:
        ValueError: It describes none.
    """
    return Layout.of(size, holes).data_bytes if holes else size
