"""Rows in which two catalogs of one task differ, found by SQLite along their ids; equal rows cost next to nothing.

What only the source's file system knew (device, inode, ctime), flags, and a directory's time, which follows
from what is in it, make no difference.
"""

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


class Differences:
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
        self._database = connect(newer.path, _IMMUTABLE)
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

    def _rows(self, query: str) -> Iterator[tuple[object, ...]]:
        try:
            yield from self._database.execute(query)
        except READ_ERRORS as error:
            raise CorruptStore(
                f"One of two catalogs cannot be read ({error})", path=self.newer.path
            ) from error

    def close(self) -> None:
        """Close it."""
        self._database.close()
