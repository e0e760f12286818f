"""Catalogs made anew from what is left: only such that are provably the ones that were committed.

The logical digest in the version's record is the proof. The numbers of inodes (`content`) are not part of
it, so a catalog whose rows were saved one by one has none: usage counts each of its files as one of its own.
"""

import contextlib
import os
import sqlite3
from collections.abc import Iterable

from ssfs.errors import CorruptStore
from ssfs.fsio.disk import copy_file, fsync, open_directory, open_fd
from ssfs.fsio.removal import remove_tree
from ssfs.model.entry import Entry, Kind
from ssfs.store.catalog.digest import digest_bytes, rows_digest
from ssfs.store.catalog.schema import (
    COLUMNS,
    COUNTER_OF_KIND,
    CREATE,
    INSERT_ENTRY,
    READ_ERRORS,
    connect,
)
from ssfs.store.inspection import fault_of_catalog
from ssfs.store.version import Version

_BATCH = 1000
_TABLES = (
    ("SELECT kind, number, name FROM principal", "INSERT INTO principal VALUES (?, ?, ?)"),
    ("SELECT digest, pairs FROM xattr_set", "INSERT INTO xattr_set VALUES (?, ?)"),
)


def rebuild_catalog(version: Version, others: Iterable[Version], name: bytes, dir_fd: int) -> str:
    """Make the catalog of a version anew, durably, as the new file `name` of a directory.

    Args:
        version: Its record is whole.
        others: Versions of the same task.
        name: Of the file.
        dir_fd: Where it goes.

    Returns:
        From what it was made; "" if it cannot be.

    Raises:
        OSError: It cannot be written.
    """
    wanted = version.record().catalog_digest
    next_id = next_content = 1
    for other in others:
        if other.id == version.id or not other.is_intact() or fault_of_catalog(other):
            continue
        if other.record().catalog_digest == wanted:
            source = open_directory(other.path)
            try:
                copy_file(b"catalog.db", source, name, dir_fd, mode=0o600)
            finally:
                os.close(source)
            _sync(name, dir_fd)
            return f"that of version {other.id}, which says the same"
        with other.catalog() as catalog:
            next_id = max(next_id, catalog.number("next_id"))
            next_content = max(next_content, catalog.number("next_content"))
    path = os.path.join(b"/proc/self/fd/%d" % dir_fd, name)
    try:
        _save_rows(os.path.join(version.path, b"catalog.db"), path, wanted, next_id, next_content)
    except (CorruptStore, *READ_ERRORS, TypeError, ValueError, OverflowError):
        remove_tree(name, dir_fd=dir_fd)
        return ""
    finally:
        # Empty by now: the mode is TRUNCATE.
        remove_tree(name + b"-journal", dir_fd=dir_fd)
    _sync(name, dir_fd)
    return "its own rows, all of which are there"


def _sync(name: bytes, dir_fd: int) -> None:
    with open_fd(name, os.O_RDONLY, dir_fd=dir_fd) as fd:
        fsync(fd)
    fsync(dir_fd)


def _save_rows(source: bytes, target: bytes, wanted: str, next_id: int, next_content: int) -> None:
    """Copy row by row; raises if any is missing, wrong or too many."""
    with (
        contextlib.closing(connect(source, "ro&immutable=1")) as old,
        contextlib.closing(connect(target, "rwc")) as new,
    ):
        new.execute("PRAGMA journal_mode = TRUNCATE")
        new.executescript(CREATE)
        counts = dict.fromkeys(("entries", *COUNTER_OF_KIND.values(), "bytes"), 0)
        # Along the table itself: its indexes may be what is damaged.
        rows = old.execute(f"SELECT {COLUMNS} FROM entry NOT INDEXED")  # noqa: S608
        total = 0
        while batch := rows.fetchmany(_BATCH):
            total += rows_digest(batch)
            for entry in map(Entry._make, batch):
                counts["entries"] += 1
                counts["bytes"] += entry.size
                next_id = max(next_id, entry.id + 1)
                if kind := COUNTER_OF_KIND.get(Kind(entry.kind)):
                    counts[kind] += 1
            new.executemany(INSERT_ENTRY, [(*row, 0) for row in batch])
        total += sum(_copy_table(old, new, *queries) for queries in _TABLES)
        if digest_bytes(total).hex() != wanted:
            raise CorruptStore("Some of the catalog's rows are lost", path=source)
        meta = [*counts.items(), ("next_id", next_id), ("next_content", next_content)]
        new.executemany(
            "INSERT INTO meta VALUES (?, ?)", [*meta, ("logical_digest", digest_bytes(total))]
        )
        new.execute("COMMIT")


def _copy_table(old: sqlite3.Connection, new: sqlite3.Connection, query: str, insert: str) -> int:
    total = 0
    rows = old.execute(query)
    while batch := rows.fetchmany(_BATCH):
        total += rows_digest(batch)
        new.executemany(insert, batch)
    return total
