"""`ssfs mount` and `ssfs umount` as commands; what a mount shows is tests/mount's."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.cli.support import COMMAND, environment, run, ssfs


@pytest.fixture
def mountpoint(tmp_path: Path) -> Path:
    path = tmp_path / "mnt"
    path.mkdir()
    return path


@pytest.mark.needs_fuse
def test_location_decides_what_is_shown(read_only_history: Path, mountpoint: Path):
    shown = {"": "main/task/2024-02-29", "::main": "task/2024-02-29", "::main/task": "2024-02-29"}
    for rest, path in shown.items():
        text = ssfs("mount", f"{read_only_history}{rest}", mountpoint)
        assert f"ssfs umount {mountpoint}" in text
        assert (mountpoint / path / "day").read_text() == "afternoon\n"
        assert ssfs("umount", mountpoint) == ""
    assert os.listdir(mountpoint) == []


@pytest.mark.needs_fuse
def test_verbose_and_quiet(read_only_history: Path, mountpoint: Path):
    assert ssfs("mount", "-q", read_only_history, mountpoint) == ""
    assert "already" in run("mount", read_only_history, mountpoint, expect=2).error
    assert ssfs("umount", "-v", mountpoint) == f"Unmounted {mountpoint}\n"
    assert "Mounting " in ssfs("mount", "-v", f"{read_only_history}::main/task", mountpoint)
    ssfs("umount", "-q", mountpoint)


@pytest.mark.needs_fuse
def test_foreground_mount_ends_with_a_signal(read_only_history: Path, mountpoint: Path):
    with subprocess.Popen(
        [*COMMAND, "mount", "--foreground", read_only_history, mountpoint, "-o", "noexec"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    ) as process:
        while not os.path.ismount(mountpoint):
            assert process.poll() is None
        assert (mountpoint / "main" / "task" / "latest" / "day").read_text() == "afternoon\n"
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=30) == (b"", b"")
        assert process.returncode == 0
    assert not os.path.ismount(mountpoint)


@pytest.mark.needs_fuse
def test_unfit_mountpoints_are_refused(read_only_history: Path, mountpoint: Path):
    # Must hold 10.
    (mountpoint / "file").write_text("")
    full = run("mount", read_only_history, mountpoint, expect=2)
    assert "not empty" in full.error
    assert "does not exist" in run("mount", read_only_history, mountpoint / "x", expect=2).error
    file = run("mount", read_only_history, mountpoint / "file", expect=2)
    assert "not a directory" in file.error


def test_unknown_option_and_unknown_place_are_refused(read_only_history: Path, mountpoint: Path):
    error = run("mount", read_only_history, mountpoint, "-o", "rw", expect=2).error
    assert "rw" in error
    assert "bogus" in run("mount", read_only_history, mountpoint, "-o", "bogus", expect=2).error
    both = run("mount", read_only_history, mountpoint, "-o", "owner=root,numeric_ids", expect=2)
    assert "exclude each other" in both.error
    assert "Not a store" in run("mount", mountpoint, mountpoint, expect=6).error
    for rest in ("::other", "::main/other"):
        assert run("mount", f"{read_only_history}{rest}", mountpoint, expect=2).error


def test_umount_of_what_is_not_mounted_is_refused(mountpoint: Path):
    for path in (mountpoint, mountpoint / "absent", Path("/proc")):
        assert "Not a mountpoint of ssfs" in run("umount", path, expect=2).error
