"""`find`: which versions have the paths that match a pattern.

Versions are asked from the newest to the oldest. What is remembered is the paths found, no more of them than the
limit; once that is reached, older versions are only asked for those paths. Where many rows would have to be looked at
in each version, only those on pages that differ from those of the version before are (`ssfs.store.catalog.pages`).
"""

import contextlib
import datetime
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from ssfs.engine.questions.paths import Paths
from ssfs.engine.questions.pattern import PathPattern
from ssfs.engine.questions.versions import TaskVersions
from ssfs.engine.selection import lost_tasks, whole_tasks
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
from ssfs.store.catalog.pages import Pages
from ssfs.store.catalog.reader import CatalogReader
from ssfs.store.store import Store, Task
from ssfs.store.version import Version

_MOST_CHANGES = 200_000
_MANY_ROWS = 40_000
"""Where fewer would be looked at, they are: comparing pages takes a fifth of a second as well."""

_PATH_IS_ROWS = 5
"""To look up a path takes as long as so many rows."""

_AT_ONCE = 5000
_Place = tuple[int, int, bytes]
"""Id, directory's id, name."""

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
    tasks = whole_tasks(store, peer, request.point, request.task)
    room = _Room(request.limit)
    found: list[Finding] = []
    problems: list[VersionProblem] = []
    for task in tasks:
        with store_errors(task.path):
            search = _Search(task, request, pattern, room)
            found += search.run()
            problems += search.versions.problems
    lost = lost_tasks(store, peer, request.point, request.task)
    return FindReport(tuple(found), room.is_exceeded, tuple(problems), lost)


class _Room:
    """How much more may be found."""

    def __init__(self, limit: int) -> None:
        self.left = limit
        self._bytes = MAX_PATH_BYTES
        self.is_exceeded = False

    def take(self, path: bytes) -> bool:
        """Whether there is room for a further path."""
        if not self.left or not self.take_text(path_text(path)):
            self.is_exceeded = True
            return False
        self.left -= 1
        return True

    def take_text(self, text: str) -> bool:
        """Whether there is room for a text that is no further path."""
        if len(text) > self._bytes:
            self.is_exceeded = True
            return False
        self._bytes -= len(text)
        return True


class _Found:
    """A path that matches, as the newest version that has it has it."""

    __slots__ = ("count", "entry", "first", "last", "path")

    def __init__(self, path: bytes, entry: Entry, version: Version) -> None:
        self.path = path
        self.entry = entry
        self.first = self.last = version
        self.count = 0


class _Known(NamedTuple):
    """What matches in the version that was looked at last.

    Attributes:
        catalog: That version's.
        pages: Likewise.
        present: By entry id, as far as it is among what was found.
    """

    catalog: CatalogReader
    pages: Pages
    present: dict[int, _Found]

    def close(self) -> None:
        self.catalog.close()
        self.pages.close()


class _Looked(NamedTuple):
    """What matches in a version that is being looked at.

    Attributes:
        same: By entry id, what is where it is in the version known.
        matches: Id and row by path of all else; the row is left out where the path was found before.
    """

    same: dict[int, _Found]
    matches: dict[bytes, tuple[int, Entry | None]]


class _Changed(NamedTuple):
    """What is not where it is in another version.

    Attributes:
        ids: Of all such entries.
        places: Where they are, as far as they are here.
        directories: Ids of those among them that are directories in both.
        left: Where those are in the other one, each with a slash.
    """

    ids: set[int]
    places: list[_Place]
    directories: list[int]
    left: tuple[bytes, ...]


def _compare_places(other: CatalogReader, catalog: CatalogReader, ids: Sequence[int]) -> _Changed:
    moved: set[int] = set()
    places: list[_Place] = []
    directories: dict[int, bytes] = {}
    paths = Paths(other)
    for start in range(0, len(ids), _AT_ONCE):
        some = ids[start : start + _AT_ONCE]
        there = {row[0]: row for row in other.places_of(some)}
        here = {row[0]: row for row in catalog.places_of(some)}
        for entry_id in some:
            old, new = here.get(entry_id), there.get(entry_id)
            if old == new:
                continue
            moved.add(entry_id)
            if old:
                places.append(old[:3])
                if new and old[3] == Kind.DIRECTORY:
                    directories[entry_id] = paths.path(new[1], new[2]) + b"/"
    return _Changed(moved, places, list(directories), tuple(directories.values()))


class _Search:
    """The search of one task."""

    def __init__(self, task: Task, request: FindPaths, pattern: PathPattern, room: _Room) -> None:
        self.versions = TaskVersions(task)
        self._request = request
        self._pattern = pattern
        self._room = room
        self._found: dict[bytes, _Found] = {}
        self._newest: Version | None = None
        self._known: _Known | None = None
        self._rows_seen = 0

    def run(self) -> list[Finding]:
        try:
            for version in reversed(self.versions.intact):
                if self._newest is None:
                    self._look_at_newest(version)
                elif version.record().name >= self._request.since:
                    self._look_at(version)
        finally:
            self._know(None)
        moved = self._moved_paths()
        return [
            self._finding(path, found, moved.get(path))
            for path, found in sorted(self._found.items())
        ]

    def _moved_paths(self) -> dict[bytes, str]:
        """Where the newest version has what it does not have at its path, by that."""
        gone = [found for found in self._found.values() if found.last != self._newest]

        def look(catalog: CatalogReader) -> dict[bytes, str]:
            ids = {found.entry.id for found in gone}
            places = {row[0]: row[1:3] for row in catalog.places_of(sorted(ids))}
            paths = Paths(catalog)
            moved: dict[bytes, str] = {}
            for found in gone:
                if found.entry.id in places:
                    text = path_text(paths.path(*places[found.entry.id]))
                    if self._room.take_text(text):
                        moved[found.path] = text
                    else:
                        del self._found[found.path]
            return moved

        if self._newest is None or not gone or self._request.deleted:
            return {}
        return self.versions.ask(self._newest, look) or {}

    def _look_at_newest(self, version: Version) -> None:
        """The first that can be read is the newest; what it has is not deleted."""
        wants_it = version.record().name >= self._request.since and not self._request.deleted
        if not wants_it:
            found = self.versions.ask(version, self._know_newest)
        else:
            found = self._look_at(version)
        if found:
            self._newest = version

    def _know_newest(self, catalog: CatalogReader) -> bool:
        """Whether it can be read; it has nothing that is deleted."""
        if catalog.root() is None:
            return False
        if self._request.deleted:
            self._know(self._opened(catalog))
        return True

    def _know(self, known: _Known | None) -> None:
        if self._known is not None:
            self._known.close()
        self._known = known

    def _opened(self, catalog: CatalogReader) -> _Known:
        """Keep a catalog; it stays readable when its version is deleted."""
        kept = CatalogReader.open(catalog.path)
        try:
            return _Known(kept, Pages(catalog), {})
        except BaseException:
            kept.close()
            raise

    def _look_at(self, version: Version) -> bool:
        """Count what a version has; False if it cannot be read, when nothing of it counts."""
        asked = self.versions.ask(version, self._look)
        if asked is None:
            return False
        looked, known = asked
        present = known.present
        present.update(looked.same)
        for path, (entry_id, entry) in looked.matches.items():
            found = self._found.get(path)
            if found is None:
                if entry is None or not self._room.take(path):
                    continue
                found = self._found[path] = _Found(path, entry, version)
            present[entry_id] = found
        for found in present.values():
            found.first = version
            found.count += 1
        self._know(known)
        return True

    def _look(self, catalog: CatalogReader) -> tuple[_Looked, _Known]:
        """What matches in a catalog, and the catalog, to compare the next with."""
        opened = self._opened(catalog)
        try:
            changed = self._changed(catalog, opened.pages)
            looked = self._all(catalog) if changed is None else self._of(catalog, changed)
        except BaseException:
            opened.close()
            raise
        return looked, opened

    def _all(self, catalog: CatalogReader) -> _Looked:
        """All paths found before that a catalog has, and as many more as there is room for."""
        matches: dict[bytes, tuple[int, Entry | None]] = {}
        room = self._room.left + 1  # one too many tells that there are more
        self._rows_seen = 0
        if not self._room.is_exceeded:
            for path, entry_id in self._scan(catalog):
                if path in self._found:
                    matches[path] = entry_id, None
                elif room:
                    matches[path] = entry_id, self._row(catalog, entry_id)
                    room -= 1
                else:
                    break
        paths = Paths(catalog)
        for path in self._found.keys() - matches.keys():
            entry_id = paths.id_at(path)
            if entry_id and self._is_wanted(catalog, entry_id):
                matches[path] = entry_id, None
        return _Looked({}, matches)

    def _changed(self, catalog: CatalogReader, pages: Pages) -> _Changed | None:
        """What is not where it is in the version known.

        Returns:
            None if all of the catalog has to be looked at: too much has changed, or that is quicker.
        """
        known = self._known
        work = self._rows_seen + _PATH_IS_ROWS * len(self._found)
        if known is None or (work < _MANY_ROWS and not self._request.deleted):
            return None
        try:
            changes = known.pages.changes(pages, _MOST_CHANGES)
            return changes and _compare_places(known.catalog, catalog, changes.ids)
        except CorruptStore:
            # Of which of the two it is, and whether it matters, looking at this one alone tells.
            return None

    def _of(self, catalog: CatalogReader, changed: _Changed) -> _Looked:
        """What the version known has, but for what is elsewhere here."""
        assert self._known is not None
        same = {
            entry_id: found
            for entry_id, found in self._known.present.items()
            if entry_id not in changed.ids and not found.path.startswith(changed.left)
        }
        matches: dict[bytes, tuple[int, Entry | None]] = {}
        room = self._room.left + 1
        places = itertools.chain(changed.places, *map(catalog.below, changed.directories))
        with self._places_now() as is_there:
            for path, entry_id in self._matching(catalog, places):
                if path in self._found:
                    matches[path] = entry_id, None
                elif room and not self._room.is_exceeded and not is_there(path, entry_id):
                    matches[path] = entry_id, self._row(catalog, entry_id)
                    room -= 1
        return _Looked(same, matches)

    @contextlib.contextmanager
    def _places_now(self) -> Iterator[Callable[[bytes, int], bool]]:
        """Whether the newest version has a path or an id, if only what it has not is wanted."""
        if not self._request.deleted or self._newest is None:
            yield lambda _path, _entry_id: False
            return
        with self._newest.share(), self._newest.catalog() as newest:
            paths = Paths(newest)
            yield lambda path, entry_id: newest.has(entry_id) or bool(paths.id_at(path))

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
        rows = catalog.names(pattern.where, pattern.literal, only_gone=only_gone)
        return self._matching(catalog, rows)

    def _matching(
        self, catalog: CatalogReader, rows: Iterable[_Place]
    ) -> Iterator[tuple[bytes, int]]:
        """Path and id of what matches of some entries; quick where those of one directory are together."""
        pattern = self._pattern
        paths = Paths(catalog)
        place, is_place = 0, True
        for entry_id, parent, name in rows:
            self._rows_seen += 1
            if not parent:
                continue
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

    def _finding(self, path: bytes, found: _Found, moved_to: str | None) -> Finding:
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
            deleted=found.last != self._newest and moved_to is None,
            moved_to=moved_to,
        )
