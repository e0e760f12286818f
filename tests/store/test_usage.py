"""What a sync point takes is what `du` would say, and is found out with little work."""

import contextlib
import datetime
import os
import random
import shutil
import sqlite3
import stat
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from ssfs.engine.expire import clean_up, delete
from ssfs.errors import StoreFull
from ssfs.model.settings import PointLimits, Reserve
from ssfs.store import usage
from ssfs.store.store import Point, Task
from ssfs.store.usage import check_room, point_usage_bytes, task_usage_bytes
from tests.fakes.clock import FrozenClock
from tests.fakes.syncs import Backup
from tests.fakes.trees import build_tree, edit_tree

DAY = datetime.timedelta(days=1)


def disk_usage_bytes(task: Task) -> int:
    """The sizes of the distinct files below versions/*/tree."""
    sizes = {}
    for version in task.versions():
        for top, _, names in os.walk(os.path.join(version.path, b"tree")):
            for name in names:
                status = os.lstat(os.path.join(top, name))
                if stat.S_ISREG(status.st_mode):
                    sizes[status.st_ino] = status.st_size
    return sum(sizes.values())


def forget(task: Task, *sequences: int) -> None:
    """Delete these versions."""
    with task.guard() as guard:
        delete(task, [v for v in task.versions() if v.id.sequence in sequences], guard)
    clean_up(task)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The pairs of versions that catalogs were read for, by sequence; 0 for none."""
    pairs: list[tuple[int, int]] = []
    real = usage._added_bytes

    def record(version, older):
        pairs.append((version.id.sequence, older.id.sequence if older else 0))
        return real(version, older)

    monkeypatch.setattr(usage, "_added_bytes", record)
    return pairs


class Daily:
    """A backup with a file of its own for each day, and one that changes daily."""

    def __init__(self, path: Path) -> None:
        self.source = path / "source"
        self.source.mkdir()
        self.clock = FrozenClock()
        self.backup = Backup(path / "store", clock=self.clock)
        self.day = 0

    def sync(self, days: int = 1) -> None:
        for _ in range(days):
            self.day += 1
            (self.source / f"day-{self.day}").write_bytes(bytes(1000 + self.day))
            (self.source / "log").write_bytes(b"%d\n" % self.day * 50_000)
            self.backup.sync(self.source)
            self.clock.advance(DAY)

    @property
    def task(self) -> Task:
        return self.backup.task()

    @property
    def point(self) -> Point:
        return self.backup.store.point("main")


@pytest.fixture
def daily(tmp_path: Path) -> Daily:
    return Daily(tmp_path)


def edit(root: Path, rng: random.Random) -> None:
    """A night's work: new, longer, replaced, copied, linked, moved and deleted files."""
    files = [path for path in sorted(root.rglob("*")) if path.is_file()]
    rng.shuffle(files)
    new = rng.randbytes(4).hex()
    (root / new).mkdir()
    for number in range(3):
        (root / new / f"{number}").write_bytes(rng.randbytes(rng.choice((10, 5000, 200_000))))
    with open(files.pop(), "ab") as longer:
        longer.write(b"more")
    (root / f"{new}-replaced").write_bytes(b"replaced")
    (root / f"{new}-replaced").replace(files.pop())
    shutil.copyfile(files[0], root / f"{new}-copy")
    os.link(files[1], root / f"{new}-link")
    files[2].rename(root / f"{new}-moved")
    files[3].unlink()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_usage_is_that_of_the_distinct_inodes(tmp_path: Path, seed: int):
    rng = random.Random(seed)
    source = build_tree(tmp_path / "source", seed, large_bytes=300_000)
    clock = FrozenClock()
    backup = Backup(tmp_path / "store", clock=clock)
    for night in range(8):
        backup.sync(source)
        task = backup.task()
        assert task_usage_bytes(task) == disk_usage_bytes(task), night
        clock.advance(DAY)
        if night % 3 == 2:
            forget(task, *rng.sample([v.id.sequence for v in task.versions()], 2))
            assert task_usage_bytes(task) == disk_usage_bytes(task), night
        edit(source, rng)
        edit_tree(source, rng.randrange(10**6), large_bytes=300_000)
    os.unlink(os.path.join(task.path, b"usage.toml"))
    assert task_usage_bytes(task) == disk_usage_bytes(task)


def test_point_takes_what_its_tasks_take(daily: Daily):
    assert point_usage_bytes(daily.backup.store.create_point("main")) == 0
    daily.sync()
    daily.backup.sync(daily.source, task="other")
    assert point_usage_bytes(daily.point) == 2 * (1001 + 100_000)


def test_a_night_costs_one_pair_and_a_deletion_one(daily: Daily, measured: list):
    daily.sync(4)
    expected = task_usage_bytes(daily.task)
    assert measured == [(1, 0), (2, 1), (3, 2), (4, 3)]
    measured.clear()
    assert task_usage_bytes(daily.task) == expected
    assert measured == []
    daily.sync()
    assert task_usage_bytes(daily.task) == disk_usage_bytes(daily.task)
    assert measured == [(5, 4)]
    forget(daily.task, 1, 3)
    measured.clear()
    assert task_usage_bytes(daily.task) == disk_usage_bytes(daily.task)
    assert measured == [(2, 0), (4, 2)]
    kept = (Path(os.fsdecode(daily.task.path)) / "usage.toml").read_text()
    assert [line for line in kept.splitlines() if line.startswith("[added.")] == [
        f"[added.{version.id}]" for version in daily.task.versions()
    ]


@pytest.mark.parametrize("damage", ["", "garbage", "format = 1", "format = 2\n[added]"])
def test_lost_usage_file_is_made_anew(daily: Daily, damage: str):
    daily.sync(2)
    expected = task_usage_bytes(daily.task)
    kept = Path(os.fsdecode(daily.task.path)) / "usage.toml"
    whole = kept.read_text()
    kept.write_text(damage)
    assert task_usage_bytes(daily.task) == expected
    assert kept.read_text() == whole


@pytest.mark.parametrize("part", ["catalog.db", "version.toml"])
@pytest.mark.parametrize("damage", [b"", b"garbage " * 999])
@pytest.mark.parametrize("is_known", [False, True])
def test_damaged_version_is_left_out(daily: Daily, part: str, damage: bytes, is_known: bool):
    daily.sync(2)
    if is_known:
        task_usage_bytes(daily.task)
    Path(os.fsdecode(daily.task.versions()[1].path), part).write_bytes(damage)
    daily.sync()
    daily.sync()
    expected = 1001 + 100_000 + 1002 + 1003 + 100_000 + 1004 + 100_000
    if is_known and part == "catalog.db":
        expected += 1002 + 100_000  # nobody had to read the catalog again
    assert task_usage_bytes(daily.task) == expected
    forget(daily.task, 2)
    assert task_usage_bytes(daily.task) == disk_usage_bytes(daily.task)


def test_half_a_catalog_is_a_damaged_one(daily: Daily):
    daily.sync(3)
    path = Path(os.fsdecode(daily.task.versions()[1].path), "catalog.db")
    content = path.read_bytes()
    path.write_bytes(content[:4096] + bytes(len(content) - 4096))
    assert task_usage_bytes(daily.task) == 1001 + 100_000 + 1002 + 1003 + 100_000


def test_files_without_a_number_count_one_by_one(daily: Daily):
    daily.sync(2)
    for version in daily.task.versions():
        path = os.path.join(version.path, b"catalog.db")
        with contextlib.closing(sqlite3.connect(os.fsdecode(path))) as database:
            database.execute("UPDATE entry SET content = 0")
            database.commit()
    # The log of both days has one id, and nothing tells that it changed.
    assert task_usage_bytes(daily.task) == 1001 + 1002 + 100_000


def test_who_only_looks_leaves_nothing(daily: Daily, monkeypatch: pytest.MonkeyPatch):
    daily.sync()
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert task_usage_bytes(daily.task) == 101_001
    assert "usage.toml" not in os.listdir(os.fsdecode(daily.task.path))


# -- room -----------------------------------------------------------------------------------------


def set_limits(point: Point, quota_bytes: int) -> None:
    limits = PointLimits(quota_bytes=quota_bytes)
    point.update_settings(lambda current: msgspec.structs.replace(current, limits=limits))


def test_backup_over_the_quota_is_refused(daily: Daily):
    daily.sync()
    point = daily.point
    set_limits(point, 101_002)
    check_room(point)
    set_limits(point, 101_001)
    with pytest.raises(StoreFull) as caught:
        check_room(point)
    assert str(caught.value).startswith(
        "Sync point 'main' is over its quota: 101.0 kB of 101.0 kB used (`ssfs point --quota`"
    )


def test_task_that_has_lost_its_versions_keeps_nobody_from_backing_up(daily: Daily):
    daily.sync()
    point = daily.point
    set_limits(point, 101_002)
    other = point.claim_task("other", "nas1", "/srv/other", daily.clock)
    Path(os.fsdecode(other.path), "versions").rmdir()
    assert point_usage_bytes(point) == 101_001
    check_room(point)


def test_usage_is_not_even_asked_for_without_a_quota(daily: Daily, measured: list):
    daily.sync()
    check_room(daily.point)
    assert measured == []


def disk(**changes: int) -> SimpleNamespace:
    """A file system of 1 TB and a million inodes."""
    values = {"f_frsize": 1000, "f_blocks": 10**9, "f_bavail": 10**9}
    return SimpleNamespace(**{**values, "f_files": 10**6, "f_favail": 10**6, **changes})


@pytest.mark.parametrize(
    ("status", "problem"),
    [
        (disk(), None),
        # 2 % are 20 GB, but 5 GiB are enough.
        (disk(f_bavail=5_368_710), None),
        (disk(f_bavail=5_368_709), "space is free in the store for another backup: 5.4 GB"),
        (disk(f_blocks=10**6, f_bavail=20_000), None),
        (disk(f_blocks=10**6, f_bavail=19_999), "not 20.0 MB"),
        (disk(f_favail=20_000), None),
        (disk(f_favail=19_999), "Too few inodes are free .*: 19,999, not 20,000"),
        (disk(f_files=0, f_favail=0), None),
    ],
)
def test_store_keeps_a_reserve(
    daily: Daily, monkeypatch: pytest.MonkeyPatch, status: SimpleNamespace, problem: str | None
):
    monkeypatch.setattr(os, "statvfs", lambda _path: status)
    point = daily.backup.store.create_point("main")
    if problem is None:
        check_room(point)
    else:
        with pytest.raises(StoreFull, match=problem) as caught:
            check_room(point)
        assert "`ssfs delete`" in caught.value.remedy


def test_reserve_is_the_stores_to_set(daily: Daily, monkeypatch: pytest.MonkeyPatch):
    point = daily.backup.store.create_point("main")
    reserve = Reserve(space_percent=0, inodes_percent=50)
    point.store.settings = msgspec.structs.replace(point.store.settings, reserve=reserve)
    monkeypatch.setattr(os, "statvfs", lambda _path: disk(f_bavail=0, f_favail=500_000))
    check_room(point)
    monkeypatch.setattr(os, "statvfs", lambda _path: disk(f_favail=499_999))
    with pytest.raises(StoreFull, match="inodes"):
        check_room(point)


def test_holes_take_no_room(tmp_path, cache_dir):
    source = tmp_path / "source"
    source.mkdir()
    with open(source / "image", "wb") as file:
        file.seek(1 << 40)
        file.write(b"x" * 4096)
    backup = Backup(tmp_path / "sparse-store")
    backup.sync(source)
    assert task_usage_bytes(backup.task()) == 4096
    os.truncate(source / "image", 1 << 41)
    backup.sync(source)
    assert task_usage_bytes(backup.task()) == 2 * 4096
