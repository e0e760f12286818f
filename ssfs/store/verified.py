"""Which data files of a task were verified when: verify.db of the task (FORMAT.md, "Verify").

A file is known by its inode number and its digest, so that each is read once, however many versions link it, and a run
that broke off goes on where it was. All of it can be lost: then more is read.
"""

import contextlib
import os
import sqlite3

from ssfs.fsio.lock import check_no_directory
from ssfs.model.entry import signed_inode

_SCHEMA = """
CREATE TABLE IF NOT EXISTS verified (ino INTEGER PRIMARY KEY, digest BLOB NOT NULL, at INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS run (started INTEGER NOT NULL);
"""
_COMMIT_EVERY = 2000
_COMMIT_BYTES = 1 << 30
_DIGEST_BYTES = 16
"""Of the digest, enough to tell whether an inode number has come to mean another file."""
_US = 1_000_000
_PASSING = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_READONLY,
    }
)
RESUME_S = 7 * 24 * 3600
"""A run that broke off is gone on with for so long; older ones are begun anew."""


class VerifiedFiles:
    """What was verified; `close` keeps it.

    Attributes:
        since: What was verified since then counts (microseconds since 1970).
        is_resumed: Whether an earlier run is gone on with.
    """

    def __init__(self, task_path: bytes | None) -> None:
        """Open that of a task, or (None) one that nobody will see again."""
        self.since = 0
        self.is_resumed = False
        self._path = os.fsdecode(os.path.join(task_path, b"verify.db")) if task_path else None
        self._database = _open(self._path)
        self._started = 0
        self._pending = 0
        self._pending_bytes = 0
        self._now = 0

    def _ask(self, query: str, values: tuple[object, ...] = ()) -> list[tuple[int | bytes, ...]]:
        """Ask or tell the database; one that is damaged beyond its first page is begun anew: then more is read."""
        for _ in range(2):
            try:
                return self._database.execute(query, values).fetchall()
            except sqlite3.DatabaseError as error:
                self._replace(error)
        return self._database.execute(query, values).fetchall()

    def _replace(self, error: sqlite3.DatabaseError) -> None:
        """Go on with an empty one: in the place of a damaged one, else with one that nobody will see again."""
        self._database.close()
        path, self._path = self._path, None
        try:
            self._database = _anew(path) if path and _is_damage(error) else _connect("")
        except (sqlite3.DatabaseError, OSError):
            self._database = _connect("")
        if self._started:
            self._database.execute("INSERT INTO run VALUES (?)", (self._started,))

    def begin(self, now: int, older_than_s: int | None, *, is_whole: bool) -> None:
        """Begin a run.

        Args:
            now: Microseconds since 1970.
            older_than_s: What was verified within so many seconds counts; None: in this run only.
            is_whole: Whether it goes through all of the task: then it is resumed if it breaks off.
        """
        ((last,),) = self._ask(
            "SELECT coalesce(max(at), 0) FROM verified WHERE typeof(at) = 'integer'"
        )
        # Two runs must not be one, whatever the clock says.
        now = self._now = max(now, int(last) + 1)
        self.since = now if older_than_s is None else now - older_than_s * _US
        if older_than_s is None and is_whole:
            (row,) = self._ask("SELECT coalesce(max(started), -1) FROM run")
            if now - RESUME_S * _US <= int(row[0]) <= now:
                self.since, self.is_resumed = int(row[0]), True
            else:
                self._ask("DELETE FROM run")
                self._ask("INSERT INTO run VALUES (?)", (now,))
            self._started = self.since
        self.save()

    def has(self, ino: int, digest: bytes) -> bool:
        """Whether a file counts as verified."""
        query = "SELECT digest, at FROM verified WHERE ino = ?"
        rows = self._ask(query, (signed_inode(ino),))
        return any(
            known == digest[:_DIGEST_BYTES] and isinstance(at, int) and at >= self.since
            for known, at in rows
        )

    def add(self, ino: int, digest: bytes, size_bytes: int) -> None:
        """A file was read and is right; what is killed now reads a GiB or 2,000 files again at most."""
        values = (signed_inode(ino), digest[:_DIGEST_BYTES], self._now)
        self._ask("INSERT OR REPLACE INTO verified VALUES (?, ?, ?)", values)
        self._pending += 1
        self._pending_bytes += size_bytes
        if self._pending >= _COMMIT_EVERY or self._pending_bytes >= _COMMIT_BYTES:
            self.save()

    def remove(self, ino: int) -> None:
        """A file is not right any more."""
        self._ask("DELETE FROM verified WHERE ino = ?", (signed_inode(ino),))

    def finish(self) -> None:
        """The run went through all of the task: what it has not met is not there any more."""
        self._ask("DELETE FROM verified WHERE at < ?", (self.since,))
        self._ask("DELETE FROM run")
        self.save()

    def save(self) -> None:
        """Keep what was found so far."""
        try:
            self._database.commit()
        except sqlite3.DatabaseError as error:
            self._replace(error)
        self._pending = self._pending_bytes = 0

    def close(self) -> None:
        """Keep what was found, and close it."""
        with contextlib.suppress(sqlite3.Error):
            self.save()
        self._database.close()


def _open(path: str | None) -> sqlite3.Connection:
    if path is None:
        return _connect("")
    check_no_directory(os.fsencode(path))
    try:
        return _connect(path)
    except sqlite3.DatabaseError as error:
        # Damaged, or what somebody else has put there: it can be found out again.
        if _is_damage(error):
            with contextlib.suppress(sqlite3.DatabaseError):
                return _anew(path)
    # No room for one: what is read now will be read again.
    return _connect("")


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    """Whether it is the file that is no good, and not the disk full or somebody else at it: then it is kept."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF not in _PASSING


def _anew(path: str) -> sqlite3.Connection:
    for name in (path, path + "-journal"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
    return _connect(path)


def _connect(path: str) -> sqlite3.Connection:
    database = sqlite3.connect(path)
    try:
        database.execute("PRAGMA synchronous = NORMAL")
        database.executescript(_SCHEMA)
        database.execute("SELECT ino, digest, at FROM verified LIMIT 1").fetchone()
        database.execute("SELECT started FROM run LIMIT 1").fetchone()
    except sqlite3.Error:
        database.close()
        raise
    return database
