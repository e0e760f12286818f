"""The catalog's schema, with the meaning of every column, and the settings of its connections.

The server's committed catalogs and the client's cached ones have the same tables; only the client
adds `SEARCH_INDEXES`, which its comparison needs.
"""

import errno
import os
import sqlite3
import urllib.parse

from ssfs.errors import CorruptStore, RemoteProtocolError, SsfsError
from ssfs.fsio.disk import store_error
from ssfs.model.entry import Entry, Kind
from ssfs.model.layout import data_bytes

APPLICATION_ID = 0x73736673
CATALOG_VERSION = 1

SCHEMA = """
-- One row per path of the version. A pure function of the source: the client and the server hold
-- equal rows, `content` excepted.
CREATE TABLE entry (
  id INTEGER PRIMARY KEY,      -- >= 1, the same in every version while the entry lives
  parent INTEGER NOT NULL,     -- id of its directory; 0: this is the root; -1: parked (staging only)
  name BLOB NOT NULL,          -- one path component; empty for the root; a parked entry's id
  kind INTEGER NOT NULL,       -- ssfs.model.entry.Kind
  mode INTEGER NOT NULL,       -- permission bits, 0..07777
  uid INTEGER NOT NULL,
  gid INTEGER NOT NULL,
  mtime_s INTEGER NOT NULL,    -- floor; negative before 1970
  mtime_ns INTEGER NOT NULL,   -- 0..999999999
  size INTEGER NOT NULL,       -- bytes of content; 0 unless a file
  digest BLOB NOT NULL,        -- BLAKE3, 32 bytes; empty unless a file
  target BLOB NOT NULL,        -- of a symlink; else empty
  dev INTEGER NOT NULL,        -- source's st_dev; 0: the device that holds the root
  ino INTEGER NOT NULL,        -- source's st_ino as signed 64 bit
  ctime_s INTEGER NOT NULL,    -- source's ctime
  ctime_ns INTEGER NOT NULL,
  flags INTEGER NOT NULL,      -- ssfs.model.entry.Flag
  link_group INTEGER NOT NULL, -- > 0: hard links of one file have equal numbers; 0: a single link
  rdev INTEGER NOT NULL,       -- of a device; else 0
  xattrs BLOB NOT NULL,        -- xattr_set.digest; empty: none
  holes BLOB NOT NULL,         -- data extents of a sparse file; empty: no holes
  content INTEGER NOT NULL DEFAULT 0  -- server only: number of the physical inode; 0: none or unknown
);
-- Paths; also the order of listings (bytes).
CREATE UNIQUE INDEX entry_path ON entry (parent, name);

CREATE TABLE principal (
  kind INTEGER NOT NULL,       -- 0 user, 1 group
  number INTEGER NOT NULL,
  name BLOB NOT NULL,          -- never empty
  PRIMARY KEY (kind, number)
) WITHOUT ROWID;

CREATE TABLE xattr_set (
  digest BLOB PRIMARY KEY,     -- BLAKE3 of pairs
  pairs BLOB NOT NULL          -- MessagePack array of [name, value], sorted by name
) WITHOUT ROWID;

-- Counters kept up to date with every change: next_id, next_content, entries, files, directories,
-- symlinks, bytes (integers) and logical_digest (32 bytes, little endian).
CREATE TABLE meta (key TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;
"""

CREATE = f"""
BEGIN; PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {CATALOG_VERSION}; {SCHEMA}
"""
"""Makes an empty catalog, in a transaction that is still open then."""

COUNTER_OF_KIND: dict[int, str] = {
    Kind.FILE: "files",
    Kind.DIRECTORY: "directories",
    Kind.SYMLINK: "symlinks",
}
"""The counters of `meta` that count entries of one kind."""

SEARCH_INDEXES = f"""
-- "Was this inode known?" and "does any entry have this content?": asked by the comparing client.
CREATE INDEX entry_inode ON entry (ino);
CREATE INDEX entry_content ON entry (size, digest) WHERE kind = {Kind.FILE:d} AND size >= 4096;
"""

STAGED_TABLE = """
-- Staging only: the data files received, or linked under another id than their source has in the base,
-- up to the last checkpoint, as the store's file system knows them.
CREATE TABLE IF NOT EXISTS staged (
  id INTEGER PRIMARY KEY, ino INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, size INTEGER NOT NULL
);
"""

READ_ERRORS = (sqlite3.Error, UnicodeDecodeError)
"""What reading a damaged catalog raises; the second where SQLite's message quotes the damage."""

COLUMNS = ", ".join(Entry._fields)
PARKED = -1
"""`parent` of an entry that had to leave its place before its new place was known."""

_PLACEHOLDERS = ", ".join("?" * (len(Entry._fields) + 1))
INSERT_ENTRY = f"INSERT INTO entry ({COLUMNS}, content) VALUES ({_PLACEHOLDERS})"  # noqa: S608
UPDATE_ENTRY = f"UPDATE entry SET {', '.join(f'{name} = ?' for name in Entry._fields)} WHERE id = ?"  # noqa: S608
SELECT_ENTRY = f"SELECT {COLUMNS} FROM entry"  # noqa: S608


def catalog_uri(path: bytes, mode: str) -> str:
    """The name by which SQLite opens a catalog; modes as for `connect`."""
    return f"file:{urllib.parse.quote(os.path.abspath(path))}?mode={mode}"


def connect(path: bytes, mode: str) -> sqlite3.Connection:
    """A connection to a catalog.

    Args:
        path: The SQLite file.
        mode: "ro&immutable=1" for one that cannot change any more, "ro", "rw" or "rwc".

    Raises:
        CorruptStore: It cannot be opened.
    """
    uri = catalog_uri(path, mode)
    try:
        database = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
    except sqlite3.Error as error:
        raise CorruptStore(f"Catalog cannot be opened ({error})", path=path) from error
    # data_bytes(size, holes): how much of a file is no hole.
    database.create_function("data_bytes", 2, data_bytes, deterministic=True)
    return database


def check_version(database: sqlite3.Connection, path: bytes) -> None:
    """Refuse what is no catalog of ours, or of a newer format.

    Raises:
        CorruptStore: It is not.
    """
    try:
        (application_id,) = database.execute("PRAGMA application_id").fetchone()
        (version,) = database.execute("PRAGMA user_version").fetchone()
    except READ_ERRORS as error:
        raise CorruptStore(f"Catalog cannot be read ({error})", path=path) from error
    if (application_id, version) != (APPLICATION_ID, CATALOG_VERSION):
        raise CorruptStore("Not a catalog of this format", path=path)


def write_error(error: sqlite3.Error | OverflowError, path: bytes) -> SsfsError:
    """What an error of a writing statement means."""
    if isinstance(error, OverflowError):
        return RemoteProtocolError("An entry has a number of more than 64 bits")
    if isinstance(error, sqlite3.IntegrityError):
        return RemoteProtocolError("Two entries have one place or one id")
    if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL:
        return store_error(OSError(errno.ENOSPC, ""), path)
    return CorruptStore(f"Catalog cannot be written ({error})", path=path)
