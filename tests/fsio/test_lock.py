"""Locks between descriptors, as between processes."""

import os

from ssfs.fsio.lock import DirectoryLock, FileLock


def test_exclusive_keeps_others_out_until_closed(tmp_path):
    name = bytes(tmp_path / "lock")
    with FileLock(name) as one, FileLock(name) as other:
        assert one.exclusive_nowait()
        one.write_holder("somebody with a long name")
        one.write_holder("me")
        assert not other.exclusive_nowait()
        assert not other.shared_nowait()
        assert other.read_holder() == "me"
        one.close()
        one.close()
        assert other.exclusive_nowait()


def test_many_share_and_keep_the_exclusive_one_out(tmp_path):
    name = bytes(tmp_path / "lock")
    with FileLock(name) as one, FileLock(name, create=False) as two, FileLock(name) as three:
        assert one.shared_nowait()
        assert two.shared_nowait()
        assert not three.exclusive_nowait()


def test_lock_file_that_was_deleted_is_noticed(tmp_path):
    name = bytes(tmp_path / "lock")
    with FileLock(name) as lock:
        assert lock.is_linked()
        os.unlink(name)
        assert lock.shared_nowait()
        assert not lock.is_linked()


def test_directory_itself_can_be_locked(tmp_path):
    with DirectoryLock(bytes(tmp_path)) as one, DirectoryLock(bytes(tmp_path)) as two:
        one.exclusive()
        assert not two.exclusive_nowait()
