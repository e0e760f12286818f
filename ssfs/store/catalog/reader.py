"""Questions to a catalog. Rows come in the byte order of their names; nothing is cached here."""

import sqlite3
from collections.abc import Container, Iterator
from types import TracebackType
from typing import Self, TypeVar

from ssfs.errors import CorruptStore
from ssfs.model.entry import ROOT_ID, Entry, Kind, Principal
from ssfs.model.xattrs import decode_set
from ssfs.store.catalog.digest import digest_bytes, rows_digest
from ssfs.store.catalog.links import LINK_GROUPS, LinkGroups
from ssfs.store.catalog.schema import READ_ERRORS, SELECT_ENTRY, check_version, connect

_CHILDREN = f"{SELECT_ENTRY} WHERE parent = ? AND name > ? ORDER BY name"
_BY_ID = f"{SELECT_ENTRY} WHERE id = ?"
_BY_PATH = f"{SELECT_ENTRY} WHERE parent = ? AND name = ?"
_BY_INODE = f"{SELECT_ENTRY} WHERE ino = ?"
_BY_CONTENT = f"{SELECT_ENTRY} WHERE size = ? AND digest = ? AND kind = 1 AND size >= 4096 LIMIT 1"
_CONTENTS = "SELECT size, digest, id FROM entry WHERE kind = 1"
_DIGESTED = (
    SELECT_ENTRY,
    "SELECT kind, number, name FROM principal",
    "SELECT digest, pairs FROM xattr_set",
)

_MAX_DEPTH = 1 << 20
"""A path of more names than this goes in a circle."""

T = TypeVar("T", int, bytes)


class CatalogReader:
    """An open catalog that answers questions.

    Use it from one thread at a time. A reader of a committed version never sees it change.
    """

    def __init__(self, database: sqlite3.Connection, path: bytes) -> None:
        self._database = database
        self.path = path

    @classmethod
    def open(cls, path: bytes, *, immutable: bool = True) -> "CatalogReader":
        """Open a catalog that nobody changes (any more).

        Raises:
            CorruptStore: It is missing, damaged or of another format.
        """
        database = connect(path, "ro&immutable=1" if immutable else "ro")
        try:
            check_version(database, path)
        except CorruptStore:
            database.close()
            raise
        return cls(database, path)

    def _rows(self, query: str, values: tuple[object, ...]) -> Iterator[Entry]:
        try:
            yield from map(Entry._make, self._database.execute(query, values))
        except OverflowError:
            return  # asked for a number that no row can hold
        except READ_ERRORS as error:
            raise CorruptStore(f"Catalog cannot be read ({error})", path=self.path) from error

    def _first(self, query: str, values: tuple[object, ...]) -> Entry | None:
        return next(self._rows(query, values), None)

    def _value(self, kind: type[T], query: str, values: tuple[object, ...]) -> T | None:
        """The first column of a query's first row, if there is one."""
        try:
            rows = self._database.execute(query, values).fetchall()
        except OverflowError:
            return None
        except READ_ERRORS as error:
            raise CorruptStore(f"Catalog cannot be read ({error})", path=self.path) from error
        if not rows:
            return None
        value = rows[0][0]
        if not isinstance(value, kind):
            raise CorruptStore(f"Catalog holds no {kind.__name__} there", path=self.path)
        return value

    def root(self) -> Entry | None:
        """The root's row; None in a catalog that is still empty."""
        return self.entry(ROOT_ID)

    def entry(self, entry_id: int) -> Entry | None:
        """The row of an id."""
        return self._first(_BY_ID, (entry_id,))

    def children(self, parent: int, after: bytes = b"") -> Iterator[Entry]:
        """The rows of a directory whose names come after `after`, in byte order of the names."""
        return self._rows(_CHILDREN, (parent, after))

    def child(self, parent: int, name: bytes) -> Entry | None:
        """The row at a name of a directory."""
        return self._first(_BY_PATH, (parent, name))

    def by_inode(self, ino: int) -> Iterator[Entry]:
        """Rows whose source inode had this number (client's catalogs: needs the search indexes)."""
        return self._rows(_BY_INODE, (ino,))

    def by_content(self, size: int, digest: bytes) -> Entry | None:
        """Some file of at least 4 KiB with this content (needs the search indexes)."""
        return self._first(_BY_CONTENT, (size, digest))

    def has_size(self, size: int) -> bool:
        """Whether any file of at least 4 KiB has this size (needs the search indexes)."""
        query = "SELECT 1 FROM entry WHERE size = ? AND kind = 1 AND size >= 4096 LIMIT 1"
        return self._value(int, query, (size,)) is not None

    def entries(self) -> Iterator[Entry]:
        """All rows, by id."""
        return self._rows(f"{SELECT_ENTRY} ORDER BY id", ())

    def path_names(self, entry_id: int) -> list[bytes] | None:
        """The names from the root down to an entry; [] for the root, None if it is not there."""
        names: list[bytes] = []
        while entry_id != ROOT_ID:
            entry = self.entry(entry_id)
            if entry is None:
                return None
            entry_id = entry.parent
            names.append(entry.name)
            if len(names) > _MAX_DEPTH:
                raise CorruptStore("Catalog has a directory inside itself", path=self.path)
        names.reverse()
        return names

    def resolve(self, path: bytes) -> Entry | None:
        """The row at a path below the root (b"" or b"." for the root itself)."""
        entry = self.root()
        for name in path.split(b"/"):
            if entry is None or name in (b"", b"."):
                continue
            entry = self.child(entry.id, name) if entry.kind == Kind.DIRECTORY else None
        return entry

    def files_with(self, contents: Container[tuple[int, bytes]]) -> Iterator[Entry]:
        """The files with one of these contents (size, digest); one pass over all rows."""
        # The columns first, so that a row is made of few.
        for size, digest, entry_id in self._plain_rows(_CONTENTS):
            if (size, digest) in contents and (entry := self.entry(entry_id)) is not None:
                yield entry

    def _plain_rows(self, query: str) -> Iterator[tuple[int, bytes, int]]:
        try:
            yield from self._database.execute(query)
        except READ_ERRORS as error:
            raise CorruptStore(f"Catalog cannot be read ({error})", path=self.path) from error

    def principals(self) -> list[Principal]:
        """What the source called its users and groups."""
        try:
            rows = self._database.execute("SELECT kind, number, name FROM principal").fetchall()
        except READ_ERRORS as error:
            raise CorruptStore(f"Catalog cannot be read ({error})", path=self.path) from error
        return [Principal._make(row) for row in rows]

    def link_groups(self) -> LinkGroups:
        """Which entries are hard links of one file."""
        try:
            return LinkGroups(self._database.execute(LINK_GROUPS))
        except READ_ERRORS as error:
            raise CorruptStore(f"Catalog cannot be read ({error})", path=self.path) from error

    def xattr_sets(self) -> Iterator[tuple[bytes, bytes]]:
        """Every set of extended attributes as it is stored, with its key."""
        try:
            yield from self._database.execute("SELECT digest, pairs FROM xattr_set")
        except READ_ERRORS as error:
            raise CorruptStore(f"Catalog cannot be read ({error})", path=self.path) from error

    def xattr_set(self, key: bytes) -> bytes:
        """A set of extended attributes as it is stored; b"" for the key of none.

        Raises:
            CorruptStore: The catalog does not have it.
        """
        if not key:
            return b""
        encoded = self._value(bytes, "SELECT pairs FROM xattr_set WHERE digest = ?", (key,))
        if encoded is None:
            raise CorruptStore("Catalog has lost extended attributes", path=self.path)
        return encoded

    def xattrs(self, entry: Entry) -> dict[bytes, bytes]:
        """The extended attributes of an entry, by name.

        Raises:
            CorruptStore: They are damaged or lost.
        """
        try:
            return decode_set(self.xattr_set(entry.xattrs))
        except ValueError as error:
            raise CorruptStore(f"Catalog is damaged ({error})", path=self.path) from error

    def content_of(self, entry_id: int) -> int:
        """The store's number of the inode that holds the entry's data; 0 if unknown."""
        return self._value(int, "SELECT content FROM entry WHERE id = ?", (entry_id,)) or 0

    def numbers(self, query: str) -> Iterator[tuple[int, int, int, int]]:
        """The rows of a query for four numbers."""
        try:
            yield from self._database.execute(query)
        except READ_ERRORS as error:
            raise CorruptStore(f"Catalog cannot be read ({error})", path=self.path) from error

    def number(self, key: str) -> int:
        """A counter of the `meta` table; 0 if it was never set."""
        return self._value(int, "SELECT value FROM meta WHERE key = ?", (key,)) or 0

    def logical_digest(self) -> bytes:
        """The logical digest as last recorded: 32 bytes."""
        query = "SELECT value FROM meta WHERE key = ?"
        return self._value(bytes, query, ("logical_digest",)) or bytes(32)

    def fault(self) -> str:
        """What is wrong with it: "" if SQLite finds it whole and its logical digest is that of its rows.

        Reads all of it; for a catalog in which nothing waits to be written.
        """
        try:
            ((found,),) = self._database.execute("PRAGMA integrity_check(1)").fetchall()
            if found != "ok":
                return f"SQLite finds it damaged ({str(found).splitlines()[0]})"
            if self.recomputed_digest() != self.logical_digest():
                return "its rows are not those that were written"
        except READ_ERRORS as error:
            return f"it cannot be read ({error})"
        except CorruptStore as error:
            return error.problem
        return ""

    def recomputed_digest(self) -> bytes:
        """The logical digest that its rows have.

        Raises:
            CorruptStore: They cannot be read.
        """
        total = 0
        for query in _DIGESTED:
            try:
                rows = self._database.execute(query)
                while batch := rows.fetchmany(1000):
                    total += rows_digest(batch)
            except (*READ_ERRORS, TypeError) as error:
                raise CorruptStore(f"Catalog cannot be read ({error})", path=self.path) from error
        return digest_bytes(total)

    def close(self) -> None:
        """Close it."""
        self._database.close()

    def __enter__(self) -> Self:
        """Use as a context manager."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()
