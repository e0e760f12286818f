"""Files that the kernel reads from the store by itself, without asking the mount: as fast as the store is.

The kernel takes this from root only, on kernels from 6.9 on, and only if the store's file system does not itself lie on another one. All files open under one inode
number must be served by one file of the store, and either all of them so or none. So the first
refusal ends it for all that is opened later.

An open handle counts as use of its version as ever; that no request comes in between changes nothing.
"""

import contextlib
import errno
import fcntl
import logging
import os
import struct

_BACKING_OPEN = 0x4010E501
"""_IOW(229, 1, struct fuse_backing_map)"""
_BACKING_CLOSE = 0x4004E502
"""_IOW(229, 2, uint32_t)"""
_MAP = struct.Struct("=iIQ")
_ID = struct.Struct("=I")
_EXPECTED = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.EINVAL, errno.ELOOP, errno.ENOTTY})

_log = logging.getLogger(__name__)


class Passthrough:
    """What the kernel reads by itself."""

    def __init__(self, fd: int, *, is_possible: bool) -> None:
        """Give it nothing yet.

        Args:
            fd: The kernel's end of the mount.
            is_possible: Whether files are as long as the catalog says.
        """
        self._fd = fd
        self._is_possible = is_possible
        # By inode number: the kernel's number for the file, and how many handles use it.
        self._open: dict[int, tuple[int, int]] = {}

    def open(self, inode: int, fd: int) -> int:
        """The kernel's number for a file of the store; 0 if reads must be answered by the mount.

        Args:
            inode: The number under which it is opened; `close` it as often.
            fd: The file.
        """
        known = self._open.get(inode)
        if known is not None:
            self._open[inode] = (known[0], known[1] + 1)
            return known[0]
        if not self._is_possible:
            return 0
        try:
            number = fcntl.ioctl(self._fd, _BACKING_OPEN, bytearray(_MAP.pack(fd, 0, 0)))
        except OSError as error:
            self._is_possible = False
            if error.errno not in _EXPECTED:
                _log.warning("The kernel does not read files by itself any more: %s", error)
            return 0
        self._open[inode] = (int(number), 1)
        return int(number)

    def close(self, inode: int) -> None:
        """One handle less."""
        number, handles = self._open[inode]
        if handles > 1:
            self._open[inode] = (number, handles - 1)
            return
        del self._open[inode]
        with contextlib.suppress(OSError):
            fcntl.ioctl(self._fd, _BACKING_CLOSE, _ID.pack(number))


def fuse_descriptors() -> set[int]:
    """The descriptors of /dev/fuse that this process has; other threads may open and close others meanwhile."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{name}") == "/dev/fuse":
                found.add(int(name))
    return found
