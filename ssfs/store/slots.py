"""Slots: how many backups run into a sync point at a time, and who is next.

    points/POINT/slots/slot-0 ...       flock: held by one running backup each; its text says who
    points/POINT/slots/queue/TICKET     flock: held by one that waits; served in the order of names

All of it is files and flocks, so several servers and local syncs share the slots of one store, and a
process that dies gives back what it held. A ticket nobody holds is a dead one's and is removed
by whoever meets it. Every look and every change happens under a flock of `slots/` itself, held for a few
system calls and never while waiting.
"""

import contextlib
import os
from types import TracebackType
from typing import Self

from ssfs.fsio.disk import make_directory, store_errors
from ssfs.fsio.lock import DirectoryLock, FileLock
from ssfs.store.store import Point

_TICKET_DIGITS = 20


class SlotRequest:
    """One backup's wish for a slot; close it (or leave the `with`) to give up slot and place.

    Attributes:
        place: Place in the queue at the last look, from 1; 0 once the slot is held.
    """

    def __init__(self, point: Point, holder: str) -> None:
        """Ask for nothing yet: see `is_granted`.

        Args:
            point: Whose slots.
            holder: Who asks, for the text of the slot.

        Raises:
            StoreError: The store cannot be written.
        """
        self.place = 0
        self._most = point.settings.limits.max_concurrent
        self._path = point.path
        self._holder = holder
        self._slot: FileLock | None = None
        self._ticket: FileLock | None = None
        self._ticket_name = b""
        with store_errors(point.path), contextlib.ExitStack() as stack:
            fd = os.open(point.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, fd)
            slots = make_directory(b"slots", dir_fd=fd)
            stack.callback(os.close, slots)
            os.close(make_directory(b"queue", dir_fd=slots))
            self._guard = DirectoryLock(b"slots", dir_fd=fd)

    def is_granted(self) -> bool:
        """Take a slot if one is free and nobody waits longer; else take a place in the queue.

        Ask again later when it says no: often enough that a free slot is not left idle. Another
        call after a yes changes nothing.
        """
        if self._slot is not None:
            return True
        with store_errors(self._path):
            # A description of its own, as flocks are: two sessions of one process exclude each other.
            with DirectoryLock(b".", dir_fd=self._guard.fd) as guard:
                guard.exclusive()
                ahead = self._count_ahead(guard.fd)
                if not ahead and self._take_slot(guard.fd):
                    self._leave_queue(guard.fd)
                    self.place = 0
                    return True
                if self._ticket is None:
                    self._queue_up(guard.fd)
        self.place = ahead + 1
        return False

    def _take_slot(self, slots: int) -> bool:
        for number in range(self._most):
            slot = FileLock(b"slot-%d" % number, dir_fd=slots)
            if slot.exclusive_nowait():
                slot.write_holder(self._holder)
                self._slot = slot
                return True
            slot.close()
        return False

    def _count_ahead(self, slots: int) -> int:
        """How many live tickets are older than ours; dead ones are removed."""
        ahead = 0
        for name in self._tickets(slots):
            if self._ticket is not None and name >= self._ticket_name:
                break
            try:
                ticket = FileLock(b"queue/" + name, dir_fd=slots, create=False)
            except FileNotFoundError:
                continue
            with ticket:
                if ticket.exclusive_nowait():
                    os.unlink(b"queue/" + name, dir_fd=slots)
                else:
                    ahead += 1
        return ahead

    def _queue_up(self, slots: int) -> None:
        last = max(map(int, self._tickets(slots)), default=0)
        self._ticket_name = b"%0*d" % (_TICKET_DIGITS, last + 1)
        self._ticket = FileLock(b"queue/" + self._ticket_name, dir_fd=slots)
        self._ticket.exclusive_nowait()
        self._ticket.write_holder(self._holder)

    @staticmethod
    def _tickets(slots: int) -> list[bytes]:
        names = os.listdir(os.fsencode(f"/proc/self/fd/{slots}/queue"))
        return sorted(name for name in names if name.isdigit() and len(name) == _TICKET_DIGITS)

    def _leave_queue(self, slots: int) -> None:
        if self._ticket is not None:
            with contextlib.suppress(OSError):
                os.unlink(b"queue/" + self._ticket_name, dir_fd=slots)
            self._ticket.close()
            self._ticket = None

    def close(self) -> None:
        """Give back the slot, or the place in the queue."""
        self._leave_queue(self._guard.fd)
        if self._slot is not None:
            self._slot.close()
            self._slot = None
        self._guard.close()

    def __enter__(self) -> Self:
        """Use as a context manager."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give everything back."""
        self.close()
