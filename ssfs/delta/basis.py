"""What a delta is computed against: one file, or several that are read as one.

A half-received file followed by the old one works as one basis (DESIGN.md section 6): whatever the
new file shares with either of them is found. Positions run on across the seams; a delta knows nothing of them.
"""

import bisect
import itertools
import os
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self


class Basis:
    """Open files, one after the other.

    Attributes:
        size_bytes: How much that is, by their sizes when this was made: what a file has gained
            since is left out, and where one has shrunk the basis ends.
    """

    def __init__(self, fds: Sequence[int]) -> None:
        """Read these descriptors, at least one; `close` closes them, whoever opened them."""
        self._fds = tuple(fds)
        self._ends = tuple(itertools.accumulate(os.fstat(fd).st_size for fd in self._fds))
        self.size_bytes = self._ends[-1]

    def read_at(self, view: memoryview, position: int) -> int:
        """Fill the view from a position, perhaps not all of it; 0 where the basis ends.

        Raises:
            OSError: It cannot be read.
        """
        if len(self._fds) == 1:
            return os.preadv(self._fds[0], [view], position)
        part = bisect.bisect_right(self._ends, position)
        if part == len(self._fds):
            return 0
        start = self._ends[part - 1] if part else 0
        return os.preadv(self._fds[part], [view[: self._ends[part] - position]], position - start)

    def for_signature(self) -> int | Callable[[int], bytes]:
        """What `ssfs.delta.signature.signature` reads: the one descriptor, or the files in turn."""
        if len(self._fds) == 1:
            return self._fds[0]
        position = 0

        def read(wanted: int) -> bytes:
            nonlocal position
            buffer = memoryview(bytearray(wanted))
            filled = 0
            while filled < wanted and (got := self.read_at(buffer[filled:], position)):
                filled += got
                position += got
            return bytes(buffer[:filled])

        return read

    def close(self) -> None:
        """Close the descriptors; idempotent."""
        fds, self._fds = self._fds, ()
        for fd in fds:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _1: type[BaseException] | None, _2: BaseException | None, _3: TracebackType | None
    ) -> None:
        self.close()
