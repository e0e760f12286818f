"""Restore: content and metadata come back, and nothing else is touched."""

import os
import pwd
import stat
import subprocess
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from ssfs.engine.restore.restorer import RestoreResult
from ssfs.errors import ConfigError
from ssfs.model.problem import EntryProblem
from ssfs.monitor import NullMonitor
from ssfs.store.version import Version
from tests.fakes.comparing import assert_same_tree
from tests.fakes.restores import restore_here, store_of
from tests.fakes.syncs import Backup
from tests.fakes.trees import build_tree

Restore = Callable[..., RestoreResult]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "source"
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "file").write_bytes(os.urandom(3 << 20))
    (root / "a" / "b" / "small").write_text("small\n")
    (root / "link").symlink_to("a/file")
    os.utime(root / "link", ns=(0, 123_456_789_123), follow_symlinks=False)
    os.utime(root / "a" / "file", ns=(0, -1_000_000_001))
    (root / "a" / "b" / "small").chmod(0o4751)
    (root / "a" / "b").chmod(0o2550)
    os.utime(root / "a", ns=(0, 987_654_321))
    return root


@pytest.fixture
def backup(tmp_path: Path, source: Path) -> Backup:
    made = Backup(tmp_path / "store")
    made.sync(source)
    return made


def test_version_comes_back_as_it_was(
    restore: Restore, backup: Backup, source: Path, tmp_path: Path
):
    result = restore(backup.newest(), tmp_path / "out")
    assert_same_tree(source, tmp_path / "out")
    assert (result.entries, result.problems, result.owners_not_set) == (6, [], 0)
    assert result.size_bytes == (3 << 20) + 6


@pytest.mark.parametrize("seed", range(5))
def test_random_trees_come_back_as_they_were(restore: Restore, tmp_path: Path, seed: int):
    source = tmp_path / "source"
    build_tree(source, seed)
    backup = Backup(tmp_path / "store")
    backup.sync(source)
    assert restore(backup.newest(), tmp_path / "out").problems == []
    assert_same_tree(source, tmp_path / "out")


def test_parts_appear_under_their_own_names(
    restore: Restore, backup: Backup, source: Path, tmp_path: Path
):
    out = tmp_path / "out"
    result = restore(backup.newest(), out, "a/b", "link", "a/b")
    assert sorted(os.listdir(out)) == ["b", "link"]
    assert_same_tree(source / "a" / "b", out / "b")
    assert result.entries == 3


def test_existing_target_is_merged_and_keeps_its_own_metadata(
    restore: Restore, backup: Backup, source: Path, tmp_path: Path
):
    out = tmp_path / "out"
    (out / "a" / "extra").mkdir(parents=True)
    (out / "a" / "file").write_text("older")
    (out / "link").write_text("a file where a symlink belongs")
    out.chmod(0o711)
    assert restore(backup.newest(), out).problems == []
    assert stat.S_IMODE(out.stat().st_mode) == 0o711
    assert sorted(os.listdir(out / "a")) == ["b", "extra", "file"]
    assert (out / "a" / "file").read_bytes() == (source / "a" / "file").read_bytes()
    assert os.readlink(out / "link") == "a/file"
    assert (out / "a").stat().st_mtime_ns == 987_654_321


def test_nothing_is_written_through_a_symlink(restore: Restore, backup: Backup, tmp_path: Path):
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    out.mkdir()
    elsewhere.mkdir()
    (elsewhere / "file").write_text("mine")
    (out / "a").symlink_to(elsewhere)
    result = restore(backup.newest(), out)
    assert result.problems == [
        EntryProblem(b"a", "not restored, nor what is in it: something else has its place")
    ]
    assert os.listdir(elsewhere) == ["file"]
    (out / "a").unlink()
    (out / "a").mkdir()
    (out / "a" / "file").symlink_to(elsewhere / "file")
    assert restore(backup.newest(), out).problems == []
    assert (elsewhere / "file").read_text() == "mine"
    assert not (out / "a" / "file").is_symlink()


def test_kinds_in_each_others_way_are_problems(restore: Restore, backup: Backup, tmp_path: Path):
    out = tmp_path / "out"
    (out / "a" / "file").mkdir(parents=True)
    (out / "a" / "b").write_text("a file where a directory belongs")
    (out / "link").mkdir()
    result = restore(backup.newest(), out)
    assert {problem.path for problem in result.problems} == {b"a/b", b"a/file", b"link"}
    assert (out / "a" / "b").read_text() == "a file where a directory belongs"
    assert sorted(os.listdir(out / "a")) == ["b", "file"]


def test_damaged_content_never_gets_its_name(restore: Restore, backup: Backup, tmp_path: Path):
    data = Path(os.fsdecode(backup.newest().path)) / "tree" / "a" / "file"
    data.chmod(0o600)
    for fault in (
        "its content in the store is damaged",
        "its content in the store cannot be opened: no such file or directory",
    ):
        if "damaged" in fault:
            data.write_bytes(b"x" * (3 << 20))
        else:
            data.unlink()
        result = restore(backup.newest(), tmp_path / "out")
        assert result.problems == [EntryProblem(b"a/file", f"not restored: {fault}")]
        assert os.listdir(tmp_path / "out" / "a") == ["b"]


def test_digest_is_checked_not_only_the_size(restore: Restore, backup: Backup, tmp_path: Path):
    data = Path(os.fsdecode(backup.newest().path)) / "tree" / "a" / "b" / "small"
    data.chmod(0o600)
    data.write_text("SMALL\n")
    assert len(restore(backup.newest(), tmp_path / "out").problems) == 1


def test_version_is_locked_while_it_is_restored(restore: Restore, backup: Backup, tmp_path: Path):
    version = backup.newest()
    shared = []

    class Looker(NullMonitor):
        def advance(self, _entries: int, _size_bytes: int, _path: bytes) -> None:
            done = subprocess.run(
                ["flock", "-n", "-x", os.path.join(version.path, b"lock"), "true"], check=False
            )
            shared.append(done.returncode == 1)

    restore(version, tmp_path / "out", "a/b", monitor=Looker())
    assert shared
    assert all(shared)


def test_wrong_paths_stop_before_anything_is_written(
    restore: Restore, backup: Backup, tmp_path: Path
):
    for paths in (("nowhere",), ("a", "a/nowhere"), ("link/x",), ("a/..",), ("../source",)):
        with pytest.raises(ConfigError, match="Not in the version"):
            restore(backup.newest(), tmp_path / "out", *paths)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("root", ["", "/", ".", "./"])
def test_the_root_means_everything(
    restore: Restore, backup: Backup, source: Path, tmp_path: Path, root: str
):
    restore(backup.newest(), tmp_path / "out", root)
    assert_same_tree(source, tmp_path / "out")


def test_deep_and_wide_directories(restore: Restore, tmp_path: Path):
    source = tmp_path / "source"
    source.mkdir()
    here = os.open(source, os.O_RDONLY)
    for _ in range(1200):  # longer than any path may be
        os.mkdir("deep", dir_fd=here)
        below = os.open("deep", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    for index in range(3000):
        (source / f"{index}").touch()
    backup = Backup(tmp_path / "store")
    backup.sync(source)
    result = restore(backup.newest(), tmp_path / "out")
    # pytest cannot remove what is that deep.
    subprocess.run(["rm", "-rf", source, tmp_path / "out", tmp_path / "store"], check=True)
    assert (result.entries, result.problems) == (4201, [])


def test_names_of_any_bytes(restore: Restore, tmp_path: Path):
    source = tmp_path / "source"
    source.mkdir()
    for name in (b"\xff\xfe", b"new\nline", b" ", b"-rf", b"x" * 255, "\u00fc".encode()):
        with open(os.path.join(os.fsencode(source), name), "wb") as file:
            file.write(name)
    backup = Backup(tmp_path / "store")
    backup.sync(source)
    assert restore(backup.newest(), tmp_path / "out").problems == []
    assert_same_tree(source, tmp_path / "out")


@pytest.mark.needs_root
def test_special_files_come_back(restore: Restore, tmp_path: Path):
    source = tmp_path / "source"
    source.mkdir()
    os.mkfifo(source / "fifo")
    (source / "fifo").chmod(0o622)
    os.mknod(source / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(source / "loop", stat.S_IFBLK | 0o640, os.makedev(7, 200))
    os.chown(source / "null", 1, 2)
    backup = Backup(tmp_path / "store")
    backup.sync(source)
    old_mask = os.umask(0o077)
    try:
        assert restore(backup.newest(), tmp_path / "out").problems == []
        assert_same_tree(source, tmp_path / "out")
        # Once more, over what is there now.
        assert restore(backup.newest(), tmp_path / "out", "fifo", "null", "loop").problems == []
    finally:
        os.umask(old_mask)
    assert_same_tree(source, tmp_path / "out", ignoring={"root"})


@pytest.mark.needs_root
def test_names_decide_who_owns_a_file(
    restore: Restore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    daemon = pwd.getpwnam("daemon")
    source = tmp_path / "source"
    source.mkdir()
    for name, number in (("known", daemon.pw_uid), ("nameless", 54321)):
        (source / name).write_text(name)
        os.chown(source / name, number, number)
        (source / name).chmod(0o6755)
    backup = Backup(tmp_path / "store")
    backup.sync(source)
    # Another machine calls the same user by another number.
    there = pwd.struct_passwd((*daemon[:2], 4711, *daemon[3:]))
    monkeypatch.setattr(
        "ssfs.engine.restore.owners.pwd.getpwnam",
        {"daemon": there, "root": pwd.getpwuid(0)}.__getitem__,
    )
    restore(backup.newest(), tmp_path / "out")
    assert (tmp_path / "out" / "known").stat().st_uid == 4711
    assert stat.S_IMODE((tmp_path / "out" / "known").stat().st_mode) == 0o6755
    assert (tmp_path / "out" / "nameless").stat().st_uid == 54321


@pytest.mark.needs_root
def test_owners_that_cannot_be_set_are_counted_not_reported(restore: Restore, tmp_path: Path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "roots").write_text("x")
    (source / "roots").chmod(0o4755)
    (source / "mine").write_text("x")
    (source / "link").symlink_to("mine")
    os.mknod(source / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    for path in (source, source / "mine", source / "link"):
        os.chown(path, 4711, 4711, follow_symlinks=False)
    (source / "mine").chmod(0o4755)
    backup = Backup(tmp_path / "store")
    backup.sync(source)
    out = tmp_path / "out"
    out.mkdir()
    os.chown(out, 4711, 4711)
    result = as_user_who_reads_everything(restore, backup.newest(), out)
    no_device = [EntryProblem(b"null", "not restored: only root may make devices")]
    assert (result.entries - 1, result.owners_not_set, result.problems) == (3, 1, no_device)
    assert stat.S_IMODE((out / "mine").stat().st_mode) == 0o4755
    # What ran as root there must not run as us here.
    assert stat.S_IMODE((out / "roots").stat().st_mode) == 0o755
    assert (out / "roots").stat().st_uid == 4711
    # What cannot be set is no reason to do it all again.
    before = (out / "roots").stat()
    result = as_user_who_reads_everything(restore, backup.newest(), out)
    assert (result.unchanged, result.owners_not_set, result.problems) == (4, 1, no_device)
    assert (out / "roots").stat().st_ctime_ns == before.st_ctime_ns


def as_user_who_reads_everything(restore: Restore, version: Version, out: Path) -> RestoreResult:
    """Restore as another user, who owns the store."""
    subprocess.run(["chown", "-R", "4711:4711", store_of(version)], check=True)
    for parent in (*out.parents, *Path(os.fsdecode(version.path)).parents):
        if not parent.stat().st_mode & 0o1:
            parent.chmod(parent.stat().st_mode | 0o1)
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(4711)
    os.seteuid(4711)
    try:
        return restore(version, out)
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


def test_unwritable_directory_is_a_problem_of_each_entry(
    restore: Restore, backup: Backup, tmp_path: Path
):
    out = tmp_path / "out"
    (out / "a").mkdir(parents=True)
    if os.geteuid() == 0:
        subprocess.run(["chattr", "+i", out / "a"], check=False, capture_output=True)
    else:
        (out / "a").chmod(0o555)
    try:
        with open(out / "a" / "probe", "w"):
            pytest.skip("this file system does not refuse writes")
    except OSError:
        pass
    try:
        result = restore(backup.newest(), out)
    finally:
        subprocess.run(["chattr", "-i", out / "a"], check=False, capture_output=True)
    assert {problem.path for problem in result.problems} >= {b"a/b", b"a/file"}
    assert os.readlink(out / "link") == "a/file"


def test_memory_stays_flat(tmp_path: Path):
    # The catalog is read row by row: the widest directory must not be held as a list.
    source = tmp_path / "source"
    source.mkdir()
    for index in range(2000):
        (source / f"{index:060}").touch()
    backup = Backup(tmp_path / "store")
    backup.sync(source)
    tracemalloc.start()
    try:
        restore_here(backup.newest(), tmp_path / "out")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_600_000
