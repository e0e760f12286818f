"""How much a sync point takes, and whether there is room for another backup.

A version's files are the inodes of the version before, but for what changed; so what a task takes is what its
first version holds, and for each later one what it holds that its base does not. Both are found in the
catalogs alone, by the numbers of their physical inodes (`content`). What a pair of versions makes is kept in usage.toml
of the task (FORMAT.md, "Text files"), so that a nightly question costs the pairs that are new since the last.

Not counted: metadata, a version being received, what waits in the trash, and the copies that are
made where the file system allows no further hard link.
"""

import contextlib
import os
import sqlite3

import msgspec

from ssfs.errors import CorruptStore, StoreError, StoreFull
from ssfs.fsio.disk import open_directory, read_file, store_errors
from ssfs.model.size import bytes_text
from ssfs.store.catalog.schema import READ_ERRORS, catalog_uri, check_version, connect
from ssfs.store.store import Point, Store, Task
from ssfs.store.textfile import FORMAT, parse_text, write_text_file
from ssfs.store.version import Version

_IMMUTABLE = "ro&immutable=1"
_USAGE_MAX_BYTES = 64 << 20

# A file whose inode has no number counts as one of its own.
_INODE = "CASE {0}.content WHEN 0 THEN -{0}.id ELSE {0}.content END"
# Holes take no room.
_BYTES = "CASE {0}.holes WHEN x'' THEN {0}.size ELSE data_bytes({0}.size, {0}.holes) END"
_WHOLE = f"""
SELECT COALESCE(SUM(size), 0) FROM (
  SELECT DISTINCT {_INODE.format("entry")}, {_BYTES.format("entry")} AS size
  FROM entry WHERE kind = 1 AND size > 0)
"""  # noqa: S608
# First along the ids of both, which is one pass over each and leaves next to nothing of a usual night ...
_CANDIDATES = f"""
CREATE TEMP TABLE candidate AS
SELECT DISTINCT {_INODE.format("n")} AS inode, {_BYTES.format("n")} AS size
FROM main.entry n LEFT JOIN older.entry o ON o.id = n.id
WHERE n.kind = 1 AND n.size > 0 AND
  (o.id IS NULL OR o.size <> n.size OR {_INODE.format("o")} <> {_INODE.format("n")})
"""  # noqa: S608
# ... then one more over the older one: what has another id there is not new either.
_ADDED = f"""
SELECT COALESCE(SUM(size), 0) FROM candidate WHERE (inode, size) NOT IN (
  SELECT {_INODE.format("o")}, {_BYTES.format("o")} FROM older.entry o
  WHERE o.kind = 1 AND {_INODE.format("o")} IN (SELECT inode FROM candidate))
"""  # noqa: S608


class Addition(msgspec.Struct, frozen=True):
    """What a version holds that another (`to`; "": none) does not."""

    to: str
    bytes: int


class _Usage(msgspec.Struct, frozen=True):
    """The content of usage.toml: additions by version id."""

    format: int
    added: dict[str, Addition]


def check_room(point: Point) -> None:
    """Refuse a new backup for which there is no room; one that runs is never stopped for that.

    Raises:
        StoreFull: The sync point is over its quota, or what the store keeps in reserve (store.toml,
            `[reserve]`) is not free.
    """
    quota_bytes = point.settings.limits.quota_bytes
    if quota_bytes:
        used_bytes = point_usage_bytes(point)
        if used_bytes >= quota_bytes:
            raise StoreFull(
                f"Sync point {point.name!r} is over its quota: "
                f"{bytes_text(used_bytes)} of {bytes_text(quota_bytes)} used",
                remedy="`ssfs point --quota` allows more; fewer versions (`ssfs point --days`, "
                "`ssfs expire`, `ssfs delete`) take less",
            )
    _check_reserve(point.store)


def _check_reserve(store: Store) -> None:
    reserve = store.settings.reserve
    with store_errors(store.path):
        status = os.statvfs(store.path)
    space_bytes = status.f_blocks * status.f_frsize
    wanted_bytes = min(space_bytes * reserve.space_percent // 100, reserve.space_most_bytes)
    free_bytes = status.f_bavail * status.f_frsize
    remedy = (
        "`ssfs point` with fewer days, weeks or months, `ssfs delete` or more disk frees {0}; "
        "[reserve] in store.toml says how much must be free"
    )
    if free_bytes < wanted_bytes:
        raise StoreFull(
            f"Too little space is free in the store for another backup: {bytes_text(free_bytes)}, "
            f"not {bytes_text(wanted_bytes)}",
            path=store.path,
            remedy=remedy.format("space"),
        )
    # Where inodes are made as they are needed (btrfs), there are 0 in all.
    wanted_inodes = status.f_files * reserve.inodes_percent // 100
    if status.f_favail < wanted_inodes:
        raise StoreFull(
            f"Too few inodes are free in the store for another backup: {status.f_favail:,}, "
            f"not {wanted_inodes:,}",
            path=store.path,
            remedy=remedy.format("inodes"),
        )


def point_usage_bytes(point: Point) -> int:
    """The content bytes of all versions of a sync point, each physical file counted once.

    A task that has lost the directory of its versions holds nothing, and must not keep others from backing up.
    """
    return sum(task_usage_bytes(task) for task in point.tasks() if task.has_versions())


def task_usage_bytes(task: Task) -> int:
    """The content bytes of all versions of a task, each physical file counted once.

    A version whose record or catalog is damaged is left out.
    """
    known = _read_known(task)
    counted: dict[str, Version] = {}
    found: dict[str, Addition] = {}
    for version in task.versions():
        if version.is_intact():
            _count(version, counted, known, found)
    if found != known:
        _remember(task, found)
    return sum(addition.bytes for addition in found.values())


def _count(
    version: Version,
    counted: dict[str, Version],
    known: dict[str, Addition],
    found: dict[str, Addition],
) -> None:
    """Add a version to what is counted; drop from it what turns out to be damaged."""
    name = str(version.id)
    while True:
        base = version.record().base
        # Its base has left, most likely: then what that had of others, the one before has.
        older = counted.get(base) or next(reversed(counted.values()), None)
        to = str(older.id) if older else ""
        addition = known.get(name)
        if addition is None or addition.to != to:
            try:
                addition = Addition(to, _added_bytes(version, older))
            except CorruptStore:
                if older is None or not _is_readable(version):
                    return
                del counted[to], found[to]
                continue
        counted[name], found[name] = version, addition
        return


def _is_readable(version: Version) -> bool:
    try:
        _added_bytes(version, None)
    except CorruptStore:
        return False
    return True


def _added_bytes(version: Version, older: Version | None) -> int:
    """The bytes of files that the one holds and the other does not.

    Raises:
        CorruptStore: One of the catalogs cannot be read.
    """
    path = os.path.join(version.path, b"catalog.db")
    with contextlib.closing(connect(path, _IMMUTABLE)) as database:
        check_version(database, path)
        try:
            # What is sorted goes to a file, and not to memory.
            database.execute("PRAGMA temp_store = FILE")
            if older is None:
                return _number(database, _WHOLE)
            older_path = os.path.join(older.path, b"catalog.db")
            database.execute("ATTACH ? AS older", (catalog_uri(older_path, _IMMUTABLE),))
            database.execute(_CANDIDATES)
            return _number(database, _ADDED)
        except READ_ERRORS as error:
            raise CorruptStore(f"Catalog cannot be read ({error})", path=path) from error


def _number(database: sqlite3.Connection, query: str) -> int:
    (number,) = database.execute(query).fetchone()
    return int(number)


def _read_known(task: Task) -> dict[str, Addition]:
    """What was found before; {} if that is lost."""
    path = os.path.join(task.path, b"usage.toml")
    try:
        fd = open_directory(task.path)
        try:
            content = read_file(b"usage.toml", dir_fd=fd, limit=_USAGE_MAX_BYTES)
        finally:
            os.close(fd)
        return parse_text(content, _Usage, path).added
    except (OSError, StoreError):
        return {}


def _remember(task: Task, found: dict[str, Addition]) -> None:
    """Keep what was found, if that can be done: it can be found again."""
    with contextlib.suppress(OSError, StoreError), task.guard() as guard:
        # Whoever only looks leaves nothing behind, and root no file of its own in a user's store.
        if os.fstat(guard.fd).st_uid == os.geteuid():
            write_text_file(b"usage.toml", _Usage(FORMAT, found), dir_fd=guard.fd)
