"""The states of a file: what is in its directory in a `.history`.

A state is what the file was in some versions one after the other: equal in kind, content, time and target, wherever
the file lay and whosever it was. It has the name of the first of them, and is shown as it is in the first of those
that have it with its last owner, mode and attributes: a file that was closed to somebody since is closed here too.

Names are `2024-05-01.txt` where a state is the only one of its day, else `2024-05-01_143000.txt` for all of that day.
The first of a day keeps the bare date all the same, unlisted, and each has its timed name too: a name that was
listed does not come to mean another state while a copy is under way.
"""

import collections
from collections.abc import Callable
from typing import NamedTuple

from ssfs.engine.questions.trace import A, Seen, Trace, content_of
from ssfs.model.entry import NAME_MAX_BYTES, ROOT_ID, Entry, Kind
from ssfs.mount.history.catalogs import Catalogs
from ssfs.mount.history.places import Place, Places
from ssfs.mount.history.rights import Rights, lets_pass_all_of, rights_of
from ssfs.mount.names import ShownVersion
from ssfs.mount.owners import Owners
from ssfs.store.catalog.reader import CatalogReader
from ssfs.store.opened import OpenVersion

_DATE_LENGTH = len("2024-05-01")
_LONGEST_EXTENSION = 16


class State(NamedTuple):
    """One state of a file.

    Attributes:
        name: By which it is listed.
        sequence: Of the version that it has its name from; grows from state to state.
        version: In which it is shown.
        entry_id: As which entry.
    """

    name: bytes
    sequence: int
    version: ShownVersion
    entry_id: int


class FileStates(NamedTuple):
    """The states of a file.

    Attributes:
        listed: Oldest first.
        by_name: By all names they have, listed or not.
    """

    listed: list[State]
    by_name: dict[bytes, State]


class _Run(NamedTuple):
    """A state: the version it has its name from, its extension, and what is shown."""

    named: int
    extension: bytes
    shown: Seen[int]


class StatesFinder:
    """Finds the states of the files of one task."""

    def __init__(self, catalogs: Catalogs, places: Places, owners: Owners) -> None:
        self._catalogs = catalogs
        self._places = places
        self._owners = owners

    def states(self, place: Place) -> FileStates:
        """The states of the file at a place."""
        trace = Trace(range(len(self._catalogs.versions)), self._ask, place.path, _is_no_directory)
        seen = [one for one in trace.run() if self._is_open_to_all_here(one, place)]
        return self._named(_runs(seen))

    def _ask(self, version: int, question: Callable[[CatalogReader], A]) -> A | None:
        return self._catalogs.ask(version, lambda opened: question(opened.catalog))

    def _is_open_to_all_here(self, one: Seen[int], place: Place) -> bool:
        """Whether all who get to this place could get to where the file was in a version.

        A place lets through only who could pass its directories in every version. But if the file was
        elsewhere, other directories led there; should one of them have let fewer through, this is not shown here, but
        in the history of the path it had.
        """
        names, here = one.path.split(b"/")[:-1], place.path.split(b"/")[:-1]
        same = 0
        while same < min(len(names), len(here)) and names[same] == here[same]:
            same += 1
        if same == len(names):
            return True
        passed = [p.rights for p in self._above(here)]
        led_there = self._rights_along(one.version, names)[same + 1 :]
        return all(
            any(lets_pass_all_of(outer, inner) for inner in passed) for outer in led_there
        ) and bool(led_there)

    def _above(self, names: list[bytes]) -> list[Place]:
        """The places of the directories that lead to a place, that of the root first."""
        place = self._places.root()
        found = [place] if place else []
        for name in names:
            place = self._places.child(place, name) if place else None
            if place:
                found.append(place)
        return found

    def _rights_along(self, version: int, names: list[bytes]) -> list[Rights]:
        """The rights of the root and of the directories of a path in a version; [] if they cannot be read."""

        def question(opened: OpenVersion) -> list[Rights]:
            found, entry = [], opened.catalog.entry(ROOT_ID)
            for name in [*names, None]:
                if entry is None:
                    return []
                found.append(rights_of(opened.catalog.checked(entry), opened, self._owners))
                entry = opened.catalog.child(entry.id, name) if name is not None else None
            return found

        return self._catalogs.ask(version, question) or []

    def _named(self, runs: list[_Run]) -> FileStates:
        found = FileStates([], {})
        bare: dict[bytes, State] = {}
        named = [self._catalogs.versions[run.named] for run in runs]
        timed = [self._catalogs.task.timed_name(version) for version in named]
        days = [
            _with_extension(name[:_DATE_LENGTH], run.extension)
            for name, run in zip(timed, runs, strict=True)
        ]
        of_day = collections.Counter(days)
        for run, version, name, day in zip(runs, named, timed, days, strict=True):
            full = _with_extension(name, run.extension)
            shown = self._catalogs.versions[run.shown.version]
            listed = day if of_day[day] == 1 else full
            state = State(listed, version.id.sequence, shown, run.shown.entry.id)
            found.listed.append(state)
            found.by_name[full] = state
            bare.setdefault(day, state)
        for day, state in bare.items():
            found.by_name.setdefault(day, state)
        return found


def _is_no_directory(entry: Entry) -> bool:
    return entry.kind != Kind.DIRECTORY


def _runs(seen: list[Seen[int]]) -> list[_Run]:
    """The states among what the versions have, oldest first."""
    runs: list[_Run] = []
    before: Seen[int] | None = None
    for one in seen:
        if before is None or content_of(one.entry) != content_of(before.entry):
            runs.append(_Run(one.version, _extension(one.path), one))
        elif _metadata_of(one.entry) != _metadata_of(before.entry):
            runs[-1] = runs[-1]._replace(shown=one)
        before = one
    return runs


def _metadata_of(entry: Entry) -> tuple[object, ...]:
    return (entry.mode, entry.uid, entry.gid, entry.xattrs, entry.rdev, entry.holes)


def _extension(path: bytes) -> bytes:
    """What a file's name ends with, dot included, by which programs know it; b"" for nothing like that."""
    name = path.rpartition(b"/")[2].lstrip(b".")
    stem, dot, last = name.rpartition(b".")
    if not stem or not last or b" " in last:
        return b""
    inner = b".tar" if stem.endswith(b".tar") and stem != b".tar" else b""
    extension = inner + dot + last
    return extension if len(extension) <= _LONGEST_EXTENSION else b""


def _with_extension(name: str, extension: bytes) -> bytes:
    full = name.encode() + extension
    return full if len(full) <= NAME_MAX_BYTES else name.encode()
