"""Expiry: the retention rule applied to the versions of a task.

The rule itself is pure (`ssfs.retention`); this reads versions and moves those it lets go to trash. A version whose
record is damaged is not judged, and so never let go by rule. Expiry after a sync holds while the dates look
wrong, or the source has lost most of its files; an explicit `ssfs expire` does not, and remembers that.
"""

import datetime
from typing import NamedTuple

from ssfs.fsio.lock import DirectoryLock
from ssfs.model.policy import Policy
from ssfs.retention.hold import Hold, expiry_hold
from ssfs.retention.rule import DatedVersion, decide
from ssfs.retention.shrink import ShrinkHold
from ssfs.store.roll import settle_roll
from ssfs.store.store import Task
from ssfs.store.trash import empty_trash, move_to_trash
from ssfs.store.version import Version


class Judged(NamedTuple):
    """A version and why it stays; no reasons: it goes."""

    version: Version
    reasons: tuple[str, ...]


class ExpiryPlan(NamedTuple):
    """What the rule says of a task's versions, by sequence, and whether automatic expiry holds."""

    judged: list[Judged]
    hold: Hold | ShrinkHold | None

    @property
    def expired(self) -> list[Version]:
        """The versions that go."""
        return [item.version for item in self.judged if not item.reasons]


def plan_expiry(
    task: Task,
    now: datetime.datetime,
    policy: Policy | None = None,
    zone: datetime.tzinfo | None = None,
) -> ExpiryPlan:
    """What the rule says now, by the point's policy or another one; changes nothing."""
    versions = task.versions()
    intact = [version for version in versions if version.is_intact()]
    dated = [
        DatedVersion(version.id.sequence, version.id.time, version.is_pinned())
        for version in intact
    ]
    chosen = policy or task.point.settings.policy
    decisions = decide(dated, chosen, zone or task.point.store.zone, now)
    reasons = {decision.sequence: decision.reasons for decision in decisions}
    judged = [
        Judged(version, reasons.get(version.id.sequence, ("damaged",))) for version in versions
    ]
    released = task.settings.released_sequence
    newest = intact[-1] if intact else None
    hold = expiry_hold(dated, released) or (newest and shrink_hold(newest, released))
    return ExpiryPlan(judged, hold or None)


def shrink_hold(newest: Version, released_through: int) -> ShrinkHold | None:
    """Whether the newest version's flag makes automatic expiry hold.

    Args:
        newest: Of the versions whose record can be read.
        released_through: As in `expiry_hold`.
    """
    shrunk = newest.record().shrunk
    if shrunk is None or newest.id.sequence <= released_through:
        return None
    return ShrinkHold(newest.id.sequence, shrunk)


def files_before(task: Task, base: Version) -> int:
    """How many files the source of the version after `base` is held against: before it shrank, if it has.

    Raises:
        CorruptStore: The base cannot be read.
    """
    hold = shrink_hold(base, task.settings.released_sequence)
    if hold is not None:
        return hold.shrunk.before
    with base.catalog() as catalog:
        return catalog.number("files")


def expire(task: Task, now: datetime.datetime, *, automatic: bool) -> ExpiryPlan:
    """Move what the rule lets go to trash; deletes nothing yet (`empty_trash`).

    Args:
        task: Whose versions.
        now: The server's time.
        automatic: After a sync, nobody asked: hold while something looks wrong.
    """
    with task.guard() as guard:
        plan = plan_expiry(task, now)
        if automatic and plan.hold is not None:
            settle_roll(task, guard)
            return plan
        if not automatic and plan.hold is not None:
            newest = plan.judged[-1].version.id.sequence
            task.update_settings(guard, released_sequence=newest)
        settle_roll(task, guard, [version.id for version in plan.expired])
        for version in plan.expired:
            move_to_trash(version, guard)
    return plan


def delete(task: Task, versions: list[Version], guard: DirectoryLock) -> None:
    """Move these versions to trash whatever the rule says.

    The caller holds the task's guard, and has checked pins under it.
    """
    # Only where the numbers of what stays do not tell: a full disk takes no new file.
    gone = {version.id.sequence for version in versions}
    stays = {version.id.sequence for version in task.versions()} - gone
    if max(stays, default=0) < max(gone, default=0):
        task.update_settings(guard, last_sequence=task.next_sequence() - 1)
    settle_roll(task, guard, [version.id for version in versions])
    for version in versions:
        move_to_trash(version, guard)


def clean_up(task: Task) -> int:
    """Delete what is in trash and nobody reads; how many versions that were."""
    return empty_trash(task.path)
