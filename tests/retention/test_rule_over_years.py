"""The rule over long times: against the naive one, and with an expiry after each backup."""

import random
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssfs.model.policy import Policy
from ssfs.retention.rule import DatedVersion, decide
from tests.retention.histories import BERLIN, DAY, HOUR, UTC, WEEK, Task, at
from tests.retention.naive import naive_reasons

ZONES = [UTC, BERLIN, ZoneInfo("America/New_York"), ZoneInfo("Pacific/Apia")]

steps = st.one_of(
    st.integers(0, 60).map(lambda n: n * HOUR / 2),  # within a day or so
    st.just(DAY),
    st.integers(2, 12).map(lambda n: n * DAY),
    st.integers(13, 400).map(lambda n: n * DAY),
)
back_steps = st.integers(1, 24 * 90).map(lambda n: -n * HOUR)
policies = st.builds(
    Policy,
    days=st.integers(0, 11),
    weeks=st.integers(0, 8),
    months=st.integers(0, 14),
    keep_last=st.integers(1, 4),
)
zones = st.sampled_from(ZONES)


@st.composite
def histories(draw):
    """Versions with clocks going both ways, and a `now` that some may be later than."""
    time = at("2011-11-01")
    versions, sequence = [], 0
    for step in draw(st.lists(steps | back_steps, max_size=40)):
        time += step
        sequence += draw(st.integers(1, 3))
        versions.append(DatedVersion(sequence, time, draw(st.integers(0, 9)) == 0))
    return versions, time + draw(st.sampled_from([0 * DAY, 1000 * DAY]) | back_steps)


@pytest.mark.slow
@given(histories(), policies, zones)
@settings(max_examples=200, deadline=None)
def test_rule_agrees_with_the_naive_one_and_keeps_what_must_stay(case, policy, zone):
    versions, now = case
    decisions = decide(versions, policy, zone, now)
    assert {d.sequence: d.reasons for d in decisions} == naive_reasons(versions, policy, zone, now)

    kept = {d.sequence for d in decisions if d.keep}
    assert {v.sequence for v in versions[-policy.keep_last :]} <= kept
    assert {v.sequence for v in versions if v.pinned} <= kept
    assert {v.sequence for v in versions if v.time > now} <= kept

    in_buckets = [r for d in decisions for r in d.reasons if r.startswith(("day", "week", "month"))]
    assert len(in_buckets) == len(set(in_buckets))
    past = [v.time.astimezone(zone).date() for v in versions if v.time <= now]
    later_days = {day for day in past if day > past[-1]}
    assert len(in_buckets) <= policy.days + policy.weeks + policy.months + len(later_days)

    survivors = [v for v in versions if v.sequence in kept]
    assert decide(survivors, policy, zone, now) == [d for d in decisions if d.keep]


def buckets(reasons_of, kind):
    """Bucket name to holder."""
    return {
        reason: sequence
        for sequence, reasons in reasons_of.items()
        for reason in reasons
        if reason.startswith(kind)
    }


@pytest.mark.slow
@given(st.lists(steps, min_size=1, max_size=40), policies, zones)
@settings(max_examples=100, deadline=None)
def test_expiry_after_each_backup_loses_no_bucket(gaps, policy, zone):
    task = Task(policy, zone)
    everything: list[DatedVersion] = []
    time = at("2011-11-01")
    for gap in gaps:
        time += gap
        task.back_up(time)
        everything.append(DatedVersion(len(everything) + 1, time))
        ideal = naive_reasons(everything, policy, zone, time)
        for kind in ("day", "week"):
            assert buckets(task.reasons, kind) == buckets(ideal, kind)
        # A week keeps one version, so a month is without where all it had were in a week that
        # the next month holds; with no weeks in the policy that cannot be.
        lost = buckets(ideal, "month").keys() - buckets(task.reasons, "month").keys()
        assert not lost or policy.weeks
        for month in lost:
            had = [v for v in everything if f"month {v.time.astimezone(zone):%Y-%m}" == month]
            assert all(is_before_another_month_in_week(v, everything, zone) for v in had)


def is_before_another_month_in_week(version, everything, zone):
    day = version.time.astimezone(zone).date()
    others = [v.time.astimezone(zone).date() for v in everything if v.sequence > version.sequence]
    return any(
        other.isocalendar()[:2] == day.isocalendar()[:2] and other.month != day.month
        for other in others
    )


def test_half_a_year_of_daily_backups_leaves_22_at_every_step_whatever_the_first_day():
    for offset_days in range(0, 4 * 365, 173):
        task = Task(Policy(), BERLIN)
        start = at("2019-01-01") + offset_days * DAY
        for n in range(215):
            task.back_up(start + n * DAY)
            if n > 185:
                assert len(task.versions) == 22, (offset_days, n)


def run_ten_years(task, step):
    """Back up from 2016 to 2025, and yield after each expiry."""
    time = at("2016-01-01 00:00")
    while time < at("2026-01-01"):
        task.back_up(time)
        yield time
        time += step


@pytest.mark.slow
@pytest.mark.parametrize("zone", [UTC, BERLIN], ids=str)
def test_ten_years_of_daily_backups_leave_22_at_every_step(zone):
    task = Task(Policy(), zone)
    for n, _ in enumerate(run_ten_years(task, DAY)):
        if n > 185:
            assert len(task.versions) == 22


@pytest.mark.slow
def test_ten_years_of_hourly_backups_leave_22_at_every_step():
    # Hours cross midnight, the days of 23 and 25 hours and the leap days.
    task = Task(Policy(), BERLIN)
    for n, _ in enumerate(run_ten_years(task, HOUR)):
        if n > 186 * 24:
            assert len(task.versions) == 22


def test_ten_years_of_weekly_backups_leave_one_for_each_bucket_they_can_fill():
    task = Task(Policy(), BERLIN)
    for n, _ in enumerate(run_ten_years(task, WEEK)):
        if n > 30:
            # Of ten days one or two have a backup. All weeks and months have, but maybe the
            # week and the month that the count begins in, of which only some days take part.
            assert len(buckets(task.reasons, "day")) in (1, 2)
            assert len(buckets(task.reasons, "week")) in (6, 7)
            assert len(buckets(task.reasons, "month")) in (4, 5)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_ten_years_of_bad_luck_keep_to_the_rule_at_every_step(seed):
    # Runs around midnight at random minutes, gaps, a clock that jumps both ways, pins.
    chance = random.Random(seed)
    zone = chance.choice(ZONES)
    policy = chance.choice([Policy(), Policy(3, 2, 12), Policy(0, 4, 3), Policy(7, 0, 6, 3)])
    task = Task(policy, zone)
    true_time = at("2016-01-01 23:00")
    while true_time < at("2026-01-01"):
        true_time += chance.choice([HOUR, DAY, DAY, DAY, WEEK, chance.randrange(60) * DAY])
        clock = true_time + chance.randrange(-90, 90) * HOUR / 60
        if chance.random() < 0.03:
            clock += chance.randrange(-400, 400) * DAY
        pinned = chance.random() < 0.01
        task.add(clock, pinned=pinned)
        before = list(task.versions)
        task.expire(clock)
        ideal = naive_reasons(before, policy, zone, clock)
        assert task.reasons == {sequence: r for sequence, r in ideal.items() if r}
        must = {v.sequence for v in before if v.pinned or v.time > clock} | {before[-1].sequence}
        assert must <= task.reasons.keys()
