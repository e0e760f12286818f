"""The data files of a tree, read to see whether they are what their rows say: their data by its digest, their holes by what is not there."""

import errno
import os
import stat
from collections.abc import Callable

from ssfs.fsio.disk import forget_cached
from ssfs.fsio.sparse import digest_stream, is_empty_in_holes
from ssfs.model.entry import Entry
from ssfs.model.layout import Layout

_UNCACHED_BYTES = 1 << 20
"""Smaller files stay in the kernel's cache: to drop them costs more than to read them."""
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


def fault_of(fd: int, entry: Entry, take: Callable[[memoryview, int], object] | None = None) -> str:
    """What is wrong with an open data file: "" if it is what its row says.

    A large one is read from the disk where the kernel lets us, and leaves nothing behind in its cache.

    Raises:
        OSError: `take` raises it; what the disk says is a fault.
        ValueError: The row describes no file.
    """
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        return "not a regular file"
    if status.st_size != entry.size:
        return f"{status.st_size:,} bytes long instead of {entry.size:,}"
    layout = Layout.of(entry.size, entry.holes)
    is_large = layout.data_bytes >= _UNCACHED_BYTES
    if is_large:
        forget_cached(fd)
    try:
        if digest_stream(fd, layout, take, once=is_large)[0] != entry.digest:
            return "its content has changed"
        if layout.is_sparse and not is_empty_in_holes(fd, layout):
            return "there is something in its holes"
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EINTR):
            raise
        return f"cannot be read: {(error.strerror or 'unknown error').lower()}"
    finally:
        if is_large:
            forget_cached(fd)
    return ""
