"""A mount that serves for months keeps nothing of what has gone, and lets the kernel keep nothing."""

import datetime
import errno
import os
import shutil
from pathlib import Path

import pytest

from ssfs.model.entry import ROOT_ID, Kind
from ssfs.mount.owners import Owners
from ssfs.mount.tree import MountTree
from ssfs.store.store import Store
from tests.mount.mounts import errno_of, mounted, run, wait_until
from tests.mount.stores import (
    DAY,
    NEXT_DAY,
    HandClock,
    add_task,
    add_version,
    directory,
    entry,
    expire,
    make_store,
    make_task,
)

ROOT_INODE = 1


class Looked:
    """A mount whose table of what the kernel may know is counted."""

    def __init__(self, store: Store) -> None:
        self.clock = HandClock()
        self.tree = MountTree(store, self.clock, owners=Owners(), idle_s=60)
        self.tree.offer_history(listed=False)

    def look(self, *path: bytes) -> None:
        inode = ROOT_INODE
        for name in path:
            inode = self.tree.lookup(inode, name).inode

    def count(self) -> tuple[int, int]:
        self.clock.advance(100)
        self.tree.close_idle()
        mounted = self.tree._inodes.mounted
        return len(mounted.nodes), len(mounted.bindings)


def test_deleted_tasks_and_points_leave_the_table(tmp_path):
    store = make_store(tmp_path / "store")
    add_version(add_task(store), [directory(ROOT_ID, 0, b"")])
    looked = Looked(store)
    looked.look(b"main", b"docs", b"2024-05-01")
    before = looked.count()
    for number in range(20):
        point, name = ("main", f"t{number}") if number % 2 else (f"p{number}", "t")
        task = add_task(store, point, name)
        add_version(task, [directory(ROOT_ID, 0, b""), directory(2, 1, b"d")])
        names = (point.encode(), name.encode())
        looked.look(*names, b"2024-05-01", b"d")
        looked.look(*names, b"latest")
        looked.look(*names, b".history", b"d")
        assert looked.count() > before
        shutil.rmtree(task.path if number % 2 else task.point.path)
        looked.look(b"main", b"docs")
        assert looked.count() == before
    vanished = {name for _, name in looked.tree.take_vanished()}
    assert {b"t1", b"t19", b"p0", b"p18"} <= vanished
    assert looked.tree.take_vanished() == []


def test_versions_that_expired_leave_the_table_though_nobody_asks(tmp_path):
    task = make_task(tmp_path / "store")
    looked = Looked(task.point.store)
    add_version(task, [directory(ROOT_ID, 0, b"")], DAY)
    looked.look(b"main", b"docs", b"2024-05-01")
    before = looked.count()
    newer = add_version(task, [directory(ROOT_ID, 0, b"")], NEXT_DAY)
    looked.look(b"main", b"docs", b"2024-05-02")
    assert looked.count() > before
    expire(task, newer)
    assert looked.count() == before
    names = {name for _, name in looked.tree.take_vanished()}
    assert names == {b"2024-05-02", b"2024-05-02_120000"}


@pytest.mark.needs_fuse
def test_what_the_kernel_keeps_of_an_expired_version_goes(tmp_path):
    task = make_task(tmp_path / "store")
    add_version(task, [directory(ROOT_ID, 0, b""), entry(2, 1, b"f", Kind.FILE)], DAY)
    version = add_version(
        task, [directory(ROOT_ID, 0, b""), entry(2, 1, b"f", Kind.FILE)], NEXT_DAY
    )
    with mounted(task, tmp_path / "mnt", "idle=0.2"):
        # The kernel's own: the mount does not know that it is open, and is asked for nothing while it is believed.
        here = os.open(tmp_path / "mnt" / "2024-05-02", os.O_PATH | os.O_DIRECTORY)
        try:
            os.stat("f", dir_fd=here)
            expire(task, version)
            wait_until(lambda: not _is_there(here), 5)
            assert errno_of(lambda: os.stat("f", dir_fd=here)) in (errno.ENOENT, errno.ESTALE)
            assert (tmp_path / "mnt" / "2024-05-01" / "f").exists()
        finally:
            os.close(here)


def _is_there(here: int) -> bool:
    try:
        os.stat("f", dir_fd=here)
    except OSError:
        return False
    return True


@pytest.mark.needs_fuse
@pytest.mark.parametrize(
    ("files", "versions"),
    [(5_000, 4), pytest.param(100_000, 10, marks=pytest.mark.bench)],
)
def test_memory_stays_flat_however_much_is_looked_at(tmp_path, files, versions):
    task = make_task(tmp_path / "store")
    rows = [directory(ROOT_ID, 0, b"")]
    for number in range(2, files + 2):
        # A hundred in each directory.
        above = number - (number - 2) % 100
        rows.append(
            directory(number, 1, b"d%d" % number)
            if number == above
            else entry(number, above, b"f%d" % number, Kind.FILE)
        )
    first = add_version(task, rows)
    for day in range(1, versions):
        later = add_version(task, rows[:1], DAY + datetime.timedelta(days=day))
        shutil.copyfile(first.path + b"/catalog.db", later.path + b"/catalog.db")
    mountpoint = tmp_path / "mnt"
    with mounted(task, mountpoint, is_fresh=True) as process:
        peaks = []
        for _ in range(2):
            found = run("find", mountpoint, "-type", "f", "-printf", ".").stdout
            assert len(found) == (files - files // 100) * versions
            run("ls", "-l", mountpoint / ".history" / "d2" / "f3")
            run("ls", "-lR", mountpoint / ".history" / "d102")
            status = Path(f"/proc/{process.pid}/status").read_text()
            (peak,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
            peaks.append(int(peak))
        # SQLite keeps up to 2 MB of pages of each open catalog; the second walk may find more of them open.
        assert peaks[1] - peaks[0] < 2_000 * versions, "kB"
        assert peaks[1] < (250_000 if files > 10_000 else 100_000), "kB"
