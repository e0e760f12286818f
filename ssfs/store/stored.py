"""The data files of a tree, read to see whether they are what their rows say.

Whoever digests stored content does it here, so that what a digest is taken over is said in one place.
"""

import errno
import os
import stat
from collections.abc import Callable

import blake3

from ssfs.fsio.disk import COPY_BYTES, forget_cached
from ssfs.model.entry import Entry

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def open_stored(name: bytes, dir_fd: int) -> int:
    """A descriptor of a data file; its access time stays as it is. The caller closes it.

    Raises:
        OSError: It cannot be opened.
    """
    try:
        return os.open(name, _FLAGS | os.O_NOATIME, dir_fd=dir_fd)
    except PermissionError:
        return os.open(name, _FLAGS, dir_fd=dir_fd)


def digest_stored(
    fd: int, _entry: Entry, take: Callable[[memoryview], object] | None = None
) -> bytes:
    """The digest of a data file, as a row of it would have it.

    Args:
        fd: The open file; its position does not matter.
        take: Is given the content, piece by piece.

    Raises:
        OSError: It cannot be read, or `take` raises that.
    """
    hasher = blake3.blake3()
    buffer = bytearray(COPY_BYTES)
    view = memoryview(buffer)
    position = 0
    while count := os.preadv(fd, [buffer], position):
        hasher.update(view[:count])
        if take is not None:
            take(view[:count])
        position += count
    return hasher.digest()


def fault_of(fd: int, entry: Entry, take: Callable[[memoryview], object] | None = None) -> str:
    """What is wrong with an open data file: "" if it is what its row says.

    It is read from the disk where the kernel lets us, and leaves nothing behind in its cache.

    Raises:
        OSError: `take` raises it; what the disk says is a fault.
    """
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        return "not a regular file"
    if status.st_size != entry.size:
        return f"{status.st_size:,} bytes long instead of {entry.size:,}"
    forget_cached(fd)
    try:
        digest = digest_stored(fd, entry, take)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EINTR):
            raise
        return f"cannot be read: {(error.strerror or 'unknown error').lower()}"
    finally:
        forget_cached(fd)
    return "" if digest == entry.digest else "its content has changed"
