"""Mounts that stay open while versions come and go."""

import errno
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ssfs.fsio.disk import open_fd
from ssfs.store.store import Task
from ssfs.store.version import Version
from tests.mount.mounts import end, errno_of, mounted, start, wait_until
from tests.mount.stores import DAY, NEXT_DAY, add_version, collect, expire, make_task

pytestmark = [pytest.mark.needs_fuse, pytest.mark.slow]

IDLE_S = 0.8
FILES = 3000
SEEN_S = 1.0
"""How soon a mount must notice what happens in its store."""


@pytest.fixture
def task(tmp_path: Path) -> Task:
    return make_task(tmp_path / "store")


@pytest.fixture
def sync(tmp_path: Path, task: Task) -> Callable[..., Version]:
    """Makes versions of which every file says which it is of."""

    def make(text: str, time_of_day=DAY, *, files: int = 3) -> Version:
        source = tmp_path / f"source-{text}"
        source.mkdir()
        for number in range(files):
            (source / f"{number:05d}").write_text(text)
        return add_version(task, source, time_of_day)

    return make


@pytest.fixture
def mountpoint(tmp_path: Path) -> Path:
    return tmp_path / "mnt"


@pytest.fixture
def mount(task: Task, mountpoint: Path) -> Iterator[Path]:
    """A mount with a short idle window, of a task that has no versions yet."""
    with mounted(task, mountpoint, f"idle={IDLE_S}"):
        yield mountpoint


def texts(directory: Path) -> set[str]:
    return {path.read_text() for path in directory.iterdir()}


def test_new_versions_show_within_a_second(mount, sync):
    assert os.listdir(mount) == []
    sync("one", DAY)
    assert wait_until(lambda: os.listdir(mount) == ["2024-05-01", "latest", "yesterday"]) < SEEN_S
    assert wait_until((mount / "latest" / "00000").exists) < SEEN_S
    sync("two", NEXT_DAY)
    assert wait_until((mount / "2024-05-02").exists) < SEEN_S
    assert wait_until(lambda: os.readlink(mount / "latest") == "2024-05-02") < SEEN_S
    assert texts(mount / "latest") == {"two"}


def test_expired_versions_go_within_a_second(mount, sync, task):
    old = sync("old", DAY)
    sync("new", NEXT_DAY)
    wait_until(lambda: len(os.listdir(mount)) == 4)
    os.stat(mount / "2024-05-01")
    expire(task, old)
    assert wait_until(lambda: os.listdir(mount) == ["2024-05-02", "latest", "yesterday"]) < SEEN_S
    assert wait_until(lambda: not (mount / "2024-05-01").exists()) < SEEN_S
    assert collect(task) == 1


def test_scan_within_the_clocks_grain_is_not_trusted(mount, sync):
    """Many versions in a row: each is seen though the directory's time may not have moved on."""
    for number in range(1, 20):
        sync(f"v{number}", DAY.replace(day=number), files=1)
        assert wait_until((mount / f"2024-05-{number:02d}").exists) < SEEN_S


def test_date_moves_to_the_newer_version_once_it_is_unused(mount, sync):
    sync("morning")
    assert texts(mount / "2024-05-01") == {"morning"}
    sync("evening", DAY.replace(hour=20))
    timed = mount / "2024-05-01_200000"
    assert wait_until(timed.exists) < SEEN_S
    assert texts(timed) == {"evening"}
    assert os.readlink(mount / "latest") == "2024-05-01_200000"
    assert texts(mount / "2024-05-01") == {"morning"}
    # Looking at the listing is no use of what it lists.
    wait_until(lambda: os.readlink(mount / "latest") == "2024-05-01")
    assert wait_until(lambda: texts(mount / "2024-05-01") == {"evening"}) < SEEN_S
    assert texts(mount / "2024-05-01_120000") == {"morning"}
    assert sorted(os.listdir(mount)) == ["2024-05-01", "2024-05-01_120000", "latest", "yesterday"]


def test_walk_by_path_that_spans_a_new_version_reads_one_version(mount, sync):
    sync("one", files=200)
    directory = mount / "2024-05-01"
    names = sorted(os.listdir(directory))
    seen = [(directory / name).read_text() for name in names[:100]]
    sync("two", DAY.replace(hour=13), files=200)
    for name in names[100:]:
        # Longer altogether than the kernel believes a date, and than the idle window.
        time.sleep(2 * IDLE_S / 100)
        seen.append((directory / name).read_text())
    assert set(seen) == {"one"}


def test_copy_that_spans_new_versions_copies_one_version(mount, sync, tmp_path):
    sync("v0", files=FILES)
    out = tmp_path / "out"
    copy = subprocess.Popen(["cp", "-a", mount / "2024-05-01", out])
    wait_until(lambda: out.exists() and len(os.listdir(out)) > FILES // 20)
    for number in range(1, 4):
        sync(f"v{number}", DAY.replace(hour=12 + number), files=1)
        os.listdir(mount)
    assert copy.poll() is None, "the copy was over too soon to show anything"
    assert copy.wait() == 0
    assert len(os.listdir(out)) == FILES
    assert texts(out) == {"v0"}


def test_copy_of_a_version_that_expires_meanwhile_is_whole(mount, sync, task, tmp_path):
    old = sync("old", files=FILES)
    sync("new", NEXT_DAY)
    out = tmp_path / "out"
    copy = subprocess.Popen(["cp", "-a", mount / "2024-05-01", out])
    wait_until(lambda: out.exists() and len(os.listdir(out)) > FILES // 20)
    expire(task, old)
    assert collect(task) == 0, "in use: it must not be deleted"
    assert wait_until(lambda: os.listdir(mount) == ["2024-05-02", "latest", "yesterday"]) < SEEN_S
    assert copy.poll() is None, "the copy was over too soon to show anything"
    assert copy.wait() == 0
    assert len(os.listdir(out)) == FILES
    assert texts(out) == {"old"}
    wait_until(lambda: collect(task) == 1)
    assert not (mount / "2024-05-01").exists()


def test_open_file_of_an_expired_version_still_reads(mount, task, tmp_path):
    source = tmp_path / "source-big"
    source.mkdir()
    content = os.urandom(8_000_000)
    (source / "big").write_bytes(content)
    version = add_version(task, source)
    with open(mount / "2024-05-01" / "big", "rb", buffering=0) as file:
        assert file.read(1000) == content[:1000]
        expire(task, version)
        wait_until(lambda: os.listdir(mount) == [])
        time.sleep(2 * IDLE_S)
        assert collect(task) == 0
        assert os.pread(file.fileno(), 1_000_000, 7_000_000) == content[7_000_000:]
    wait_until(lambda: collect(task) == 1)


def test_working_directory_in_a_deleted_version_is_an_error_and_no_hang(mount, sync, task):
    old = sync("old")
    sync("new", NEXT_DAY)
    fd = os.open(mount / "2024-05-01", os.O_PATH | os.O_DIRECTORY)
    try:
        expire(task, old)
        wait_until(lambda: collect(task) == 1)
        failure = errno_of(lambda: os.open("00000", os.O_RDONLY, dir_fd=fd))
        assert failure in (errno.ESTALE, errno.ENOENT)
    finally:
        os.close(fd)


def test_mount_not_in_use_locks_nothing(mount, sync, task):
    version = sync("only")
    assert texts(mount / "2024-05-01") == {"only"}
    expire(task, version)
    assert collect(task) == 0
    assert wait_until(lambda: collect(task) == 1) < 3 * IDLE_S + SEEN_S


def test_end_of_a_mount_lets_its_versions_go(task, sync, mountpoint):
    version = sync("only")
    mountpoint.mkdir()
    process = start(task, mountpoint)
    try:
        assert texts(mountpoint / "2024-05-01") == {"only"}
        expire(task, version)
        assert collect(task) == 0
    finally:
        end(mountpoint, process)
    assert collect(task) == 1


def read_at(name: str, directory: int) -> bytes:
    with open_fd(os.fsencode(name), os.O_RDONLY, dir_fd=directory) as fd:
        return os.read(fd, 100)


def test_readers_of_a_changing_store_always_read_right(mount, sync, task):
    """Twenty syncs with expiry under readers that hold on to what they opened."""
    for number in range(20):
        day = DAY.replace(day=1 + number // 4, hour=number % 24)
        sync(f"v{number}", day, files=20)
        versions = task.versions()
        if len(versions) > 3:
            expire(task, versions[0])
            collect(task)
        wait_until(lambda day=day: any(n.startswith(f"{day:%Y-%m-%d}") for n in os.listdir(mount)))
        for name in os.listdir(mount):
            if name in ("latest", "yesterday"):
                continue
            directory = os.open(mount / name, os.O_RDONLY | os.O_DIRECTORY)
            try:
                found = {read_at(file, directory) for file in os.listdir(directory)}
            finally:
                os.close(directory)
            assert len(found) == 1, "one version, whichever"
