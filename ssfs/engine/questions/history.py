"""`history`: the states of one file over the versions of a task.

A file is followed by its entry id, which it keeps when it moves. From the newest version that has the path the search
goes to older ones by that id. Where an older version does not have it, the file that was at the same path there goes
on: it was deleted and made anew, or replaced by something else. Versions that lack the path but have the id that was found
before them, under another name, belong to it too.
"""

from typing import NamedTuple

from ssfs.engine.questions.paths import Paths
from ssfs.engine.questions.versions import TaskVersions
from ssfs.engine.selection import choose_task
from ssfs.errors import ConfigError
from ssfs.fsio.disk import store_errors
from ssfs.model.entry import KIND_NAMES, Entry, Kind
from ssfs.model.peer import Peer
from ssfs.model.spelling import path_text, time_text
from ssfs.protocol.questions import FileState, HistoryReport, ShowHistory
from ssfs.store.catalog.reader import CatalogReader
from ssfs.store.store import Store
from ssfs.store.version import Version


class _Seen(NamedTuple):
    """What a version has of the file."""

    version: Version
    path: bytes
    entry: Entry

    def state(self) -> tuple[object, ...]:
        """What makes it another state than that of the version before."""
        entry = self.entry
        times = (entry.mtime_s, entry.mtime_ns)
        return (self.path, entry.kind, entry.size, times, entry.digest, entry.target)


def show_history(store: Store, peer: Peer, request: ShowHistory) -> HistoryReport:
    """The distinct states of a file.

    Raises:
        ConfigError: There is no such task, or no version that can be read has the path.
        TrustError: The peer may not read the task.
    """
    task = choose_task(store, peer, request.point, request.task)
    path = plain_path(request.path)
    with store_errors(task.path):
        versions = TaskVersions(task)
        trace = _Trace(versions, path)
        seen = trace.run()
    if not seen:
        raise ConfigError(
            f"No version of task {task.label!r} has it"
            if versions.intact
            else f"Task {task.label!r} has no version that can be read",
            path=request.path,
            remedy="paths are those below the root of a version; `ssfs find` looks for a name",
        )
    return HistoryReport(
        task=task.label,
        states=tuple(_states(seen, versions)),
        deleted=seen[-1].version != trace.newest,
        problems=tuple(versions.problems),
    )


def plain_path(path: bytes) -> bytes:
    """A path below the root as catalogs spell it."""
    return b"/".join(name for name in path.split(b"/") if name not in (b"", b"."))


class _Trace:
    """The search for one file.

    Attributes:
        newest: The newest version that can be read.
    """

    def __init__(self, versions: TaskVersions, path: bytes) -> None:
        self.newest: Version | None = None
        self._versions = versions
        self._asked_for = path

    def run(self) -> list[_Seen]:
        """What each version has, oldest first; versions that do not have it are left out."""
        seen: list[_Seen] = []
        gap: list[Version] = []
        for version in reversed(self._versions.intact):
            found = self._in_version(version, seen[-1] if seen else None)
            if found is None:
                gap.append(version)
                continue
            # Versions in between do not have the path, but perhaps the file.
            seen += reversed(self._newer_by_id(found, gap))
            seen.append(found)
            gap = []
        seen.reverse()
        return seen

    def _newer_by_id(self, found: _Seen, gap: list[Version]) -> list[_Seen]:
        """What has become of a file in the versions after one, oldest first, as long as they have it."""
        seen: list[_Seen] = []
        for version in reversed(gap):
            newer = self._in_version(version, found, only_by_id=True)
            if newer is None:
                break
            seen.append(newer)
        return seen

    def _in_version(
        self, version: Version, known: _Seen | None, *, only_by_id: bool = False
    ) -> _Seen | None:
        def look(catalog: CatalogReader) -> tuple[bytes, Entry] | None:
            if self.newest is None:
                self.newest = version
            if known is not None:
                entry = catalog.entry(known.entry.id)
                if entry is not None:
                    entry = catalog.checked(entry)
                    return Paths(catalog).path(entry.parent, entry.name), entry
            if only_by_id:
                return None
            for path in (known.path if known else self._asked_for, self._asked_for):
                entry = catalog.resolve(path)
                if entry is not None:
                    return path, catalog.checked(entry)
            return None

        found = self._versions.ask(version, look)
        return _Seen(version, *found) if found else None


def _states(seen: list[_Seen], versions: TaskVersions) -> list[FileState]:
    states: list[FileState] = []
    first = count = 0
    for at, one in enumerate(seen):
        count += 1
        if at + 1 < len(seen) and seen[at + 1].state() == one.state():
            continue
        entry, names = one.entry, versions.names
        is_file, is_symlink = entry.kind == Kind.FILE, entry.kind == Kind.SYMLINK
        states.append(
            FileState(
                path=path_text(one.path),
                kind=KIND_NAMES[Kind(entry.kind)],
                size=entry.size,
                mtime=time_text(entry.mtime_s, entry.mtime_ns),
                digest=entry.digest.hex() if is_file else None,
                target=path_text(entry.target) if is_symlink else None,
                versions=count,
                first_version=str(seen[first].version.id),
                first_name=names[seen[first].version],
                last_version=str(one.version.id),
                last_name=names[one.version],
            )
        )
        first, count = at + 1, 0
    return states
