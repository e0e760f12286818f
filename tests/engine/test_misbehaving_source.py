"""Sources that cannot be read, vanish, or do not hold still: nothing may look deleted or right that is not."""

import errno
import os
from pathlib import Path

import pytest

from ssfs.engine import outgoing
from ssfs.fsio import disk
from ssfs.model.entry import Flag
from ssfs.model.layout import Layout
from ssfs.source import reading
from tests.fakes.syncs import Backup, row, stored
from tests.fakes.trees import verify_version


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "source"
    root.mkdir()
    return root


@pytest.fixture
def backup(tmp_path: Path) -> Backup:
    return Backup(tmp_path / "store")


def fail_to_open(monkeypatch: pytest.MonkeyPatch, name: bytes, number: int) -> None:
    original = reading.open_regular

    def open_regular(wanted: bytes, dir_fd: int):
        if wanted == name:
            raise OSError(number, os.strerror(number))
        return original(wanted, dir_fd)

    monkeypatch.setattr("ssfs.engine.content.open_regular", open_regular)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
def test_unreadable_file_keeps_its_previous_copy_flagged_stale(source, backup, monkeypatch, number):
    (source / "a").write_bytes(b"one")
    (source / "b").write_bytes(b"b")
    backup.sync(source)
    (source / "a").write_bytes(b"two")
    with monkeypatch.context() as patch:
        fail_to_open(patch, b"a", number)
        result = backup.sync(source)
    assert [problem.path for problem in result.problems] == [b"a"]
    assert "kept as in the version before" in result.problems[0].problem
    assert row(backup.newest(), "a").flags & Flag.STALE
    first, second = backup.versions()
    assert stored(first, "a").st_ino == stored(second, "a").st_ino
    # As soon as it can be read it is.
    result = backup.sync(source)
    assert not result.problems
    assert not row(backup.newest(), "a").flags & Flag.STALE
    assert row(backup.newest(), "a").size == 3
    for version in backup.versions():
        verify_version(version)


def test_unreadable_file_that_moved_goes_on_at_its_new_path(source, backup, monkeypatch):
    (source / "a").write_bytes(os.urandom(6000))
    backup.sync(source)
    (source / "a").rename(source / "z")
    fail_to_open(monkeypatch, b"z", errno.EACCES)
    result = backup.sync(source)
    assert len(result.problems) == 1
    assert row(backup.newest(), "z").flags & Flag.STALE
    verify_version(backup.newest())


def test_new_unreadable_file_is_a_problem_and_no_entry(source, backup, monkeypatch):
    (source / "a").write_bytes(b"one")
    fail_to_open(monkeypatch, b"a", errno.EACCES)
    result = backup.sync(source)
    assert "not backed up" in result.problems[0].problem
    assert result.counts.entries == 1


def test_unreadable_directory_keeps_its_whole_subtree(source, backup, monkeypatch):
    (source / "d" / "e").mkdir(parents=True)
    (source / "d" / "e" / "f").write_bytes(b"content")
    backup.sync(source)
    original = disk.open_directory

    def open_directory(name: bytes, **options: int):
        if name == b"e":
            raise PermissionError(errno.EACCES, "Permission denied")
        return original(name, **options)

    with monkeypatch.context() as patch:
        patch.setattr("ssfs.engine.comparison.open_directory", open_directory)
        result = backup.sync(source)
    assert [problem.path for problem in result.problems] == [b"d/e"]
    assert result.counts.removed == 0
    assert row(backup.newest(), "d/e/f").size == 7
    assert row(backup.newest(), "d/e").flags & Flag.STALE
    assert not backup.sync(source).problems
    assert not row(backup.newest(), "d/e").flags & Flag.STALE
    verify_version(backup.newest())


def test_file_that_vanishes_between_look_and_read_was_never_there(source, backup, monkeypatch):
    (source / "a").write_bytes(b"a")
    (source / "b").write_bytes(b"b")
    backup.sync(source)
    (source / "a").write_bytes(b"changed")
    (source / "new").write_bytes(b"new")
    fail_to_open(monkeypatch, b"new", errno.ENOENT)
    result = backup.sync(source)
    assert not result.problems
    assert result.counts.entries == 3
    verify_version(backup.newest())


def test_moved_file_that_vanishes_is_removed(source, backup, monkeypatch):
    (source / "a").write_bytes(os.urandom(6000))
    backup.sync(source)
    (source / "a").rename(source / "z")
    fail_to_open(monkeypatch, b"z", errno.ENOENT)
    result = backup.sync(source)
    assert result.counts.entries == 1
    assert result.counts.removed == 1
    verify_version(backup.newest())


def test_directory_that_vanishes_before_it_is_entered(source, backup, monkeypatch):
    (source / "new").mkdir()
    (source / "old").mkdir()
    (source / "old" / "f").write_bytes(b"x")
    original = disk.open_directory

    def open_directory(name: bytes, **options: int):
        if name == b"new":
            raise FileNotFoundError(errno.ENOENT, "gone")
        return original(name, **options)

    monkeypatch.setattr("ssfs.engine.comparison.open_directory", open_directory)
    result = backup.sync(source)
    assert result.counts.entries == 3
    verify_version(backup.newest())


def change_while_read(monkeypatch: pytest.MonkeyPatch, file: Path, times: int) -> None:
    """Let the file change after each of its first reads."""
    original = reading.is_same
    left = [times]

    def is_same(before: os.stat_result, after: os.stat_result) -> bool:
        if left[0] and before.st_ino == file.stat().st_ino:
            left[0] -= 1
            with file.open("ab") as stream:
                stream.write(b"more")
            return False
        return original(before, after)

    monkeypatch.setattr("ssfs.engine.content.is_same", is_same)


@pytest.mark.parametrize("size", [100, 500_000])
def test_file_that_changes_once_while_read_is_read_again(source, backup, monkeypatch, size):
    file = source / "log"
    file.write_bytes(os.urandom(size))
    change_while_read(monkeypatch, file, 1)
    result = backup.sync(source)
    assert not result.problems
    assert row(backup.newest(), "log").size == size + 4
    verify_version(backup.newest())


@pytest.mark.parametrize("size", [100, 500_000])
def test_file_that_never_holds_still_is_stored_as_read_and_flagged(
    source, backup, monkeypatch, size
):
    file = source / "log"
    file.write_bytes(os.urandom(size))
    with monkeypatch.context() as patch:
        change_while_read(patch, file, 100)
        result = backup.sync(source)
    assert [problem.path for problem in result.problems] == [b"log"]
    assert row(backup.newest(), "log").flags & Flag.UNSTABLE
    verify_version(backup.newest())
    assert not backup.sync(source).problems
    assert row(backup.newest(), "log").size == file.stat().st_size


def fail_to_read(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """A bad spot of the source's disk."""
    original = outgoing.read_at

    def read_at(fd: int, layout: Layout, view: memoryview, position: int, **how: bool) -> int:
        if position >= at:
            raise OSError(errno.EIO, "Input/output error")
        return original(fd, layout, view, position, **how)

    monkeypatch.setattr(outgoing, "read_at", read_at)


def test_large_file_with_a_bad_spot_is_a_problem_and_the_run_goes_on(source, backup, monkeypatch):
    (source / "a").write_bytes(os.urandom(3_000_000))
    (source / "b").write_bytes(b"b")
    with monkeypatch.context() as patch:
        fail_to_read(patch, 1_000_000)
        result = backup.sync(source)
    assert [problem.path for problem in result.problems] == [b"a"]
    assert result.counts.entries == 2
    assert row(backup.newest(), "b").size == 1
    verify_version(backup.newest())
    assert not backup.sync(source).problems
    assert row(backup.newest(), "a").size == 3_000_000


def test_lost_content_with_a_bad_spot_is_a_problem_and_the_run_goes_on(source, backup, monkeypatch):
    (source / "a").write_bytes(os.urandom(3_000_000))
    backup.sync(source)
    os.unlink(os.path.join(backup.newest().path, b"tree/a"))
    fail_to_read(monkeypatch, 1_000_000)
    result = backup.sync(source)
    assert [problem.path for problem in result.problems] == [b"a"]
    assert result.counts.entries == 1
    verify_version(backup.newest())


def test_fifo_in_place_of_a_file_does_not_hang(source, backup, monkeypatch):
    (source / "a").write_bytes(b"a")
    original = reading.open_regular

    def open_regular(name: bytes, dir_fd: int):
        (source / "a").unlink(missing_ok=True)
        os.mkfifo(source / "a")
        return original(name, dir_fd)

    monkeypatch.setattr("ssfs.engine.content.open_regular", open_regular)
    result = backup.sync(source)
    assert result.counts.entries == 1
