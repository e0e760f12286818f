"""Restores into what is there: what is right stays, what differs moves, and nothing leads outside."""

import os
import random
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from ssfs.engine.restore import contents, deletion
from ssfs.engine.restore.options import Overwrite, OwnerMap, RestoreOptions
from ssfs.engine.restore.restorer import RestoreResult
from ssfs.errors import ConfigError
from ssfs.model.problem import EntryProblem
from ssfs.monitor import NullMonitor
from ssfs.store.version import Version
from tests.fakes.comparing import assert_same_tree
from tests.fakes.restores import (
    RestoreServer,
    request_of,
    restore_here,
    restore_remotely,
    store_of,
)
from tests.fakes.syncs import Backup
from tests.fakes.trees import build_tree

Restore = Callable[..., RestoreResult]
IN_PLACE = RestoreOptions(in_place=True)
DELETE = RestoreOptions(deletes=True)
DRY_RUN = RestoreOptions(in_place=True, deletes=True, dry_run=True)
MIB = 1 << 20


@pytest.fixture(params=[restore_here, restore_remotely], ids=["here", "remotely"])
def restore(request: pytest.FixtureRequest) -> Restore:
    """Restores from a store of this machine, and the same through a server."""
    return request.param


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The lengths of all pieces of content that are written."""
    lengths: list[int] = []
    write_all = contents.write_all

    def counting(fd: int, content: bytes) -> None:
        lengths.append(len(content))
        write_all(fd, content)

    monkeypatch.setattr(contents, "write_all", counting)
    return lengths


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "source"
    (root / "a" / "b").mkdir(parents=True)
    (root / "other").mkdir()
    (root / "a" / "large").write_bytes(noise(MIB))
    (root / "a" / "small").write_text("small")
    (root / "a" / "b" / "deep").write_text("deep")
    (root / "a" / "link").symlink_to("small")
    os.mkfifo(root / "a" / "fifo")
    (root / "other" / "file").write_text("other")
    os.link(root / "a" / "small", root / "other" / "hard")
    return root


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def backed_up(tmp_path: Path, source: Path) -> Version:
    """The only version of a source; a copy of the source is kept in `as-it-was`."""
    backup = Backup(tmp_path / "store")
    backup.sync(source)
    subprocess.run(["cp", "-a", source, tmp_path / "as-it-was"], check=True)
    return backup.newest()


def flip_a_bit(path: Path) -> None:
    """Change a file's content as a bad disk does: neither its size nor its times tell."""
    status = path.stat()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


# -- what moves ------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["here", "remotely"])
def test_tree_of_which_a_hundredth_was_damaged_moves_a_hundredth(tmp_path, written, place):
    source = tmp_path / "source"
    size = 30_000
    for number in range(300):
        (source / f"{number % 10}").mkdir(parents=True, exist_ok=True)
        (source / f"{number % 10}" / f"{number}").write_bytes(noise(size, number))
    version = backed_up(tmp_path, source)
    flip_a_bit(source / "1" / "121")
    os.truncate(source / "2" / "2", 100)
    (source / "7" / "77").unlink()
    total = 300 * size
    if place == "here":
        result = restore_here(version, source, options=IN_PLACE)
    else:
        server = RestoreServer(store_of(version))
        _, result = server.restore(request_of(version), source, options=IN_PLACE)
        # The rows of 311 entries are part of it.
        assert server.received_bytes < 0.02 * total
    assert sum(written) == 0.01 * total
    assert (result.replaced, result.created, result.problems) == (2, 1, [])
    assert result.entries == 311
    assert_same_tree(tmp_path / "as-it-was", source)


def test_flipped_bit_in_a_large_file_costs_a_delta(tmp_path, source):
    version = backed_up(tmp_path, source)
    flip_a_bit(source / "a" / "large")
    server = RestoreServer(store_of(version))
    server.restore(request_of(version), source, options=IN_PLACE)
    assert server.received_bytes < 20_000
    assert_same_tree(tmp_path / "as-it-was", source)


def test_right_tree_is_left_alone(restore, tmp_path, source, written):
    version = backed_up(tmp_path, source)

    def looks() -> dict[Path, tuple]:
        return {
            path: (status.st_ino, status.st_ctime_ns, status.st_mtime_ns)
            for path in (source, *source.rglob("*"))
            for status in [path.lstat()]
        }

    before = looks()
    result = restore(version, source, options=IN_PLACE)
    assert (result.unchanged, result.entries) == (11, 11)
    assert looks() == before
    assert written == []


def test_only_wrong_metadata_is_set(restore, tmp_path, source, written):
    version = backed_up(tmp_path, source)
    (source / "a" / "large").chmod(0o600)
    os.utime(source / "a" / "b" / "deep", ns=(0, 0))
    (source / "a" / "b").chmod(0o711)
    os.utime(source / "a" / "link", ns=(0, 0), follow_symlinks=False)
    inode = (source / "a" / "large").stat().st_ino
    result = restore(version, source, options=IN_PLACE)
    assert result.metadata_only == 4
    assert (source / "a" / "large").stat().st_ino == inode
    assert written == []
    assert_same_tree(tmp_path / "as-it-was", source)


def test_right_content_with_a_foreign_name_is_copied_here_not_sent(tmp_path, source):
    version = backed_up(tmp_path, source)
    os.link(source / "a" / "b" / "deep", tmp_path / "foreign")
    (tmp_path / "foreign").chmod(0o640)
    server = RestoreServer(store_of(version))
    server.restore(request_of(version), source, options=IN_PLACE)
    assert server.served[0].files == 0
    assert (tmp_path / "foreign").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "foreign").stat().st_nlink == 1
    assert_same_tree(tmp_path / "as-it-was", source)


def test_hard_links_are_mended(restore, tmp_path, source):
    version = backed_up(tmp_path, source)
    (source / "other" / "hard").unlink()
    (source / "other" / "hard").write_text("small")
    assert restore(version, source, options=IN_PLACE).problems == []
    assert_same_tree(tmp_path / "as-it-was", source)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_random_trees_are_mended(restore, tmp_path, seed):
    source = tmp_path / "source"
    build_tree(source, seed)
    version = backed_up(tmp_path, source)
    rng = random.Random(seed)
    for path in sorted(source.rglob("*")):
        if path.is_symlink() or not path.is_file() or rng.random() > 0.3:
            continue
        match rng.randrange(4):
            case 0:
                path.write_bytes(b"damaged")
            case 1:
                path.unlink()
            case 2:
                path.chmod(0o777)
            case _:
                path.with_name(f"{path.name[:50]}-new").write_text("new")
    foreseen = restore(version, source, options=DRY_RUN)
    result = restore(version, source, options=RestoreOptions(in_place=True, deletes=True))
    assert result.problems == []
    assert_same_tree(tmp_path / "as-it-was", source)
    assert result == type(result)(**{**as_dict(foreseen), "seconds": result.seconds})


def as_dict(result: RestoreResult) -> dict[str, object]:
    return {name: getattr(result, name) for name in result.__struct_fields__}


# -- parts -----------------------------------------------------------------------------------------


def test_paths_go_back_to_their_own_places(restore, tmp_path, source):
    version = backed_up(tmp_path, source)
    subprocess.run(["rm", "-rf", source / "a" / "b", source / "other"], check=True)
    (source / "a" / "small").write_text("mine, not asked for")
    result = restore(version, source, "a/b", "other/file", "a/b/deep", options=IN_PLACE)
    # a/b and what is in it, other (made) and one of its files.
    assert (result.entries, result.problems) == (4, [])
    assert (source / "a" / "small").read_text() == "mine, not asked for"
    assert os.listdir(source / "other") == ["file"]
    assert_same_tree(tmp_path / "as-it-was" / "a" / "b", source / "a" / "b")
    was = (tmp_path / "as-it-was" / "other").stat()
    assert (source / "other").stat().st_mtime_ns == was.st_mtime_ns


def test_two_paths_of_one_name_have_places_of_their_own(restore, tmp_path):
    source = tmp_path / "source"
    for directory in ("a", "b"):
        (source / directory).mkdir(parents=True)
        (source / directory / "x").write_text(directory)
    version = backed_up(tmp_path, source)
    for directory in ("a", "b"):
        (source / directory / "x").unlink()
    restore(version, source, "a/x", "b/x", options=IN_PLACE)
    assert_same_tree(tmp_path / "as-it-was", source, ignoring=["mtime"])


def test_one_folder_opens_only_its_own_directories(restore, tmp_path, source, monkeypatch):
    version = backed_up(tmp_path, source)
    listed = []
    find_leftovers = deletion.find_leftovers

    def find(fd: int) -> list[tuple[int, bytes]]:
        listed.append(os.path.basename(os.readlink(f"/proc/self/fd/{fd}")))
        return find_leftovers(fd)

    monkeypatch.setattr("ssfs.engine.restore.directories.find_leftovers", find)
    restore(version, source, "a/b", options=IN_PLACE)
    assert listed == ["source", "a", "b"]


# -- what stays ------------------------------------------------------------------------------------


def test_overwrite_says_what_becomes_of_what_is_there(restore, tmp_path, source):
    version = backed_up(tmp_path, source)
    recorded = (source / "a" / "small").stat().st_mtime_ns

    def after(overwrite: Overwrite, mtime_ns: int, text: str = "other") -> tuple[str, bool]:
        out = tmp_path / "out"
        subprocess.run(["rm", "-rf", out], check=True)
        (out / "a").mkdir(parents=True)
        file = out / "a" / "small"
        file.write_text(text)
        os.utime(file, ns=(mtime_ns, mtime_ns))
        inode = file.stat().st_ino
        result = restore(version, out, options=RestoreOptions(overwrite=overwrite))
        assert result.problems == []
        assert (out / "a" / "b" / "deep").read_text() == "deep"
        is_kept = file.read_text() == text and file.stat().st_ino == inode
        assert result.kept == (is_kept and file.stat().st_mtime_ns == mtime_ns != recorded)
        return file.read_text(), file.stat().st_ino == inode

    earlier, later = recorded - 1, recorded + 1
    assert after(Overwrite.NEVER, earlier) == ("other", True)
    assert after(Overwrite.IF_NEWER, later) == ("other", True)
    assert after(Overwrite.IF_NEWER, earlier) == ("small", False)
    assert after(Overwrite.IF_CHANGED, later) == ("small", False)
    assert after(Overwrite.IF_CHANGED, recorded, "small") == ("small", True)
    assert after(Overwrite.ALWAYS, recorded, "small") == ("small", False)


def test_kept_file_is_no_link_source(restore, tmp_path, source):
    version = backed_up(tmp_path, source)
    (tmp_path / "out" / "a").mkdir(parents=True)
    (tmp_path / "out" / "a" / "small").write_text("mine")
    restore(version, tmp_path / "out", options=RestoreOptions(overwrite=Overwrite.NEVER))
    assert (tmp_path / "out" / "a" / "small").read_text() == "mine"
    assert (tmp_path / "out" / "other" / "hard").read_text() == "small"


def test_excluded_entries_do_not_move_and_are_not_deleted(tmp_path, source):
    for name in ("big.iso", "keep.iso"):
        (source / "a" / name).write_bytes(noise(200_000, 5))
    (source / "a" / "keep.iso").write_bytes(noise(1000, 6))
    version = backed_up(tmp_path, source)
    out = tmp_path / "out"
    (out / "a" / "extra").mkdir(parents=True)
    for name in ("mine.iso", "extra/deep.iso", "extra/gone"):
        (out / "a" / name).write_text("mine")
    options = RestoreOptions(deletes=True, exclude=("*.iso", "!keep.iso", "/other/", "large"))
    server = RestoreServer(store_of(version))
    _, result = server.restore(request_of(version), out, options=options)
    assert sorted(path.name for path in out.rglob("*")) == sorted(
        ["a", "b", "deep", "deep.iso", "extra", "fifo", "keep.iso", "link", "mine.iso", "small"]
    )
    assert (result.deleted, result.problems) == (1, [])
    assert server.received_bytes < 5000


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


def test_place_reached_through_a_symlink_is_refused(restore, tmp_path, source):
    version = backed_up(tmp_path, source)
    (tmp_path / "way").symlink_to(tmp_path)
    (tmp_path / "end").symlink_to(source)
    before = sorted(tmp_path.iterdir())
    for target in (tmp_path / "way" / "source", tmp_path / "end", tmp_path / "way" / "new"):
        with pytest.raises(ConfigError, match="use --to"):
            restore(version, target, options=IN_PLACE)
    assert sorted(tmp_path.iterdir()) == before


# -- broken off ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_killed_restore_is_continued_and_leaves_nothing(tmp_path, source):
    (source / "a" / "large").write_bytes(noise(24 * MIB))
    version = backed_up(tmp_path, source)
    out = tmp_path / "out"

    class Killer(NullMonitor):
        written = 0

        def advance(self, _entries: int, size_bytes: int, _path: bytes) -> None:
            self.written += size_bytes
            if self.written > 16 * MIB:
                os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        restore_remotely(version, out, monitor=Killer())
        os._exit(1)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert [name[:14] for name in os.listdir(out / "a") if "restore" in name] == [".ssfs-restore-"]
    server = RestoreServer(store_of(version))
    _, result = server.restore(request_of(version), out)
    assert result.problems == []
    assert server.received_bytes < 9 * MIB
    assert_same_tree(tmp_path / "as-it-was", out, ignoring=["root"])


def test_files_that_only_look_like_leftovers_stay(restore, tmp_path, source):
    names = (b".ssfs-restore-", b".ssfs-restore-1-2-x-3", b".ssfs-restore-mine")
    recorded = b".ssfs-restore-999999999-1-0123456789abcdef-7"
    living = deletion.name_beside(b"0123456789abcdef") + b"7"
    for name in (*names, recorded):
        (source / os.fsdecode(name)).write_text("mine")
    version = backed_up(tmp_path, source)
    dead = b".ssfs-restore-999999999-1-0123456789abcdef-8"
    for name in (living, dead):
        (source / os.fsdecode(name)).write_text("x")
    restore(version, source, options=IN_PLACE)
    found = {name for name in os.listdir(bytes(source)) if name.startswith(b".ssfs")}
    assert found == {*names, recorded, living}


# -- owners ----------------------------------------------------------------------------------------


@pytest.mark.needs_root
def test_owners_go_by_what_the_user_says(restore, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    daemon, nameless = 1, 54321
    for name, number in (("daemon", daemon), ("nameless", nameless), ("root", 0)):
        (source / name).write_text(name)
        os.chown(source / name, number, number)
    version = backed_up(tmp_path, source)

    def owners(**mapped: object) -> list[tuple[int, int]]:
        options = RestoreOptions(owners=OwnerMap(**mapped))
        assert restore(version, tmp_path / "out", options=options).problems == []
        found = [(tmp_path / "out" / name).stat() for name in ("daemon", "nameless", "root")]
        return [(status.st_uid, status.st_gid) for status in found]

    assert owners(users={"daemon": 7, "54321": 8}) == [(7, 1), (8, nameless), (0, 0)]
    assert owners(users={"1": 9}, groups={"daemon": 5, "1": 6}) == [
        (9, 5),
        (nameless, nameless),
        (0, 0),
    ]
    assert owners() == [(1, 1), (nameless, nameless), (0, 0)]


@pytest.mark.needs_root
def test_numbers_count_where_names_are_not_to(restore, tmp_path, monkeypatch):
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_text("x")
    os.chown(source / "file", 1, 1)
    version = backed_up(tmp_path, source)

    def getpwnam(_name: str) -> None:
        raise AssertionError("a name was asked for")

    monkeypatch.setattr("ssfs.engine.restore.owners.pwd.getpwnam", getpwnam)
    options = RestoreOptions(owners=OwnerMap(numeric=True))
    assert restore(version, tmp_path / "out", options=options).problems == []
    assert (tmp_path / "out" / "file").stat().st_uid == 1
