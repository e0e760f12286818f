"""When automatic expiry holds, and what releases it."""

import datetime
import itertools

import pytest

from ssfs.model.policy import Policy
from ssfs.retention.hold import Hold, expiry_hold
from ssfs.retention.rule import DatedVersion
from tests.retention.histories import BERLIN, DAY, HOUR, UTC, WEEK, Task, at, spaced

YEAR = 365


def held_by(versions, released_through=0):
    hold = expiry_hold(versions, released_through)
    return None if hold is None else hold.sequence


@pytest.mark.parametrize("gaps", [(), (1,), (1, 1, 1, 1), (0, 0, 0, 1), (2,), (0.04,) * 30])
def test_usual_dates_do_not_hold(gaps):
    assert expiry_hold(spaced(*gaps)) is None


def test_no_versions_do_not_hold():
    assert expiry_hold([]) is None


def test_client_back_after_a_year_holds():
    assert expiry_hold(spaced(1, 1, 1, YEAR)) == Hold(5, YEAR * DAY, DAY)


def test_order_of_the_input_does_not_matter():
    assert held_by(reversed(spaced(1, 1, 1, YEAR))) == 5


@pytest.mark.parametrize(
    ("gap", "is_held"), [(3, False), (3.01, True), (2.9, False)], ids=["three", "more", "less"]
)
def test_more_than_three_usual_gaps_hold(gap, is_held):
    assert (expiry_hold(spaced(1, 1, 1, gap)) is not None) == is_held


@pytest.mark.parametrize(("gap", "is_held"), [(2, False), (2.01, True)], ids=["two", "more"])
def test_up_to_two_days_never_hold(gap, is_held):
    hourly = (1 / 24,) * 12
    assert (expiry_hold(spaced(*hourly, gap)) is not None) == is_held


def test_second_version_of_a_task_has_no_usual_gap():
    assert expiry_hold(spaced(2)) is None
    assert expiry_hold(spaced(2.01)) == Hold(2, 2.01 * DAY, None)


def test_usual_gap_is_the_median_of_the_last_ten_before():
    # Of the ten gaps before, nine are weeks; of all, most are days.
    daily_then_weekly = (1,) * 20 + (7,) * 9
    assert expiry_hold(spaced(*daily_then_weekly, 20)) is None
    assert expiry_hold(spaced(*daily_then_weekly, 22)) == Hold(31, 22 * DAY, WEEK)
    half_weekly = (1,) * 20 + (7,) * 5
    assert expiry_hold(spaced(*half_weekly, 13)) == Hold(27, 13 * DAY, 4 * DAY)
    assert expiry_hold(spaced(1, 3, 7)) == Hold(4, 7 * DAY, 2 * DAY)


def test_three_later_versions_at_the_usual_pace_release():
    gaps = (1, 1, 1, YEAR)
    assert held_by(spaced(*gaps, 1)) == 5
    assert held_by(spaced(*gaps, 1, 1)) == 5
    assert held_by(spaced(*gaps, 1, 1, 1)) is None


def test_suspicious_version_among_the_later_ones_holds_on_its_own():
    gaps = (1, 1, 1, YEAR, 1, YEAR)
    assert held_by(spaced(*gaps)) == 7
    assert held_by(spaced(*gaps, 1, 1)) == 7
    assert held_by(spaced(*gaps, 1, 1, 1)) is None


def test_explicit_expire_releases_what_was_there():
    jumped = spaced(1, 1, 1, YEAR, 1)
    assert held_by(jumped, released_through=4) == 5
    assert held_by(jumped, released_through=5) is None
    assert held_by(jumped, released_through=6) is None
    assert held_by(spaced(1, 1, 1, YEAR, 1, YEAR), released_through=6) == 7


def test_clock_that_goes_back_does_not_hold_and_says_nothing_on_the_usual_gap():
    assert expiry_hold(spaced(1, 1, 1, -YEAR)) is None
    assert expiry_hold(spaced(1, -9, -9, -9, 2.5)) is None
    assert expiry_hold(spaced(1, -9, -9, -9, 4)) == Hold(6, 4 * DAY, DAY)


def test_gap_over_expired_versions_is_no_jump():
    # A daily task with a day window of one: Sunday, then Thursday, Friday of the next week.
    days = [7, 11, 12]
    survivors = [DatedVersion(n, at("2024-01-01") + n * DAY) for n in days]
    assert expiry_hold(survivors) is None


def test_usual_gap_counts_each_commit_between_survivors():
    # Survivors weeks apart do not make a jump of eight days look usual.
    sequences = [7, 14, 21, 28, 29]
    survivors = [DatedVersion(n, at("2024-01-01") + n * DAY) for n in sequences]
    survivors.append(DatedVersion(30, survivors[-1].time + 8 * DAY))
    assert expiry_hold(survivors) == Hold(30, 8 * DAY, DAY)


def test_later_versions_release_even_where_they_are_expired_since():
    before = at("2024-01-01")
    after = before + 60 * DAY
    survivors = [
        DatedVersion(48, before),
        DatedVersion(49, before + DAY),
        DatedVersion(50, after),
        DatedVersion(53, after + 3 * DAY),
    ]
    assert expiry_hold(survivors) is None
    assert held_by(survivors[:3]) == 50


def test_hold_says_why_and_what_releases_it():
    assert str(Hold(42, datetime.timedelta(days=YEAR, hours=3), DAY)) == (
        "Expiry holds because version 42 is dated 365 days after the one before it, "
        "where 1 day is usual: three more versions at the usual pace, or `ssfs expire`, release it"
    )
    assert "3 days after the one before it, where 1 hour is usual" in str(Hold(4, 3 * DAY, HOUR))
    assert "where 26 hours is usual" in str(Hold(4, 5 * DAY, 26 * HOUR))
    assert "where 10 minutes is usual" in str(Hold(4, 3 * DAY, HOUR / 6))
    assert "and how long is usual is not known yet" in str(Hold(2, 3 * DAY, None))


def back_up_unless_held(task, time):
    """One ordinary night with the hold rule; the hold, if any."""
    task.add(time)
    hold = expiry_hold(task.versions)
    if hold is None:
        task.expire(time)
        # Thinning has made gaps: looked at again, by somebody who lists versions, they are none.
        hold = expiry_hold(task.versions)
    return hold


POLICIES = [
    Policy(days, weeks, months, keep_last)
    for days, weeks, months in itertools.product((0, 1, 2, 10), (0, 1, 7), (0, 5))
    for keep_last in (1, 3)
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "backups", "unknown_pace"),
    [
        (HOUR, 24 * 21, set()),
        (DAY, 300, set()),
        # Nothing is usual yet at the second version; the third to fifth release that hold.
        (2.5 * DAY, 150, {2, 3, 4}),
        (WEEK, 120, {2, 3, 4}),
    ],
    ids=["hourly", "daily", "every_60_hours", "weekly"],
)
def test_expiry_itself_never_makes_a_gap_that_holds(step, backups, unknown_pace):
    for policy in POLICIES:
        task = Task(policy, BERLIN)
        held = {
            n
            for n in range(1, backups + 1)
            if back_up_unless_held(task, at("2023-10-01") + n * step)
        }
        assert held == unknown_pace, policy


@pytest.mark.parametrize("step", [HOUR, DAY, WEEK], ids=["hourly", "daily", "weekly"])
@pytest.mark.parametrize("jump_days", [30, 90, 3 * YEAR])
def test_history_stays_whole_until_three_versions_after_a_jump(step, jump_days):
    task = Task(Policy(), BERLIN)
    time = at("2020-01-01")
    for _ in range(400):
        time += step
        back_up_unless_held(task, time)
    before = list(task.versions)

    time += jump_days * DAY
    holds = []
    for _ in range(20):
        holds.append(back_up_unless_held(task, time) is not None)
        if holds[-1]:
            assert task.versions[: len(before)] == before
        time += step
    assert holds == [True] * 3 + [False] * 17
    assert task.versions[: len(before)] != before


@pytest.mark.slow
@pytest.mark.parametrize("jump_days", [30, 60, YEAR])
@pytest.mark.parametrize("step", [HOUR, DAY, WEEK], ids=["hourly", "daily", "weekly"])
def test_released_jump_never_holds_again(step, jump_days):
    # Right after the release, expiry may leave one survivor from before the jump and the newest.
    for policy in POLICIES:
        task = Task(policy, UTC)
        time = at("2020-01-01")
        held = set()
        for n in range(1, 90):
            time += step if n != 50 else jump_days * DAY
            if back_up_unless_held(task, time):
                held.add(n)
        # A policy that leaves but one version has no pace to compare with, and nothing to lose.
        assert held - {2, 3, 4} <= {50, 51, 52}, policy
        if policy.keep_last == 3:
            assert held >= {50, 51, 52}, policy


def test_tiny_policy_leaves_no_pace_to_compare_with():
    # A weekly task that keeps one version: each new one would look like a jump.
    assert (
        expiry_hold([DatedVersion(5, at("2024-05-01")), DatedVersion(6, at("2024-05-08"))]) is None
    )
