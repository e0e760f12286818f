"""The names for Samba: one for each version, the same one for ever."""

import datetime
import os
from pathlib import Path

import pytest

from ssfs.model.version import VersionId, free_shift
from ssfs.mount.inodes import NoEntry
from ssfs.mount.names import ShownVersion
from ssfs.mount.owners import Owners
from ssfs.mount.samba import VIEW, GmtNames, SambaDirectory
from ssfs.mount.tree import MountTree
from ssfs.store.store import Task
from tests.mount.asking import decode_items
from tests.mount.stores import DAY, NEXT_DAY, HandClock, add_version, expire, make_task
from tests.mount.test_names import ROOT

SECOND = datetime.timedelta(seconds=1)


def shown(sequence: int, time: datetime.datetime, shift_s: int = 0) -> ShownVersion:
    return ShownVersion(VersionId(sequence, time), "", b"", ROOT, shift_s)


class Mount:
    """A mounted task, and the listing of its view."""

    def __init__(self, task: Task) -> None:
        self.clock = HandClock()
        self.tree = MountTree(
            task, self.clock, owners=Owners(), idle_s=60, views={VIEW: SambaDirectory}
        )

    @property
    def view(self) -> int:
        return self.tree.lookup(1, VIEW.encode()).inode

    def names(self) -> list[str]:
        handle = self.tree.handles.open_directory(self.view)
        return [
            os.fsdecode(item.name)
            for item in decode_items(self.tree.handles.list_directory(handle, 0, 1 << 20, 1))
        ]

    def version_of(self, name: str) -> bytes | None:
        inode = self.tree.lookup(self.view, name.encode()).inode
        return self.tree.xattr(inode, b"user.ssfs.version")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.mkdir()
    (path / "file").write_text("content")
    return path


@pytest.fixture
def task(tmp_path: Path) -> Task:
    return make_task(tmp_path / "store")


def test_shift_is_the_first_second_that_is_free():
    taken: list[datetime.datetime] = []
    for time, shift_s in ((DAY, 0), (DAY, 1), (DAY + SECOND, 1), (DAY, 3), (NEXT_DAY, 0)):
        assert free_shift(time, taken) == shift_s
        taken.append(time + shift_s * SECOND)


def test_many_versions_of_one_day_have_names_of_their_own():
    names = GmtNames()
    times = [DAY + second * SECOND for second in range(40) for _ in range(4)]
    given = [names.name(shown(sequence, time)) for sequence, time in enumerate(times, 1)]
    assert len(set(given)) == len(times)
    assert given == [names.name(shown(sequence, time)) for sequence, time in enumerate(times, 1)]


def test_last_seconds_there_are_have_names_too():
    names = GmtNames()
    end = datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)
    assert names.name(shown(1, end)) == "@GMT-9999.12.31-23.59.59"
    assert names.name(shown(2, end)) == "@GMT-9999.12.31-23.59.58"


@pytest.mark.parametrize("gone", [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2)])
def test_names_of_one_second_stay_when_others_expire(task, source, gone):
    versions = [add_version(task, source, DAY) for _ in range(3)]
    mount = Mount(task)
    before = {name: mount.version_of(name) for name in mount.names()}
    assert sorted(before) == [f"@GMT-2024.05.01-12.00.0{second}" for second in range(3)]
    for index in gone:
        expire(task, versions[index])
    mount.clock.advance(61)
    mount.tree.close_idle()
    for now in (mount, Mount(task)):
        assert len(now.names()) == 3 - len(gone)
        assert all(now.version_of(name) == before[name] for name in now.names())


def test_name_of_an_expired_version_is_given_to_no_other(task, source):
    first = add_version(task, source, DAY)
    mount = Mount(task)
    (name,) = mount.names()
    expire(task, first)
    assert mount.names() == []
    # The clock of the server was set back: it is the same second once more.
    add_version(task, source, DAY)
    assert mount.names() == ["@GMT-2024.05.01-12.00.01"]
    with pytest.raises(NoEntry):
        mount.tree.lookup(mount.view, name.encode())


def test_expired_version_stays_reachable_while_somebody_is_in_it(task, source):
    version = add_version(task, source, DAY)
    mount = Mount(task)
    (name,) = mount.names()
    inode = mount.tree.lookup(mount.view, name.encode()).inode
    assert mount.tree.lookup(inode, b"file").size == 7
    expire(task, version)
    assert mount.names() == []
    assert mount.tree.lookup(mount.view, name.encode()).inode == inode
    mount.clock.advance(61)
    mount.tree.close_idle()
    with pytest.raises(NoEntry):
        mount.tree.lookup(mount.view, name.encode())


def test_new_versions_appear_and_the_old_keep_their_inodes(task, source):
    add_version(task, source, DAY)
    mount = Mount(task)
    (name,) = mount.names()
    inode = mount.tree.lookup(mount.view, name.encode()).inode
    add_version(task, source, NEXT_DAY)
    assert mount.names() == [name, "@GMT-2024.05.02-12.00.00"]
    assert mount.tree.lookup(mount.view, name.encode()).inode == inode
    assert mount.tree.lookup(inode, b"..").inode == mount.view
    assert mount.tree.lookup(mount.view, b"..").inode == 1
