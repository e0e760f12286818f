"""A catalog that is fetched whole, into a file of its own.

It begins empty, or as a copy of another version's, of which only what differs has to come. What the server sends is believed when the
logical digest is the one that was committed, and each row is found below the root. The digest is kept up to date with the changes, so the
rows of a copy that stay are believed as they were when they came. Only then the file is one that
answers (`ssfs.engine.browse.partial`): a killed process leaves one that nobody takes for a catalog.

The link's thread brings the rows (`take`); whoever fetches begins, finishes and closes it in threads of their own, one call at a
time. A question that was given up may still bring rows then: hence the lock.
"""

import contextlib
import itertools
import os
import shutil
import sqlite3
import threading
from collections.abc import Iterable
from typing import NamedTuple

from typing_extensions import override

from ssfs.engine.browse.partial import ALL, PartialCatalog, check_principals
from ssfs.errors import CorruptStore, RemoteProtocolError
from ssfs.fsio.disk import store_errors
from ssfs.model.entry import ROOT_ID, Entry
from ssfs.protocol.browsing import CatalogPart
from ssfs.protocol.messages import CatalogBatch
from ssfs.store.catalog.digest import digest_bytes, row_digest, rows_digest
from ssfs.store.catalog.links import LINK_GROUPS
from ssfs.store.catalog.schema import INSERT_ENTRY
from ssfs.store.catalog.writer import check_values, check_xattrs

_BESIDE_ENTRIES = ("principal", "xattr_set", "linked", "complete")
# A row has one parent, so what is reached from the root is a tree: this comes to an end.
_REACHED = f"""
WITH RECURSIVE reached(id, kind) AS (
  SELECT id, kind FROM entry WHERE id = {ROOT_ID}
  UNION ALL SELECT e.id, e.kind FROM reached JOIN entry e ON e.parent = reached.id WHERE reached.kind = 2)
SELECT (SELECT count(*) FROM reached), (SELECT count(*) FROM entry)
"""  # noqa: S608


class WrongCatalog(CorruptStore):
    """What the server sent is not what was committed."""


class Base(NamedTuple):
    """A whole catalog to start from.

    Attributes:
        path: Its file, in which nothing changes.
        digest: Its logical digest.
    """

    path: bytes
    digest: bytes


class FetchedCatalog(PartialCatalog):
    """A catalog that is being fetched.

    Attributes:
        through: Up to which id all rows have come.
        has_all: Whether all have.
    """

    def __init__(self, database: sqlite3.Connection, path: bytes) -> None:
        super().__init__(database, path)
        self.through = 0
        self.has_all = False
        self._has_base = False
        self._sum = 0
        self._last = 0
        self._lock = threading.Lock()
        self._is_closed = False

    @classmethod
    def begin(cls, path: bytes, base: Base | None) -> "FetchedCatalog":
        """Begin one, over whatever is at the path.

        Raises:
            CorruptStore: The base cannot be read.
            StoreError: There is no room, say.
        """
        _remove(path)
        if base is not None:
            with store_errors(path):
                shutil.copyfile(base.path, path)
        made = cls.open_partial(path)
        try:
            if base is not None:
                made._start_from(base.digest)  # noqa: SLF001
        except BaseException:
            made.close()
            raise
        return made

    def _start_from(self, digest: bytes) -> None:
        self._sum = int.from_bytes(digest, "little") - self._sum_beside_entries()
        self._has_base, self.is_whole = True, False
        with self._changing():
            for table in _BESIDE_ENTRIES:
                self._database.execute(f"DELETE FROM {table}")  # noqa: S608

    # -- what comes ------------------------------------------------------------------------------

    def take(self, batch: CatalogBatch) -> None:
        """Keep rows that have come; those that had come on a connection that was lost then are passed over.

        Raises:
            RemoteProtocolError: A row can be in no catalog.
            StoreError: They cannot be kept.
        """
        with self._lock:
            if self._is_closed:
                return
            entries = [entry for entry in batch.entries if entry.id > self._last]
            self._check(entries, batch)
            with self._changing():
                self._run("INSERT OR IGNORE INTO xattr_set VALUES (?, ?)", batch.xattr_sets)
                self._run("INSERT OR IGNORE INTO principal VALUES (?, ?, ?)", batch.principals)
                if self._has_base:
                    for entry in entries:
                        self._leave_out(self.entry(entry.id))
                        # Its place may be another one's that comes later, or goes.
                        self._leave_out(self.child(entry.parent, entry.name))
                self._run(INSERT_ENTRY, [(*entry, 0) for entry in entries])
            self._sum += rows_digest(list(entries))

    def _check(self, entries: list[Entry], batch: CatalogBatch) -> None:
        for entry in entries:
            check_values(entry)
            if entry.id <= self._last:
                raise RemoteProtocolError("The server sent a catalog in no order")
            self._last = entry.id
        for key, encoded in batch.xattr_sets:
            check_xattrs(key, encoded)
        check_principals(batch)

    def end_part(self, part: CatalogPart) -> None:
        """All rows of a part have come; raises as `take`."""
        with self._lock:
            if self._is_closed:
                return
            if part.gone and not self._has_base:
                raise RemoteProtocolError("The server says what has gone from nothing")
            with self._changing():
                for entry_id in part.gone:
                    self._leave_out(self.entry(entry_id))
            self._last = self.through = part.through
            self.has_all = part.is_last

    def _leave_out(self, entry: Entry | None) -> None:
        if entry is not None:
            self._sum -= row_digest(entry)
            self._database.execute("DELETE FROM entry WHERE id = ?", (entry.id,))

    # -- the end ---------------------------------------------------------------------------------

    def finish(self, digest: bytes) -> None:
        """Make it one that answers, and close it; its file stays.

        Args:
            digest: What its logical digest must be; b"" if that was not recorded.

        Raises:
            WrongCatalog: That is not what has come.
            StoreError: It cannot be written.
        """
        with self._lock:
            if digest and digest_bytes(self._sum + self._sum_beside_entries()) != digest:
                raise WrongCatalog("The server sent another catalog than was committed")
            ((reached, there),) = self._tuples(_REACHED, ())
            if reached != there or not reached:
                raise WrongCatalog("The server sent a catalog that is no tree")
            with self._changing():
                self._database.execute(f"INSERT INTO linked {LINK_GROUPS}")
                self._database.execute("INSERT INTO complete VALUES (?)", (ALL,))
            self._is_closed = True
            super().close()
            _remove(self.path + b"-journal")

    def _sum_beside_entries(self) -> int:
        """The part in the logical digest of what is no entry."""
        return rows_digest(list(self.principals())) + _sum_of(self.xattr_sets())

    @override
    def close(self) -> None:
        """Lose it, unless it was finished."""
        with self._lock:
            if not self._is_closed:
                self._is_closed = True
                super().close()
                _remove(self.path)


def _sum_of(rows: Iterable[tuple[bytes, bytes]]) -> int:
    left, total = iter(rows), 0
    while some := list(itertools.islice(left, 1000)):
        total += rows_digest(list(some))
    return total


def _remove(path: bytes) -> None:
    # The journal first: SQLite would play it back into whatever has the name.
    for name in (path + b"-journal", path):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
