"""Rows in which two catalogs of one task differ, found by SQLite along their ids; equal rows cost next to nothing.

What only the source's file system knew (device, inode, ctime), flags, and a directory's time, which follows
from what is in it, make no difference.
"""

import sqlite3
from collections.abc import Iterator

from ssfs.errors import CorruptStore
from ssfs.model.entry import Entry, Kind
from ssfs.store.catalog.reader import CatalogReader
from ssfs.store.catalog.schema import READ_ERRORS, catalog_uri, check_version, connect

_IMMUTABLE = "ro&immutable=1"
_ALWAYS = ("parent", "name", "kind", "mode", "uid", "gid", "size", "digest", "target", "rdev")
_UNLESS_DIRECTORY = ("mtime_s", "mtime_ns")
NOT_OF_A_LIVE_TREE = ("link_group", "xattrs", "holes")
"""What is compared between versions, and not yet between a version and a directory."""


def _columns(table: str) -> str:
    return ", ".join(f"{table}.{name}" for name in Entry._fields)


def _differ(names: tuple[str, ...]) -> str:
    return " OR ".join(f"n.{name} <> o.{name}" for name in names)


_BOTH = f"""
SELECT {_columns("o")}, {_columns("n")} FROM main.entry n JOIN older.entry o ON o.id = n.id
WHERE {_differ(_ALWAYS)} OR n.kind <> {Kind.DIRECTORY:d} AND ({_differ(_UNLESS_DIRECTORY)})
"""  # noqa: S608
_ONLY = """
SELECT {columns} FROM {one}.entry x
WHERE NOT EXISTS (SELECT 1 FROM {other}.entry y WHERE y.id = x.id) ORDER BY x.id
"""
_REMOVED = _ONLY.format(columns=_columns("x"), one="older", other="main")
_ADDED = _ONLY.format(columns=_columns("x"), one="main", other="older")


_SAME_ROW = " AND ".join(f"o.{name} = n.{name}" for name in Entry._fields)
_CHANGED_OR_ADDED = f"""
SELECT {_columns("n")} FROM main.entry n WHERE n.id > ?
AND NOT EXISTS (SELECT 1 FROM older.entry o WHERE {_SAME_ROW}) ORDER BY n.id LIMIT ?
"""  # noqa: S608
_GONE = """
SELECT o.id FROM older.entry o WHERE o.id > ? AND o.id <= ?
AND NOT EXISTS (SELECT 1 FROM main.entry n WHERE n.id = o.id) ORDER BY o.id LIMIT ?
"""


class _SideBySide:
    """Two catalogs that are asked together."""

    def __init__(self, database: sqlite3.Connection, shown_path: bytes) -> None:
        """Take over the connection; `shown_path` is what to call it in messages."""
        self._database = database
        self._shown_path = shown_path

    def _rows(self, query: str, values: tuple[int | str, ...] = ()) -> Iterator[tuple[object, ...]]:
        try:
            yield from self._database.execute(query, values)
        except READ_ERRORS as error:
            raise CorruptStore(
                f"One of two catalogs cannot be read ({error})", path=self._shown_path
            ) from error

    def close(self) -> None:
        """Close it."""
        self._database.close()


class Patch(_SideBySide):
    """What makes one catalog of another, by id and some at a time; here every column of a row counts.

    Neither may change while this is open.
    """

    def __init__(self, base_path: bytes, path: bytes, shown_path: bytes) -> None:
        """Open them.

        Args:
            base_path: The catalog that there is.
            path: The one to be made.
            shown_path: What to call it in messages.

        Raises:
            CorruptStore: One cannot be read.
        """
        super().__init__(connect(path, _IMMUTABLE), shown_path)
        try:
            list(self._rows("ATTACH ? AS older", (catalog_uri(base_path, _IMMUTABLE),)))
        except CorruptStore:
            self.close()
            raise

    def rows(self, after: int, limit: int) -> list[Entry]:
        """The next rows, after an id, that the base does not have so."""
        return [Entry._make(row) for row in self._rows(_CHANGED_OR_ADDED, (after, limit))]

    def gone(self, after: int, through: int, limit: int) -> list[int]:
        """The next ids, after one and up to another, that only the base has."""
        return [
            found
            for (found,) in self._rows(_GONE, (after, through, limit))
            if isinstance(found, int)
        ]


class Differences(_SideBySide):
    """Two catalogs side by side; neither may change while this is open.

    Attributes:
        older: A reader of the one.
        newer: A reader of the other.
    """

    def __init__(
        self, older: CatalogReader, newer: CatalogReader, *, is_live: bool = False
    ) -> None:
        """Open them; the readers stay the caller's.

        Args:
            older: The one.
            newer: The other.
            is_live: `NOT_OF_A_LIVE_TREE` makes no difference.

        Raises:
            CorruptStore: One cannot be read.
        """
        self.older = older
        self.newer = newer
        more = "" if is_live else f" OR {_differ(NOT_OF_A_LIVE_TREE)}"
        self._both = f"{_BOTH}{more} ORDER BY n.id"
        super().__init__(connect(newer.path, _IMMUTABLE), newer.path)
        try:
            check_version(self._database, newer.path)
            self._database.execute("ATTACH ? AS older", (catalog_uri(older.path, _IMMUTABLE),))
        except READ_ERRORS as error:
            self.close()
            raise CorruptStore(f"Catalog cannot be read ({error})", path=older.path) from error

    def changed(self) -> Iterator[tuple[Entry, Entry]]:
        """The rows, older and newer, of the ids that both have, where they differ; by id."""
        width = len(Entry._fields)
        for row in self._rows(self._both):
            older, newer = Entry._make(row[:width]), Entry._make(row[width:])
            yield self.older.checked(older), self.newer.checked(newer)

    def removed(self) -> Iterator[Entry]:
        """The rows of ids that only the older one has; by id."""
        for row in self._rows(_REMOVED):
            yield self.older.checked(Entry._make(row))

    def added(self) -> Iterator[Entry]:
        """The rows of ids that only the newer one has; by id."""
        for row in self._rows(_ADDED):
            yield self.newer.checked(Entry._make(row))
