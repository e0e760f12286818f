"""Large files on their way through: read or written once, and not kept in the machine's memory for it.

A backup moves more than fits into memory, and nobody asks for most of it soon. What these calls bring into the page cache leaves
it when the disk has it, or the caller; what was cached before stays (RWF_DONTCACHE, `man 2 pwritev2`). So a NAS goes on knowing
what its users work with, and pages that are used again and again cost less than ever new ones (DECISIONS.md, 45). Kernels and
file systems that do not know the flag read and write as ever.
"""

import errno
import os

_DONTCACHE = 0x80
"""RWF_DONTCACHE; Python 3.11 has no name for it."""
_SINCE = (6, 16)
"""Linux knows the flag from 6.14 on, but could drop a page that had been written to again meanwhile; 6.15 has it turned off."""
_LEAST_BYTES = 256 << 10
"""Each such write goes to the disk at once: less is not worth that."""
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_UNKNOWN = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)


def _knows_dontcache(release: str) -> bool:
    """Whether a kernel of this release can be trusted with the flag."""
    major, _, rest = release.partition(".")
    minor = rest.partition(".")[0].partition("-")[0]
    return major.isdigit() and minor.isdigit() and (int(major), int(minor)) >= _SINCE


_is_known = _knows_dontcache(os.uname().release)


def read_uncached(fd: int, view: memoryview, position: int) -> int:
    """Read once at a position, perhaps less than the view holds; 0 at the file's end.

    Raises:
        OSError: It cannot be read.
    """
    if _is_known and len(view) >= _LEAST_BYTES:
        try:
            return os.preadv(fd, [view], position, _DONTCACHE)
        except OSError as error:
            if error.errno not in _UNKNOWN:
                raise
    return os.preadv(fd, [view], position)


def write_uncached(fd: int, content: bytes | memoryview, position: int) -> None:
    """Write every byte at a position; the descriptor's own stays.

    Pages that are only begun or ended here are written as ever: what comes next would have to fetch them from the disk.

    Raises:
        OSError: They cannot be written.
    """
    left = memoryview(content)
    while left:
        count = _write(fd, left, position)
        position += count
        left = left[count:]


def _write(fd: int, left: memoryview, position: int) -> int:
    """Write once; how much that was."""
    head = -position % _PAGE_BYTES
    if not _is_known or len(left) - head < _LEAST_BYTES:
        return os.pwrite(fd, left, position)
    if head:
        return os.pwrite(fd, left[:head], position)
    pages = left[: len(left) - len(left) % _PAGE_BYTES]
    try:
        return os.pwritev(fd, [pages], position, _DONTCACHE)
    except OSError as error:
        if error.errno not in _UNKNOWN:
            raise
    return os.pwrite(fd, left, position)
