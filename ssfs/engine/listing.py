"""Answers to who only looks: what a store holds, and what a task does. Nothing here changes anything."""

from ssfs.clock import Clock
from ssfs.engine.expire import ExpiryPlan, plan_expiry
from ssfs.engine.selection import choose_task, lost_in, mount_names
from ssfs.fsio.disk import store_errors
from ssfs.model.peer import LOCAL, Peer
from ssfs.protocol.requests import (
    ListVersions,
    PointLine,
    PointsReport,
    TaskLine,
    VersionLine,
    VersionsReport,
)
from ssfs.store.store import Point, Store, Task


def list_points(store: Store, peer: Peer) -> PointsReport:
    """The sync points and tasks that are the peer's business."""
    with store_errors(store.path):
        return PointsReport(
            tuple(
                _point_line(point, peer)
                for point in store.points()
                if peer.may_use_point(point.name)
            )
        )


def list_versions(store: Store, peer: Peer, request: ListVersions, clock: Clock) -> VersionsReport:
    """The versions of a task, and why each of them stays."""
    task = choose_task(store, peer, request.point, request.task)
    with store_errors(task.path):
        plan = plan_expiry(task, clock.now())
        held = task.point.held or (str(plan.hold) if plan.hold else None)
        return VersionsReport(task.label, _version_lines(plan), held)


def _point_line(point: Point, peer: Peer) -> PointLine:
    tasks = (
        _task_line(task)
        for task in point.tasks()
        if peer.may_read_task(point.name, task.settings.owner) and task.has_versions()
    )
    lost = lost_in(point) if peer == LOCAL else ()
    return PointLine(point.name, point.settings.policy, tuple(tasks), lost)


def _task_line(task: Task) -> TaskLine:
    versions = task.versions()
    last = versions[-1] if versions else None
    return TaskLine(
        task=task.name,
        owner=task.settings.owner,
        source=task.settings.source,
        versions=len(versions),
        last_version=str(last.id) if last else None,
        # Only the newest of its day bears the bare date, and the last one is that.
        last_mount_name=mount_names([last]).get(last) if last else None,
        last_started=last.id.time if last else None,
    )


def _version_lines(plan: ExpiryPlan) -> tuple[VersionLine, ...]:
    names = mount_names([judged.version for judged in plan.judged])
    lines = []
    for version, reasons in plan.judged:
        record = version.record() if version in names else None
        damage = version.damage()
        lines.append(
            VersionLine(
                version=str(version.id),
                mount_name=names.get(version),
                started=version.id.time,
                seconds=record.seconds if record else None,
                entries=record.counts.entries if record else None,
                bytes=record.counts.bytes if record else None,
                new_bytes=record.counts.new_bytes if record else None,
                problems=record.counts.problems if record else None,
                pinned=version.is_pinned(),
                keep=reasons,
                damaged=None if damage.whole else len(damage.entries),
                shrunk=record.shrunk if record else None,
            )
        )
    return tuple(lines)
