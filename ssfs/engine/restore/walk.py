"""The walk of a restore: which entry is next, which directories are open, and when one is done.

Depth first, one row at a time, so memory is flat however wide or deep the version. The walk may be
ahead of what is written: a directory stays open until nothing that was met in it is left to do, then it is finished, and
with it perhaps the one above.
"""

import os
from collections.abc import Callable, Iterable, Iterator

from ssfs.engine.restore.options import Action
from ssfs.model.entry import Entry, Kind

_DIRECTORY = int(Kind.DIRECTORY)


class Level:
    """A directory that is being restored.

    Attributes:
        entry: Its row; None for what is only where wanted entries go.
        fd: Its descriptor, which is its own.
        path: Its path, for messages.
        children: The rows in it that were not met yet.
        above: Its directory, if that is restored, too.
        is_new: Whether there was nothing in it when it was opened. In a dry run it may not exist:
            then the descriptor is that of the one above, and nothing is done through it.
        is_partial: Whether only some of what is in it are restored.
        lacks_metadata: Whether it had other metadata than the row's when it was opened.
        sets_metadata: Whether it gets the row's metadata in the end.
        leftovers: Entry ids and names of files that a killed restore was writing in it.
        waiting: Entries in it that were met and are not done.
        is_read: Whether all entries in it were met.
        gives_xattrs: Whether a new file in it may have extended attributes at once; None while that is not known.
    """

    def __init__(
        self,
        entry: Entry | None,
        fd: int,
        path: bytes,
        children: Iterator[Entry],
        above: "Level | None" = None,
    ) -> None:
        self.entry = entry
        self.fd = fd
        self.path = path
        self.children = children
        self.above = above
        self.is_new = False
        self.is_partial = False
        self.lacks_metadata = True
        self.sets_metadata = True
        self.leftovers: list[tuple[int, bytes]] = []
        self.waiting = 0
        self.is_read = False
        self.gives_xattrs: bool | None = None


class Item:
    """An entry that is no directory, on its way into the target.

    Attributes:
        entry: Its row.
        path: Its path, for messages.
        level: Its directory.
        is_taken: Whether its content was taken, if it has any.
        comes_again: Whether that has to be done once more.
        is_asked: Whether its content was asked for: not that of a second name of a file.
        action: What putting it there is.
    """

    __slots__ = ("action", "comes_again", "entry", "is_asked", "is_taken", "level", "path")

    def __init__(self, entry: Entry, path: bytes, level: Level) -> None:
        self.entry = entry
        self.path = path
        self.level = level
        self.is_taken = False
        self.comes_again = False
        self.is_asked = False
        self.action = Action.CREATE


class Walk:
    """One pass over what is to be restored."""

    def __init__(
        self,
        make: Callable[[Entry, bytes, Level], Level | None],
        finish: Callable[[Level, Entry], None],
    ) -> None:
        """A walk that has not begun.

        Args:
            make: Makes the directory of a row (with this path, in this one) and opens it;
                None if it cannot be had, and nothing below it either.
            finish: Called for each directory when nothing is left to do in it, deepest first.
        """
        self._make = make
        self._finish = finish
        self._stack: list[Level] = []
        self._open: set[Level] = set()

    def items(self, tops: Iterable[Level]) -> Iterator[Item]:
        """Everything below `tops` that is no directory; `done` is to be called for each."""
        for top in tops:
            self._enter(top)
            while self._stack:
                level = self._stack[-1]
                child = next(level.children, None)
                if child is None:
                    level.is_read = True
                    self._stack.pop()
                    self._finish_if_done(level)
                    continue
                path = level.path + b"/" + child.name if level.path else child.name
                if child.kind != _DIRECTORY:
                    level.waiting += 1
                    yield Item(child, path, level)
                elif (below := self._make(child, path, level)) is not None:
                    level.waiting += 1
                    self._enter(below)

    def _enter(self, level: Level) -> None:
        self._open.add(level)
        self._stack.append(level)

    @property
    def waiting_directories(self) -> int:
        """How many directories are open although the walk has left them."""
        return len(self._open) - len(self._stack)

    def done(self, item: Item) -> None:
        """Nothing more happens to an entry."""
        item.level.waiting -= 1
        self._finish_if_done(item.level)

    def _finish_if_done(self, done: Level | None) -> None:
        """Finish a directory in which nothing is left to do, then likewise those above."""
        level = done
        while level is not None and level.is_read and not level.waiting:
            if level.entry is not None:
                self._finish(level, level.entry)
            self._open.discard(level)
            os.close(level.fd)
            level = level.above
            if level is not None:
                level.waiting -= 1

    def close(self) -> None:
        """Close all directories as they are."""
        for level in self._open:
            os.close(level.fd)
        self._open.clear()
