"""Reading and writing files with holes, by their layout: what lies between extents is never touched."""

import errno
import itertools
import os
from collections.abc import Callable

from ssfs.fsio.uncached import read_uncached, write_uncached
from ssfs.model.layout import MAX_EXTENTS, ContentHasher, Layout

_PIECE_BYTES = 1 << 20


def find_layout(fd: int, status: os.stat_result) -> Layout:
    """Where an open file of this status has data; moves the descriptor's position.

    A file without holes costs one call. The blocks that it takes do not tell: among them are those of its
    extended attributes and extents, and room that was set aside. A file system that cannot tell has no holes.
    """
    size = status.st_size
    try:
        is_dense = size == 0 or os.lseek(fd, 0, os.SEEK_HOLE) >= size
    except OSError as error:
        if error.errno not in (errno.ENXIO, errno.EINVAL):
            raise
        is_dense = error.errno == errno.EINVAL
    return Layout(size) if is_dense else Layout(size, _extents(fd, size))


def _extents(fd: int, size: int) -> list[tuple[int, int]]:
    """(offset, length) of the data of a file that has holes."""
    extents: list[tuple[int, int]] = []
    start = end = 0
    while end < size:
        try:
            end = min(os.lseek(fd, start, os.SEEK_HOLE), size)
            if start < end:
                extents.append((start, end - start))
            if end < size:
                start = os.lseek(fd, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # a hole up to the end, or the file is shorter now
                break
            raise
        if len(extents) >= 4 * MAX_EXTENTS:
            extents = _joined(extents)
    return _joined(extents)


def _joined(extents: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The extents, at most 8,192 of them, the smallest holes between them filled, none touching."""
    gaps = [after[0] - (before[0] + before[1]) for before, after in itertools.pairwise(extents)]
    least = sorted(gaps, reverse=True)[MAX_EXTENTS - 2] if len(gaps) >= MAX_EXTENTS else 0
    joined = extents[:1]
    for gap, (offset, length) in zip(gaps, extents[1:], strict=True):
        if gap > least:
            joined.append((offset, length))
        else:
            start = joined[-1][0]
            joined[-1] = (start, offset + length - start)
    return joined


def read_at(fd: int, layout: Layout, view: memoryview, position: int, *, once: bool = False) -> int:
    """Fill the view with the stream from a position on; less only where the stream, or the file, ends.

    With `once` nobody is going to read it again soon.

    Raises:
        OSError: It cannot be read.
    """
    filled = 0
    for offset, length in layout.pieces(position, min(len(view), layout.data_bytes - position)):
        done = 0
        while done < length:
            piece = view[filled : filled + length - done]
            if once:
                count = read_uncached(fd, piece, offset + done)
            else:
                count = os.preadv(fd, [piece], offset + done)
            if count == 0:
                return filled
            done += count
            filled += count
    return filled


def digest_stream(
    fd: int,
    layout: Layout,
    take: Callable[[memoryview, int], object] | None = None,
    *,
    once: bool = False,
) -> tuple[bytes, int]:
    """The digest of an open file's content, and how much of its stream there was.

    Args:
        fd: The file; its position does not matter.
        layout: Where it has data.
        take: Is given the stream, piece by piece, and where in the stream each belongs.
        once: Nobody is going to read it again soon.

    Raises:
        OSError: It cannot be read, or `take` raises that.
    """
    hasher = ContentHasher(layout)
    view = memoryview(bytearray(min(_PIECE_BYTES, layout.data_bytes)))
    position = 0
    while view and (count := read_at(fd, layout, view, position, once=once)):
        hasher.update(view[:count])
        if take is not None:
            take(view[:count], position)
        position += count
    return hasher.digest(), position


def write_at(fd: int, layout: Layout, content: bytes | memoryview, position: int) -> None:
    """Write a piece of the stream where it belongs."""
    view = memoryview(content)
    for offset, length in layout.pieces(position, len(view)):
        write_uncached(fd, view[:length], offset)
        view = view[length:]


def is_empty_in_holes(fd: int, layout: Layout) -> bool:
    """Whether an open file of the layout's size has nothing but zeros where the layout has holes."""
    end = 0
    for offset, length in [*layout.extents(), (layout.size, 0)]:
        if not _is_empty(fd, end, offset):
            return False
        end = offset + length
    return True


def fills_holes(fd: int, layout: Layout) -> bool:
    """Whether an open file has whole blocks of data where the layout has holes; moves the descriptor's position.

    A file system that cannot tell is taken to have none.
    """
    block = max(os.fstat(fd).st_blksize, 1)
    end = 0
    for offset, length in [*layout.extents(), (layout.size, 0)]:
        start, stop = -(-end // block) * block, offset // block * block
        end = offset + length
        if start >= stop:
            continue
        try:
            if os.lseek(fd, start, os.SEEK_DATA) < stop:
                return True
        except OSError as error:
            if error.errno not in (errno.ENXIO, errno.EINVAL):
                raise
            return False
    return False


def _is_empty(fd: int, start: int, end: int) -> bool:
    while start < end:
        try:
            start = os.lseek(fd, start, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return True
            if error.errno != errno.EINVAL:
                raise
        content = os.pread(fd, min(_PIECE_BYTES, max(end - start, 0)), start)
        if content.count(0) != len(content):
            return False
        start += len(content) or _PIECE_BYTES
    return True


class DataFile:
    """An open file read as its stream; a part of a basis.

    Attributes:
        size_bytes: Length of the stream.
    """

    def __init__(self, fd: int, layout: Layout) -> None:
        """Take over `fd`."""
        self._fd = fd
        self._layout = layout
        self.size_bytes = layout.data_bytes

    def plain_or_self(self) -> "int | DataFile":
        """The descriptor alone where there are no holes: that is read in larger pieces."""
        return self if self._layout.is_sparse else self._fd

    def read_at(self, view: memoryview, position: int) -> int:
        """Fill the view from a position; less only at the end."""
        return read_at(self._fd, self._layout, view, position)

    def close(self) -> None:
        """Close it."""
        os.close(self._fd)
