"""`history`: the states of one file over the versions of a task, wherever it was (`ssfs.engine.questions.trace`)."""

from ssfs.engine.questions.trace import Seen, Trace, content_of
from ssfs.engine.questions.versions import TaskVersions
from ssfs.engine.selection import choose_task
from ssfs.errors import ConfigError
from ssfs.fsio.disk import store_errors
from ssfs.model.entry import KIND_NAMES, Kind
from ssfs.model.peer import Peer
from ssfs.model.spelling import path_text, time_text
from ssfs.protocol.questions import FileState, HistoryReport, ShowHistory
from ssfs.store.store import Store
from ssfs.store.version import Version


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
        trace = Trace(versions.intact, versions.ask, path)
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


def _state(one: Seen[Version]) -> tuple[object, ...]:
    return (one.path, *content_of(one.entry))


def _states(seen: list[Seen[Version]], versions: TaskVersions) -> list[FileState]:
    states: list[FileState] = []
    first = count = 0
    for at, one in enumerate(seen):
        count += 1
        if at + 1 < len(seen) and _state(seen[at + 1]) == _state(one):
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
