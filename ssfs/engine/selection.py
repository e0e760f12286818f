"""Versions as they are written on the command line.

A VERSION is a version id, its bare sequence number, a name a mount shows (a date is the newest version
of that day, a date with a time is that version), `latest`, or `latest~N`, the Nth before it. A version
whose record is damaged has no name, and `latest` counts as a mount does, without it: it is
chosen by its id or number alone.
"""

import bisect
import re

from ssfs.errors import ConfigError
from ssfs.fsio.disk import store_errors
from ssfs.model.version import parse_version_id, shown_names
from ssfs.store.store import Task
from ssfs.store.version import Version

_LATEST = re.compile(r"latest(?:~(\d{1,9}))?")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_NEAREST = 2


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
        elif text.isascii() and text.isdigit() and version.id.sequence == int(text):
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
