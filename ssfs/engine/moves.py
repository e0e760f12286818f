"""Moves: is what turned up here something recorded elsewhere?

An inode with the size and mtime that were recorded is the same file; a directory with the same inode is the same
directory. It has *moved* only when nothing of its kind is at the place of the record any more: else that
keeps the id (FORMAT.md, "Entry ids"), and this is a second link or one half of a swap. A record can be claimed once; the
place it left is then treated as if it had not been recorded.
"""

import itertools
import os

from ssfs.engine.kept_sums import KeptSums
from ssfs.engine.plan import Verdict, judge_content, seen
from ssfs.errors import SourceError
from ssfs.model.entry import ROOT_ID, Entry, Kind, kind_of_mode
from ssfs.store.catalog.reader import CatalogReader
from ssfs.store.catalog.writer import CatalogWriter

_MOST_LINKS_LOOKED_AT = 32
"""Of a file with a thousand names: each look at where one has gone is a system call."""


class Source:
    """The open root of what is backed up."""

    def __init__(
        self,
        path: bytes,
        skip: frozenset[tuple[int, int]] = frozenset(),
        *,
        ignore_inode: bool = False,
    ) -> None:
        """Open it.

        Args:
            path: The root directory.
            skip: (device, inode) of directories never to go into: the store itself.
            ignore_inode: Its inode numbers mean nothing from one run to the next.

        Raises:
            SourceError: It is missing, unreadable or no directory.
        """
        self.path = path
        self.skip = skip
        self.ignore_inode = ignore_inode
        try:
            self.fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            os.listdir(self.fd)
        except OSError as error:
            raise self._unreadable(error) from error
        status = self.look()
        self.device = status.st_dev
        self.number = (status.st_dev, status.st_ino)

    def look(self) -> os.stat_result:
        """The root's status now; raises SourceError."""
        try:
            return os.fstat(self.fd)
        except OSError as error:
            raise self._unreadable(error) from error

    def seen(self, entry_id: int, parent: int, name: bytes, status: os.stat_result) -> Entry:
        """The row of what was just seen in it, as `ssfs.engine.plan.seen` makes it."""
        now = seen(entry_id, parent, name, status, self.device)
        # A group is made of an inode number too, and must not meet one of an earlier run.
        return now._replace(link_group=0) if self.ignore_inode else now

    def _unreadable(self, error: OSError) -> SourceError:
        reason = (error.strerror or "unknown error").lower()
        return SourceError(
            f"The source cannot be read: {reason}",
            path=self.path,
            remedy="name a directory that exists and that you may read",
        )

    def close(self) -> None:
        """Close it."""
        os.close(self.fd)


class Catalogs:
    """What a walk compares with, what it makes of it, and what this client remembers of large files, if it does."""

    def __init__(
        self, compared: CatalogReader, working: CatalogWriter, kept_sums: KeptSums | None = None
    ) -> None:
        self.compared = compared
        self.working = working
        self.kept_sums = kept_sums
        self.has_records = compared.number("entries") > 0


class MoveFinder:
    """Looks recorded entries up by what the source's file system says they are."""

    def __init__(self, source: Source, catalogs: Catalogs) -> None:
        self._source = source
        self._compared = catalogs.compared
        self._working = catalogs.working
        # Whether an inode number may say what a file was before.
        self._has_numbers = catalogs.has_records and not source.ignore_inode
        self._claimed: set[int] = set()

    def same_inode(self, now: Entry, *, free_first: bool) -> Entry | None:
        """A recorded file that probably is this one: same device, inode, size and mtime.

        Args:
            now: What was found.
            free_first: Of several, hard links of one file, prefer one that has left its path.
        """
        if not self._has_numbers:
            return None
        found: Entry | None = None
        for row in itertools.islice(self._compared.by_inode(now.ino), _MOST_LINKS_LOOKED_AT):
            is_same_file = row.dev == now.dev and row.kind == now.kind == Kind.FILE
            if is_same_file and judge_content(row, now) is not Verdict.CHANGED:
                if not free_first or self.is_free(row):
                    return row
                found = found or row
        return found

    def twin(self, now: Entry) -> Entry | None:
        """Another name of this file, recorded since its last change: its content is the same."""
        if not now.link_group:
            return None
        for row in itertools.islice(self._working.by_inode(now.ino), _MOST_LINKS_LOOKED_AT):
            is_twin = row.link_group == now.link_group and row.id != now.id and row.kind == now.kind
            if is_twin and (row.ctime_s, row.ctime_ns) == (now.ctime_s, now.ctime_ns):
                return row
        return None

    def moved_here(self, now: Entry) -> Entry | None:
        """The record of a directory, symlink or special file that has moved to this path."""
        if not self._has_numbers:
            return None
        for row in self._compared.by_inode(now.ino):
            is_same = (row.dev, row.kind) == (now.dev, now.kind)
            if is_same and self.is_free(row):
                return row
        return None

    def claim(self, row: Entry) -> None:
        """This record goes on at another path."""
        self._claimed.add(row.id)

    def release(self, row: Entry) -> None:
        """It does not after all."""
        self._claimed.discard(row.id)

    def is_claimed(self, entry_id: int) -> bool:
        """Whether this record has been found at another path."""
        return entry_id in self._claimed

    def is_free(self, row: Entry) -> bool:
        """Whether this record may go on at another path."""
        if row.id == ROOT_ID or self.is_claimed(row.id):
            return False
        # Where the record is by now: a directory above it may have moved already.
        names = self._working.path_names(row.id)
        if names is None:
            return True
        try:
            old = os.stat(b"/".join(names), dir_fd=self._source.fd, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError:
            return False
        return kind_of_mode(old.st_mode) != row.kind
