"""Hard links in a restore: the first name of a file is written, the others are linked to it.

Where the first one is by now is found through the catalog and directory descriptors, and believed only if its inode is
the one that was written: the target may be anybody's.
"""

import array
import contextlib
import enum
import os

from ssfs.errors import CorruptStore
from ssfs.model.entry import Entry
from ssfs.store.catalog.reader import CatalogReader
from ssfs.store.tree import Tree


class Turn(enum.Enum):
    """What is to be done with a name of a file."""

    WRITE = enum.auto()
    """Write it: it is the first, or the only one."""
    WAIT = enum.auto()
    """The first one is on its way."""
    LINK = enum.auto()
    """The first one is there."""


_NOBODY = 0


class Links:
    """The files with several names among what is restored; 40 bytes each."""

    def __init__(self, catalog: CatalogReader, places: Tree) -> None:
        """Nothing is there yet.

        Args:
            catalog: Whose entries these are.
            places: Where their directories are in the target.
        """
        self._catalog = catalog
        self._places = places
        self._groups = catalog.link_groups()
        self._first = array.array("q", bytes(8 * len(self._groups)))
        self._inode = array.array("Q", bytes(8 * len(self._groups)))

    def _place(self, entry: Entry) -> int | None:
        """Where an entry's group is among all of them; None for a file of one name."""
        return self._groups.index(entry.link_group) if entry.link_group else None

    def turn(self, entry: Entry) -> Turn:
        """What is to be done with an entry now; the answer WRITE makes it the first of its group."""
        place = self._place(entry)
        if place is None:
            return Turn.WRITE
        if self._first[place] in (_NOBODY, entry.id):
            self._first[place] = entry.id
            return Turn.WRITE
        return Turn.LINK if self._inode[place] else Turn.WAIT

    def is_there(self, entry: Entry, parent_fd: int) -> None:
        """An entry that was the first of its group has its place."""
        place = self._place(entry)
        if place is not None:
            try:
                status = os.stat(entry.name, dir_fd=parent_fd, follow_symlinks=False)
            except OSError:
                self.failed(entry)
                return
            self._first[place] = entry.id
            self._inode[place] = status.st_ino

    def is_same(self, entry: Entry, status: os.stat_result) -> bool:
        """Whether what is at an entry's place is another name of the first of its group."""
        first = self.first(entry)
        if first is None:
            return False
        try:
            there = os.stat(first[1], dir_fd=first[0], follow_symlinks=False)
        except OSError:
            return False
        return os.path.samestat(there, status)

    def failed(self, entry: Entry) -> None:
        """The first of a group could not be written, or is not where it was: another one is."""
        place = self._place(entry)
        if place is not None:
            self._first[place] = _NOBODY
            self._inode[place] = 0

    def first(self, entry: Entry) -> tuple[int, bytes] | None:
        """Where the first name is: an open directory (good until the next call) and a name in it."""
        place = self._place(entry)
        if place is None or not self._inode[place]:
            return None
        with contextlib.suppress(OSError, CorruptStore):
            row = self._catalog.entry(self._first[place])
            if row is not None:
                fd = self._places.directory(row.parent)
                status = os.stat(row.name, dir_fd=fd, follow_symlinks=False)
                if status.st_ino == self._inode[place]:
                    return fd, row.name
        return None
