"""Version ids and the names a mount shows."""

import datetime
import zoneinfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssfs.model.version import VersionId, parse_version_id, shown_names, timed_name

TIMES = st.integers(0, 250_000_000_000).map(
    lambda seconds: datetime.datetime.fromtimestamp(seconds, datetime.UTC)
)


@given(st.integers(1, 1 << 62), TIMES)
def test_id_comes_back_from_its_name(sequence, time):
    version_id = VersionId(sequence, time)
    assert parse_version_id(str(version_id)) == version_id


@pytest.mark.slow
@given(st.from_regex(r"\d{5,8}-\d{4}-\d{2}-\d{2}T\d{6}Z", fullmatch=True) | st.text())
def test_every_name_that_is_an_id_is_the_name_of_that_id(text):
    version_id = parse_version_id(text)
    assert version_id is None or str(version_id) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "000001",
        "00001-2024-05-01T020000Z",
        "0000001-2024-05-01T020000Z",
        "000001-2024-02-30T020000Z",
        "000001-2024-05-01T250000Z",
        "000001-2024-05-01T020000Z.old",
        "000001-2024-05-01T020000Z\n",
        "x000001-2024-05-01T020000Z",
        "\u0660\u0660\u0660\u0660\u0660\u0661-2024-05-01T020000Z",
        "-00001-2024-05-01T020000Z",
    ],
)
def test_other_names_are_no_ids(text):
    assert parse_version_id(text) is None


def test_order_is_by_sequence_and_not_by_time():
    late = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
    early = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    assert VersionId(2, early) > VersionId(1, late)


def test_timed_names_are_local_and_unique_in_the_repeated_hour():
    zone = zoneinfo.ZoneInfo("Europe/Berlin")
    first = datetime.datetime(2024, 10, 27, 0, 30, tzinfo=datetime.UTC)
    taken = [timed_name(first, zone, 41, [])]
    taken.append(timed_name(first + datetime.timedelta(hours=1), zone, 42, taken))
    assert taken == ["2024-10-27_023000", "2024-10-27_023000.42"]


@pytest.mark.slow
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), max_size=12))
def test_shown_names_are_unique_and_one_of_each_day_is_bare(moments):
    names: list[str] = []
    for sequence, (day, hour) in enumerate(moments, 1):
        time = datetime.datetime(2024, 5, 1 + day, hour, tzinfo=datetime.UTC)
        names.append(timed_name(time, datetime.UTC, sequence, names))
    shown = shown_names(names)
    assert len(set(shown)) == len(shown) == len(names)
    for name, timed in zip(shown, names, strict=True):
        assert name in (timed, timed[:10])
    days = [name[:10] for name in names]
    bare = [index for index, name in enumerate(shown) if len(name) == 10]
    assert bare == sorted({day: index for index, day in enumerate(days)}.values())
