"""What a delta is computed against: one file, or several that are read as one.

A half-received file followed by the old one works as one basis (DESIGN.md section 6): whatever the
new file shares with either of them is found. Positions run on across the seams; a delta knows nothing of them.
"""

import bisect
import itertools
import os
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Protocol, Self

Reader = Callable[[int, memoryview, int], int]
"""Fills a view from a position of a descriptor, perhaps not all of it; 0 where the file ends."""


class Part(Protocol):
    """A file that is read in a way of its own: one with holes.

    Attributes:
        size_bytes: How much can be read of it.
    """

    size_bytes: int

    def read_at(self, view: memoryview, position: int) -> int:
        """Fill the view from a position, perhaps not all of it; 0 where it ends."""
        ...

    def close(self) -> None:
        """Close it."""
        ...


class Basis:
    """Open files, one after the other.

    Attributes:
        size_bytes: How much that is, by their sizes when this was made: what a file has gained
            since is left out, and where one has shrunk the basis ends.
    """

    def __init__(self, parts: Sequence[int | Part], read: Reader | None = None) -> None:
        """Read these descriptors (with `read`) or parts, at least one; `close` closes them, whoever opened them."""
        self._read = read or _read_descriptor
        self._parts = tuple(parts)
        self._ends = tuple(
            itertools.accumulate(
                os.fstat(part).st_size if isinstance(part, int) else part.size_bytes
                for part in self._parts
            )
        )
        self.size_bytes = self._ends[-1]

    def read_at(self, view: memoryview, position: int) -> int:
        """Fill the view from a position, perhaps not all of it; 0 where the basis ends.

        Raises:
            OSError: It cannot be read.
        """
        if len(self._parts) == 1:
            return self._read_part(self._parts[0], view, position)
        part = bisect.bisect_right(self._ends, position)
        if part == len(self._parts):
            return 0
        start = self._ends[part - 1] if part else 0
        return self._read_part(
            self._parts[part], view[: self._ends[part] - position], position - start
        )

    def _read_part(self, part: int | Part, view: memoryview, position: int) -> int:
        if isinstance(part, int):
            return self._read(part, view, position)
        return part.read_at(view, position)

    def for_signature(self) -> int | Callable[[int], bytes]:
        """What `ssfs.delta.signature.signature` reads: the one descriptor, or the files in turn."""
        if len(self._parts) == 1 and isinstance(self._parts[0], int):
            return self._parts[0]
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
        parts, self._parts = self._parts, ()
        for part in parts:
            if isinstance(part, int):
                os.close(part)
            else:
                part.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _1: type[BaseException] | None, _2: BaseException | None, _3: TracebackType | None
    ) -> None:
        self.close()


def _read_descriptor(fd: int, view: memoryview, position: int) -> int:
    return os.preadv(fd, [view], position)
