"""What goes wrong in a restore, entry by entry, and what need not be tried any more.

A full target still takes smaller files and metadata, so the run goes on; but content that cannot fit is not asked
for, and nothing for a read-only file system is. When one entry after the other fails for
the same reason, the first are listed and the rest are counted.
"""

import errno
import os

from ssfs.model.problem import EntryProblem
from ssfs.monitor import Monitor

_LISTED_IN_A_ROW = 20
_READ_ONLY_LISTED = 1
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class Failures:
    """The problems of one restore.

    Attributes:
        problems: What could not be restored as it is.
    """

    def __init__(self, monitor: Monitor) -> None:
        self.problems: list[EntryProblem] = []
        self._monitor = monitor
        self._errno = 0
        self._in_a_row = 0
        self._read_only: set[int] = set()
        self._full: set[int] = set()
        self._over_quota: dict[int, int] = {}

    def report(self, path: bytes, text: str) -> None:
        """Something is wrong with one entry."""
        problem = EntryProblem(path, text)
        self.problems.append(problem)
        self._monitor.problem(problem)

    def fail(self, path: bytes, error: OSError, *, fd: int = -1, size: int = 0) -> None:
        """An entry could not be put into the open directory `fd`; `size` is that of its content."""
        number = error.errno or 0
        if number != self._errno:
            self.end_row()
            self._errno = number
        self._in_a_row += 1
        if fd >= 0:
            self._learn(number, os.fstat(fd).st_dev, size)
        if self._in_a_row <= self._listed:
            self.report(path, f"not restored: {_reason(number)}")

    @property
    def _listed(self) -> int:
        return _READ_ONLY_LISTED if self._errno == errno.EROFS else _LISTED_IN_A_ROW

    def _learn(self, number: int, device: int, size: int) -> None:
        if number == errno.EROFS:
            self._read_only.add(device)
        elif number == errno.EDQUOT:
            self._over_quota[device] = min(size, self._over_quota.get(device, size))
        elif number == errno.ENOSPC:
            self._full.add(device)

    def end_row(self) -> None:
        """Something was written, or nothing more comes: say how many were not listed."""
        rest = self._in_a_row - self._listed
        if rest > 0:
            self.report(b"", f"and {rest:,} more not restored: {_reason(self._errno)}")
        self._errno = self._in_a_row = 0

    def foresee(self, fd: int, size: int) -> OSError | None:
        """What putting an entry with so much content into an open directory fails with for certain."""
        if not (self._read_only or self._full or self._over_quota):
            return None
        device = os.fstat(fd).st_dev
        number = 0
        if device in self._read_only:
            number = errno.EROFS
        elif size >= self._over_quota.get(device, size + 1):
            number = errno.EDQUOT
        elif device in self._full and _is_too_much(fd, size):
            number = errno.ENOSPC
        return OSError(number, os.strerror(number)) if number else None


def _is_too_much(fd: int, size: int) -> bool:
    system = os.fstatvfs(fd)
    blocks = system.f_bfree if os.geteuid() == 0 else system.f_bavail
    return size > blocks * system.f_frsize or (system.f_files > 0 and system.f_ffree == 0)


def is_no_room(error: OSError) -> bool:
    """Whether the target, or our share of it, is full."""
    return error.errno in _NO_ROOM


def _reason(number: int) -> str:
    return os.strerror(number).lower() if number else "unknown error"
