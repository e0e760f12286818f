"""`find`: which versions have the paths that match a pattern.

Versions are asked from the newest to the oldest. What is remembered is the paths found, no more of them than the
limit; once that is reached, older versions are only asked for those paths.
"""

import datetime
import re
from collections.abc import Iterator

from ssfs.engine.questions.paths import Paths
from ssfs.engine.questions.pattern import PathPattern
from ssfs.engine.questions.versions import TaskVersions
from ssfs.engine.selection import readable_tasks
from ssfs.errors import ConfigError, CorruptStore
from ssfs.fsio.disk import store_errors
from ssfs.model.entry import KIND_NAMES, Entry, Kind
from ssfs.model.peer import Peer
from ssfs.model.spelling import path_text, time_text
from ssfs.protocol.questions import (
    MAX_PATH_BYTES,
    Finding,
    FindPaths,
    FindReport,
    VersionProblem,
)
from ssfs.store.catalog.reader import CatalogReader
from ssfs.store.store import Store, Task
from ssfs.store.version import Version

_SINCE = re.compile(r"\d{4}-\d{2}-\d{2}(?:_\d{6}(?:\.\d+)?)?", re.ASCII)


def _is_date(text: str) -> bool:
    """Whether a text is a day of the calendar, perhaps with a time, as versions are named."""
    try:
        datetime.date.fromisoformat(text[:10])
    except ValueError:
        return False
    return _SINCE.fullmatch(text) is not None


def find_paths(store: Store, peer: Peer, request: FindPaths) -> FindReport:
    """The paths that match, in the tasks that the peer may read.

    Raises:
        ConfigError: There is no such sync point or task, or the pattern cannot be understood.
        TrustError: The peer may not read the task.
    """
    pattern = PathPattern(request.pattern, ignore_case=request.ignore_case)
    if request.since and not _is_date(request.since):
        raise ConfigError(
            f"{request.since!r} is no date", remedy="write 2024-05-01, or 2024-05-01_143000"
        )
    tasks = readable_tasks(store, peer, request.point, request.task)
    room = _Room(request.limit)
    found: list[Finding] = []
    problems: list[VersionProblem] = []
    for task in tasks:
        with store_errors(task.path):
            search = _Search(task, request, pattern, room)
            found += search.run()
            problems += search.versions.problems
    return FindReport(tuple(found), room.is_exceeded, tuple(problems))


class _Room:
    """How much more may be found."""

    def __init__(self, limit: int) -> None:
        self.left = limit
        self._bytes = MAX_PATH_BYTES
        self.is_exceeded = False

    def take(self, path: bytes) -> bool:
        """Whether there is room for a further path."""
        size = len(path_text(path))
        if not self.left or size > self._bytes:
            self.is_exceeded = True
            return False
        self.left -= 1
        self._bytes -= size
        return True


class _Found:
    """A path that matches, as the newest version that has it has it."""

    __slots__ = ("count", "entry", "first", "last")

    def __init__(self, entry: Entry, version: Version) -> None:
        self.entry = entry
        self.first = self.last = version
        self.count = 0


class _Search:
    """The search of one task."""

    def __init__(self, task: Task, request: FindPaths, pattern: PathPattern, room: _Room) -> None:
        self.versions = TaskVersions(task)
        self._request = request
        self._pattern = pattern
        self._room = room
        self._found: dict[bytes, _Found] = {}
        self._newest: Version | None = None

    def run(self) -> list[Finding]:
        for version in reversed(self.versions.intact):
            if self._newest is None:
                self._look_at_newest(version)
            elif version.record().name >= self._request.since:
                self._look_at(version)
        return [self._finding(path, found) for path, found in sorted(self._found.items())]

    def _look_at_newest(self, version: Version) -> None:
        """The first that can be read is the newest; what it has is not deleted."""
        wants_it = version.record().name >= self._request.since and not self._request.deleted
        if not wants_it:
            found = self.versions.ask(version, lambda catalog: catalog.root() is not None)
        else:
            found = self._look_at(version)
        if found:
            self._newest = version

    def _look_at(self, version: Version) -> bool:
        """Count what a version has; False if it cannot be read, when nothing of it counts."""
        matches = self.versions.ask(version, self._matches)
        if matches is None:
            return False
        for path, entry in matches.items():
            found = self._found.get(path)
            if found is None:
                if entry is None or not self._room.take(path):
                    continue
                found = self._found[path] = _Found(entry, version)
            found.first = version
            found.count += 1
        return True

    def _matches(self, catalog: CatalogReader) -> dict[bytes, Entry | None]:
        """What matches in a catalog: all paths found before that it has, and as many more as there is room for.

        Returns:
            By path; the rows of those that were found before are left out.
        """
        matches: dict[bytes, Entry | None] = {}
        room = self._room.left + 1  # one too many tells that there are more
        if not self._room.is_exceeded:
            for path, entry_id in self._scan(catalog):
                if path in self._found:
                    matches[path] = None
                elif room:
                    matches[path] = self._row(catalog, entry_id)
                    room -= 1
                else:
                    break
        paths = Paths(catalog)
        for path in self._found.keys() - matches.keys():
            entry_id = paths.id_at(path)
            if entry_id and self._is_wanted(catalog, entry_id):
                matches[path] = None
        return matches

    def _scan(self, catalog: CatalogReader) -> Iterator[tuple[bytes, int]]:
        """Paths and ids of what matches; all of it, or only what the newest version has not."""
        if not self._request.deleted or self._newest is None:
            yield from self._rows(catalog, only_gone=False)
            return
        with self._newest.share(), self._newest.catalog() as newest:
            catalog.compare_with(newest.path)
            places = Paths(newest)
            for path, entry_id in self._rows(catalog, only_gone=True):
                if not places.id_at(path):
                    yield path, entry_id

    def _rows(self, catalog: CatalogReader, *, only_gone: bool) -> Iterator[tuple[bytes, int]]:
        pattern = self._pattern
        paths = Paths(catalog)
        place, is_place = 0, True
        rows = catalog.names(pattern.where, pattern.literal, only_gone=only_gone)
        for entry_id, parent, name in rows:
            if pattern.has_place and parent != place:
                place, is_place = parent, pattern.matches_place(paths.directory(parent))
            if is_place and pattern.matches_name(name) and self._is_wanted(catalog, entry_id):
                yield paths.path(parent, name), entry_id

    def _row(self, catalog: CatalogReader, entry_id: int) -> Entry:
        entry = catalog.entry(entry_id)
        if entry is None:
            raise CorruptStore(f"Catalog has lost entry {entry_id}", path=catalog.path)
        return catalog.checked(entry)

    def _is_wanted(self, catalog: CatalogReader, entry_id: int) -> bool:
        """Whether it is a directory, if only those are wanted."""
        if not self._pattern.wants_directory:
            return True
        return self._row(catalog, entry_id).kind == Kind.DIRECTORY

    def _finding(self, path: bytes, found: _Found) -> Finding:
        entry, names = found.entry, self.versions.names
        return Finding(
            task=self.versions.task.name,
            path=path_text(path),
            kind=KIND_NAMES[Kind(entry.kind)],
            size=entry.size,
            mtime=time_text(entry.mtime_s, entry.mtime_ns),
            versions=found.count,
            first_version=str(found.first.id),
            first_name=names[found.first],
            last_version=str(found.last.id),
            last_name=names[found.last],
            deleted=found.last != self._newest,
        )
