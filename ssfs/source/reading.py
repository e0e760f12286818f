"""Reading a file that somebody may be writing to (DESIGN.md section 4).

O_NOATIME where allowed, O_NOFOLLOW, O_NONBLOCK (a FIFO put in a file's place must not hang us), and the same
status before and after, else it is read again. Content is read once per attempt, into the caller's hands.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator

from ssfs.fsio.sparse import digest_stream, read_at
from ssfs.model.layout import Layout

READ_BYTES = 1 << 20
ATTEMPTS = 3
"""How often a file that changes under the reader is read before it is taken as it is."""

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


class NotAFileError(OSError):
    """What was a regular file a moment ago is something else now."""


@contextlib.contextmanager
def open_file(name: bytes, dir_fd: int) -> Iterator[int]:
    """A descriptor of a regular file; raises as `open_regular`."""
    fd, _ = open_regular(name, dir_fd)
    try:
        yield fd
    finally:
        os.close(fd)


def open_regular(name: bytes, dir_fd: int) -> tuple[int, os.stat_result]:
    """A descriptor of a regular file, which is the caller's to close, and its status.

    Raises:
        NotAFileError: It is something else.
        OSError: It cannot be opened.
    """
    fd = open_quietly(name, dir_fd)
    try:
        status = os.fstat(fd)
    except OSError:
        os.close(fd)
        raise
    if not stat.S_ISREG(status.st_mode):
        os.close(fd)
        raise NotAFileError(errno.EINVAL, "not a regular file any more")
    return fd, status


def open_quietly(name: bytes, dir_fd: int) -> int:
    """A descriptor of whatever has a name, opened so that nobody notices and nothing hangs; the caller closes it."""
    try:
        return os.open(name, _FLAGS | os.O_NOATIME, dir_fd=dir_fd)
    except PermissionError:
        # O_NOATIME is for the file's owner and root only.
        return os.open(name, _FLAGS, dir_fd=dir_fd)


def is_same(before: os.stat_result, after: os.stat_result) -> bool:
    """Whether a file was left alone between two looks at it."""
    return (before.st_size, before.st_mtime_ns, before.st_ctime_ns) == (
        after.st_size,
        after.st_mtime_ns,
        after.st_ctime_ns,
    )


def read_stream(fd: int, layout: Layout) -> bytes:
    """The content of a small file, without its holes.

    One without holes is read to its end, or 1 MiB beyond where that was to be: there are files that
    say they are empty and are not (/proc).
    """
    if not layout.is_sparse:
        return _read_whole(fd, layout.size)
    buffer = bytearray(layout.data_bytes)
    # What a sparse file has lost meanwhile reads as zeros: its extents are told already.
    read_at(fd, layout, memoryview(buffer), 0)
    return bytes(buffer)


def _read_whole(fd: int, size: int) -> bytes:
    content = os.pread(fd, size + 1, 0)
    if len(content) == size or not content:
        return content
    pieces = [content]
    position = len(content)
    while position < size + READ_BYTES and (piece := os.pread(fd, READ_BYTES, position)):
        pieces.append(piece)
        position += len(piece)
    return b"".join(pieces)


def digest_file(
    fd: int, layout: Layout, progress: Callable[[int], None], *, once: bool = False
) -> tuple[bytes, int]:
    """Digest of the content, and length of the stream; `progress` hears of each piece's bytes.

    With `once` nobody is going to read it again soon.
    """
    return digest_stream(fd, layout, lambda piece, _: progress(len(piece)), once=once)
