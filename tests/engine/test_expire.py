"""Expiry over simulated weeks: what goes, what stays, what holds."""

import datetime
import os
from pathlib import Path

import pytest

from ssfs.engine import expire as expire_module
from ssfs.engine.expire import clean_up, expire, plan_expiry
from ssfs.errors import StoreError
from ssfs.fsio.disk import open_directory
from ssfs.model.policy import Policy
from ssfs.model.version import (
    Counts,
    RootMetadata,
    VersionId,
    VersionRecord,
)
from ssfs.store.store import Store
from ssfs.store.textfile import FORMAT, seal, unseal
from ssfs.store.version import encode_record
from tests.fakes.clock import START, FrozenClock

DAY = datetime.timedelta(days=1)


class History:
    """A task whose versions are made by the calendar, expired after each as a sync does."""

    def __init__(self, path: Path, policy: Policy):
        self.clock = FrozenClock()
        store = Store.create(os.fsencode(path), policy, "UTC", self.clock)
        self.task = store.create_point("main").claim_task("task", "c", "/s", self.clock)

    def commit(self) -> int:
        """A version of now, with nothing in it but its record."""
        version_id = VersionId(self.task.next_sequence(), self.clock.now())
        now, text = version_id.time, str(version_id)
        root = RootMetadata(0o755, 0, 0, "", "", 0, 0)
        where = ("c", "/s", "", "00")
        record = VersionRecord(
            FORMAT, text, version_id.sequence, now, now, text, 1.0, *where, Counts(), root
        )
        versions = open_directory(os.path.join(self.task.path, b"versions"))
        os.mkdir(text, dir_fd=versions)
        os.close(versions)
        path = self.path(version_id.sequence)
        (path / "lock").touch()
        (path / "version.toml").write_bytes(encode_record(record))
        return version_id.sequence

    def sync(self, after: datetime.timedelta = DAY):
        """Let time pass, commit, expire; the plan."""
        self.clock.advance(after)
        self.commit()
        plan = expire(self.task, self.clock.now(), automatic=True)
        clean_up(self.task)
        return plan

    def expire(self):
        return expire(self.task, self.clock.now(), automatic=False)

    def path(self, sequence: int) -> Path:
        (found,) = (Path(os.fsdecode(self.task.path)) / "versions").glob(f"{sequence:06d}-*")
        return found

    def version(self, sequence: int):
        return next(v for v in self.task.versions() if v.id.sequence == sequence)

    @property
    def sequences(self) -> list[int]:
        return [version.id.sequence for version in self.task.versions()]


@pytest.fixture
def history(tmp_path):
    return History(tmp_path / "store", Policy(days=3, weeks=2, months=2))


def delete(task, versions):
    with task.guard() as guard:
        expire_module.delete(task, versions, guard)


def reasons(plan):
    return {item.version.id.sequence: item.reasons for item in plan.judged}


@pytest.mark.slow
def test_weeks_of_daily_syncs_keep_days_weeks_and_months(history):
    for _ in range(70):
        plan = history.sync()
        assert plan.hold is None
    kept = {s: why[-1].split()[0] for s, why in reasons(plan).items() if why}
    days = [history.version(s).id.time.date().isoformat()[5:] for s in history.sequences]
    # Number 70 is of Wednesday, 10 July. Weeks end on a Sunday; what they leave goes to its month,
    # where only ends of weeks ever arrive.
    assert list(kept.values()) == ["month", "month", "week", "week", "day", "day", "day"]
    assert days == ["05-26", "06-23", "06-30", "07-07", "07-08", "07-09", "07-10"]
    assert history.sequences[-3:] == [68, 69, 70]
    assert history.task.next_sequence() == 71


def test_second_version_of_a_day_takes_the_place_of_the_first(history):
    history.sync()
    history.sync(datetime.timedelta(hours=1))
    history.sync(datetime.timedelta(hours=1))
    assert history.sequences == [3]


def test_plan_changes_nothing_and_takes_another_policy(history):
    for _ in range(4):
        history.commit()
        history.clock.advance(DAY)
    plan = plan_expiry(history.task, history.clock.now(), Policy(0, 0, 0, keep_last=2))
    assert [v.id.sequence for v in plan.expired] == [1, 2]
    assert history.sequences == [1, 2, 3, 4]


def test_long_pause_holds_until_an_explicit_expire(history):
    for _ in range(5):
        history.sync()
    before = history.sequences
    plan = history.sync(200 * DAY)
    assert plan.hold is not None
    assert history.sequences == [*before, 6]
    plan = history.expire()
    assert plan.hold is not None
    assert history.sequences == [6]
    assert history.task.settings.released_sequence == 6
    # Released for good, for a task opened anew too.
    history.task = history.task.point.task("task")
    assert history.sync().hold is None


def test_three_more_versions_release_the_hold(history):
    for _ in range(5):
        history.sync()
    holds = [history.sync(step).hold is not None for step in (200 * DAY, DAY, DAY, DAY)]
    assert holds == [True, True, True, False]
    # 6 is the newest of a week that ends before the three days.
    assert history.sequences == [6, 7, 8, 9]


def test_clock_that_jumped_ahead_holds_and_one_that_went_back_drops_nothing(history):
    for _ in range(3):
        history.sync()
    history.clock.set(START - 300 * DAY)
    plan = history.sync()
    assert plan.hold is None
    assert history.sequences == [1, 2, 3, 4]


@pytest.mark.slow
def test_pinned_version_stays_until_unpinned(history):
    history.sync()
    history.version(1).pin(history.clock.now())
    for _ in range(30):
        history.sync()
    assert 1 in history.sequences
    assert reasons(plan_expiry(history.task, history.clock.now()))[1] == ("pinned",)
    history.version(1).unpin()
    history.version(1).unpin()
    history.sync()
    assert 1 not in history.sequences


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["gone", "flipped", "empty"])
def test_version_with_a_damaged_record_never_goes(history, damage):
    history.sync()
    record = history.path(1) / "version.toml"
    match damage:
        case "gone":
            record.unlink()
        case "flipped":
            record.write_bytes(record.read_bytes().replace(b"/s", b"/t"))
        case "empty":
            record.write_bytes(b"")
    for _ in range(30):
        history.sync()
    plan = history.expire()
    assert reasons(plan)[1] == ("damaged",)
    assert 1 in history.sequences


def test_record_of_a_newer_ssfs_stops_expiry(history):
    for _ in range(2):
        history.sync()
    record = history.path(1) / "version.toml"
    content = unseal(record.read_bytes(), b"").replace(b"format = 1", b"format = 2")
    record.write_bytes(seal(content))
    with pytest.raises(StoreError, match="newer"):
        history.expire()
    assert history.sequences == [1, 2]


def test_expired_versions_lie_in_the_trash_until_cleaned_up(history):
    for _ in range(2):
        history.commit()
    history.expire()
    assert history.sequences == [2]
    assert len(list((Path(os.fsdecode(history.task.path)) / "trash").iterdir())) == 1
    assert clean_up(history.task) == 1


@pytest.mark.parametrize("gone", [[3], [1], [1, 2, 3]])
def test_deleted_versions_leave_their_numbers_used(history, gone):
    for _ in range(3):
        history.commit()
        history.clock.advance(DAY)
    delete(history.task, [history.version(sequence) for sequence in gone])
    clean_up(history.task)
    assert history.sequences == [s for s in (1, 2, 3) if s not in gone]
    assert history.task.next_sequence() == 4
    assert history.task.point.task("task").next_sequence() == 4


def test_numbers_stay_used_when_two_processes_delete(history):
    for _ in range(5):
        history.commit()
        history.clock.advance(DAY)
    # Both opened the task before either deleted.
    one, other = history.task.point.task("task"), history.task.point.task("task")
    delete(one, [v for v in one.versions() if v.id.sequence >= 3])
    clean_up(one)
    delete(other, [v for v in other.versions() if v.id.sequence == 2])
    clean_up(other)
    for task in (one, other, history.task, history.task.point.task("task")):
        assert task.next_sequence() == 6


def test_deleting_nothing_from_an_emptied_history_is_no_error(history):
    history.commit()
    delete(history.task, history.task.versions())
    delete(history.task, [])
    assert history.task.next_sequence() == 2
