"""The paper's rule: which versions of a task stay, and for which reasons.

Source: SmartSync paper, section 4 ("Freeing up disk space automatically"). For the last X days
the newest version of each day stays, for the Y weeks before them the newest of each week, for the
Z months before those the newest of each month. What the paper leaves open is fixed here:

* Buckets are calendar days, ISO weeks and calendar months in the store's time zone. Windows that
  slide (a week as "days 10 to 16 back from now") starve the older tiers: what enters each day
  evicts what entered the day before, and nothing grows old enough for the months.
* Everything counts back from the reference: the date of the newest version, by sequence, that is
  not dated in the future. So time passing alone never thins the history of a dead client.
* The weeks count back from the week that holds the last day before the day window, the months
  from the month that holds the last day before the first of those weeks. A bucket cut by such a
  border takes only the versions beyond it; thus a version that leaves one tier enters the next at
  once, and deciding after each backup over the survivors alone loses no bucket.
* "Newest" always means the highest sequence, never the latest date.
* A date after the reference, though not in the future (the clock went back), counts as inside the
  day window: nothing is dropped for being dated too late.
* Versions dated in the future stay and take no part in buckets. Pinned ones stay, and take part.

A decision over the survivors of a decision keeps all of them. This module does no I/O and reads no
clock; who expires, and whether the dates can be trusted (`ssfs.retention.hold`), is for others.
"""

import datetime
from collections.abc import Iterable

import msgspec

from ssfs.errors import ConfigError
from ssfs.model.policy import Policy

_DAYS_PER_WEEK = 7
_MONTHS_PER_YEAR = 12


class DatedVersion(msgspec.Struct, frozen=True):
    """What retention needs to know of a committed version.

    Attributes:
        sequence: Its place in the task's order of commits; unique in the task.
        time: Its date, aware.
        pinned: Whether somebody holds it by hand.
    """

    sequence: int
    time: datetime.datetime
    pinned: bool = False


class Decision(msgspec.Struct, frozen=True):
    """Why a version stays.

    Attributes:
        sequence: Of the version.
        reasons: Keep reasons in the order newest, last, day, week, month, pinned, future; empty
            when the version is to expire.
    """

    sequence: int
    reasons: tuple[str, ...]

    @property
    def keep(self) -> bool:
        """Whether the version stays."""
        return bool(self.reasons)


class _Tiers(msgspec.Struct, frozen=True):
    """Where the tiers begin; days are ordinals, which cannot overflow under a huge policy."""

    first_day: int
    first_day_of_weeks: int
    first_month: int


def decide(
    versions: Iterable[DatedVersion],
    policy: Policy,
    zone: datetime.tzinfo,
    now: datetime.datetime,
) -> list[Decision]:
    """Apply the rule to all committed versions of one task.

    Args:
        versions: In any order.
        policy: How many of each age stay.
        zone: Of the store; what a day is.
        now: What is later than this is dated in the future.

    Returns:
        One decision for each version, in sequence order.

    Raises:
        ConfigError: The policy has a negative number, or keeps not even the last version.
    """
    _check(policy)
    ordered = sorted(versions, key=lambda version: version.sequence)
    newest = ordered[-1].sequence if ordered else None
    last = {version.sequence for version in ordered[-policy.keep_last :]}
    days = {v.sequence: v.time.astimezone(zone).date() for v in ordered if v.time <= now}
    bucket_of = _newest_of_buckets(days, policy)
    # The reference must survive: were it expired, the next decision would count back from another
    # date. Its own bucket holds it, unless the policy has none; then it counts as newest as well.
    has_buckets = policy.days or policy.weeks or policy.months
    reference = None if has_buckets else next(reversed(days), None)

    decisions = []
    for version in ordered:
        sequence = version.sequence
        reasons = []
        if sequence in (newest, reference):
            reasons.append("newest")
        if policy.keep_last > 1 and sequence in last:
            reasons.append(f"last {policy.keep_last}")
        if sequence in bucket_of:
            reasons.append(bucket_of[sequence])
        if version.pinned:
            reasons.append("pinned")
        if sequence not in days:
            reasons.append("future")
        decisions.append(Decision(sequence, tuple(reasons)))
    return decisions


def _check(policy: Policy) -> None:
    """A policy that makes no sense must not decide what is deleted."""
    if min(policy.days, policy.weeks, policy.months) < 0 or policy.keep_last < 1:
        raise ConfigError(
            "A policy cannot keep a negative number of days, weeks or months, "
            "nor fewer than the last version"
        )


def _newest_of_buckets(days: dict[int, datetime.date], policy: Policy) -> dict[int, str]:
    """The versions that hold a bucket, and its name.

    Args:
        days: The date of each version that is not in the future, by ascending sequence.
        policy: The number of buckets of each kind.
    """
    if not days:
        return {}
    tiers = _tiers(days[next(reversed(days))], policy)
    holders: dict[str, int] = {}
    for sequence, day in days.items():
        bucket = _bucket(day, tiers)
        if bucket is not None:
            holders[bucket] = sequence  # a later sequence takes the bucket over
    return {sequence: bucket for bucket, sequence in holders.items()}


def _tiers(reference: datetime.date, policy: Policy) -> _Tiers:
    """Count the tiers back from the reference; one of no length begins where the younger does."""
    before_days = reference.toordinal() - policy.days
    first_day_of_weeks = before_days + 1
    if policy.weeks:
        monday = before_days - (before_days - 1) % _DAYS_PER_WEEK  # day 1 was a Monday
        first_day_of_weeks = monday - _DAYS_PER_WEEK * (policy.weeks - 1)
    # No version is older than day 1, so where the count ends before it, any month will do.
    before_weeks = datetime.date.fromordinal(max(1, first_day_of_weeks - 1))
    return _Tiers(
        first_day=before_days + 1,
        first_day_of_weeks=first_day_of_weeks,
        first_month=_month_number(before_weeks) - policy.months + 1,
    )


def _bucket(day: datetime.date, tiers: _Tiers) -> str | None:
    """The name of the one bucket that a date belongs to, as it appears in keep reasons."""
    ordinal = day.toordinal()
    if ordinal >= tiers.first_day:
        return f"day {day.isoformat()}"
    if ordinal >= tiers.first_day_of_weeks:
        iso = day.isocalendar()
        return f"week {iso.year:04}-W{iso.week:02}"
    if _month_number(day) >= tiers.first_month:
        return f"month {day.year:04}-{day.month:02}"
    return None


def _month_number(day: datetime.date) -> int:
    return day.year * _MONTHS_PER_YEAR + day.month
