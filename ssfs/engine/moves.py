"""Moves: is what turned up here something recorded elsewhere?

An inode with the size and mtime that were recorded is the same file; a directory with the same inode is the same
directory. It has *moved* only when the recorded path no longer holds it (else it is a second link) and
nobody else has claimed the record. The ids that follow from this: FORMAT.md, "Entry ids".
"""

import os

from ssfs.engine.plan import Verdict, judge_content, seen
from ssfs.errors import SourceError
from ssfs.model.entry import Entry, Kind
from ssfs.store.catalog.reader import CatalogReader
from ssfs.store.catalog.schema import PARKED
from ssfs.store.catalog.writer import CatalogWriter


class Source:
    """The open root of what is backed up."""

    def __init__(self, path: bytes, skip: frozenset[tuple[int, int]] = frozenset()) -> None:
        """Open it.

        Args:
            path: The root directory.
            skip: (device, inode) of directories never to go into: the store itself.

        Raises:
            SourceError: It is missing, unreadable or no directory.
        """
        self.path = path
        self.skip = skip
        try:
            self.fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            os.listdir(self.fd)
        except OSError as error:
            reason = (error.strerror or "unknown error").lower()
            raise SourceError(
                f"The source cannot be read: {reason}",
                path=path,
                remedy="name a directory that exists and that you may read",
            ) from error
        self.device = os.fstat(self.fd).st_dev

    def close(self) -> None:
        """Close it."""
        os.close(self.fd)


class Catalogs:
    """What a walk compares with, and what it makes of it."""

    def __init__(self, compared: CatalogReader, working: CatalogWriter) -> None:
        self.compared = compared
        self.working = working
        self.has_records = compared.number("entries") > 0


class MoveFinder:
    """Looks recorded entries up by what the source's file system says they are."""

    def __init__(self, source: Source, catalogs: Catalogs) -> None:
        self._source = source
        self._compared = catalogs.compared
        self._working = catalogs.working
        self._has_records = catalogs.has_records

    def same_inode(self, now: Entry) -> Entry | None:
        """A recorded file that probably is this one: same device, inode, size and mtime."""
        if not self._has_records:
            return None
        for row in self._compared.by_inode(now.ino):
            is_same_file = row.dev == now.dev and row.kind == now.kind == Kind.FILE
            if is_same_file and judge_content(row, now) is not Verdict.CHANGED:
                return row
        return None

    def moved_here(self, now: Entry) -> Entry | None:
        """The record of a directory, symlink or special file that has moved to this path."""
        if not self._has_records:
            return None
        for row in self._compared.by_inode(now.ino):
            is_same = (row.dev, row.kind) == (now.dev, now.kind)
            if is_same and self.is_unclaimed(row) and self.has_left(row, now):
                return row
        return None

    def is_unclaimed(self, row: Entry) -> bool:
        """Whether this record has not been found at another path before."""
        working = self._working.entry(row.id)
        return working is not None and (
            working.parent == PARKED or (working.parent, working.name) == (row.parent, row.name)
        )

    def has_left(self, row: Entry, now: Entry) -> bool:
        """Whether the recorded path no longer holds what is at another path now."""
        names = self._compared.path_names(row.id)
        if names is None:
            return True
        try:
            old = os.stat(b"/".join(names), dir_fd=self._source.fd, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError:
            return False
        there = seen(0, 0, b"", old, self._source.device)
        return (there.dev, there.ino) != (now.dev, now.ino)
