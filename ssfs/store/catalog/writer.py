"""Changes to the catalog of a version being made.

Client and server run this same code over the same changes, so both end with the same rows and the
same logical digest; what happens to the tree beside it is `ssfs.store.staging`'s. All changes since the last
`checkpoint` are one SQLite transaction: a crash undoes them together.
"""

import itertools
import sqlite3
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from typing_extensions import override

from ssfs.errors import CorruptStore, RemoteProtocolError
from ssfs.model.entry import (
    GROUP,
    MAX_ENTRY_ID,
    MAX_OWNER,
    ROOT_ID,
    USER,
    Entry,
    Kind,
    Principal,
    is_valid_name,
)
from ssfs.model.layout import Layout
from ssfs.model.xattrs import MAX_SET_BYTES, decode_set, set_key
from ssfs.store.catalog.digest import digest_bytes, row_digest
from ssfs.store.catalog.reader import CatalogReader
from ssfs.store.catalog.schema import (
    COUNTER_OF_KIND,
    CREATE,
    INSERT_ENTRY,
    PARKED,
    SEARCH_INDEXES,
    UPDATE_ENTRY,
    check_version,
    connect,
    write_error,
)

_PENDING_ROWS = 1000
_MOST_FRESH = 100_000
_MOST_KNOWN_SETS = 10_000
_MOST_USED_UP = 1_000_000
"""No honest client makes and removes so many entries in one session."""
_KINDS = frozenset(Kind)
_MAX_MODE = 0o7777
_NS = 10**9


class Placement(NamedTuple):
    """What `CatalogWriter.put` found.

    Attributes:
        old: The row this id had before; None for a new entry.
        parked: Another entry that was in the way and is parked now (its row as it was).
    """

    old: Entry | None
    parked: Entry | None


class CatalogWriter(CatalogReader):
    """A catalog being written; it can be asked everything a reader can."""

    def __init__(self, database: sqlite3.Connection, path: bytes) -> None:
        super().__init__(database, path)
        self._is_closed = False
        self._sum = int.from_bytes(super().logical_digest(), "little")
        self._counters = {
            key: self.number(key)
            for key in (
                "next_id",
                "next_content",
                "entries",
                "files",
                "directories",
                "symlinks",
                "bytes",
            )
        }
        self._counters["next_id"] = max(self._counters["next_id"], ROOT_ID)
        self.first_new_id = self._counters["next_id"]
        self._next_taken = self.first_new_id
        # Directories made since the catalog was opened: nothing can be in the way inside them.
        self._fresh_directories: set[int] = set()
        # Sets of extended attributes that are known to be there; whether a row let go of one.
        self._known_sets: set[bytes] = set()
        self._has_dropped_xattrs = False
        # Ids made and removed since then: never used again.
        self._used_up: set[int] = set()
        self._known_directory: int | None = None
        self._pending: list[tuple[object, ...]] = []
        self._database.execute("BEGIN")

    @classmethod
    def open_writer(cls, path: bytes, *, durable: bool) -> "CatalogWriter":
        """Open a catalog for writing, making an empty one where there is none.

        Args:
            path: The SQLite file.
            durable: Whether a checkpoint must survive a power cut (a store) or may be lost with
                the machine's memory (a client's cache, which has other means; `ssfs.source.cache`).
        """
        database = connect(path, "rwc")
        try:
            # TRUNCATE and not DELETE: the latter lost acknowledged transactions (DESIGN.md 3.7).
            database.execute("PRAGMA journal_mode = TRUNCATE")
            database.execute(f"PRAGMA synchronous = {'FULL' if durable else 'OFF'}")
            database.execute("PRAGMA cache_size = -16000")
            if database.execute("PRAGMA application_id").fetchone() == (0,):
                database.executescript(f"{CREATE} COMMIT;")
            check_version(database, path)
            return cls(database, path)
        except sqlite3.Error as error:
            database.close()
            raise write_error(error, path) from error
        except CorruptStore:
            database.close()
            raise

    # -- changes ---------------------------------------------------------------------------------

    def put(self, entry: Entry, content: int = 0) -> Placement:
        """Insert or replace the row of an id; whatever else is at its path is parked.

        Args:
            entry: The row.
            content: The store's number of the inode that holds its data; 0 leaves it as it was.

        Raises:
            RemoteProtocolError: The row breaks a rule of PROTOCOL.md (id, parent, name, kind). One
                put where another entry of a directory made just now is may be found out later.
        """
        self._check(entry)
        old = None if entry.id >= self._counters["next_id"] else self.entry(entry.id)
        if old is not None:
            self._check_change(old, entry)
        if old is None and entry.parent in self._fresh_directories:
            self._insert(entry, content)
            return Placement(None, None)
        occupant = self.child(entry.parent, entry.name)
        parked = None
        if occupant is not None and occupant.id != entry.id:
            self._replace(occupant, occupant._replace(parent=PARKED, name=b"%d" % occupant.id))
            parked = occupant
        if old is None:
            self._insert(entry, content)
            return Placement(None, parked)
        self._replace(old, entry)
        if content:
            self.run("UPDATE entry SET content = ? WHERE id = ?", [(content, entry.id)])
        return Placement(old, parked)

    def remove(self, entry_id: int) -> int:
        """Remove an entry and all that is below it; how many entries that were."""
        entry = self.entry(entry_id)
        if entry is None or entry_id == ROOT_ID:
            raise RemoteProtocolError(f"Entry {entry_id} cannot be removed")
        removed = 0
        pending = [entry]
        while pending:
            directory = pending.pop()
            after = b""
            # A thousand rows at a time: a directory may hold a million.
            while below := list(itertools.islice(self.children(directory.id, after), 1000)):
                after = below[-1].name
                files = [row for row in below if row.kind != Kind.DIRECTORY]
                pending += [row for row in below if row.kind == Kind.DIRECTORY]
                self._delete(files)
                removed += len(files)
            self._delete([directory])
            removed += 1
        return removed

    def name(self, principal: Principal) -> None:
        """Record what the source calls a number; an empty name withdraws it."""
        if principal.kind not in (USER, GROUP):
            raise RemoteProtocolError(f"There is no principal of kind {principal.kind}")
        key = (principal.kind, principal.number)
        query = "SELECT kind, number, name FROM principal WHERE kind = ? AND number = ?"
        try:
            old = self._database.execute(query, key).fetchone()
            if old is not None:
                self._sum -= row_digest(old)
                self._database.execute("DELETE FROM principal WHERE kind = ? AND number = ?", key)
            if principal.name:
                self._sum += row_digest(principal)
                self._database.execute("INSERT INTO principal VALUES (?, ?, ?)", principal)
        except (sqlite3.Error, OverflowError) as error:
            raise write_error(error, self.path) from error

    def put_xattrs(self, key: bytes, encoded: bytes) -> None:
        """Record a set of extended attributes; an empty one withdraws what had the key.

        Raises:
            RemoteProtocolError: It is no set, or the key is not its.
        """
        if encoded:
            check_xattrs(key, encoded)
        query = "SELECT digest, pairs FROM xattr_set WHERE digest = ?"
        try:
            old = self._database.execute(query, (key,)).fetchone()
            if old is not None:
                self._sum -= row_digest(old)
                self._database.execute("DELETE FROM xattr_set WHERE digest = ?", (key,))
            if encoded:
                self._sum += row_digest((key, encoded))
                self._database.execute("INSERT INTO xattr_set VALUES (?, ?)", (key, encoded))
        except sqlite3.Error as error:
            raise write_error(error, self.path) from error
        self._known_sets.discard(key)

    def unused_xattr_sets(self) -> list[bytes]:
        """The keys of sets that no row names any more since this catalog was opened."""
        if not self._has_dropped_xattrs:
            return []
        self._flush()
        query = (
            "SELECT digest FROM xattr_set WHERE digest NOT IN "
            "(SELECT xattrs FROM entry WHERE xattrs <> x'')"
        )
        return [key for (key,) in self._database.execute(query).fetchall()]

    def load(
        self,
        entries: list[Entry],
        principals: list[Principal],
        xattr_sets: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        """Insert rows of a fetched catalog as they are, in any order.

        Raises:
            RemoteProtocolError: A row is none that a catalog can have.
        """
        for key, encoded in xattr_sets:
            self.put_xattrs(key, encoded)
        for entry in entries:
            check_values(entry)
            self._insert(entry)
        for principal in principals:
            self.name(principal)

    def set_next_id(self, next_id: int) -> None:
        """Never assign an id below this one (a fetched catalog does not show deleted ids)."""
        self._counters["next_id"] = max(self._counters["next_id"], next_id)
        self.first_new_id = self._counters["next_id"]

    @override
    def content_of(self, entry_id: int) -> int:
        self._flush()
        return super().content_of(entry_id)

    def _check(self, entry: Entry) -> None:
        check_values(entry)
        if entry.xattrs and entry.xattrs not in self._known_sets:
            self._check_has_xattrs(entry)
        if entry.id == ROOT_ID:
            return
        if entry.parent not in self._fresh_directories and entry.parent != self._known_directory:
            parent = self.entry(entry.parent)
            if parent is None or parent.kind != Kind.DIRECTORY:
                raise RemoteProtocolError(f"Entry {entry.id} has no parent directory")
            self._known_directory = entry.parent

    def has_xattr_set(self, key: bytes) -> bool:
        """Whether rows may name this set of extended attributes."""
        return bool(self.query("SELECT 1 FROM xattr_set WHERE digest = ?", (key,)))

    def _check_has_xattrs(self, entry: Entry) -> None:
        if not self.has_xattr_set(entry.xattrs):
            raise RemoteProtocolError(f"Entry {entry.id} has unknown extended attributes")
        if len(self._known_sets) >= _MOST_KNOWN_SETS:
            self._known_sets.clear()
        self._known_sets.add(entry.xattrs)

    def _check_change(self, old: Entry, new: Entry) -> None:
        """Refuse another kind under an id, and a directory put below itself."""
        if old.kind != new.kind:
            raise RemoteProtocolError(f"Entry {new.id} changed its kind")
        if new.kind != Kind.DIRECTORY or new.parent == old.parent:
            return
        above: Entry | None = new
        while above is not None and above.id != ROOT_ID:
            if above.parent == new.id:
                raise RemoteProtocolError(f"Entry {new.id} was put below itself")
            above = self.entry(above.parent)

    def _insert(self, entry: Entry, content: int = 0) -> None:
        if entry.id < self.first_new_id or entry.id in self._used_up:
            raise RemoteProtocolError(f"Entry id {entry.id} was used before")
        self._sum += row_digest(entry)
        self._count(entry, 1)
        self._counters["next_id"] = max(self._counters["next_id"], entry.id + 1)
        if entry.kind == Kind.DIRECTORY:
            if len(self._fresh_directories) >= _MOST_FRESH:
                # They only save a look; the walk is done with most of them.
                self._fresh_directories.clear()
            self._fresh_directories.add(entry.id)
        self._pending.append((*entry, content))
        if len(self._pending) >= _PENDING_ROWS:
            self._flush()

    def _replace(self, old: Entry, new: Entry) -> None:
        self._sum += row_digest(new) - row_digest(old)
        self._count(old, -1)
        self._count(new, 1)
        self._has_dropped_xattrs |= bool(old.xattrs) and old.xattrs != new.xattrs
        self._flush()
        try:
            self._database.execute(UPDATE_ENTRY, (*new, old.id))
        except (sqlite3.Error, OverflowError) as error:
            raise write_error(error, self.path) from error

    def _delete(self, rows: list[Entry]) -> None:
        self._flush()
        for row in rows:
            self._sum -= row_digest(row)
            self._count(row, -1)
            self._has_dropped_xattrs |= bool(row.xattrs)
            self._fresh_directories.discard(row.id)
            if self._known_directory == row.id:
                self._known_directory = None
            if row.id >= self.first_new_id:
                self._used_up.add(row.id)
        if len(self._used_up) > _MOST_USED_UP:
            raise RemoteProtocolError("The client makes and removes entries without end")
        self.run("DELETE FROM entry WHERE id = ?", [(row.id,) for row in rows])

    def _count(self, entry: Entry, by: int) -> None:
        self._counters["entries"] += by
        self._counters["bytes"] += by * entry.size
        counter = COUNTER_OF_KIND.get(entry.kind)
        if counter:
            self._counters[counter] += by

    # -- what is written must be seen by what is asked -------------------------------------------

    def _flush(self) -> None:
        if self._pending:
            self.run(INSERT_ENTRY, self._pending)
            self._pending.clear()

    @override
    def _rows(self, query: str, values: tuple[object, ...]) -> Iterator[Entry]:
        self._flush()
        return super()._rows(query, values)

    def counter(self, key: str) -> int:
        """A counter as it stands, uncommitted changes included."""
        return self._counters[key]

    def take_id(self) -> int:
        """The next new entry id."""
        self._next_taken = max(self._next_taken, self._counters["next_id"]) + 1
        return self._next_taken - 1

    def take_content(self) -> int:
        """The next number for an inode of the store."""
        self._counters["next_content"] += 1
        return self._counters["next_content"]

    @override
    def logical_digest(self) -> bytes:
        """The logical digest as it stands: 32 bytes."""
        return digest_bytes(self._sum)

    def has_parked(self) -> bool:
        """Whether any entry still waits for its new place."""
        return next(self.children(PARKED), None) is not None

    # -- transactions ----------------------------------------------------------------------------

    def run(self, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
        """Execute a statement for each row, inside the open transaction."""
        try:
            self._database.executemany(statement, rows)
        except (sqlite3.Error, OverflowError) as error:
            raise write_error(error, self.path) from error

    def query(self, statement: str, values: tuple[object, ...] = ()) -> list[tuple[int, ...]]:
        """The rows of a query, uncommitted changes included."""
        self._flush()
        return self._database.execute(statement, values).fetchall()

    def checkpoint(self) -> None:
        """Commit all changes so far (durably, if opened so), and begin the next transaction."""
        self._flush()
        meta = [*self._counters.items(), ("logical_digest", self.logical_digest())]
        try:
            self._database.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", meta)
            self._database.execute("COMMIT")
            self._database.execute("BEGIN")
        except (sqlite3.Error, OverflowError) as error:
            raise write_error(error, self.path) from error

    def create_search_indexes(self) -> None:
        """Add what only a client's comparison needs; after a bulk load, which it would slow down."""
        self._flush()
        if not self._database.execute("PRAGMA index_info(entry_inode)").fetchall():
            for statement in SEARCH_INDEXES.split(";"):
                self._database.execute(statement)

    @override
    def close(self) -> None:
        """Close it; changes since the last checkpoint are gone. A second call does nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        self._pending.clear()
        if self._database.in_transaction:
            self._database.execute("ROLLBACK")
        super().close()


def check_xattrs(key: bytes, encoded: bytes) -> None:
    """Refuse a set of extended attributes that is none, or that is not its key's."""
    if len(encoded) > MAX_SET_BYTES or set_key(encoded) != key:
        raise RemoteProtocolError("Extended attributes that are too long, or not their key's")
    try:
        decode_set(encoded)
    except ValueError as error:
        raise RemoteProtocolError(f"Extended attributes cannot be kept ({error})") from error


def _check_holes(entry: Entry) -> None:
    try:
        Layout.of(entry.size, entry.holes)
    except ValueError as error:
        raise RemoteProtocolError(f"Entry {entry.id} has impossible holes ({error})") from error
    if entry.kind != Kind.FILE:
        raise RemoteProtocolError(f"Entry {entry.id} has holes and is no file")


def check_values(entry: Entry) -> None:
    """Refuse a row that can be in no catalog, whatever the others are."""
    if not 0 < entry.id < MAX_ENTRY_ID:
        raise RemoteProtocolError(f"Entry id {entry.id} is out of range")
    if entry.kind not in _KINDS:
        raise RemoteProtocolError(f"Entry {entry.id} is of the unknown kind {entry.kind}")
    is_in_range = (
        0 <= entry.mode <= _MAX_MODE
        and 0 <= entry.mtime_ns < _NS
        and 0 <= entry.ctime_ns < _NS
        and 0 <= entry.uid <= MAX_OWNER
        and 0 <= entry.gid <= MAX_OWNER
        and entry.rdev >= 0
        and entry.size >= 0
    )
    if not is_in_range or b"\0" in entry.target:
        raise RemoteProtocolError(f"Entry {entry.id} has metadata that no file has")
    if entry.holes:
        _check_holes(entry)
    if entry.id == ROOT_ID:
        if entry.parent != 0 or entry.name or entry.kind != Kind.DIRECTORY:
            raise RemoteProtocolError("Entry 1 must be the root directory")
    elif not is_valid_name(entry.name):
        raise RemoteProtocolError(f"Entry name {entry.name!r} is not allowed")
