"""`du`: what versions hold, and what deleting one of them would free.

Content is counted by the number of its physical inode, which is unique over the versions of a task
(`ssfs.engine.questions.tally`). Not counted: metadata and catalogs, and what a sparse file's holes spare.
"""

import contextlib

from ssfs.engine.questions.tally import Tally
from ssfs.engine.questions.versions import TaskVersions
from ssfs.engine.selection import lost_tasks, whole_tasks
from ssfs.fsio.disk import store_errors
from ssfs.model.peer import Peer
from ssfs.protocol.questions import ShowUsage, TaskUsage, UsageReport, VersionProblem, VersionUsage
from ssfs.store.store import Store, Task
from ssfs.store.version import Version


def show_usage(store: Store, peer: Peer, request: ShowUsage) -> UsageReport:
    """What the versions of the tasks that the peer may read take.

    Raises:
        ConfigError: There is no such sync point or task.
        TrustError: The peer may not read the task.
    """
    usages: list[TaskUsage] = []
    problems: list[VersionProblem] = []
    for task in whole_tasks(store, peer, request.point, request.task):
        with store_errors(task.path):
            versions = TaskVersions(task)
            usages.append(_task_usage(task, versions))
        problems += versions.problems
    total = sum(usage.content_bytes for usage in usages)
    lost = lost_tasks(store, peer, request.point, request.task)
    return UsageReport(request.point, total, tuple(usages), tuple(problems), lost)


def _task_usage(task: Task, versions: TaskVersions) -> TaskUsage:
    with contextlib.closing(Tally()) as tally:
        # Those that cannot be read are left out.
        counted = [version for version in versions.intact if versions.ask(version, tally.add)]
    skipped = {problem.version for problem in versions.problems}
    is_unsure = _neighbours(versions.all, skipped)
    return TaskUsage(
        task=task.name,
        content_bytes=tally.content_bytes,
        versions=tuple(
            VersionUsage(
                version=str(version.id),
                mount_name=versions.names[version],
                entries=one.entries,
                bytes=one.bytes,
                content_bytes=one.content_bytes,
                freed_bytes=None if str(version.id) in is_unsure else one.own_bytes,
            )
            for version, one in zip(counted, tally.counted, strict=True)
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
