"""What a look at a path means: tables of cases, and the rule for coarse clocks."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssfs.engine.plan import (
    RACY_S,
    Verdict,
    is_only_bookkeeping,
    is_racy,
    is_untouched,
    judge_content,
    seen,
)
from ssfs.model.entry import Flag, Kind

NS = 10**9
MODES = {
    Kind.FILE: 0o100000,
    Kind.DIRECTORY: 0o040000,
    Kind.SYMLINK: 0o120000,
    Kind.FIFO: 0o010000,
    Kind.CHARACTER_DEVICE: 0o020000,
    Kind.BLOCK_DEVICE: 0o060000,
    0: 0o140000,
}
DEFAULTS = {
    "st_mode": 0o100644,
    "st_ino": 42,
    "st_dev": 7,
    "st_uid": 1000,
    "st_gid": 100,
    "st_size": 5,
    "st_mtime_ns": 1_700_000_000 * NS + 5,
    "st_ctime_ns": 1_700_000_100 * NS + 6,
    "st_rdev": 0,
    "st_nlink": 1,
}


class Status:
    """A stat result with the fields that matter."""

    def __init__(self, **fields: int) -> None:
        self.__dict__.update({**DEFAULTS, **{f"st_{k}": v for k, v in fields.items()}})


def record(**fields: int):
    return seen(9, 1, b"name", Status(**fields), 7)._replace(digest=bytes(32))


@pytest.mark.parametrize(("kind", "mode"), MODES.items())
def test_row_of_each_kind(kind, mode):
    row = seen(9, 1, b"name", Status(mode=mode | 0o4755, rdev=0x801), 7)
    assert (row.kind, row.mode) == (kind, 0o4755)
    assert row.size == (5 if kind == Kind.FILE else 0)
    is_device = kind in (Kind.CHARACTER_DEVICE, Kind.BLOCK_DEVICE)
    assert row.rdev == (0x801 if is_device else 0)


def test_device_of_the_root_is_0():
    assert seen(9, 1, b"n", Status(), 7).dev == 0
    assert seen(9, 1, b"n", Status(), 8).dev == 7


@pytest.mark.parametrize(
    ("number", "wrapped"),
    [(0, 0), ((1 << 63) - 1, (1 << 63) - 1), (1 << 63, -(1 << 63)), ((1 << 64) - 1, -1)],
)
def test_inode_numbers_wrap_and_are_still_recognised(number, wrapped):
    row = record(ino=number)
    assert row.ino == wrapped
    assert is_untouched(row, Status(ino=number))
    assert not is_untouched(row, Status(ino=number ^ 1))
    assert judge_content(row, record(ino=number)) is Verdict.SAME


@pytest.mark.parametrize(
    ("ns", "parts"),
    [
        (0, (0, 0)),
        (-1, (-1, NS - 1)),
        (-NS, (-1, 0)),
        (-NS - 1, (-2, NS - 1)),
        (13_569_465_600 * NS + 7, (13_569_465_600, 7)),
    ],
)
def test_times_before_1970_and_after_2262_are_recognised(ns, parts):
    row = record(mtime_ns=ns, ctime_ns=ns)
    assert (row.mtime_s, row.mtime_ns) == (row.ctime_s, row.ctime_ns) == parts
    assert is_untouched(row, Status(mtime_ns=ns, ctime_ns=ns))
    assert not is_untouched(row, Status(mtime_ns=ns + 1, ctime_ns=ns))


CHANGES = {
    "nothing": ({}, True, Verdict.SAME),
    "device": ({"dev": 99}, True, Verdict.SAME),
    "ctime": ({"ctime_ns": DEFAULTS["st_ctime_ns"] + 1}, False, Verdict.CHECK),
    "inode": ({"ino": 43}, False, Verdict.CHECK),
    "mtime": ({"mtime_ns": DEFAULTS["st_mtime_ns"] - 1}, False, Verdict.CHANGED),
    "size": ({"size": 6}, False, Verdict.CHANGED),
    "mode": ({"mode": 0o100600}, False, Verdict.SAME),
    "owner": ({"uid": 0}, False, Verdict.SAME),
    "group": ({"gid": 0}, False, Verdict.SAME),
}


@pytest.mark.parametrize(("fields", "untouched", "verdict"), CHANGES.values(), ids=CHANGES)
def test_one_thing_changed(fields, untouched, verdict):
    assert is_untouched(record(), Status(**fields)) == untouched
    assert judge_content(record(), seen(9, 1, b"name", Status(**fields), 7)) is verdict


@pytest.mark.parametrize("flag", sorted(set(Flag) - {Flag.INCOMPLETE}))
def test_flagged_content_is_looked_at_again(flag):
    flagged = record()._replace(flags=int(flag))
    assert not is_untouched(flagged, Status())
    # A row that is stale says what was read when it was not.
    verdict = Verdict.SAME if flag is Flag.STALE else Verdict.CHECK
    assert judge_content(flagged, record()) is verdict


def test_size_of_a_directory_does_not_matter():
    row = record(mode=0o040755)
    assert is_untouched(row, Status(mode=0o040755, size=4096))


@pytest.mark.parametrize(
    ("ctime_s", "read_at_s", "racy"),
    [
        (100, 100.0, True),
        (100, 101.999, True),
        (100, 102.0, False),
        (100, 5000.0, False),
        (101, 100.0, True),  # the clock of the file system is ahead, or ours went back
        (-5, -4.0, True),
    ],
)
def test_read_soon_after_a_change_is_racy(ctime_s, read_at_s, racy):
    assert is_racy(record(ctime_ns=ctime_s * NS), read_at_s) == racy


@given(
    st.sampled_from([0.0, 0.004, 0.01, 1.0, 2.0]),
    st.floats(0, 100),
    st.floats(0, 10),
    st.floats(0, 10),
)
def test_no_later_change_hides_behind_the_same_coarse_time(granularity, first, wait, more):
    """A second change after the reading has another ctime, or the record was flagged."""

    def stamp(moment: float) -> float:
        return moment - moment % granularity if granularity else moment

    read_at, second = first + wait, first + wait + more
    if more > 0 and stamp(first) == stamp(second):
        assert is_racy(record(ctime_ns=int(stamp(first) * NS)), read_at)
    assert RACY_S == 2


@pytest.mark.parametrize(
    ("fields", "bookkeeping"),
    [
        ({"dev": 99}, True),
        ({"ino": 1}, True),
        ({"ctime_s": 1}, True),
        ({"flags": 4}, True),
        ({"mtime_s": 1}, False),
        ({"mode": 0o600}, False),
        ({"uid": 1}, False),
        ({"digest": b"x" * 32}, False),
        ({"name": b"other"}, False),
        ({"parent": 5}, False),
    ],
    ids=str,
)
def test_what_a_user_would_not_see_is_bookkeeping(fields, bookkeeping):
    assert is_only_bookkeeping(record(), record()._replace(**fields)) == bookkeeping


def test_time_of_a_directory_is_bookkeeping():
    row = record(mode=0o040755)
    assert is_only_bookkeeping(row, row._replace(mtime_s=1, mtime_ns=1))
    assert not is_only_bookkeeping(row, row._replace(mode=0o700))


def test_real_file_is_untouched_until_it_is_touched(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"x")
    os.utime(path, ns=(0, -1))
    row = seen(9, 1, b"f", os.lstat(path), path.stat().st_dev)
    assert is_untouched(row, os.lstat(path))
    path.chmod(0o600)
    assert not is_untouched(row, os.lstat(path))


def test_names_of_one_file_share_a_group_and_no_others_do():
    group = seen(9, 1, b"a", Status(nlink=2), 7).link_group
    assert 0 < group < 2**63
    assert seen(10, 3, b"b", Status(nlink=2, mode=0o100600), 7).link_group == group
    assert seen(10, 3, b"b", Status(nlink=2, ino=43), 7).link_group != group
    assert seen(10, 3, b"b", Status(nlink=2, dev=8), 7).link_group != group
    assert seen(10, 3, b"b", Status(nlink=2**31, ino=2**64 - 1), 7).link_group > 0


def test_single_links_and_directories_have_no_group():
    assert seen(9, 1, b"a", Status(), 7).link_group == 0
    assert seen(9, 1, b"a", Status(nlink=5, mode=0o040755), 7).link_group == 0
