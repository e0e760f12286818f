"""The rows of a catalog: those of an id, a directory, a path; and what is beside them. Nothing is cached here."""

import contextlib
import itertools
import operator
import sqlite3
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Self, TypeVar

from ssfs.errors import CorruptStore
from ssfs.model.entry import ROOT_ID, Entry, Kind, Principal
from ssfs.model.xattrs import decode_set
from ssfs.store.catalog.digest import digest_bytes, rows_digest
from ssfs.store.catalog.links import LINK_GROUPS, LinkGroups
from ssfs.store.catalog.schema import (
    READ_ERRORS,
    SELECT_ENTRY,
    check_version,
    connect,
)

_CHILDREN = f"{SELECT_ENTRY} WHERE parent = ? AND name > ? ORDER BY name LIMIT ?"
_CHILDREN_AT_ONCE = 256
_BY_ID = f"{SELECT_ENTRY} WHERE id = ?"
_BY_PATH = f"{SELECT_ENTRY} WHERE parent = ? AND name = ?"
_BY_INODE = f"{SELECT_ENTRY} WHERE ino = ?"
_BYTES = ("name", "digest", "target", "xattrs", "holes")
_BY_CONTENT = f"{SELECT_ENTRY} WHERE size = ? AND digest = ? AND kind = 1 AND size >= 4096 LIMIT 1"
_BY_INDEX_OF_PATHS = f"{SELECT_ENTRY} INDEXED BY entry_path ORDER BY parent, name"
_DIGESTED = (
    SELECT_ENTRY,
    "SELECT kind, number, name FROM principal",
    "SELECT digest, pairs FROM xattr_set",
)
IDS_AT_ONCE = 5000
"""How many ids one query names at most, and how many rows are fetched of one that has very many."""
_KINDS = frozenset(Kind)
_TYPES = tuple(bytes if name in _BYTES else int for name in Entry._fields)

MAX_DEPTH = 1 << 20
"""A path of more names than this goes in a circle."""

T = TypeVar("T", int, bytes)


class CatalogRows:
    """An open catalog.

    Use it from one thread at a time. A reader of a committed version never sees it change.
    """

    def __init__(self, database: sqlite3.Connection, path: bytes) -> None:
        self._database = database
        self.path = path

    @classmethod
    def open(cls, path: bytes, *, immutable: bool = True) -> Self:
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
        """The rows of a directory whose names come after `after`, in byte order of the names.

        Some at a time: a query that is open at each level of a walk would be compiled anew for each directory.
        """
        while rows := list(self._rows(_CHILDREN, (parent, after, _CHILDREN_AT_ONCE))):
            yield from rows
            if len(rows) < _CHILDREN_AT_ONCE:
                return
            if rows[-1].name <= after:
                raise CorruptStore("Catalog has names out of order", path=self.path)
            after = rows[-1].name

    def siblings_after(self, entry: Entry, limit: int) -> list[Entry]:
        """At most `limit` rows of an entry's directory that come after it, in byte order of the names."""
        return list(self._rows(_CHILDREN, (entry.parent, entry.name, limit)))

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

    def entries_after(self, entry_id: int, limit: int) -> list[Entry]:
        """The next rows by id, at most `limit` of them."""
        return list(
            self._rows(f"{SELECT_ENTRY} WHERE id > ? ORDER BY id LIMIT ?", (entry_id, limit))
        )

    def path_names(self, entry_id: int) -> list[bytes] | None:
        """The names from the root down to an entry; [] for the root, None if it is not there."""
        names: list[bytes] = []
        while entry_id != ROOT_ID:
            entry = self.entry(entry_id)
            if entry is None:
                return None
            entry_id = entry.parent
            names.append(entry.name)
            if len(names) > MAX_DEPTH:
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

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        """Say of a catalog that cannot be read which it is; for questions of many rows."""
        try:
            yield
        except READ_ERRORS as error:
            raise CorruptStore(f"Catalog cannot be read ({error})", path=self.path) from error

    def entries_of(self, ids: Iterable[int]) -> Iterator[Entry]:
        """The rows with these ids, in any order; those that are there."""
        for some in lists_of(ids):
            yield from self._rows(f"{SELECT_ENTRY} WHERE id IN ({some})", ())

    def checked(self, entry: Entry) -> Entry:
        """The row, if each of its columns is of its type, which is not sure in a damaged catalog.

        Raises:
            CorruptStore: One is not.
        """
        if tuple(map(type, entry)) != _TYPES or entry.kind not in _KINDS:
            raise CorruptStore(f"Catalog holds a damaged row, {entry.id!r}", path=self.path)
        return entry

    def _tuples(self, query: str, values: tuple[object, ...]) -> Iterator[tuple[object, ...]]:
        with self._reading():
            yield from self._database.execute(query, values)

    def principals(self) -> list[Principal]:
        """What the source called its users and groups."""
        with self._reading():
            rows = self._database.execute("SELECT kind, number, name FROM principal").fetchall()
        return [Principal._make(row) for row in rows]

    def link_groups(self) -> LinkGroups:
        """Which entries are hard links of one file."""
        with self._reading():
            return LinkGroups(self._database.execute(LINK_GROUPS))

    def xattr_sets(self) -> Iterator[tuple[bytes, bytes]]:
        """Every set of extended attributes as it is stored, with its key."""
        with self._reading():
            yield from self._database.execute("SELECT digest, pairs FROM xattr_set")

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
        with self._reading():
            yield from self._database.execute(query)

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

    def recomputed_digest(self, *, by_path: bool = False) -> bytes:
        """The logical digest that its rows have; with `by_path` those that the index of paths leads to.

        Raises:
            CorruptStore: They cannot be read, or the index is out of order.
        """
        total = 0
        for query in (_BY_INDEX_OF_PATHS, *_DIGESTED[1:]) if by_path else _DIGESTED:
            last: tuple[object, ...] = ()
            try:
                rows = self._database.execute(query)
                while batch := rows.fetchmany(1000):
                    total += rows_digest(batch)
                    if query is _BY_INDEX_OF_PATHS:
                        places = [last, *(row[1:3] for row in batch)]
                        if not all(map(operator.lt, places, places[1:])):
                            raise CorruptStore("Catalog has names out of order", path=self.path)
                        last = places[-1]
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


def lists_of(ids: Iterable[int]) -> Iterator[str]:
    """The ids as SQL writes them in `IN (...)`, as many at a time as one query names."""
    left = iter(ids)
    while some := ", ".join(map(str, itertools.islice(left, IDS_AT_ONCE))):
        yield some
