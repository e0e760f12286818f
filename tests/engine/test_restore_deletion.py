"""What a restore deletes, and that neither it nor a deletion leads outside of the target."""

import errno
import os
import socket
import subprocess
from pathlib import Path

import pytest

from ssfs.engine.restore import deletion
from ssfs.engine.restore.options import RestoreOptions
from ssfs.errors import ConfigError
from ssfs.model.problem import EntryProblem
from tests.fakes.comparing import assert_same_tree
from tests.fakes.restores import (
    backed_up,
    make_source,
    restore_here,
)
from tests.fakes.syncs import Backup

IN_PLACE = RestoreOptions(in_place=True)
DELETE = RestoreOptions(deletes=True)
DRY_RUN = RestoreOptions(in_place=True, deletes=True, dry_run=True)
MIB = 1 << 20


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_source(tmp_path / "source")


# -- what is deleted -------------------------------------------------------------------------------


def test_what_the_version_does_not_have_is_deleted(restore, tmp_path, source):
    version = backed_up(tmp_path, source)
    (source / "a" / "new" / "deep" / "er").mkdir(parents=True)
    (source / "a" / "new" / "deep" / "file").write_text("x")
    (source / "a" / "new" / "out").symlink_to(tmp_path / "as-it-was")
    (source / "stray").write_text("x")
    options = RestoreOptions(in_place=True, deletes=True)
    deleted: list[bytes] = []
    dry = RestoreOptions(
        in_place=True, deletes=True, dry_run=True, on_action=lambda _, path: deleted.append(path)
    )
    foreseen = restore(version, source, options=dry)
    assert (source / "stray").exists()
    result = restore(version, source, options=options)
    assert (result.deleted, foreseen.deleted, result.problems) == (6, 6, [])
    assert {b"stray", b"a/new", b"a/new/deep/er", b"a/new/out"} <= set(deleted)
    assert_same_tree(tmp_path / "as-it-was", source)


def test_nothing_is_deleted_where_the_backup_could_not_look(restore, tmp_path, source, monkeypatch):
    backup = Backup(tmp_path / "store")
    backup.sync(source)
    (source / "a" / "b" / "new").write_text("never seen")
    (source / "stray").mkdir()
    listdir = os.listdir

    def failing(fd: int | bytes) -> list[str]:
        if isinstance(fd, int) and os.readlink(f"/proc/self/fd/{fd}").endswith("/source/a/b"):
            raise OSError(errno.EIO, "Input/output error")
        return listdir(fd)

    with monkeypatch.context() as patch:
        patch.setattr(os, "listdir", failing)
        assert [problem.path for problem in backup.sync(source).problems] == [b"a/b"]
    (source / "a" / "stray").write_text("x")
    result = restore(backup.newest(), source, options=RestoreOptions(in_place=True, deletes=True))
    assert (result.deleted, result.problems) == (1, [])
    assert (source / "a" / "b" / "new").read_text() == "never seen"


def test_deletion_is_confined_to_what_is_restored(restore, tmp_path, source):
    version = backed_up(tmp_path, source)
    for directory in ("", "a", "a/b", "other"):
        (source / directory / "stray").write_text("x")
    result = restore(version, source, "a/b", options=RestoreOptions(in_place=True, deletes=True))
    assert result.deleted == 1
    assert sorted(source.rglob("stray")) == [
        source / "a" / "stray",
        source / "other" / "stray",
        source / "stray",
    ]
    (tmp_path / "out" / "b").mkdir(parents=True)
    for directory in ("", "b"):
        (tmp_path / "out" / directory / "stray").write_text("x")
    restore(version, tmp_path / "out", "a/b", options=DELETE)
    assert sorted((tmp_path / "out").rglob("stray")) == [tmp_path / "out" / "stray"]


def test_nothing_is_deleted_without_being_asked(restore, tmp_path, source):
    version = backed_up(tmp_path, source)
    (source / "stray").write_text("x")
    assert restore(version, source, options=IN_PLACE).deleted == 0
    assert (source / "stray").exists()


def test_deletion_makes_room_for_other_kinds(restore, tmp_path, source):
    version = backed_up(tmp_path, source)
    subprocess.run(["rm", "-rf", source / "a" / "b", source / "a" / "small"], check=True)
    (source / "a" / "b").write_text("a file where a directory belongs")
    (source / "a" / "small" / "x").mkdir(parents=True)
    foreseen = restore(version, source, options=DRY_RUN)
    result = restore(version, source, options=RestoreOptions(in_place=True, deletes=True))
    assert (result.deleted, foreseen.deleted, result.problems) == (3, 3, [])
    assert_same_tree(tmp_path / "as-it-was", source)


def test_sockets_and_the_store_itself_are_not_deleted(tmp_path, source):
    version = backed_up(tmp_path, source)
    where = tmp_path
    (where / "as-it-was" / "stray").touch()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fsencode(where / "socket"))
        options = RestoreOptions(deletes=True, spared=(bytes(where / "store"),))
        result = restore_here(version, where, options=options)
    assert result.problems == []
    assert (where / "socket").is_socket()
    assert sorted(os.listdir(where)) == ["a", "other", "socket", "store"]
    assert (where / "store" / "store.toml").exists()


@pytest.mark.needs_root
def test_other_mounted_file_systems_lose_nothing(restore, tmp_path, source):
    (source / "mount").mkdir()
    version = backed_up(tmp_path, source)
    (source / "stray" / "mount").mkdir(parents=True)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "theirs").write_text("theirs")
    mounts = [source / "mount", source / "stray" / "mount"]
    for mount in mounts:
        # Of the same device: only the mount itself tells.
        subprocess.run(["mount", "--bind", elsewhere, mount], check=True)
    try:
        result = restore(version, source, options=RestoreOptions(in_place=True, deletes=True))
    finally:
        for mount in mounts:
            subprocess.run(["umount", mount], check=True)
    assert (elsewhere / "theirs").read_text() == "theirs"
    assert (result.deleted, result.problems) == (0, [])


# -- nothing leads outside -------------------------------------------------------------------------


def test_symlinks_lead_neither_restore_nor_deletion_outside(restore, tmp_path, source):
    version = backed_up(tmp_path, source)
    outside = tmp_path / "outside"
    (outside / "b").mkdir(parents=True)
    for name in ("small", "theirs", "b/theirs"):
        (outside / name).write_text("theirs")
    subprocess.run(["rm", "-rf", source / "a"], check=True)
    (source / "a").symlink_to(outside)
    result = restore(version, source, "a/b", "a/small", options=IN_PLACE)
    assert result.problems == [
        EntryProblem(b"a", "not restored, nor what is in it: something else has its place")
    ]
    result = restore(version, source, options=RestoreOptions(in_place=True, deletes=True))
    # With --delete the symlink itself makes room.
    assert (result.deleted, result.problems) == (1, [])
    assert sorted(os.listdir(outside)) == ["b", "small", "theirs"]
    assert (outside / "small").read_text() == "theirs"
    assert_same_tree(tmp_path / "as-it-was", source)


def test_directory_swapped_for_a_symlink_meanwhile_leads_nowhere(
    restore, tmp_path, source, monkeypatch
):
    version = backed_up(tmp_path, source)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "theirs").write_text("theirs")
    (source / "a" / "stray").mkdir()
    (source / "a" / "stray" / "x").write_text("x")
    open_directory = deletion.open_directory

    def swapping(name: bytes, *, dir_fd: int) -> int:
        if name == b"stray":
            os.rename(source / "a" / "stray", tmp_path / "moved")
            (source / "a" / "stray").symlink_to(outside)
        return open_directory(name, dir_fd=dir_fd)

    monkeypatch.setattr(deletion, "open_directory", swapping)
    result = restore(version, source, options=RestoreOptions(in_place=True, deletes=True))
    assert [problem.path for problem in result.problems] == [b"a/stray"]
    assert (outside / "theirs").read_text() == "theirs"
    assert (tmp_path / "moved" / "x").exists()


def test_directory_swapped_for_a_symlink_while_it_is_opened_takes_nothing(
    restore, tmp_path, source, monkeypatch
):
    version = backed_up(tmp_path, source)
    outside = tmp_path / "outside"
    outside.mkdir()
    opened = os.open

    def swapping(path: bytes, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if path == b"b" and not (source / "a" / "b").is_symlink():
            os.rename(source / "a" / "b", tmp_path / "moved")
            (source / "a" / "b").symlink_to(outside)
        return opened(path, flags, mode, dir_fd=dir_fd)

    (source / "a" / "b" / "deep").unlink()
    monkeypatch.setattr(os, "open", swapping)
    result = restore(version, source, options=IN_PLACE)
    assert [problem.path for problem in result.problems] == [b"a/b"]
    assert os.listdir(outside) == os.listdir(tmp_path / "moved") == []


def test_directory_that_is_a_symlink_by_the_time_it_is_made_takes_nothing(
    restore, tmp_path, source, monkeypatch
):
    version = backed_up(tmp_path, source)
    outside = tmp_path / "outside"
    outside.mkdir()
    (source / "a" / "b" / "deep").unlink()
    (source / "a" / "b").rmdir()
    mkdir = os.mkdir

    def racing(name: bytes, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        if name == b"b":
            (source / "a" / "b").symlink_to(outside)
        mkdir(name, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "mkdir", racing)
    result = restore(version, source, options=IN_PLACE)
    assert [problem.path for problem in result.problems] == [b"a/b"]
    assert os.listdir(outside) == []


def test_place_reached_through_a_symlink_is_refused(restore, tmp_path, source):
    version = backed_up(tmp_path, source)
    (tmp_path / "way").symlink_to(tmp_path)
    (tmp_path / "end").symlink_to(source)
    before = sorted(tmp_path.iterdir())
    for target in (tmp_path / "way" / "source", tmp_path / "end", tmp_path / "way" / "new"):
        with pytest.raises(ConfigError, match="use --to"):
            restore(version, target, options=IN_PLACE)
    assert sorted(tmp_path.iterdir()) == before
