"""The rule, as tables: a date, and why its version stays ("" where it expires)."""

import datetime
from zoneinfo import ZoneInfo

import pytest

from ssfs.errors import ConfigError
from ssfs.model.policy import Policy
from ssfs.retention.rule import DatedVersion, Decision, decide
from tests.retention.histories import BERLIN, DAY, HOUR, UTC, Task, at, history

PAPER = Policy(days=10, weeks=7, months=5)
FAR_LATER = at("2039-01-01")


def check(table, policy, zone=UTC, now=FAR_LATER, pinned=()):
    """Decide over the dates of the table, versions 1, 2, 3 ..., and compare the reasons."""
    versions = [
        DatedVersion(v.sequence, v.time, v.sequence in pinned)
        for v in history(*(date for date, _ in table))
    ]
    decisions = decide(versions, policy, zone, now)
    assert [d.sequence for d in decisions] == [v.sequence for v in versions]
    got = [(date, ", ".join(d.reasons)) for (date, _), d in zip(table, decisions, strict=True)]
    assert got == table
    assert [d.keep for d in decisions] == [bool(reasons) for _, reasons in table]


def test_no_versions_no_decisions():
    assert decide([], PAPER, UTC, FAR_LATER) == []


def test_one_version_is_newest_and_its_day():
    check([("2024-05-01", "newest, day 2024-05-01")], PAPER)


def test_decisions_come_in_sequence_order_whatever_the_input_order():
    versions = history("2024-05-01", "2024-05-02", "2024-05-03")
    assert decide(reversed(versions), PAPER, UTC, FAR_LATER) == [
        Decision(1, ("day 2024-05-01",)),
        Decision(2, ("day 2024-05-02",)),
        Decision(3, ("newest", "day 2024-05-03")),
    ]


def test_paper_example_after_a_year_of_daily_backups():
    task = Task(PAPER)
    time = at("2023-05-19")
    while time <= at("2024-05-19"):
        task.back_up(time)
        time += DAY
    assert task.kept() == [
        ("2023-11-26", "month 2023-11"),
        ("2023-12-31", "month 2023-12"),
        ("2024-01-28", "month 2024-01"),
        ("2024-02-25", "month 2024-02"),
        ("2024-03-24", "month 2024-03"),
        ("2024-03-31", "week 2024-W13"),
        ("2024-04-07", "week 2024-W14"),
        ("2024-04-14", "week 2024-W15"),
        ("2024-04-21", "week 2024-W16"),
        ("2024-04-28", "week 2024-W17"),
        ("2024-05-05", "week 2024-W18"),
        ("2024-05-09", "week 2024-W19"),
        ("2024-05-10", "day 2024-05-10"),
        ("2024-05-11", "day 2024-05-11"),
        ("2024-05-12", "day 2024-05-12"),
        ("2024-05-13", "day 2024-05-13"),
        ("2024-05-14", "day 2024-05-14"),
        ("2024-05-15", "day 2024-05-15"),
        ("2024-05-16", "day 2024-05-16"),
        ("2024-05-17", "day 2024-05-17"),
        ("2024-05-18", "day 2024-05-18"),
        ("2024-05-19", "newest, day 2024-05-19"),
    ]


def test_week_cut_by_the_day_window_takes_only_what_is_older():
    check(
        [
            ("2024-05-06", ""),  # Monday
            ("2024-05-07", "week 2024-W19"),
            ("2024-05-08", "day 2024-05-08"),
            ("2024-05-09", "newest, day 2024-05-09"),
        ],
        Policy(days=2, weeks=1, months=0),
    )


def test_month_cut_by_the_first_week_takes_only_what_is_older():
    check(
        [
            ("2024-04-30", ""),
            ("2024-05-01", ""),
            ("2024-05-05", "month 2024-05"),  # Sunday
            ("2024-05-06", ""),
            ("2024-05-12", "week 2024-W19"),
            ("2024-05-13", "newest, day 2024-05-13"),
        ],
        Policy(days=1, weeks=1, months=1),
    )


def test_of_two_versions_of_one_day_the_newer_stays():
    check(
        [
            ("2024-05-01 02:00", ""),
            ("2024-05-01 14:00", "day 2024-05-01"),
            ("2024-05-02 02:00", ""),
            ("2024-05-02 14:00", "newest, day 2024-05-02"),
        ],
        PAPER,
    )


def test_keep_last_holds_versions_whatever_their_day():
    check(
        [
            ("2024-05-01 02:00", ""),
            ("2024-05-02 02:00", ""),
            ("2024-05-02 03:00", "last 3"),
            ("2024-05-02 04:00", "last 3"),
            ("2024-05-02 05:00", "newest, last 3, day 2024-05-02"),
        ],
        Policy(days=1, weeks=0, months=0, keep_last=3),
    )


def test_keep_last_larger_than_the_history_keeps_all_of_it():
    check(
        [("2004-05-01", "last 9"), ("2024-05-01", "newest, last 9, day 2024-05-01")],
        Policy(keep_last=9),
    )


def test_pinned_version_stays_and_still_holds_its_bucket():
    check(
        [
            ("2010-01-01", "pinned"),
            ("2024-05-01 02:00", ""),
            ("2024-05-01 14:00", "day 2024-05-01, pinned"),
            ("2024-05-02", "newest, day 2024-05-02"),
        ],
        PAPER,
        pinned={1, 3},
    )


def test_future_versions_stay_and_move_no_window():
    check(
        [
            ("2023-05-01", ""),
            ("2024-05-01", "day 2024-05-01"),
            ("2034-01-01", "future"),
            ("2034-01-01", "future"),
            ("2024-05-02", "day 2024-05-02"),
            ("2035-01-01", "newest, future"),
        ],
        PAPER,
        now=at("2024-05-02"),
    )


def test_version_dated_exactly_now_is_not_in_the_future():
    check([("2024-05-01", "newest, day 2024-05-01")], PAPER, now=at("2024-05-01"))


def test_all_versions_in_the_future_stay():
    check([("2034-01-01", "future"), ("2034-01-01", "newest, future")], PAPER, now=at("2024-05-02"))


def test_newest_of_a_bucket_is_by_sequence_not_by_time():
    check(
        [
            ("2024-05-01 14:00", ""),
            ("2024-05-01 02:00", "day 2024-05-01"),
            ("2024-05-02", "newest, day 2024-05-02"),
        ],
        PAPER,
    )


def test_clock_that_went_back_drops_no_later_day():
    check(
        [
            ("2024-05-01", "day 2024-05-01"),
            ("2024-06-10 02:00", ""),
            ("2024-06-10 14:00", "day 2024-06-10"),
            ("2024-06-11", "day 2024-06-11"),
            ("2024-05-02", "newest, day 2024-05-02"),
        ],
        Policy(days=2, weeks=0, months=0),
    )


def test_clock_that_went_back_drops_no_later_day_even_without_a_day_window():
    check(
        [
            ("2024-05-01", ""),
            ("2024-05-03", "day 2024-05-03"),
            ("2024-05-02", "newest, week 2024-W18"),
        ],
        Policy(days=0, weeks=1, months=0),
    )


def test_history_of_a_dead_client_is_the_same_ten_years_later():
    versions = history("2024-01-01", "2024-03-01", "2024-04-29", "2024-04-30", "2024-05-01")
    then = decide(versions, PAPER, UTC, at("2024-05-01"))
    assert decide(versions, PAPER, UTC, at("2034-05-01")) == then
    assert all(d.keep for d in then)


@pytest.mark.parametrize(
    ("policy", "reasons"),
    [
        (Policy(days=0, weeks=2, months=1), ["month 2024-04", "week 2024-W17", "week 2024-W18"]),
        (Policy(days=2, weeks=0, months=2), ["", "month 2024-04", "day 2024-05-04"]),
        (Policy(days=1, weeks=2, months=0), ["", "week 2024-W17", "week 2024-W18"]),
        (Policy(days=0, weeks=0, months=2), ["", "month 2024-04", ""]),
        (Policy(days=0, weeks=1, months=0), ["", "", ""]),
        (Policy(days=0, weeks=0, months=0), ["", "", ""]),
    ],
)
def test_tiers_of_no_length(policy, reasons):
    newest = {
        (0, 2): "newest, week 2024-W18",
        (0, 1): "newest, week 2024-W18",
        (0, 0): "newest, month 2024-05" if policy.months else "newest",
    }.get((policy.days, policy.weeks), "newest, day 2024-05-05")
    if (policy.days, policy.weeks) == (0, 2):
        reasons = ["month 2024-04", "week 2024-W17", ""]  # the newest holds W18 itself
    dates = ["2024-04-20", "2024-04-28", "2024-05-04", "2024-05-05"]
    check(list(zip(dates, [*reasons, newest], strict=True)), policy)


def test_reference_stays_under_a_policy_without_buckets():
    # Were version 2 expired, version 1 would be the next reference and change what is kept.
    table = [("2024-05-02", "day 2024-05-02"), ("2024-05-01", "newest"), ("2034-01-01", "x")]
    table[2] = ("2034-01-01", "newest, future")
    check(table, Policy(days=0, weeks=0, months=0), now=at("2024-05-03"))


def test_year_change_in_iso_week_53():
    check(
        [
            ("2020-12-20", "month 2020-12"),
            ("2020-12-27", "week 2020-W52"),
            ("2020-12-31", ""),
            ("2021-01-01", ""),
            ("2021-01-03", "week 2020-W53"),
            ("2021-01-04", "newest, day 2021-01-04"),
        ],
        Policy(days=1, weeks=2, months=2),
    )


def test_year_change_in_iso_week_1():
    check(
        [
            ("2024-12-29", "week 2024-W52"),
            ("2024-12-30", ""),
            ("2025-01-01", "week 2025-W01"),
            ("2025-01-02", "newest, day 2025-01-02"),
        ],
        Policy(days=1, weeks=2, months=0),
    )


def test_months_count_back_over_the_year_change_and_a_leap_day():
    check(
        [
            ("2023-11-30", ""),
            ("2023-12-31", "month 2023-12"),
            ("2024-01-31", "month 2024-01"),
            ("2024-02-28", ""),
            ("2024-02-29", "month 2024-02"),
            ("2024-03-01", "newest, day 2024-03-01"),
        ],
        Policy(days=1, weeks=0, months=3),
    )


def test_leap_day_is_a_day_of_the_window():
    check(
        [
            ("2024-02-27", ""),
            ("2024-02-28", "day 2024-02-28"),
            ("2024-02-29", "day 2024-02-29"),
            ("2024-03-01", "newest, day 2024-03-01"),
        ],
        Policy(days=3, weeks=0, months=0),
    )


def test_day_of_23_hours_in_berlin():
    check(
        [
            ("2024-03-30 22:59", "day 2024-03-30"),  # 23:59
            ("2024-03-30 23:00", ""),  # 00:00, the day the clocks go forward
            ("2024-03-31 21:59", "day 2024-03-31"),  # 23:59
            ("2024-03-31 22:00", "newest, day 2024-04-01"),  # 00:00
        ],
        Policy(days=3, weeks=0, months=0),
        BERLIN,
    )


def test_day_of_25_hours_in_berlin():
    check(
        [
            ("2024-10-26 21:59", "day 2024-10-26"),  # 23:59
            ("2024-10-26 22:00", ""),  # 00:00, the day the clocks go back
            ("2024-10-27 00:30", ""),  # 02:30
            ("2024-10-27 01:30", ""),  # 02:30 again
            ("2024-10-27 22:59", "day 2024-10-27"),  # 23:59
            ("2024-10-27 23:00", "newest, day 2024-10-28"),  # 00:00
        ],
        Policy(days=3, weeks=0, months=0),
        BERLIN,
    )


def test_runs_around_midnight_belong_to_the_date_in_the_zone_of_the_store():
    table = [
        ("2024-05-01 23:50", "day 2024-05-01"),
        ("2024-05-02 00:10", ""),
        ("2024-05-02 23:50", "newest, day 2024-05-02"),
    ]
    check(table, PAPER, UTC)
    table = [
        ("2024-05-01 23:50", ""),
        ("2024-05-02 00:10", "day 2024-05-02"),
        ("2024-05-02 23:50", "newest, day 2024-05-03"),
    ]
    check(table, PAPER, BERLIN)


def test_day_that_a_zone_left_out_takes_a_place_in_the_window():
    # Samoa had no 30 December 2011.
    check(
        [
            ("2011-12-29 20:00", ""),  # 29 December, 10:00
            ("2011-12-30 20:00", "day 2011-12-31"),
            ("2011-12-31 20:00", "newest, day 2012-01-01"),
        ],
        Policy(days=3, weeks=0, months=0),
        ZoneInfo("Pacific/Apia"),
    )


def test_policy_larger_than_the_calendar_keeps_a_version_of_every_day():
    huge = 10**12
    check(
        [("1970-01-01", "day 1970-01-01"), ("2024-05-01", "newest, day 2024-05-01")],
        Policy(days=huge, weeks=huge, months=huge),
    )


@pytest.mark.parametrize(
    "policy", [Policy(days=-1), Policy(weeks=-1), Policy(months=-1), Policy(keep_last=0)]
)
def test_policy_that_makes_no_sense_decides_nothing(policy):
    with pytest.raises(ConfigError):
        decide(history("2024-05-01"), policy, UTC, FAR_LATER)


def test_dates_may_carry_any_offset():
    tokyo = datetime.timezone(9 * HOUR)
    versions = [DatedVersion(1, at("2024-05-01 20:00").astimezone(tokyo))]
    assert decide(versions, PAPER, UTC, FAR_LATER)[0].reasons == ("newest", "day 2024-05-01")
