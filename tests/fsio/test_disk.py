"""Disk calls by descriptor: deleting any tree, errors in words, small files whole or not at all."""

import errno
import os
import stat
import threading
from pathlib import Path

import pytest

from ssfs.errors import StoreError, StoreFull
from ssfs.fsio import disk, removal
from ssfs.fsio.disk import (
    copy_file,
    link_file,
    open_directory,
    read_file,
    replace_file,
    store_error,
    store_errors,
)
from ssfs.fsio.removal import remove_tree


@pytest.fixture
def fd(tmp_path):
    place = tmp_path / "place"
    place.mkdir()
    fd = open_directory(bytes(place))
    yield fd
    os.close(fd)


def names(fd):
    return sorted(os.fsencode(name) for name in os.listdir(fd))


def make_deep(fd, depth):
    """A chain of directories; made without paths, which would be too long."""
    below = os.dup(fd)
    for level in range(depth):
        os.mkdir(b"d", dir_fd=below)
        os.close(os.open(b"f%d" % (level % 3), os.O_CREAT | os.O_WRONLY, dir_fd=below))
        below, above = os.open(b"d", os.O_RDONLY, dir_fd=below), below
        os.close(above)
    os.close(below)


@pytest.mark.slow
def test_tree_3000_deep_is_deleted_with_few_descriptors(fd, monkeypatch):
    os.mkdir(b"top", dir_fd=fd)
    top = os.open(b"top", os.O_RDONLY, dir_fd=fd)
    make_deep(top, 3000)
    os.close(top)
    opened = []
    real = disk.open_directory

    def count(*args, **kwargs):
        opened.append(len(os.listdir("/proc/self/fd")))
        return real(*args, **kwargs)

    monkeypatch.setattr(removal, "open_directory", count)
    remove_tree(b"top", dir_fd=fd)
    assert names(fd) == []
    assert max(opened) - min(opened) <= 2 * removal._MOST_LEVELS + 2


def test_wide_tree_is_deleted_by_both_threads(fd, monkeypatch):
    for one in range(10):
        for two in range(10):
            os.makedirs(b"/proc/self/fd/%d/top/%d/%d/x" % (fd, one, two))
            os.close(os.open(b"top/%d/%d/f" % (one, two), os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    threads: set[int] = set()
    both = threading.Barrier(2)
    real = removal.open_directory

    def noted(name, **kwargs):
        if name != b"top" and threading.get_ident() not in threads:
            threads.add(threading.get_ident())
            both.wait(60)  # the first to come waits for the other
        return real(name, **kwargs)

    monkeypatch.setattr(removal, "open_directory", noted)
    remove_tree(b"top", dir_fd=fd)
    assert names(fd) == []
    assert len(threads) == 2


@pytest.mark.parametrize("number", range(3))
def test_what_cannot_be_deleted_ends_both_threads(fd, monkeypatch, number):
    for one in range(4):
        os.makedirs(b"/proc/self/fd/%d/top/%d/x/y" % (fd, one))
    real = os.rmdir

    def refuse(name, **kwargs):
        if name == b"%d" % number:
            raise OSError(errno.EIO, "Input/output error")
        real(name, **kwargs)

    monkeypatch.setattr(removal.os, "rmdir", refuse)
    before = threading.active_count()
    with pytest.raises(OSError, match="Input/output"):
        remove_tree(b"top", dir_fd=fd)
    assert threading.active_count() == before
    monkeypatch.undo()
    remove_tree(b"top", dir_fd=fd)
    assert names(fd) == []


def test_odd_names_are_deleted(fd):
    os.mkdir(b"top", dir_fd=fd)
    for name in (b"\xff\xfe", b"new\nline", b"-rf", b"*", b"x" * 255, b" ", b"..."):
        os.makedirs(b"/proc/self/fd/%d/top/%b/%b" % (fd, name, name))
    os.symlink(b"/", b"top/link", dir_fd=fd)
    os.mkfifo(b"top/fifo", dir_fd=fd)
    remove_tree(b"top", dir_fd=fd)
    assert names(fd) == []


def test_symlink_is_removed_and_not_followed(fd, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").touch()
    os.symlink(bytes(tmp_path / "elsewhere"), b"link", dir_fd=fd)
    os.mkdir(b"top", dir_fd=fd)
    os.symlink(bytes(tmp_path / "elsewhere"), b"top/link", dir_fd=fd)
    remove_tree(b"link", dir_fd=fd)
    remove_tree(b"top", dir_fd=fd)
    assert names(fd) == []
    assert (tmp_path / "elsewhere" / "file").exists()


def test_what_is_gone_already_is_no_error(fd):
    remove_tree(b"nothing", dir_fd=fd)


def test_deletion_broken_off_anywhere_is_completed_by_the_next(fd, monkeypatch):
    class StopError(Exception):
        pass

    def run(limit):
        calls = 0

        def counted(real):
            def call(*args, **kwargs):
                nonlocal calls
                calls += 1
                if calls > limit:
                    raise StopError
                return real(*args, **kwargs)

            return call

        with monkeypatch.context() as patch:
            for name in ("rename", "unlink", "rmdir"):
                patch.setattr(disk.os, name, counted(getattr(os, name)))
            try:
                remove_tree(b"top", dir_fd=fd)
            except StopError:
                return False
        return True

    for limit in range(1, 60):
        # Names of its own from an earlier, broken off deletion are there already.
        for path in (b"top/a/b/c", b"top/a/.ssfs-00-1/.ssfs-00-1", b"top/.ssfs-00-1/a"):
            os.makedirs(b"/proc/self/fd/%d/%b" % (fd, path))
        os.close(os.open(b"top/a/f", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
        finished = run(limit)
        assert finished == (names(fd) == [])
        remove_tree(b"top", dir_fd=fd)
        assert names(fd) == []
        if finished:
            return
    raise AssertionError("never finished")


def test_file_that_may_not_be_deleted_says_so(fd, monkeypatch):
    os.close(os.open(b"file", os.O_CREAT | os.O_WRONLY, dir_fd=fd))

    def refuse(*_, **__):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(disk.os, "unlink", refuse)
    with pytest.raises(PermissionError):
        remove_tree(b"file", dir_fd=fd)
    monkeypatch.undo()
    os.mkdir(b"directory", dir_fd=fd)
    monkeypatch.setattr(disk.os, "unlink", refuse)
    remove_tree(b"directory", dir_fd=fd)
    assert names(fd) == [b"file"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk_is_its_own_error(number):
    error = store_error(OSError(number, "x"), b"/store")
    assert isinstance(error, StoreFull)
    assert "ssfs delete" in str(error)
    assert "'/store'" in str(error)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EROFS, "read-only"),
        (errno.EACCES, "run as the store's owner"),
        (errno.EPERM, "run as the store's owner"),
        (errno.EIO, "kernel's log"),
        (errno.ENOENT, "no such file or directory"),
    ],
)
def test_other_errors_say_what_and_what_to_do(number, words):
    error = store_error(OSError(number, "x"), b"/store\xff")
    assert not isinstance(error, StoreFull)
    assert words in str(error)


def test_store_errors_translates_and_chains():
    cause = OSError(errno.EROFS, "x")
    with pytest.raises(StoreError) as caught, store_errors(b"/store"):
        raise cause
    assert caught.value.__cause__ is cause
    assert store_error(OSError("no number"), b"/s").problem.startswith("The store cannot be used")


def test_small_file_is_replaced_whole(fd):
    replace_file(b"name", b"old", dir_fd=fd)
    # What a crash left beside it, longer than the new content.
    os.close(os.open(b".name.new", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=fd))
    os.truncate(b"/proc/self/fd/%d/.name.new" % fd, 1000)
    replace_file(b"name", b"new", dir_fd=fd)
    assert read_file(b"name", dir_fd=fd) == b"new"
    assert names(fd) == [b"name"]
    assert stat.S_IMODE(os.stat(b"name", dir_fd=fd).st_mode) == 0o600


def test_symlink_in_place_of_a_small_file_is_not_read(fd, tmp_path):
    (tmp_path / "secret").write_text("x")
    os.symlink(bytes(tmp_path / "secret"), b"name", dir_fd=fd)
    with pytest.raises(OSError, match="symbolic links"):
        read_file(b"name", dir_fd=fd)


def test_links_and_copies_take_symlinks_for_themselves(fd):
    os.symlink(b"/nowhere", b"link", dir_fd=fd)
    link_file(b"link", fd, b"second", fd)
    assert copy_file(b"link", fd, b"copy", fd) == 0
    assert {os.readlink(name, dir_fd=fd) for name in (b"second", b"copy")} == {b"/nowhere"}


def test_copy_is_a_fresh_read_only_inode(fd, tmp_path):
    (tmp_path / "place" / "file").write_bytes(b"x" * 3_000_000)
    (tmp_path / "place" / "copy").write_bytes(b"in the way")
    assert copy_file(b"file", fd, b"copy", fd) == 3_000_000
    one, two = (os.stat(name, dir_fd=fd) for name in (b"file", b"copy"))
    assert (one.st_ino != two.st_ino, two.st_size) == (True, 3_000_000)
    assert stat.S_IMODE(two.st_mode) == 0o400


def test_directory_is_opened_only_if_it_is_one(fd):
    Path(f"/proc/self/fd/{fd}/file").touch()
    os.symlink(b"/", b"link", dir_fd=fd)
    for name in (b"file", b"link"):
        with pytest.raises(OSError, match=r"Not a directory|symbolic links"):
            open_directory(name, dir_fd=fd)
