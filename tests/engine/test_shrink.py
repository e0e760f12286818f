"""Sources that have lost most of their files: flagged, and good versions stay."""

import datetime
import os
import shutil
from pathlib import Path

import pytest

from ssfs.engine.expire import delete, expire
from ssfs.errors import ConnectionLost
from ssfs.model.policy import Policy
from ssfs.model.version import Shrink
from tests.fakes.clock import FrozenClock
from tests.fakes.syncs import Backup
from tests.fakes.trees import verify_version

DAY = datetime.timedelta(days=1)


class Nights:
    """A source of twenty files, and a store that keeps two days."""

    def __init__(self, path: Path):
        self.source = path / "source"
        self.clock = FrozenClock()
        self.backup = Backup(path / "store", Policy(2, 0, 0, keep_last=1), self.clock)
        self.source.mkdir()
        self.fill(20)

    def fill(self, count: int) -> None:
        """Let the source have so many files."""
        shutil.rmtree(self.source)
        (self.source / "d").mkdir(parents=True)
        for number in range(count):
            (self.source / "d" / f"f{number}").write_bytes(os.urandom(9000))

    def sync(self, **more):
        self.clock.advance(DAY)
        return self.backup.sync(self.source, **more)

    @property
    def sequences(self) -> list[int]:
        return [version.id.sequence for version in self.backup.versions()]


@pytest.fixture
def nights(tmp_path: Path) -> Nights:
    made = Nights(tmp_path)
    for _ in range(3):
        assert made.sync().shrunk is None
    assert made.sequences == [2, 3]
    return made


def test_nothing_expires_until_the_files_are_back(nights):
    nights.fill(3)
    result = nights.sync()
    assert result.shrunk == nights.backup.newest().record().shrunk == Shrink(20, 3)
    assert "4 has 3 of 20 files" in result.expiry_held
    assert result.expired == []
    # The next night has as few, and is held against what there was.
    nights.fill(4)
    assert nights.sync().shrunk == Shrink(20, 4)
    nights.fill(0)
    assert nights.sync().shrunk == Shrink(20, 0)
    assert nights.sequences == [2, 3, 4, 5, 6]
    for version in nights.backup.versions():
        verify_version(version)
    nights.fill(10)
    result = nights.sync()
    assert (result.shrunk, result.expiry_held) == (None, "")
    assert nights.sequences == [6, 7]


def test_sync_that_allows_it_lets_versions_go_again(nights):
    nights.fill(3)
    nights.sync()
    result = nights.sync(allow_shrink=True)
    assert (result.shrunk, result.expiry_held) == (None, "")
    assert nights.sequences == [4, 5]
    # From now on those three are what there was.
    assert nights.sync().shrunk is None


def test_explicit_expiry_says_that_it_is_meant(nights):
    nights.fill(3)
    nights.sync()
    plan = expire(nights.backup.task(), nights.clock.now(), automatic=False)
    assert [version.id.sequence for version in plan.expired] == [2]
    assert nights.sync().shrunk is None
    assert nights.sequences == [4, 5]


def test_flagged_version_that_is_deleted_holds_nothing(nights):
    nights.fill(3)
    nights.sync()
    task = nights.backup.task()
    with task.guard() as guard:
        delete(task, [nights.backup.newest()], guard)
    nights.fill(20)
    result = nights.sync()
    assert (result.shrunk, result.expiry_held) == (None, "")


def test_first_version_is_never_flagged(nights):
    nights.fill(0)
    assert nights.backup.sync(nights.source, task="other").shrunk is None


def test_interrupted_run_is_held_against_the_version_and_not_against_itself(nights):
    nights.fill(9)
    with pytest.raises(ConnectionLost):
        nights.sync(cut_after=30_000)
    assert nights.sync().shrunk == Shrink(20, 9)


def test_files_that_cannot_be_seen_are_not_lost(nights, monkeypatch):
    original = os.open

    def refuse(name, *rest, **options):
        if name == b"d" and os.readlink(f"/proc/self/fd/{options['dir_fd']}") == str(nights.source):
            raise PermissionError(13, "Permission denied")
        return original(name, *rest, **options)

    monkeypatch.setattr(os, "open", refuse)
    result = nights.sync()
    assert len(result.problems) == 1
    assert result.shrunk is None
