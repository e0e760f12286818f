"""What a mount lives through, and what is left when it does not."""

import contextlib
import errno
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ssfs.store.store import Task
from tests.mount.mounts import command, end, errno_of, is_mounted, mounted, start, wait_until
from tests.mount.stores import DAY, NEXT_DAY, add_version, make_task

pytestmark = [pytest.mark.needs_fuse, pytest.mark.slow]

FILES = 300


@pytest.fixture
def task(tmp_path: Path) -> Task:
    task = make_task(tmp_path / "store")
    for text, day in (("first", DAY), ("second", NEXT_DAY)):
        source = tmp_path / text
        (source / "directory").mkdir(parents=True)
        for number in range(FILES):
            (source / "directory" / f"{number}").write_text(text)
        (source / "large").write_bytes(text.encode() * 1_000_000)
        add_version(task, source, day)
    return task


def version_directory(task: Task, number: int) -> Path:
    return Path(os.fsdecode(task.versions()[number].path))


# -- no exception ends it --------------------------------------------------------------------------


def damage_catalog(task: Task) -> None:
    path = version_directory(task, 0) / "catalog.db"
    path.write_bytes(path.read_bytes()[:4096] + bytes(100_000))


def remove_catalog(task: Task) -> None:
    (version_directory(task, 0) / "catalog.db").unlink()


def remove_tree(task: Task) -> None:
    shutil.rmtree(version_directory(task, 0) / "tree")


def empty_files(task: Task) -> None:
    for path in (version_directory(task, 0) / "tree").rglob("*"):
        if path.is_file():
            os.truncate(path, 0)


def damage_list_of_damage(task: Task) -> None:
    (version_directory(task, 0) / "damage.toml").write_bytes(b"\xff = [")


@pytest.mark.parametrize(
    "damage", [damage_catalog, remove_catalog, remove_tree, empty_files, damage_list_of_damage]
)
def test_damage_of_one_version_is_an_error_in_it_and_nothing_else(task, tmp_path, damage):
    mountpoint = tmp_path / "mnt"
    damage(task)
    with mounted(task, mountpoint) as process:
        for _ in range(2):
            found = errno_of((mountpoint / "2024-05-01" / "directory" / "7").read_text)
            assert found == errno.EIO
        assert (mountpoint / "2024-05-02" / "directory" / "7").read_text() == "second"
        assert process.poll() is None


def test_store_that_vanishes_and_comes_back(task, tmp_path):
    """A disk that is pulled: errors meanwhile, and no mount to be made anew afterwards."""
    mountpoint, store, away = tmp_path / "mnt", tmp_path / "store", tmp_path / "away"
    with mounted(task, mountpoint) as process:
        assert (mountpoint / "2024-05-01" / "directory" / "1").read_text() == "first"
        store.rename(away)
        time.sleep(0.6)  # the kernel believes a listing for half a second
        assert errno_of(lambda: os.listdir(mountpoint)) == errno.EIO
        assert errno_of(lambda: os.stat(mountpoint / "2024-05-02" / "large")) == errno.EIO
        away.rename(store)
        time.sleep(0.6)
        assert (mountpoint / "2024-05-02" / "directory" / "1").read_text() == "second"
        assert process.poll() is None


def test_no_descriptors_left_is_an_error_and_passes(task, tmp_path):
    mountpoint = tmp_path / "mnt"
    with mounted(task, mountpoint) as process:
        names = [mountpoint / "2024-05-01" / "directory" / str(number) for number in range(FILES)]
        assert names[0].read_text() == "first"
        held = len(os.listdir(f"/proc/{process.pid}/fd"))
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (held + 20, held + 20))
        opened = []
        try:
            found = errno_of(lambda: opened.extend(os.open(name, os.O_RDONLY) for name in names))
            assert found == errno.EMFILE
        finally:
            for fd in opened:
                os.close(fd)
        assert [name.read_text() for name in names] == ["first"] * FILES
        assert process.poll() is None


_FAILING = """
import itertools, sys
from ssfs.mount import tree
numbers = itertools.count()
def failing(real):
    def call(*args, **named):
        number = next(numbers)
        if number % 7 == 3:
            raise [ValueError("a bug"), MemoryError(), RecursionError(), OSError(5, "disk")][number % 4]
        return real(*args, **named)
    return call
for name in ("lookup", "attributes", "read_link", "xattr", "xattr_names"):
    setattr(tree.MountTree, name, failing(getattr(tree.MountTree, name)))
for name in ("open_directory", "open_file", "list_directory", "close_file", "close_directory"):
    setattr(tree.Handles, name, failing(getattr(tree.Handles, name)))
"""


def outcome(path: Path) -> str | int | None:
    """A file's text, or the errno why there is none."""
    try:
        return path.read_text()
    except OSError as error:
        return error.errno


def test_whatever_handlers_raise_is_eio_and_the_mount_goes_on(task, tmp_path):
    mountpoint = tmp_path / "mnt"
    mountpoint.mkdir()
    words = command(task, mountpoint, "", foreground=True)
    words[2] = _FAILING + words[2]
    with open(tmp_path / "log", "wb") as log:
        process = subprocess.Popen(words, stderr=log)
    try:
        wait_until(lambda: process.poll() is not None or is_mounted(mountpoint))
        assert process.poll() is None
        found = [
            outcome(mountpoint / "2024-05-01" / "directory" / str(number))
            for number in range(FILES)
        ]
        assert set(found) == {"first", errno.EIO}
        assert min(found.count(each) for each in set(found)) > 10
        assert process.poll() is None
    finally:
        end(mountpoint)
        process.kill()
        process.wait()
    assert "a bug" in (tmp_path / "log").read_text()


# -- SIGKILL ---------------------------------------------------------------------------------------


def read_on(path: Path, ended: threading.Event, faults: list[str]) -> None:
    """Read until it fails, and note how it failed and what was read that is wrong."""
    while not ended.is_set():
        try:
            content = path.read_bytes()
        except OSError as error:
            faults.append(errno.errorcode.get(error.errno or 0, "?"))
            return
        if content != b"first" * (len(content) // 5) or not content:
            faults.append("wrong bytes")
            return


@pytest.fixture
def mountpoint(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "mnt"
    path.mkdir()
    yield path
    end(path)


@pytest.mark.parametrize("options", ["", "damaged_ok"], ids=["passed through", "by the mount"])
def test_killed_under_readers_it_ends_in_clean_errors_and_the_next_one_serves(
    task, mountpoint, options
):
    process = start(task, mountpoint, options)
    ended, faults = threading.Event(), []
    paths = [mountpoint / "2024-05-01" / "directory" / str(number) for number in range(6)]
    paths += [mountpoint / "2024-05-01" / "large"] * 4
    threads = [threading.Thread(target=read_on, args=(path, ended, faults)) for path in paths]
    try:
        for thread in threads:
            thread.start()
        time.sleep(0.3)
        process.kill()
        process.wait()
        for thread in threads:
            thread.join(10)
        ended.set()
        assert not any(thread.is_alive() for thread in threads), "a reader hangs"
        assert len(faults) == len(paths)
        assert set(faults) <= {"ENOTCONN", "ECONNABORTED", "EIO"}
        assert errno_of(lambda: os.listdir(mountpoint)) == errno.ENOTCONN
        subprocess.run(command(task, mountpoint, options, foreground=False), check=True)
        assert (mountpoint / "2024-05-01" / "large").read_bytes() == b"first" * 1_000_000
    finally:
        ended.set()
        end(mountpoint, process)


def test_killed_twice_under_open_files_the_mountpoint_is_free_of_both(task, mountpoint):
    opened = []
    try:
        for _ in range(2):
            process = start(task, mountpoint)
            opened.append(os.open(mountpoint / "latest" / "large", os.O_RDONLY))
            process.kill()
            process.communicate()
            assert errno_of(lambda: os.listdir(mountpoint)) == errno.ENOTCONN
            subprocess.run([sys.executable, "-m", "ssfs", "umount", mountpoint], check=True)
        assert os.listdir(mountpoint) == []
    finally:
        for fd in opened:
            with contextlib.suppress(OSError):
                os.close(fd)
