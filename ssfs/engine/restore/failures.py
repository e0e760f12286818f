"""What goes wrong in a restore, entry by entry, and what need not be tried any more.

A full target still takes smaller files and metadata, so the run goes on; but content that cannot fit is not asked
for, and nothing for a read-only file system is. When one entry after the other fails for
the same reason, the first are listed and the rest are counted.
"""

import errno
import os

from ssfs.fsio.disk import mount_of
from ssfs.model.problem import EntryProblem
from ssfs.monitor import Monitor

_LISTED_IN_A_ROW = 20
_READ_ONLY_LISTED = 1


class Failures:
    """The problems of one restore, and what they teach about its target.

    Attributes:
        problems: What could not be restored as it is.
    """

    def __init__(self, monitor: Monitor) -> None:
        """None yet."""
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

    def fail(self, path: bytes, error: OSError, text: str = "not restored") -> None:
        """Something failed for an entry, and for those before it perhaps likewise."""
        number = error.errno or 0
        if number != self._errno:
            self.end_row()
            self._errno = number
        self._in_a_row += 1
        if self._in_a_row <= self._listed:
            self.report(path, f"{text}: {_reason(number)}")

    @property
    def _listed(self) -> int:
        return _READ_ONLY_LISTED if self._errno == errno.EROFS else _LISTED_IN_A_ROW

    def fail_in(self, fd: int, path: bytes, size: int, error: OSError) -> None:
        """An entry with so much content could not be put into an open directory."""
        number = error.errno or 0
        device = os.fstat(fd).st_dev
        if number == errno.EROFS:
            self._read_only.add(mount_of(fd))
        elif number == errno.EDQUOT:
            self._over_quota[device] = min(size, self._over_quota.get(device, size))
        elif number == errno.ENOSPC:
            self._full.add(device)
        self.fail(path, error)

    def look_at(self, fd: int) -> None:
        """Learn whether the open target can be written to at all."""
        if os.fstatvfs(fd).f_flag & os.ST_RDONLY:
            self._read_only.add(mount_of(fd))

    def end_row(self) -> None:
        """Something was written, or nothing more comes: say how many were not listed."""
        if not self._in_a_row:
            return
        rest = self._in_a_row - self._listed
        if rest > 0:
            self.report(b"", f"and {rest:,} more likewise: {_reason(self._errno)}")
        self._errno = self._in_a_row = 0

    @property
    def has_foresight(self) -> bool:
        """Whether `foresee` can know of anything."""
        return bool(self._read_only or self._full or self._over_quota)

    def foresee(self, fd: int, size: int) -> OSError | None:
        """What putting an entry with so much content into an open directory fails with for certain."""
        if not self.has_foresight:
            return None
        device = os.fstat(fd).st_dev
        number = 0
        if self._read_only and mount_of(fd) in self._read_only:
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


def _reason(number: int) -> str:
    return os.strerror(number).lower() if number else "unknown error"
