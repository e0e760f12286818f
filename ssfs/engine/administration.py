"""Commands that change a store: settings of a sync point, expiry, deletion, pins.

Each is one function that first asks for the right, then says what would happen, and does it only if the request
says `apply`; what it does is judged anew then, under the task's guard where a version's life is at stake.
Whoever has the store's files becomes its owner before anything changes; a server is that already.
"""

import datetime

import msgspec

from ssfs.clock import Clock
from ssfs.engine.expire import ExpiryPlan, clean_up, delete, expire, plan_expiry
from ssfs.engine.rights import check_administration, check_use
from ssfs.engine.selection import (
    choose_task,
    choose_version,
    lost_tasks,
    mount_names,
    whole_tasks,
)
from ssfs.errors import ConfigError
from ssfs.fsio.disk import store_errors
from ssfs.model.peer import LOCAL, Peer
from ssfs.model.policy import Policy
from ssfs.model.version import PointSettings, VersionId
from ssfs.protocol.requests import (
    DeleteReport,
    DeleteVersions,
    ExpireReport,
    ExpireVersions,
    Fate,
    Loss,
    PinReport,
    PointReport,
    SetPin,
    SetPoint,
    TaskExpiry,
)
from ssfs.store.store import Point, Store, Task, check_name
from ssfs.store.textfile import FORMAT
from ssfs.store.usage import point_usage_bytes
from ssfs.store.version import Version

_POLICY_FIELDS = ("days", "weeks", "months", "keep_last")
_LIMIT_FIELDS = ("max_concurrent", "quota_bytes")


def _own(store: Store, peer: Peer) -> None:
    """Be who may write the store."""
    if peer == LOCAL:
        store.become_owner()


# -- sync points -----------------------------------------------------------------------------------


def set_point(store: Store, peer: Peer, request: SetPoint, clock: Clock) -> PointReport:
    """Show a sync point, set it, or make it."""
    name = check_name(request.point, "sync point")
    check_use(peer, name)
    is_new = name not in {point.name for point in store.points()}
    if is_new or _given(request, (*_POLICY_FIELDS, *_LIMIT_FIELDS)):
        check_administration(peer, name, f"{'make' if is_new else 'set'} sync point {name!r}")
    with store_errors(store.path):
        point = None if is_new else store.point(name)
        before = PointSettings(FORMAT, store.settings.policy) if point is None else point.settings
        after = _changed(before, request)
        if is_new or after != before:
            _own(store, peer)
            if request.apply:
                point = point or store.create_point(name)
                before = point.update_settings(lambda current: _changed(current, request))
                after = point.settings
        return _point_report(name, point, before, after, is_new=is_new, now=clock.now())


def _given(request: SetPoint, fields: tuple[str, ...]) -> dict[str, int]:
    """The numbers among these that the request names."""
    values = {field: getattr(request, field) for field in fields}
    return {field: value for field, value in values.items() if value is not None}


def _changed(settings: PointSettings, request: SetPoint) -> PointSettings:
    return msgspec.structs.replace(
        settings,
        policy=msgspec.structs.replace(settings.policy, **_given(request, _POLICY_FIELDS)),
        limits=msgspec.structs.replace(settings.limits, **_given(request, _LIMIT_FIELDS)),
    )


def _point_report(
    name: str,
    point: Point | None,
    before: PointSettings,
    after: PointSettings,
    *,
    is_new: bool,
    now: datetime.datetime,
) -> PointReport:
    losses: list[Loss] = []
    if point is not None and after.policy != before.policy:
        losses = _losses(point, before.policy, after.policy, now)
    quota = after.limits.quota_bytes or None
    used = None
    if quota is not None:
        used = point_usage_bytes(point) if point is not None else 0
    return PointReport(
        point=name,
        policy=after.policy,
        max_concurrent=after.limits.max_concurrent,
        quota=quota,
        used=used,
        created=is_new,
        changed=after != before,
        expires=tuple(losses),
    )


def _losses(point: Point, before: Policy, after: Policy, now: datetime.datetime) -> list[Loss]:
    """What a policy lets go that the one before keeps, by task; those that have lost their versions have none to let go."""
    losses = []
    for task in filter(Task.has_versions, point.tasks()):
        gone = {str(version.id) for version in plan_expiry(task, now, before).expired}
        going = [str(version.id) for version in plan_expiry(task, now, after).expired]
        versions = tuple(version for version in going if version not in gone)
        if versions:
            losses.append(Loss(task.name, versions))
    return losses


# -- expiry ----------------------------------------------------------------------------------------


def expire_versions(
    store: Store, peer: Peer, request: ExpireVersions, clock: Clock
) -> ExpireReport:
    """Let versions go by the policy, those of one task or of all of a sync point."""
    if not request.dry_run:
        check_administration(
            peer, request.point, f"expire versions in sync point {request.point!r}"
        )
    tasks = whole_tasks(store, peer, request.point, request.task)
    if tasks and not request.dry_run:
        _own(store, peer)
    reports = []
    now = clock.now()
    is_applied = request.apply and not request.dry_run
    for task in tasks:
        with store_errors(task.path):
            plan = expire(task, now, automatic=False) if is_applied else plan_expiry(task, now)
            reports.append(_task_expiry(task, plan))
    if is_applied:
        for task in tasks:
            with store_errors(task.path):
                clean_up(task)
    lost = lost_tasks(store, peer, request.point, request.task)
    return ExpireReport(request.dry_run, tuple(reports), lost)


def _task_expiry(task: Task, plan: ExpiryPlan) -> TaskExpiry:
    names = mount_names([judged.version for judged in plan.judged])
    return TaskExpiry(
        task=task.name,
        expired=tuple(str(version.id) for version in plan.expired),
        versions=tuple(
            Fate(str(version.id), names.get(version), reasons) for version, reasons in plan.judged
        ),
        held=str(plan.hold) if plan.hold else None,
    )


# -- single versions -------------------------------------------------------------------------------


def delete_versions(store: Store, peer: Peer, request: DeleteVersions) -> DeleteReport:
    """Delete versions by name; all of them or, if one may not go, none."""
    check_administration(peer, request.point, f"delete versions in sync point {request.point!r}")
    task = choose_task(store, peer, request.point, request.task)
    chosen = _deletable(task, request.versions)
    _own(store, peer)
    if request.apply:
        with task.guard() as guard, store_errors(task.path):
            chosen = _deletable(task, request.versions)
            if tuple(map(str, chosen)) != request.agreed:
                raise ConfigError(
                    "Other versions are meant now than before you agreed: nothing was deleted",
                    remedy="run the command again",
                )
            delete(task, list(chosen.values()), guard)
        with store_errors(task.path):
            clean_up(task)
    return DeleteReport(tuple(map(str, chosen)))


def _deletable(task: Task, texts: tuple[str, ...]) -> dict[VersionId, Version]:
    """The versions that the texts mean, each once, if all may be deleted by those names."""
    found = (_deletable_version(task, text) for text in texts)
    return {version.id: version for version in found}


def _deletable_version(task: Task, text: str) -> Version:
    found = choose_version(task, text)
    with store_errors(task.path):
        if found.is_pinned():
            raise ConfigError(f"Version {found.id} is pinned", remedy="`ssfs unpin` lets it go")
        newest = task.versions()[-1]
    if found.id == newest.id and text != str(found.id):
        raise ConfigError(
            f"{text!r} is the newest version",
            remedy=f"to delete it all the same, name it by its id: {found.id}",
        )
    return found


def set_pin(store: Store, peer: Peer, request: SetPin, clock: Clock) -> PinReport:
    """Hold a version or let it go; doing it twice changes nothing."""
    check_administration(
        peer, request.point, f"pin or unpin versions in sync point {request.point!r}"
    )
    task = choose_task(store, peer, request.point, request.task)
    choose_version(task, request.version)
    _own(store, peer)
    with task.guard(), store_errors(task.path):
        # Chosen again under the guard: nothing can expire it between the choice and the pin.
        chosen = choose_version(task, request.version)
        if not request.is_pinned:
            chosen.unpin()
        elif not chosen.is_pinned():
            chosen.pin(clock.now().replace(microsecond=0))
    return PinReport(str(chosen.id))
