"""Locks between processes: flock on files of the store (DESIGN.md section 3.6).

A lock is gone with the process that held it, however it died. The text of a lock file says who
holds it; it is informative only and may be stale when nobody does.
"""

import contextlib
import fcntl
import os
import stat
from types import TracebackType
from typing import Self

from ssfs.errors import CorruptStore
from ssfs.fsio.disk import write_all


def check_no_directory(path: bytes) -> None:
    """Refuse a directory (or a symlink) where there should be a file that is made again when it is missing.

    Raises:
        CorruptStore: There is one.
    """
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return  # who opens it will say so
    if not stat.S_ISREG(mode):
        raise CorruptStore(
            "There is something else in the place of a file of the store",
            path=path,
            remedy="move it away: the file is made again",
        )


class FileLock:
    """One flock on one file or directory; close it or use it as a context manager."""

    def __init__(self, name: bytes, *, dir_fd: int | None = None, create: bool = True) -> None:
        """Open the lock file without locking it.

        Raises:
            OSError: It cannot be opened.
        """
        # A lock on a read-only store must still be possible: shared flock needs no write access.
        flags = os.O_RDWR | os.O_CREAT if create else os.O_RDONLY
        self.fd = os.open(name, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600, dir_fd=dir_fd)

    def exclusive_nowait(self) -> bool:
        """Take it exclusively if nobody holds it."""
        return self._try(fcntl.LOCK_EX)

    def shared_nowait(self) -> bool:
        """Share it unless somebody holds it exclusively."""
        return self._try(fcntl.LOCK_SH)

    def exclusive(self) -> None:
        """Wait for it and take it exclusively."""
        fcntl.flock(self.fd, fcntl.LOCK_EX)

    def _try(self, kind: int) -> bool:
        try:
            fcntl.flock(self.fd, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def is_linked(self) -> bool:
        """Whether the lock file still has a name (it was not deleted before we got the lock)."""
        return os.fstat(self.fd).st_nlink > 0

    def write_holder(self, text: str) -> None:
        """Say who holds it, if the disk has room for that: what follows may be what makes room."""
        with contextlib.suppress(OSError):
            os.ftruncate(self.fd, 0)
            os.lseek(self.fd, 0, os.SEEK_SET)
            write_all(self.fd, text.encode())

    def read_holder(self) -> str:
        """Who says they hold it."""
        return os.pread(self.fd, 1000, 0).decode(errors="replace").strip()

    def close(self) -> None:
        """Let go."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Self:
        """Use as a context manager."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Let go."""
        self.close()


class DirectoryLock(FileLock):
    """A flock on a directory itself."""

    def __init__(self, name: bytes, *, dir_fd: int | None = None) -> None:
        """Open the directory without locking it."""
        self.fd = os.open(
            name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=dir_fd
        )
