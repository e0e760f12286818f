"""A catalog of which only some directories are here: those somebody has looked into; or all of it.

It has the tables of a catalog (FORMAT.md), so that whoever asks a catalog can ask it, once what the question is about has been
fetched; and two of its own: which directories are complete, and the groups of hard links as the whole catalog knows them. A row that is
here never changes, because the version does not. Each call of `store` is one transaction: a killed process leaves no half of it.
In one that is whole (`ssfs.engine.browse.whole`) nothing is written any more.
"""

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import Self

from ssfs.errors import CorruptStore, RemoteProtocolError
from ssfs.model.entry import GROUP, MAX_ENTRY_ID, ROOT_ID, USER, Entry, Kind
from ssfs.protocol.browsing import LinkedNames
from ssfs.protocol.messages import CatalogBatch
from ssfs.store.catalog.reader import CatalogReader
from ssfs.store.catalog.schema import CREATE, INSERT_ENTRY, check_version, connect, write_error
from ssfs.store.catalog.writer import check_values, check_xattrs

_OWN_TABLES = """
CREATE TABLE complete (directory INTEGER PRIMARY KEY); -- 0: all
CREATE TABLE linked (
  link_group INTEGER PRIMARY KEY, first_id INTEGER NOT NULL, names INTEGER NOT NULL
);
"""
_INSERT_ROW = f"{INSERT_ENTRY} ON CONFLICT (id) DO NOTHING"
_MOST_REMEMBERED = 10_000
_MOST_ABOVE = 1000
ALL = 0
"""Stands for all directories."""


class PartialCatalog(CatalogReader):
    """A catalog that grows while it is asked; of one thread.

    Attributes:
        is_whole: Whether all of it is here.
    """

    def __init__(self, database: sqlite3.Connection, path: bytes) -> None:
        super().__init__(database, path)
        self._complete: set[int] = set()
        self.is_whole = False

    @classmethod
    def open_partial(cls, path: bytes) -> Self:
        """Open it; make an empty one where there is none.

        Raises:
            CorruptStore: It is damaged, or none.
            StoreError: It cannot be made.
        """
        database = connect(path, "rwc")
        try:
            database.execute("PRAGMA journal_mode = TRUNCATE")
            # A reboot forgets it anyway (`ssfs.engine.browse.shelf`).
            database.execute("PRAGMA synchronous = OFF")
            database.execute("PRAGMA locking_mode = EXCLUSIVE")
            if database.execute("PRAGMA application_id").fetchone() == (0,):
                database.executescript(f"{CREATE} {_OWN_TABLES} COMMIT;")
            check_version(database, path)
        except sqlite3.Error as error:
            database.close()
            raise write_error(error, path) from error
        except CorruptStore:
            database.close()
            raise
        catalog = cls(database, path)
        try:
            catalog.is_whole = catalog.is_complete(ALL)
        except CorruptStore:
            catalog.close()
            raise
        return catalog

    # -- what is here ----------------------------------------------------------------------------

    def is_complete(self, directory: int) -> bool:
        """Whether the rows of all that is in a directory are here."""
        if self.is_whole or directory in self._complete:
            return True
        query = "SELECT 1 FROM complete WHERE directory = ?"
        if not self._value(int, query, (directory,)):
            return False
        if len(self._complete) >= _MOST_REMEMBERED:
            self._complete.clear()
        self._complete.add(directory)
        return True

    def has_all_above(self, entry: Entry) -> bool:
        """Whether the rows of all directories above an entry are here."""
        for _ in range(_MOST_ABOVE):
            if entry.id == ROOT_ID:
                return True
            above = self.entry(entry.parent)
            if above is None:
                return False
            entry = above
        return False

    def linked(self, group: int) -> tuple[int, int] | None:
        """The smallest entry id of a link group, and its number of names; None if that is one."""
        query = "SELECT first_id, names FROM linked WHERE link_group = ?"
        for first_id, names in self._tuples(query, (group,)):
            if isinstance(first_id, int) and isinstance(names, int):
                return first_id, names
        return None

    # -- what comes ------------------------------------------------------------------------------

    def store(self, batch: CatalogBatch, asked: int) -> None:
        """Keep rows.

        Args:
            batch: What came.
            asked: The id of the entry that was asked for.

        Raises:
            RemoteProtocolError: A row can be in no catalog, not in that place, or not beside what is here.
            StoreError: They cannot be kept; none of them is.
        """
        directories: set[int] = set()
        for entry in batch.entries:
            check_values(entry)
            if entry.id != asked:
                self._check_place(entry, directories)
            if entry.kind == Kind.DIRECTORY:
                directories.add(entry.id)
        for key, encoded in batch.xattr_sets:
            check_xattrs(key, encoded)
        check_principals(batch)
        if self.is_whole:
            # They were on their way when the rest came.
            self._check_same(batch.entries)
            return
        with self._changing():
            self._run("INSERT OR IGNORE INTO xattr_set VALUES (?, ?)", batch.xattr_sets)
            self._run("INSERT OR IGNORE INTO principal VALUES (?, ?, ?)", batch.principals)
            known = self.those_of(entry.id for entry in batch.entries)
            self._check_same(entry for entry in batch.entries if entry.id in known)
            new = [entry for entry in batch.entries if entry.id not in known]
            before = self._database.total_changes
            self._run(_INSERT_ROW, [(*entry, 0) for entry in new])
            if self._database.total_changes - before < len(new):
                self._check_same(new)

    def store_links(self, links: Sequence[LinkedNames]) -> None:
        """Keep groups of hard links; raises as `store`."""
        for link in links:
            if link.group < 1 or not 0 < link.first_id < MAX_ENTRY_ID or link.count < 2:
                raise RemoteProtocolError("The server sent hard links that are none")
        rows = [(link.group, link.first_id, link.count) for link in links]
        if self.is_whole:
            return
        with self._changing():
            self._run("INSERT OR IGNORE INTO linked VALUES (?, ?, ?)", rows)

    def mark_complete(self, directories: Sequence[int]) -> None:
        """All rows of what is in these directories have been kept; raises as `store`."""
        for directory in directories:
            entry = self.entry(directory) if 0 < directory < MAX_ENTRY_ID else None
            if entry is None or entry.kind != Kind.DIRECTORY:
                raise RemoteProtocolError(f"The server speaks of a directory {directory}")
        if self.is_whole:
            return
        with self._changing():
            rows = [(directory,) for directory in directories]
            self._run("INSERT OR IGNORE INTO complete VALUES (?)", rows)

    def _check_place(self, entry: Entry, directories: set[int]) -> None:
        """Refuse a row that comes from nowhere: a directory must be reached from the root, each once."""
        if entry.parent in directories:
            return
        parent = self.entry(entry.parent)
        if parent is not None and parent.kind == Kind.DIRECTORY:
            directories.add(entry.parent)
        elif entry.kind == Kind.DIRECTORY or not entry.link_group:
            raise RemoteProtocolError(f"Entry {entry.id} has no parent directory")

    def _check_same(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            if self.entry(entry.id) != entry:
                raise RemoteProtocolError(f"Entry {entry.id} is not what it was")

    def _run(self, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
        if rows:
            self._database.executemany(statement, rows)

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        """One transaction."""
        try:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise
        except (sqlite3.Error, OverflowError) as error:
            raise write_error(error, self.path) from error


def check_principals(batch: CatalogBatch) -> None:
    """Refuse owners that no catalog has."""
    for principal in batch.principals:
        if principal.kind not in (USER, GROUP) or not principal.name:
            raise RemoteProtocolError("The server sent an owner that is none")
