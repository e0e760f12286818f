"""Tasks and versions as they are written on a command line, found in the store.

Where no task is named, the only one of the sync point is meant, among those that the peer may read.

A VERSION is a version id, its bare sequence number, a name a mount shows (a date is the newest version
of that day, a date with a time is that version), `latest`, or `latest~N`, the Nth before it. A version
whose record is damaged has no name, and `latest` counts as a mount does, without it: it is
chosen by its id or number alone.
"""

import bisect
import os
import re

from ssfs.engine.rights import check_reading, check_use
from ssfs.errors import ConfigError, CorruptStore
from ssfs.fsio.disk import store_errors
from ssfs.model.peer import LOCAL, Peer
from ssfs.model.version import parse_version_id, shown_names
from ssfs.store.store import Point, Store, Task
from ssfs.store.version import Version

_LATEST = re.compile(r"latest(?:~(\d{1,9}))?")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_NUMBER = re.compile(r"[0-9]{1,100}")
_NEAREST = 2


def readable_tasks(store: Store, peer: Peer, point: str, task: str) -> list[Task]:
    """The task of this name, or ("") all tasks of the sync point that the peer may read, by name.

    Raises:
        ConfigError: There is no such sync point or task.
        TrustError: The peer may not read it.
    """
    check_use(peer, point)
    with store_errors(store.path):
        found = store.point(point)
        if task:
            named = found.task(task)
            check_reading(peer, named)
            return [named]
        return [one for one in found.tasks() if peer.may_read_task(point, one.settings.owner)]


def whole_tasks(store: Store, peer: Peer, point: str, task: str) -> list[Task]:
    """As `readable_tasks`, but where none is named without those that have lost the directory of their versions."""
    tasks = readable_tasks(store, peer, point, task)
    return tasks if task else [one for one in tasks if one.has_versions()]


def choose_task(store: Store, peer: Peer, point: str, task: str) -> Task:
    """The one task that is meant.

    Raises:
        ConfigError: There is none of this name, or none is named and there is not exactly one.
        TrustError: The peer may not read it.
    """
    tasks = readable_tasks(store, peer, point, task)
    is_local = peer == LOCAL
    if is_local and not task:
        _check_none_lost(store, point)
    if len(tasks) == 1:
        return tasks[0]
    if not tasks:
        raise ConfigError(
            f"Sync point {point!r} has no task "
            + ("yet" if is_local else f"that client {peer.name!r} may read"),
            path=store.path if is_local else None,
            remedy="`ssfs sync SOURCE LOCATION` makes the first" if is_local else "",
        )
    names = ", ".join(task.name for task in tasks)
    # How a client calls the store we do not know.
    where = f"{os.fsdecode(store.path)}::" if is_local else ".../"
    raise ConfigError(
        f"Sync point {point!r} has several tasks: {names}",
        remedy=f"name one: {where}{point}/{tasks[0].name}",
    )


def lost_tasks(store: Store, peer: Peer, point: str, task: str) -> tuple[str, ...]:
    """What `whole_tasks` leaves out: tasks whose settings or versions are lost. Only who is at the store's machine is told."""
    if task or peer != LOCAL:
        return ()
    return lost_in(store.point(point))


def lost_in(point: Point) -> tuple[str, ...]:
    """The names of a sync point's tasks whose settings or versions are lost, in order."""
    without_versions = [task.name for task in point.tasks() if not task.has_versions()]
    return tuple(sorted([*point.lost_tasks(), *without_versions]))


def _check_none_lost(store: Store, point: str) -> None:
    """Refuse to guess a task while one may be meant that cannot be opened.

    Raises:
        CorruptStore: There is such a one.
    """
    lost = store.point(point).lost_tasks()
    if lost:
        raise CorruptStore(
            f"The settings (task.toml) of a task in sync point {point!r} are lost: {', '.join(lost)}",
            path=store.path,
            remedy="`ssfs recover` makes them anew; name another TASK to use that one",
        )


def mount_names(versions: list[Version]) -> dict[Version, str]:
    """The name a mount lists each version under; those with a damaged record have none."""
    intact = [version for version in versions if version.is_intact()]
    return dict(zip(intact, shown_names(version.record().name for version in intact), strict=True))


def mount_name_of(task: Task, chosen: Version) -> str | None:
    """The name a mount lists this version under; None if its record is damaged."""
    with store_errors(task.path):
        names = mount_names(task.versions())
    return {version.id: name for version, name in names.items()}.get(chosen.id)


def choose_version(task: Task, text: str) -> Version:
    """The version a text means.

    Raises:
        ConfigError: There is none; the error names some that exist.
    """
    with store_errors(task.path):
        versions = task.versions()
        names = mount_names(versions)
    if not versions:
        raise ConfigError(
            f"Task {task.label!r} has no version yet", remedy="`ssfs sync` makes the first"
        )
    chosen = _by_number(versions, text) or _by_name(names, text)
    if chosen is None:
        raise ConfigError(f"No version {text!r} in task {task.label!r}", remedy=_hint(names, text))
    return chosen


def _by_number(versions: list[Version], text: str) -> Version | None:
    version_id = parse_version_id(text)
    for version in versions:
        if version_id is not None:
            if version.id == version_id:
                return version
        elif _NUMBER.fullmatch(text) and version.id.sequence == int(text):
            return version
    return None


def _by_name(names: dict[Version, str], text: str) -> Version | None:
    intact = list(names)
    if match := _LATEST.fullmatch(text):
        back = int(match[1] or 0)
        return intact[-1 - back] if back < len(intact) else None
    for version in reversed(intact):
        name = version.record().name
        if text == name or (_DATE.fullmatch(text) and name.startswith(text)):
            return version
    return None


def _hint(names: dict[Version, str], text: str) -> str:
    """The names nearest to what was asked for."""
    ordered = sorted(names.values())
    if not ordered:
        return "the records of all its versions are damaged: `ssfs versions` lists them"
    # What is no date at all sorts before or behind all of them: that shows the ends.
    place = bisect.bisect(ordered, text) if text[:1].isdigit() else len(ordered)
    nearest = ordered[max(0, place - _NEAREST) : place + _NEAREST]
    return f"there are {len(ordered)}, the nearest: {', '.join(nearest)}; `ssfs versions` lists all"
