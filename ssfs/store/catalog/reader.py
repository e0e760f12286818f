"""Questions to a catalog. Rows come in the byte order of their names; nothing is cached here."""

import contextlib
import itertools
import operator
import re
import sqlite3
from collections.abc import Container, Iterable, Iterator
from types import TracebackType
from typing import NamedTuple, Self, TypeGuard, TypeVar

from ssfs.errors import CorruptStore
from ssfs.model.entry import ROOT_ID, Entry, Kind, Principal
from ssfs.model.xattrs import decode_set
from ssfs.store.catalog.digest import digest_bytes, rows_digest
from ssfs.store.catalog.links import LINK_GROUPS, LinkGroups
from ssfs.store.catalog.schema import (
    READ_ERRORS,
    SELECT_ENTRY,
    catalog_uri,
    check_version,
    connect,
)

_CHILDREN = f"{SELECT_ENTRY} WHERE parent = ? AND name > ? ORDER BY name LIMIT ?"
_CHILDREN_AT_ONCE = 256
_LISTING = """
SELECT id, name, kind, mode, uid, gid, mtime_s, mtime_ns, size, link_group, rdev, holes, length(target)
FROM entry WHERE parent = ? AND name > ? ORDER BY name LIMIT ?
"""
_NEXT_DIRECTORY = """
SELECT id FROM (SELECT id, name, kind FROM entry WHERE parent = ? AND name > ? ORDER BY name LIMIT ?)
WHERE kind = 2 ORDER BY name LIMIT 1
"""
_BY_ID = f"{SELECT_ENTRY} WHERE id = ?"
_BY_PATH = f"{SELECT_ENTRY} WHERE parent = ? AND name = ?"
_BY_INODE = f"{SELECT_ENTRY} WHERE ino = ?"
_BYTES = ("name", "digest", "target", "xattrs", "holes")
_BY_CONTENT = f"{SELECT_ENTRY} WHERE size = ? AND digest = ? AND kind = 1 AND size >= 4096 LIMIT 1"
_FILES = "SELECT size, digest, id FROM entry WHERE kind = 1"
_BY_INDEX_OF_PATHS = f"{SELECT_ENTRY} INDEXED BY entry_path ORDER BY parent, name"
_DIGESTED = (
    SELECT_ENTRY,
    "SELECT kind, number, name FROM principal",
    "SELECT digest, pairs FROM xattr_set",
)

# The index of paths has all that is asked for: no row is read.
_NAMES = "SELECT id, parent, name FROM main.entry INDEXED BY entry_path WHERE parent > 0 AND "
_HAS_LITERAL = {
    "whole": "name = ?1",
    "start": "substr(name, 1, length(?1)) = ?1",
    "end": "substr(name, -length(?1)) = ?1",
    "anywhere": "instr(name, ?1)",
    "any case": "CAST(name AS TEXT) LIKE ?1 ESCAPE char(92)",
    "": "?1 IS NOT NULL",
}
# A name has no slash. Values are made of all rows together, and none of each but by SQLite.
_NAMED = """
SELECT coalesce(CAST(group_concat(id, '/') AS BLOB), x''), coalesce(CAST(group_concat(name, '/') AS BLOB), x'')
FROM (SELECT id, name FROM entry WHERE parent = ?1 AND name > ?2 AND name <= ?3 ORDER BY name LIMIT ?4)
"""
_NS = 10**9
_BEHIND_NAMES = b"\xff" * 256
_LIKE_SPECIAL = re.compile(r"[\\%_]")
_ESCAPED = r"\\\g<0>"
# UNION, so that a damaged catalog's directory inside itself comes to an end.
_BELOW = """
WITH RECURSIVE below(id, parent, name) AS (
  SELECT id, parent, name FROM entry WHERE parent = ?
  UNION SELECT e.id, e.parent, e.name FROM below JOIN entry e ON e.parent = below.id)
SELECT id, parent, name FROM below
"""
_NOT_IN_OTHER = " AND NOT EXISTS (SELECT 1 FROM other.entry WHERE other.entry.id = main.entry.id)"
# Holes take no room.
_CONTENTS = """
SELECT id, content, CASE holes WHEN x'' THEN size ELSE data_bytes(size, holes) END
FROM entry WHERE kind = 1 AND size > 0
"""
_ROOT_PAGE = "SELECT rootpage FROM sqlite_master WHERE type = 'table' AND name = 'entry'"
# With a name of 255 bytes and the numbers, what is shorter fits into a page of 4 KiB.
_LONG_IDS = "SELECT id FROM entry WHERE length(holes) + length(target) > 3000"
_CONTENTS_AT_ONCE = 5000
_CONTENTS_CHECKED = """
SELECT
  total(typeof(content) <> 'integer' OR typeof(size) <> 'integer' OR content < 0 OR size < 0 OR id < 1),
  coalesce(max(id), 0), coalesce(max(content), 0)
FROM entry WHERE kind = 1
"""
_KINDS = frozenset(Kind)
_TYPES = tuple(bytes if name in _BYTES else int for name in Entry._fields)

MAX_DEPTH = 1 << 20
"""A path of more names than this goes in a circle."""

ListedRow = tuple[int, bytes, int, int, int, int, int, int, int, int, int, bytes, int]
"""What `listing` has of an entry: id, name, kind, mode, uid, gid, mtime_s, mtime_ns, size, link_group, rdev, holes, and
the length of a symlink's target."""


class NameRange(NamedTuple):
    """Some names of a directory, in byte order.

    Attributes:
        after: They come after this.
        last: And not after this; b"" for no bound.
        limit: No more than so many.
    """

    after: bytes
    last: bytes
    limit: int

    def values(self, parent: int) -> tuple[int, bytes, bytes, int]:
        """What a query for them needs."""
        return parent, self.after, self.last or _BEHIND_NAMES, self.limit


class NamedIds(NamedTuple):
    """Entries of a directory: where both are equal, the same entries have the same names.

    Attributes:
        ids: By name, with slashes in between.
        names: In byte order, likewise.
    """

    ids: bytes
    names: bytes

    def by_name(self) -> dict[bytes, int]:
        """The ids.

        Raises:
            ValueError: That is what no catalog holds.
        """
        if not self.names:
            return {}
        return dict(zip(self.names.split(b"/"), map(int, self.ids.split(b"/")), strict=True))


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

    def listing(self, parent: int, after: bytes, limit: int) -> list[ListedRow]:
        """As `children`, at most `limit` of them and only what is asked for by the million."""
        with self._reading():
            return self._database.execute(_LISTING, (parent, after, limit)).fetchall()

    def next_directory(self, parent: int, after: bytes, limit: int) -> int:
        """The id of the first directory among the `limit` entries of a directory that come after `after`; 0 if there is none."""
        return self._value(int, _NEXT_DIRECTORY, (parent, after, limit)) or 0

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

    def files_with(self, contents: Container[tuple[int, bytes]]) -> Iterator[Entry]:
        """The files with one of these contents (size, digest); one pass over all rows."""
        # The columns first, so that a row is made of few.
        with self._reading():
            for size, digest, entry_id in self._database.execute(_FILES):
                if (size, digest) in contents and (entry := self.entry(entry_id)) is not None:
                    yield entry

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        """Say of a catalog that cannot be read which it is; for questions of many rows."""
        try:
            yield
        except READ_ERRORS as error:
            raise CorruptStore(f"Catalog cannot be read ({error})", path=self.path) from error

    def names(
        self, where: str, literal: bytes, *, only_gone: bool = False
    ) -> Iterator[tuple[int, int, bytes]]:
        """Id, parent and name of the entries that may match; those of one directory together.

        Args:
            where: Where their names have the literal: it is the "whole" name, or at its "start" or
                "end", "anywhere"; in "any case" (of ASCII, which it is) anywhere; "": all names.
            literal: Some bytes.
            only_gone: Only those whose id the catalog of `compare_with` does not have.
        """
        value: bytes | str = literal
        if where == "any case":
            value = f"%{_LIKE_SPECIAL.sub(_ESCAPED, literal.decode())}%"
        query = _NAMES + _HAS_LITERAL[where] + (_NOT_IN_OTHER if only_gone else "")
        return self._names(query, (value,))

    def below(self, directory: int) -> Iterator[tuple[int, int, bytes]]:
        """Id, parent and name of all that is below a directory; those of one directory together."""
        return self._names(_BELOW, (directory,))

    def _names(self, query: str, values: tuple[object, ...]) -> Iterator[tuple[int, int, bytes]]:
        for row in self._tuples(query, values):
            entry_id, parent, name = row
            if not (isinstance(entry_id, int) and isinstance(parent, int) and type(name) is bytes):
                raise CorruptStore("Catalog holds a name that is none", path=self.path)
            yield entry_id, parent, name

    def place(self, entry_id: int) -> tuple[int, bytes]:
        """The directory's id and the name of an entry.

        Raises:
            CorruptStore: There is no such entry.
        """
        query = "SELECT parent, name FROM entry WHERE id = ?"
        for parent, name in self._tuples(query, (entry_id,)):
            if isinstance(parent, int) and isinstance(name, bytes):
                return parent, name
        raise CorruptStore(f"Catalog has lost entry {entry_id}", path=self.path)

    def has(self, entry_id: int) -> bool:
        """Whether it has a row with this id."""
        return self._value(int, "SELECT id FROM entry WHERE id = ?", (entry_id,)) is not None

    def entries_of(self, ids: Iterable[int]) -> Iterator[Entry]:
        """The rows with these ids, in any order; those that are there."""
        left = iter(ids)
        while some := ", ".join(map(str, itertools.islice(left, _CONTENTS_AT_ONCE))):
            yield from self._rows(f"{SELECT_ENTRY} WHERE id IN ({some})", ())

    def places_of(self, ids: Iterable[int]) -> Iterator[tuple[int, int, bytes, int]]:
        """Id, directory's id, name and kind of the entries with these ids.

        Raises:
            CorruptStore: One is not sound.
        """
        query = "SELECT id, parent, name, kind FROM entry"
        for row in self._tuples_of(query, "WHERE", ids):
            entry_id, parent, name, kind = row
            if not (
                _is_count(entry_id)
                and _is_count(parent)
                and type(name) is bytes
                and _is_count(kind)
            ):
                raise CorruptStore("Catalog holds a name that is none", path=self.path)
            yield entry_id, parent, name, kind

    def _tuples_of(self, query: str, word: str, ids: Iterable[int]) -> Iterator[tuple[object, ...]]:
        left = iter(ids)
        while some := ", ".join(map(str, itertools.islice(left, _CONTENTS_AT_ONCE))):
            yield from self._tuples(f"{query} {word} id IN ({some})", ())

    def child_id(self, parent: int, name: bytes) -> int:
        """The id of the entry at a name of a directory; 0 if there is none. No row is read."""
        query = "SELECT id FROM entry WHERE parent = ? AND name = ?"
        return self._value(int, query, (parent, name)) or 0

    def named(self, parent: int, names: NameRange) -> NamedIds:
        """The entries of a directory whose names lie in a range. No row is read."""
        for ids, found in self._tuples(_NAMED, names.values(parent)):
            if isinstance(ids, bytes) and isinstance(found, bytes):
                return NamedIds(ids, found)
        raise CorruptStore("Catalog holds a name that is none", path=self.path)

    def looks_of(self, ids: Iterable[int]) -> Iterator[tuple[int, int, int]]:
        """Id, kind and modification time in ns of the entries with these ids.

        Raises:
            CorruptStore: One is not sound.
        """
        query = "SELECT id, kind, mtime_s, mtime_ns FROM entry"
        for entry_id, kind, mtime_s, mtime_ns in self._tuples_of(query, "WHERE", ids):
            if not (
                _is_count(entry_id)
                and _is_count(kind)
                and isinstance(mtime_s, int)
                and isinstance(mtime_ns, int)
            ):
                raise CorruptStore("Catalog holds a row that is none", path=self.path)
            yield entry_id, kind, mtime_s * _NS + mtime_ns

    def those_of(self, ids: Iterable[int]) -> set[int]:
        """Which of these ids it has."""
        query = "SELECT id FROM entry"
        return {found for (found,) in self._tuples_of(query, "WHERE", ids) if _is_count(found)}

    def contents(self) -> Iterator[list[tuple[int, int, int]]]:
        """Id, number of the inode (0 if unknown) and size of all files that are not empty, some at a time.

        Ask `most_numbered` first.
        """
        with self._reading():
            cursor = self._database.execute(_CONTENTS)
            while rows := cursor.fetchmany(_CONTENTS_AT_ONCE):
                yield rows

    def contents_of(self, ids: Iterable[int]) -> Iterator[tuple[int, int, int]]:
        """Those of `contents` with one of these ids.

        Raises:
            CorruptStore: One is not sound.
        """
        for entry_id, content, size in self._tuples_of(_CONTENTS, "AND", ids):
            if not (_is_count(entry_id) and _is_count(content) and _is_count(size)):
                raise CorruptStore("Catalog holds a size that is none", path=self.path)
            yield entry_id, content, size

    def root_page(self) -> int:
        """The number of the page where the table `entry` begins.

        Raises:
            CorruptStore: It is not known.
        """
        page = self._value(int, _ROOT_PAGE, ())
        if not page:
            raise CorruptStore("Catalog has no table of entries", path=self.path)
        return page

    def long_ids(self) -> list[int]:
        """The ids of rows that may not fit into one page; one pass over all rows."""
        with self._reading():
            return [entry_id for (entry_id,) in self._database.execute(_LONG_IDS)]

    def most_numbered(self) -> tuple[int, int]:
        """The largest id and number of an inode in `contents`, which can then be read to its end.

        Raises:
            CorruptStore: It cannot.
        """
        for unsound, most_id, most_content in self._tuples(_CONTENTS_CHECKED, ()):
            if unsound or not (isinstance(most_id, int) and isinstance(most_content, int)):
                break
            return most_id, most_content
        raise CorruptStore("Catalog holds a size that is none", path=self.path)

    def compare_with(self, path: bytes) -> None:
        """Open another catalog that cannot change beside this one, for `names` and `Differences`.

        Raises:
            CorruptStore: It cannot be read.
        """
        try:
            self._database.execute("ATTACH ? AS other", (catalog_uri(path, "ro&immutable=1"),))
        except READ_ERRORS as error:
            raise CorruptStore(f"Catalog cannot be read ({error})", path=path) from error

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


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and value >= 0
