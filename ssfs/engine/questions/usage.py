"""`du`: what versions hold, and what deleting one of them would free.

Content is counted by the number of its physical inode, which is unique over the versions of a task: one pass over each
catalog, with four bytes for each inode a task ever had. Not counted: metadata and catalogs, and what a sparse
file's holes spare.
"""

import itertools
from array import array

from ssfs.engine.questions.versions import TaskVersions
from ssfs.engine.selection import readable_tasks
from ssfs.fsio.disk import store_errors
from ssfs.model.peer import Peer
from ssfs.protocol.questions import ShowUsage, TaskUsage, UsageReport, VersionProblem, VersionUsage
from ssfs.store.catalog.reader import CatalogReader
from ssfs.store.store import Store, Task
from ssfs.store.version import Version

_MOST_NUMBERED = 1 << 26
"""Inodes with larger numbers cost more memory each."""


def show_usage(store: Store, peer: Peer, request: ShowUsage) -> UsageReport:
    """What the versions of the tasks that the peer may read take.

    Raises:
        ConfigError: There is no such sync point or task.
        TrustError: The peer may not read the task.
    """
    usages: list[TaskUsage] = []
    problems: list[VersionProblem] = []
    for task in readable_tasks(store, peer, request.point, request.task):
        with store_errors(task.path):
            versions = TaskVersions(task)
            usages.append(_task_usage(task, versions))
        problems += versions.problems
    total = sum(usage.content_bytes for usage in usages)
    return UsageReport(request.point, total, tuple(usages), tuple(problems))


class _Counted:
    """What one version holds."""

    def __init__(self, version: Version) -> None:
        self.version = version
        self.entries = self.bytes = self.content_bytes = self.own_bytes = 0


def _task_usage(task: Task, versions: TaskVersions) -> TaskUsage:
    tally = _Tally()
    for version in versions.intact:
        tally.count(version, versions)
    skipped = {problem.version for problem in versions.problems}
    is_unsure = _neighbours(versions.all, skipped)
    return TaskUsage(
        task=task.name,
        content_bytes=tally.content_bytes,
        versions=tuple(
            VersionUsage(
                version=str(one.version.id),
                mount_name=versions.names[one.version],
                entries=one.entries,
                bytes=one.bytes,
                content_bytes=one.content_bytes,
                freed_bytes=None if str(one.version.id) in is_unsure else one.own_bytes,
            )
            for one in tally.counted
        ),
    )


def _neighbours(versions: list[Version], skipped: set[str]) -> set[str]:
    """Versions next to one that was skipped, which may share what they alone seem to hold."""
    ids = [str(version.id) for version in versions]
    # A content leaves a history once and does not come back: it is in versions without a gap.
    unsure: set[str] = set()
    for order in (ids, ids[::-1]):
        was_skipped = False
        for name in order:
            if name in skipped:
                was_skipped = True
            elif was_skipped:
                unsure.add(name)
                was_skipped = False
    return unsure


class _Tally:
    """Who holds which content.

    Attributes:
        counted: The versions so far.
        content_bytes: What they hold together, each content once.
    """

    def __init__(self) -> None:
        self.counted: list[_Counted] = []
        self.content_bytes = 0
        # For each inode: the version that had it last, from 1, and negative if one before had it too.
        self._numbered = array("i")
        self._unnumbered: dict[int, int] = {}

    def count(self, version: Version, versions: TaskVersions) -> None:
        """Add a version; one that turns out to be damaged is left out, whatever was read of it."""
        # Read twice: what a damaged catalog says before the damage must not be counted.
        if versions.ask(version, CatalogReader.has_sound_contents):
            counted = _Counted(version)
            self.counted.append(counted)
            versions.ask(version, lambda catalog: self._add(catalog, counted))

    def _add(self, catalog: CatalogReader, counted: _Counted) -> None:
        counted.entries = catalog.number("entries")
        self._make_room(catalog.number("next_content"))
        mine = len(self.counted)
        shared = -mine
        numbered, unnumbered = self._numbered, self._unnumbered
        known = len(numbered)
        total = held = own = new = 0
        for entry_id, content, size in itertools.chain.from_iterable(catalog.contents()):
            total += size
            if 0 < content < known:
                last = numbered[content]
                if last == mine or last == shared:  # noqa: SIM109  # no tuple is made for each file
                    continue
                numbered[content] = shared if last else mine
            else:
                number = content or -entry_id
                last = unnumbered.get(number, 0)
                if last == mine or last == shared:  # noqa: SIM109  # no tuple is made for each file
                    continue
                unnumbered[number] = shared if last else mine
            held += size
            if not last:
                own += size
                new += size
            elif last > 0:
                self.counted[last - 1].own_bytes -= size
        counted.bytes, counted.content_bytes, counted.own_bytes = total, held, own
        self.content_bytes += new

    def _make_room(self, numbers: int) -> None:
        more = min(numbers + 1, _MOST_NUMBERED) - len(self._numbered)
        if more > 0:
            self._numbered.frombytes(bytes(more * self._numbered.itemsize))
