"""`mount.fuse.ssfs`, called as mount(8) calls it, and by mount(8) itself."""

import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from ssfs.cli import mount_helper
from ssfs.cli.mount_helper import own_options
from ssfs.errors import ConfigError
from ssfs.mount.options import parse_options
from tests.cli.support import ROOT, environment
from tests.mount.mounts import end, is_mounted

_HELPER = [sys.executable, "-m", "ssfs.cli.mount_helper"]


@pytest.fixture
def mountpoint(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "mount point"
    path.mkdir()
    yield path
    end(path)


def call(*words: str | Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [*_HELPER, *words],
        check=False,
        capture_output=True,
        text=True,
        env=environment(),
        stdin=subprocess.DEVNULL,
        timeout=60,
    )


# -- options ---------------------------------------------------------------------------------------


def test_what_fstab_says_to_others_is_left_out():
    text = (
        "rw,defaults,user=ann,users,noauto,nofail,_netdev,x-systemd.automount,X-mount.mkdir,"
        "x-systemd.requires-mounts-for=/srv,comment=hello,relatime,suid,dev"
    )
    assert own_options(text, sloppy=False) == ""


def test_what_is_meant_for_the_mount_is_kept():
    text = "ro,allow_other,owner=root,noatime,async,idle=5,nosuid"
    assert own_options(f"rw,{text},nofail", sloppy=False) == text
    assert parse_options(text).allow_other


def test_unknown_options_are_passed_over_only_on_demand():
    assert own_options("bogus,idle=5,x=y", sloppy=False) == "bogus,idle=5,x=y"
    assert own_options("bogus,idle=5,x=y", sloppy=True) == "idle=5"


def test_remounting_is_refused():
    with pytest.raises(ConfigError, match="remounted"):
        own_options("remount,ro", sloppy=True)


def test_it_is_installed_under_the_name_that_mount_looks_for():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    module, _, name = scripts["mount.fuse.ssfs"].partition(":")
    assert (module, getattr(mount_helper, name)) == (mount_helper.__name__, mount_helper.main)


# -- called as mount(8) does -----------------------------------------------------------------------


@pytest.mark.needs_fuse
def test_it_mounts_and_ends(read_only_history: Path, mountpoint: Path):
    options = "rw,noexec,nosuid,nodev,_netdev,nofail,x-systemd.automount,user=root,idle=5"
    location = f"{read_only_history}::main/task"
    done = call(location, mountpoint, "-n", "-v", "-o", options, "-t", "fuse.ssfs")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"mount.fuse.ssfs: mounted {location} on {mountpoint}\n"
    assert (mountpoint / "latest" / "day").read_text() == "afternoon\n"
    again = call(location, mountpoint, "-o", "rw")
    assert again.returncode == 32
    assert again.stderr.startswith("mount.fuse.ssfs: Something is mounted there already")


@pytest.mark.needs_fuse
def test_faking_checks_and_mounts_nothing(read_only_history: Path, mountpoint: Path):
    done = call(read_only_history, mountpoint, "-sfv", "-o", "rw,never-heard-of")
    assert (done.returncode, done.stderr) == (0, "")
    assert "checked" in done.stdout
    assert not is_mounted(mountpoint)
    assert call(read_only_history, mountpoint / "absent", "-f").returncode == 32


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ("never-heard-of", "never-heard-of"),
        ("owner=root,numeric_ids", "exclude"),
        ("map=/absent", "/absent"),
    ],
)
def test_wrong_options_are_a_wrong_call(read_only_history, mountpoint, options, problem):
    done = call(read_only_history, mountpoint, "-o", f"rw,{options}")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert problem in line
    assert not is_mounted(mountpoint)


def test_what_cannot_be_mounted_is_said_in_one_line(tmp_path: Path, mountpoint: Path):
    for words, code in (((tmp_path, mountpoint), 32), ((tmp_path,), 1), ((b"::main", tmp_path), 1)):
        done = call(*words)
        assert done.returncode == code
        (line,) = done.stderr.splitlines()
        assert line.startswith("mount.fuse.ssfs: ")


# -- by mount(8) -----------------------------------------------------------------------------------

_BY_MOUNT = """
set -eu
# Seen by these processes only: a /sbin that holds nothing but the helper.
mount --bind "$SBIN" "$(readlink -f /sbin)"
mount -t fuse.ssfs "$STORE::main/task" "$MNT" -o noatime,idle=5
cat "$MNT/latest/day"
findmnt -no FSTYPE,SOURCE "$MNT"
umount "$MNT"
mount -T "$FSTAB" "$MNT"
findmnt -no FSTYPE,SOURCE "$MNT"
mount -a -T "$FSTAB"
findmnt -no FSTYPE "$MNT"
umount "$MNT"
mount -a -T "$FSTAB"
cat "$MNT/task/latest/day"
umount "$MNT"
! mount -t fuse.ssfs "$STORE" "$MNT" -o no-such-option
"""


@pytest.mark.needs_fuse
@pytest.mark.needs_root
@pytest.mark.slow
def test_mount_finds_it_from_the_command_line_and_from_fstab(
    read_only_history: Path, mountpoint: Path, tmp_path: Path
):
    sbin = tmp_path / "sbin"
    sbin.mkdir()
    helper = sbin / "mount.fuse.ssfs"
    helper.write_text(f"#!/bin/sh\nPYTHONPATH='{ROOT}' exec {' '.join(_HELPER)} \"$@\"\n")
    helper.chmod(0o755)
    fstab = tmp_path / "fstab"
    place = os.fspath(mountpoint).replace(" ", "\\040")
    options = "allow_other,nofail,_netdev,x-systemd.requires-mounts-for=/srv"
    fstab.write_text(f"{read_only_history}::main  {place}  fuse.ssfs  {options}  0  0\n")
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", _BY_MOUNT],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        env=environment(
            SBIN=str(sbin),
            STORE=str(read_only_history),
            MNT=str(mountpoint),
            FSTAB=str(fstab),
            LC_ALL="C",
        ),
    )
    assert done.returncode == 0, done.stderr
    assert [line.split() for line in done.stdout.splitlines()] == [
        ["afternoon"],
        ["fuse.ssfs", f"{read_only_history}::main/task"],
        ["fuse.ssfs", f"{read_only_history}::main"],
        ["fuse.ssfs"],
        ["afternoon"],
    ]
    assert "Unknown mount option 'no-such-option'" in done.stderr
    assert not is_mounted(mountpoint)
