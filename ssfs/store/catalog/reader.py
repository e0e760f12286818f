"""Questions to a catalog. Rows come in the byte order of their names; nothing is cached here."""

import re
from collections.abc import Container, Iterable, Iterator
from typing import NamedTuple, TypeGuard

from ssfs.errors import CorruptStore
from ssfs.model.entry import Entry
from ssfs.store.catalog.rows import IDS_AT_ONCE, CatalogRows, lists_of
from ssfs.store.catalog.schema import (
    READ_ERRORS,
    catalog_uri,
)

_LISTING = """
SELECT id, name, kind, mode, uid, gid, mtime_s, mtime_ns, size, link_group, rdev, holes, length(target)
FROM entry WHERE parent = ? AND name > ? ORDER BY name LIMIT ?
"""
_NEXT_DIRECTORY = """
SELECT id FROM (SELECT id, name, kind FROM entry WHERE parent = ? AND name > ? ORDER BY name LIMIT ?)
WHERE kind = 2 ORDER BY name LIMIT 1
"""
_FILES = "SELECT size, digest, id FROM entry WHERE kind = 1"
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
_CONTENTS_CHECKED = """
SELECT
  total(typeof(content) <> 'integer' OR typeof(size) <> 'integer' OR content < 0 OR size < 0 OR id < 1),
  coalesce(max(id), 0), coalesce(max(content), 0)
FROM entry WHERE kind = 1
"""
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


class CatalogReader(CatalogRows):
    """An open catalog that answers questions about many rows at once."""

    def listing(self, parent: int, after: bytes, limit: int) -> list[ListedRow]:
        """As `children`, at most `limit` of them and only what is asked for by the million."""
        with self._reading():
            return self._database.execute(_LISTING, (parent, after, limit)).fetchall()

    def next_directory(self, parent: int, after: bytes, limit: int) -> int:
        """The id of the first directory among the `limit` entries of a directory that come after `after`; 0 if there is none."""
        return self._value(int, _NEXT_DIRECTORY, (parent, after, limit)) or 0

    def files_with(self, contents: Container[tuple[int, bytes]]) -> Iterator[Entry]:
        """The files with one of these contents (size, digest); one pass over all rows."""
        # The columns first, so that a row is made of few.
        with self._reading():
            for size, digest, entry_id in self._database.execute(_FILES):
                if (size, digest) in contents and (entry := self.entry(entry_id)) is not None:
                    yield entry

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
        for some in lists_of(ids):
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
            while rows := cursor.fetchmany(IDS_AT_ONCE):
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


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and value >= 0
