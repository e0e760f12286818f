"""Targets that do not take everything: what fails is listed, what can be done is done."""

import contextlib
import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ssfs.engine.restore.failures import Failures
from ssfs.engine.restore.options import RestoreOptions
from ssfs.model.problem import EntryProblem
from ssfs.monitor import NullMonitor
from ssfs.store.version import Version
from tests.fakes.restores import (
    RestoreServer,
    request_of,
    restore_here,
    store_of,
)
from tests.fakes.syncs import Backup

IN_PLACE = RestoreOptions(in_place=True)
FULL = "not restored: no space left on device"
READ_ONLY = "not restored: read-only file system"
MIB = 1 << 20


@contextlib.contextmanager
def mounted(where: Path, *options: str) -> Iterator[Path]:
    """Something mounted at a directory that is made for it."""
    where.mkdir(exist_ok=True)
    subprocess.run(["mount", *options, where], check=True)
    try:
        yield where
    finally:
        subprocess.run(["umount", "-l", where], check=True)


@contextlib.contextmanager
def small_disk(where: Path, inodes: int = 0) -> Iterator[Path]:
    """A file system of 4 MB."""
    options = "size=4m" + (f",nr_inodes={inodes}" if inodes else "")
    with mounted(where, "-t", "tmpfs", "-o", options, "small") as disk:
        yield disk


def backed_up(tmp_path: Path, files: dict[str, int]) -> Version:
    """A version of files of these sizes."""
    for name, size in files.items():
        path = tmp_path / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(size))
    backup = Backup(tmp_path / "store")
    backup.sync(tmp_path / "source")
    return backup.newest()


@pytest.mark.needs_root
def test_full_target_takes_what_still_fits(restore, tmp_path):
    version = backed_up(tmp_path, {"a": 3 * MIB, "b/big": 2 * MIB, "c": 100_000, "d": 2 * MIB})
    with small_disk(tmp_path / "disk") as disk:
        (disk / "c").write_bytes((tmp_path / "source" / "c").read_bytes())
        (disk / "c").chmod(0o600)
        result = restore(version, disk)
        assert result.problems == [EntryProblem(b"b/big", FULL), EntryProblem(b"d", FULL)]
        assert sorted(os.listdir(disk)) == ["a", "b", "c"]
        assert os.listdir(disk / "b") == []
        assert (disk / "c").stat().st_mode & 0o777 == 0o644
        assert (result.created, result.metadata_only) == (2, 1)


@pytest.mark.needs_root
def test_content_that_cannot_fit_is_not_asked_for(tmp_path):
    files = {f"{number:02}": MIB + 1 for number in range(40)}
    version = backed_up(tmp_path, files)
    with small_disk(tmp_path / "disk") as disk:
        server = RestoreServer(store_of(version))
        _, result = server.restore(request_of(version), disk)
        # The first to fail was asked for with others; those after them were not.
        assert server.received_bytes < 20 * MIB
    assert result.created == 3
    assert {problem.problem for problem in result.problems[:20]} == {FULL}
    rest = "and 17 more likewise: no space left on device"
    assert result.problems[20:] == [EntryProblem(b"", rest)]


@pytest.mark.needs_root
def test_target_without_inodes_takes_metadata(restore, tmp_path):
    version = backed_up(tmp_path, {f"{number}": 10 for number in range(9)})
    with small_disk(tmp_path / "disk", inodes=4) as disk:
        result = restore(version, disk)
        assert len(os.listdir(disk)) == result.created == 3
    assert [problem.problem for problem in result.problems] == [FULL] * 6


@pytest.mark.needs_root
def test_read_only_target_is_said_once_and_nothing_moves(tmp_path, restore):
    files = {f"{number}/{name}": 200_000 for number in range(3) for name in "abcd"}
    version = backed_up(tmp_path, files)
    disk = tmp_path / "disk"
    disk.mkdir()
    restore_here(version, disk, "0")
    for name in ("0/a", "0/b"):
        (disk / name).write_bytes(b"damaged")
    (disk / "0" / "c").chmod(0o600)
    with mounted(disk, "--bind", disk):
        subprocess.run(["mount", "-o", "remount,bind,ro", disk], check=True)
        result = restore(version, disk)
        server = RestoreServer(store_of(version))
        server.restore(request_of(version), disk)
        assert server.received_bytes < 5000
    # One file, its directory and the target itself; "0/c" has only wrong metadata.
    assert (result.unchanged, result.metadata_only) == (3, 0)
    assert result.problems == [
        EntryProblem(b"0/a", READ_ONLY),
        EntryProblem(b"", "and 4 more likewise: read-only file system"),
    ]


@pytest.mark.needs_root
def test_immutable_files_and_directories_are_listed_and_the_rest_done(restore, tmp_path):
    version = backed_up(tmp_path, {"a/file": 10, "b/file": 10, "b/right": 10, "c": 10})
    image = tmp_path / "image"
    with open(image, "wb") as file:
        file.truncate(8 * MIB)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    with mounted(tmp_path / "disk", "-o", "loop", os.fspath(image)) as disk:
        restore(version, disk)
        for name in ("a/file", "b/file"):
            (disk / name).write_bytes(b"damaged")
        (disk / "c").unlink()
        locked = [disk / "a" / "file", disk / "b", disk / "b" / "right"]
        subprocess.run(["chattr", "+i", *locked], check=True)
        try:
            result = restore(version, disk)
        finally:
            subprocess.run(["chattr", "-i", *locked], check=True)
        denied = "not restored: operation not permitted"
        assert result.problems == [
            EntryProblem(b"a/file", denied),
            EntryProblem(b"b/file", denied),
        ]
        assert (disk / "c").stat().st_size == 10
        assert (disk / "a" / "file").read_bytes() == b"damaged"


@pytest.mark.needs_root
def test_undeletable_entry_is_listed_and_the_rest_goes(restore, tmp_path):
    version = backed_up(tmp_path, {"a": 10})
    image = tmp_path / "image"
    with open(image, "wb") as file:
        file.truncate(8 * MIB)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    with mounted(tmp_path / "disk", "-o", "loop", os.fspath(image)) as disk:
        (disk / "x" / "y").mkdir(parents=True)
        for name in ("x/1", "x/y/locked", "z"):
            (disk / name).write_text("x")
        locked = disk / "x" / "y" / "locked"
        subprocess.run(["chattr", "+i", locked], check=True)
        try:
            result = restore(version, disk, options=RestoreOptions(deletes=True))
        finally:
            subprocess.run(["chattr", "-i", locked], check=True)
        assert result.problems == [
            EntryProblem(b"x/y/locked", "not deleted: operation not permitted")
        ]
        assert sorted(os.listdir(disk)) == ["a", "x"]


def failing(count: int, number: int, failures: Failures) -> None:
    for index in range(count):
        failures.fail(b"%d" % index, OSError(number, os.strerror(number)))


def test_only_failures_in_a_row_are_counted_together():
    failures = Failures(NullMonitor())
    failing(20, errno.EACCES, failures)
    failures.end_row()
    failing(20, errno.EACCES, failures)
    failing(3, errno.EIO, failures)
    failures.end_row()
    assert len(failures.problems) == 43
    failing(1000, errno.EACCES, failures)
    failures.end_row()
    assert len(failures.problems) == 43 + 20 + 1
    assert failures.problems[-1] == EntryProblem(b"", "and 980 more likewise: permission denied")


def test_quota_is_learnt_from_what_failed(tmp_path):
    failures = Failures(NullMonitor())
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        assert failures.foresee(fd, 1000) is None
        failures.fail_in(fd, b"x", 1000, OSError(errno.EDQUOT, "quota"))
        assert failures.foresee(fd, 999) is None
        error = failures.foresee(fd, 1000)
        assert error is not None
        assert error.errno == errno.EDQUOT
    finally:
        os.close(fd)
