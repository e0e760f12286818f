"""Starting and ending mounts: real processes, real mountpoints."""

import contextlib
import errno
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ssfs.errors import ConfigError, StoreError
from ssfs.mount.mountpoint import check_mountpoint, umount
from ssfs.mount.process import MountOptions, mount
from ssfs.store.store import Task
from tests.mount.mounts import command, end, errno_of, is_mounted, start, wait_until
from tests.mount.stores import add_version, make_task

pytestmark = [pytest.mark.needs_fuse, pytest.mark.slow]


@pytest.fixture
def task(tmp_path: Path) -> Task:
    task = make_task(tmp_path / "store")
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "file").write_text("content")
    add_version(task, tmp_path / "source")
    return task


@pytest.fixture
def mountpoint(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "mount point"
    path.mkdir()
    yield path
    end(path)


def servers_of(mountpoint: Path) -> list[int]:
    """The processes that serve a mountpoint."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            words = (directory / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if os.fsencode(mountpoint) in words:
            found.append(int(directory.name))
    return found


# -- in the background -----------------------------------------------------------------------------


def test_background_start_returns_only_when_it_serves(task, mountpoint):
    run = subprocess.run(command(task, mountpoint, "", foreground=False), check=True)
    # No waiting: the first look must find everything.
    assert (mountpoint / "2024-05-01" / "file").read_text() == "content"
    assert run.returncode == 0
    assert len(servers_of(mountpoint)) == 1
    umount(os.fsencode(mountpoint))
    wait_until(lambda: not servers_of(mountpoint))
    assert not is_mounted(mountpoint)


def test_background_mount_leaves_the_terminal(task, mountpoint):
    run = subprocess.run(
        command(task, mountpoint, "", foreground=False), capture_output=True, timeout=60, check=True
    )
    # The pipes have ended though the mount goes on: it does not hold them.
    assert (run.stdout, run.stderr) == (b"", b"")
    (server,) = servers_of(mountpoint)
    assert os.getsid(server) != os.getsid(0)
    assert os.readlink(f"/proc/{server}/cwd") == "/"
    assert {os.readlink(f"/proc/{server}/fd/{n}") for n in range(3)} == {"/dev/null"}
    umount(os.fsencode(mountpoint))


@pytest.mark.usefixtures("task")
def test_relative_paths_mean_what_they_meant_to_the_caller(mountpoint):
    script = (
        "import os\n"
        "from ssfs.mount.process import mount, MountOptions\n"
        "from ssfs.store.store import Store\n"
        f"os.chdir({os.path.dirname(mountpoint)!r})\n"
        "target = Store.open(b'store').point('main').task('docs')\n"
        "mount(target, b'mount point', MountOptions(), foreground=False)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
    assert (mountpoint / "2024-05-01" / "file").read_text() == "content"


def test_failure_in_the_background_is_the_callers_error(task, mountpoint, monkeypatch):
    """An option that only the kernel refuses: known only once the child has tried."""
    monkeypatch.setattr("ssfs.mount.process.check_fuse", lambda: None)
    options = MountOptions(kernel=("no-such-option",))
    with pytest.raises(ConfigError, match=r"Mounting failed: .*no-such-option") as caught:
        mount(task, os.fsencode(mountpoint), options, foreground=False)
    assert "\n" not in str(caught.value)
    assert not is_mounted(mountpoint)


def test_foreground_and_background_say_the_same(task, mountpoint):
    (mountpoint / "file").touch()
    texts = {
        subprocess.run(
            command(task, mountpoint, "", foreground=foreground),
            capture_output=True,
            text=True,
            check=False,
        ).stderr
        for foreground in (True, False)
    }
    assert len(texts) == 1
    assert "ConfigError: The mountpoint is not empty" in texts.pop()


def test_store_that_is_gone_is_said_before_anything_is_mounted(task, mountpoint):
    os.rename(os.path.join(task.path, b"versions"), os.path.join(task.path, b"elsewhere"))
    with pytest.raises(StoreError, match="no such file"):
        mount(task, os.fsencode(mountpoint), MountOptions(), foreground=False)
    assert not is_mounted(mountpoint)


# -- mountpoints -----------------------------------------------------------------------------------


def test_unfit_mountpoints_are_named_with_what_is_wrong(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "full" / "x").mkdir(parents=True)
    for name, problem in [
        ("absent", "does not exist"),
        ("file", "not a directory"),
        ("file/below", "not a directory"),
        ("full", "not empty"),
    ]:
        with pytest.raises(ConfigError, match=problem) as caught:
            check_mountpoint(os.fsencode(tmp_path / name))
        assert str(tmp_path / name) in str(caught.value)


def test_mounted_twice_is_refused_with_the_remedy(task, mountpoint):
    process = start(task, mountpoint)
    try:
        with pytest.raises(ConfigError, match=r"mounted there already.*ssfs umount"):
            check_mountpoint(os.fsencode(mountpoint))
    finally:
        end(mountpoint, process)


def test_machine_without_fuse_is_said_so(task, mountpoint, monkeypatch):
    real = os.open

    def refuse(path, *rest, **named):
        if path == "/dev/fuse":
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return real(path, *rest, **named)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(ConfigError, match="modprobe fuse"):
        mount(task, os.fsencode(mountpoint), MountOptions(), foreground=True)


def test_symlink_to_a_mountpoint_is_as_good(task, mountpoint, tmp_path):
    alias = tmp_path / "alias"
    alias.symlink_to(mountpoint)
    subprocess.run(command(task, alias, "", foreground=False), check=True)
    assert is_mounted(mountpoint)
    assert (alias / "latest" / "file").read_text() == "content"
    umount(os.fsencode(alias))
    assert not is_mounted(mountpoint)


# -- the end ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_unmount(task, mountpoint, signal_number):
    process = start(task, mountpoint)
    try:
        assert (mountpoint / "latest" / "file").read_text() == "content"
        process.send_signal(signal_number)
        assert process.wait(timeout=20) == 0
        assert not is_mounted(mountpoint)
        assert os.listdir(mountpoint) == []
    finally:
        end(mountpoint, process)


def test_signal_unmounts_though_a_file_is_open(task, mountpoint):
    process = start(task, mountpoint)
    try:
        opened = os.open(mountpoint / "latest" / "file", os.O_RDONLY)
        process.terminate()
        assert process.wait(timeout=20) == 0
        assert not is_mounted(mountpoint)
        with contextlib.suppress(OSError):
            os.close(opened)
    finally:
        end(mountpoint, process)


def test_foreground_ends_when_it_is_unmounted(task, mountpoint):
    process = start(task, mountpoint)
    try:
        umount(os.fsencode(mountpoint))
        assert process.wait(timeout=20) == 0
        assert process.communicate()[1] == ""
    finally:
        end(mountpoint, process)


def test_mount_in_use_is_not_unmounted(task, mountpoint):
    process = start(task, mountpoint)
    try:
        with open(mountpoint / "latest" / "file", "rb"):
            with pytest.raises(ConfigError, match="in use"):
                umount(os.fsencode(mountpoint))
            assert (mountpoint / "latest" / "file").read_text() == "content"
        umount(os.fsencode(mountpoint))
    finally:
        end(mountpoint, process)


def test_what_is_no_mount_of_ours_is_not_unmounted(mountpoint):
    for path in (os.fsencode(mountpoint), b"/", b"/proc", b"/no/such/place"):
        with pytest.raises(
            ConfigError, match=f"Not a mountpoint of ssfs: '{re.escape(path.decode())}'"
        ):
            umount(path)


def test_killed_mount_is_recognised_and_cleared(task, mountpoint):
    process = start(task, mountpoint)
    opened = os.open(mountpoint / "latest" / "file", os.O_RDONLY)
    try:
        process.kill()
        process.wait()
        assert errno_of(lambda: os.listdir(mountpoint)) == errno.ENOTCONN
        with pytest.raises(ConfigError, match="dead"):
            check_mountpoint(os.fsencode(mountpoint))
        umount(os.fsencode(mountpoint))
        assert os.listdir(mountpoint) == []
    finally:
        with contextlib.suppress(OSError):
            os.close(opened)
        end(mountpoint, process)


def test_killed_mount_is_cleared_by_the_next_one(task, mountpoint, tmp_path):
    alias = tmp_path / "alias"
    alias.symlink_to(mountpoint)
    process = start(task, mountpoint)
    opened = os.open(mountpoint / "latest" / "file", os.O_RDONLY)
    try:
        process.kill()
        process.communicate()
        assert errno_of(lambda: os.listdir(mountpoint)) == errno.ENOTCONN
        again = subprocess.run(
            command(task, alias, "", foreground=False), check=True, capture_output=True, text=True
        )
        assert "Cleared what was left" in again.stderr
        assert (mountpoint / "latest" / "file").read_text() == "content"
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
        assert sum(os.fsdecode(os.path.realpath(tmp_path)) in line for line in lines) == 1
    finally:
        with contextlib.suppress(OSError):
            os.close(opened)
        end(mountpoint)


def test_living_mount_is_not_cleared_by_the_next_one(task, mountpoint):
    process = start(task, mountpoint)
    try:
        with pytest.raises(ConfigError, match="mounted there already"):
            mount(task, os.fsencode(mountpoint), MountOptions(), foreground=False)
        assert (mountpoint / "latest" / "file").read_text() == "content"
    finally:
        end(mountpoint, process)
