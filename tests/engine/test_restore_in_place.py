"""Restores into what is there: what is right stays, what differs moves, and nothing leads outside."""

import os
import random
import signal
import subprocess
from pathlib import Path

import pytest

from ssfs.engine.restore import contents, deletion, target
from ssfs.engine.restore.options import Overwrite, RestoreOptions
from ssfs.engine.restore.restorer import RestoreResult
from ssfs.monitor import NullMonitor
from tests.fakes.comparing import assert_same_tree
from tests.fakes.restores import (
    RestoreServer,
    backed_up,
    make_source,
    noise,
    request_of,
    restore_here,
    restore_remotely,
    store_of,
)
from tests.fakes.trees import build_tree

IN_PLACE = RestoreOptions(in_place=True)
DRY_RUN = RestoreOptions(in_place=True, deletes=True, dry_run=True)
MIB = 1 << 20


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The lengths of all pieces of content that are written."""
    lengths: list[int] = []
    write_uncached, write_all = contents.write_uncached, target.write_all

    def counting_large(fd: int, content: bytes, position: int) -> None:
        lengths.append(len(content))
        write_uncached(fd, content, position)

    def counting_small(fd: int, content: bytes) -> None:
        lengths.append(len(content))
        write_all(fd, content)

    monkeypatch.setattr(contents, "write_uncached", counting_large)
    monkeypatch.setattr(target, "write_all", counting_small)
    return lengths


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_source(tmp_path / "source")


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
    for options in (IN_PLACE, RestoreOptions(in_place=True, deletes=True)):
        restore(version, source, options=options)
    found = {name for name in os.listdir(bytes(source)) if name.startswith(b".ssfs")}
    # Another restore is at work: not even --delete takes its file away.
    assert found == {*names, recorded, living}
