"""Hard links inside the source: sent once, stored once, restored as links, whatever becomes of them."""

import os
from pathlib import Path

import pytest

from ssfs.clock import SystemClock
from ssfs.engine.restore.local import restore_version
from ssfs.monitor import NullMonitor
from tests.fakes.comparing import assert_same_tree
from tests.fakes.restores import restore_remotely
from tests.fakes.syncs import Backup, row, stored
from tests.fakes.trees import compare_with_version, verify_version

LARGE = 300_000


@pytest.fixture
def source(tmp_path):
    root = tmp_path / "source"
    (root / "deep/down").mkdir(parents=True)
    (root / "a").write_bytes(b"small")
    (root / "large").write_bytes(os.urandom(LARGE))
    os.link(root / "a", root / "deep/b")
    os.link(root / "large", root / "deep/down/large2")
    return root


@pytest.fixture
def backup(tmp_path, cache_dir):
    return Backup(tmp_path / "store")


def restored(backup: Backup, where: Path, *paths: str) -> Path:
    version = backup.newest()
    restore_version(
        version, tuple(map(os.fsencode, paths)), os.fsencode(where), NullMonitor(), SystemClock()
    )
    return where


def check(backup: Backup, source: Path, where: Path) -> None:
    """Local and remote restores of the newest version have the links of the source."""
    compare_with_version(source, backup.newest())
    verify_version(backup.newest())
    for way in ("local", "remote"):
        target = where / f"{way}-{backup.newest().id.sequence}"
        if way == "local":
            restored(backup, target)
        else:
            restore_remotely(backup.newest(), target)
        assert_same_tree(source, target)


def test_a_file_with_two_names_is_sent_and_stored_once(backup, source, tmp_path):
    result = backup.sync(source)
    assert result.counts.bytes_sent < LARGE + 10_000
    version = backup.newest()
    assert stored(version, "large").st_ino == stored(version, "deep/down/large2").st_ino
    assert row(version, "large").link_group == row(version, "deep/down/large2").link_group > 0
    assert row(version, "a").link_group == row(version, "deep/b").link_group > 0
    check(backup, source, tmp_path)


def test_links_that_come_go_and_move_are_followed(backup, source, tmp_path):
    backup.sync(source)
    os.link(source / "large", source / "z-third")
    backup.sync(source)
    check(backup, source, tmp_path)
    (source / "large").unlink()
    (source / "deep/b").rename(source / "deep/down/b")
    result = backup.sync(source)
    assert result.counts.bytes_sent < 10_000
    check(backup, source, tmp_path)
    (source / "deep/down/large2").unlink()
    (source / "deep/down/large2").write_bytes(b"another file, of one name")
    backup.sync(source)
    assert row(backup.newest(), "deep/down/large2").link_group == 0
    check(backup, source, tmp_path)


def test_a_change_through_one_name_is_sent_once(backup, source, tmp_path):
    backup.sync(source)
    with open(source / "deep/down/large2", "ab") as file:
        file.write(os.urandom(5000))
    result = backup.sync(source)
    assert result.counts.bytes_sent < 5000 + 5000
    version = backup.newest()
    assert stored(version, "large").st_ino == stored(version, "deep/down/large2").st_ino
    check(backup, source, tmp_path)


def test_two_files_that_swap_a_name_each_keep_their_own(backup, source, tmp_path):
    backup.sync(source)
    (source / "deep/b").rename(source / "deep/x")
    (source / "deep/down/large2").rename(source / "deep/b")
    (source / "deep/x").rename(source / "deep/down/large2")
    backup.sync(source)
    check(backup, source, tmp_path)


def test_links_of_symlinks_and_fifos_are_kept(backup, source, tmp_path):
    os.symlink("a", source / "symlink")
    os.link(source / "symlink", source / "deep/symlink", follow_symlinks=False)
    os.mkfifo(source / "fifo")
    os.link(source / "fifo", source / "deep/fifo")
    backup.sync(source)
    check(backup, source, tmp_path)


def test_parts_of_a_version_have_the_links_among_them(backup, source, tmp_path):
    backup.sync(source)
    target = restored(backup, tmp_path / "parts", "deep", "a", "deep/down/large2")
    assert os.path.samefile(target / "a", target / "deep" / "b")
    assert (target / "large2").read_bytes() == (source / "large").read_bytes()
    one = restored(backup, tmp_path / "one", "large")
    assert (one / "large").stat().st_nlink == 1


def test_a_restore_over_a_restore_joins_no_stranger(backup, source, tmp_path):
    backup.sync(source)
    target = restored(backup, tmp_path / "target")
    stranger = tmp_path / "stranger"
    (target / "a").unlink()
    stranger.write_bytes(b"mine")
    os.link(stranger, target / "a")
    restored(backup, target)
    assert_same_tree(source, target, ignoring={"root"})
    assert stranger.read_bytes() == b"mine"
    assert stranger.stat().st_nlink == 1
    assert not [name for name in os.listdir(target) if name.startswith(".ssfs")]


def test_a_first_name_that_cannot_be_restored_leaves_the_others_whole(backup, source, tmp_path):
    backup.sync(source)
    for target, restore in ((tmp_path / "one", restored), (tmp_path / "two", None)):
        (target / "deep/b/in-the-way").mkdir(parents=True)
        (target / "large/in-the-way").mkdir(parents=True)
        if restore:
            restore(backup, target)
        else:
            restore_remotely(backup.newest(), target)
        assert (target / "a").read_bytes() == b"small"
        content = (target / "deep/down/large2").read_bytes()
        assert content == (source / "large").read_bytes()


def test_a_fifo_made_anew_is_no_change(backup, source, tmp_path):
    os.mkfifo(source / "fifo")
    backup.sync(source)
    times = (source / "fifo").lstat()
    (source / "fifo").unlink()
    os.mkfifo(source / "fifo", 0o600)
    os.chmod(source / "fifo", times.st_mode & 0o7777)
    os.utime(source / "fifo", ns=(times.st_atime_ns, times.st_mtime_ns))
    counts = backup.sync(source).counts
    assert (counts.new, counts.changed, counts.metadata_only, counts.removed) == (0, 0, 0, 0)
    check(backup, source, tmp_path)
