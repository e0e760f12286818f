"""The way out: not while somebody reads, whole or not at all, and again until it is done."""

import os
from pathlib import Path

import pytest

from ssfs.errors import StoreLocked
from ssfs.fsio.lock import DirectoryLock, FileLock
from ssfs.store import trash as trash_module
from ssfs.store.trash import discard, empty_trash, move_to_trash
from tests.store.stagings import BASE_TREE, begin, commit, make_base, make_task, tree_of


@pytest.fixture
def task(tmp_path):
    return make_task(tmp_path / "store")


@pytest.fixture
def version(task):
    return make_base(task)


@pytest.fixture
def trash(task):
    return Path(os.fsdecode(task.path)) / "trash"


def let_go(task, version):
    with task.guard() as guard:
        move_to_trash(version, guard)


def test_version_in_use_is_out_of_sight_but_readable_until_released(task, version, trash):
    with version.share() as reader, version.share():
        tree = os.open(os.path.join(version.path, b"tree"), os.O_RDONLY)
        let_go(task, version)
        assert task.versions() == []
        assert empty_trash(task.path) == 0
        assert tree_of(b"/proc/self/fd/%d" % tree) == BASE_TREE
        reader.close()
        assert empty_trash(task.path) == 0
    assert empty_trash(task.path) == 1
    assert list(trash.iterdir()) == []
    assert os.listdir(tree) == []
    os.close(tree)


def test_deleting_a_version_leaves_the_next_one_whole(task, version):
    second = commit(task, begin(task))
    let_go(task, version)
    assert empty_trash(task.path) == 1
    assert tree_of(os.path.join(second.path, b"tree")) == BASE_TREE


def test_only_one_process_empties_at_a_time(task, version):
    let_go(task, version)
    with DirectoryLock(os.path.join(task.path, b"trash")) as other:
        assert other.exclusive_nowait()
        assert empty_trash(task.path) == 0
    assert empty_trash(task.path) == 1
    assert empty_trash(task.path) == 0


def test_version_being_deleted_cannot_be_shared(task, version):
    with FileLock(os.path.join(version.path, b"lock")) as emptier:
        assert emptier.exclusive_nowait()
        with pytest.raises(StoreLocked):
            version.share()


def test_lock_taken_just_after_the_deletion_is_refused(task, version, monkeypatch):
    real = FileLock.shared_nowait

    def slow(lock):
        os.unlink(os.path.join(version.path, b"lock"))
        return real(lock)

    monkeypatch.setattr(FileLock, "shared_nowait", slow)
    with pytest.raises(StoreLocked):
        version.share()


def test_half_deleted_leftovers_go(task, version, trash):
    let_go(task, version)
    (item,) = trash.iterdir()
    (item / "lock").unlink()
    (item / "catalog.db").unlink()
    (trash / "stray").write_bytes(b"x")
    (trash / "link").symlink_to("/")
    (trash / "staging-0011" / "tree" / "d").mkdir(parents=True)
    assert empty_trash(task.path) == 4
    assert list(trash.iterdir()) == []


def test_deletion_that_broke_off_goes_on(task, version, trash, monkeypatch):
    let_go(task, version)

    class StopError(Exception):
        pass

    def stop(*_, **__):
        raise StopError

    monkeypatch.setattr(trash_module, "remove_tree", stop)
    with pytest.raises(StopError):
        empty_trash(task.path)
    monkeypatch.undo()
    assert empty_trash(task.path) == 1


def test_several_useless_stagings_fit_into_the_trash(task, trash):
    fd = os.open(task.path, os.O_RDONLY)
    for _ in range(3):
        os.mkdir(b"staging", dir_fd=fd)
        discard(b"staging", fd)
    os.close(fd)
    assert len(list(trash.iterdir())) == 3
    assert empty_trash(task.path) == 3


def test_number_of_a_version_in_the_trash_is_not_given_again(task, version):
    let_go(task, version)
    assert task.next_sequence() == 2
