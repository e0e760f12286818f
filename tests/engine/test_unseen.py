"""Parts of a source that cannot be seen stay in the version, each entry flagged, until they can be seen again.

The faults are real: a FUSE file system that fails as told, bind mounts, other file systems.
"""

import contextlib
import datetime
import errno
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ssfs.engine.restore.options import RestoreOptions
from ssfs.model.entry import Flag
from ssfs.source.exclude import ExcludeOptions
from tests.cli.support import run
from tests.fakes.clock import FrozenClock
from tests.fakes.restores import restore_here, restore_remotely
from tests.fakes.sources import serve
from tests.fakes.syncs import Backup, row, stored
from tests.fakes.trees import verify_version
from tests.mount.mounts import mounted


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "source"
    (root / "d" / "e").mkdir(parents=True)
    (root / "d" / "f").write_bytes(os.urandom(6000))
    (root / "d" / "e" / "deep").write_bytes(b"deep")
    (root / "d" / "link").symlink_to("f")
    os.mkfifo(root / "d" / "fifo")
    (root / "other").write_bytes(b"other")
    for place, _, names in os.walk(root):
        for name in names:
            os.utime(os.path.join(place, name), (1, 1), follow_symlinks=False)
    return root


SUBTREE = ["d", "d/e", "d/e/deep", "d/f", "d/fifo", "d/link"]


@pytest.fixture
def backup(tmp_path: Path) -> Backup:
    # Of next year: nothing changes so shortly before it is read that times prove nothing.
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    return Backup(tmp_path / "store", clock=FrozenClock(now + datetime.timedelta(days=365)))


def place_of(name: bytes | int, dir_fd: int | None = None) -> str:
    """The path of what a system call is about."""
    if isinstance(name, int):
        return os.readlink(f"/proc/self/fd/{name}")
    above = os.readlink(f"/proc/self/fd/{dir_fd}") if dir_fd is not None else ""
    return os.path.join(above, os.fsdecode(name))


@contextlib.contextmanager
def mount(*words: str | Path) -> Iterator[None]:
    subprocess.run(["mount", *map(str, words)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(words[-1])], check=True)


def stale(backup: Backup) -> list[str]:
    """The paths that are flagged in the newest version."""
    with backup.newest().catalog() as catalog:
        rows = [entry for entry in catalog.entries() if entry.flags & Flag.STALE]
        names = [b"/".join(catalog.path_names(entry.id) or []) for entry in rows]
    return sorted(os.fsdecode(name) for name in names)


def problems(result) -> list[str]:
    return [os.fsdecode(problem.path) for problem in result.problems]


@pytest.mark.needs_fuse
@pytest.mark.parametrize(
    ("what", "number"), [("stat", errno.EACCES), ("open", errno.EACCES), ("list", errno.EIO)]
)
def test_directory_that_cannot_be_seen_stays_whole_and_flagged(
    tmp_path, source, backup, what, number
):
    shown = tmp_path / "shown"
    with serve(source, shown) as faults:
        backup.sync(shown)
        (source / "other").write_bytes(b"changed")
        faults.set(**{what: {"d": number}})
        result = backup.sync(shown)
        assert problems(result) == ["d"]
        assert "kept as in the version before" in result.problems[0].problem
        assert (result.counts.removed, result.counts.changed) == (0, 1)
        assert stale(backup) == SUBTREE
        first, second = backup.versions()
        assert stored(first, "d/f").st_ino == stored(second, "d/f").st_ino
        # Still not: it stays as it is, and is named again.
        assert problems(backup.sync(shown)) == ["d"]
        assert stale(backup) == SUBTREE
        # As soon as it can be seen the flags go, and nothing has to be read for that.
        (source / "d" / "e" / "deep").write_bytes(b"deeper")
        faults.set()
        result = backup.sync(shown)
        assert not result.problems
        assert stale(backup) == []
        assert result.counts.bytes_read < 6000
        assert row(backup.newest(), "d/e/deep").size == 6
    for version in backup.versions():
        verify_version(version)


@pytest.mark.needs_fuse
def test_names_that_cannot_be_looked_at_or_read_stay(tmp_path, source, backup):
    shown = tmp_path / "shown"
    with serve(source, shown) as faults:
        backup.sync(shown)
        (source / "d" / "e" / "deep").write_bytes(b"deeper")
        (source / "new").write_bytes(b"never seen")
        (source / "d" / "link").unlink()
        (source / "d" / "link").symlink_to("e")
        faults.set(
            stat={"d/f": errno.EIO, "new": errno.EIO},
            read={"d/link": errno.EIO, "d/e/deep": errno.EIO},
        )
        result = backup.sync(shown)
        assert sorted(problems(result)) == ["d/e/deep", "d/f", "d/link", "new"]
        assert result.counts.removed == 0
        assert stale(backup) == ["d/e/deep", "d/f", "d/link"]
        assert row(backup.newest(), "d/link").target == b"f"
        assert row(backup.newest(), "d/e/deep").size == 4
        verify_version(backup.newest())
        faults.set()
        assert not backup.sync(shown).problems
    assert stale(backup) == []
    assert row(backup.newest(), "d/link").target == b"e"
    verify_version(backup.newest())


@pytest.mark.needs_fuse
def test_nothing_in_a_directory_that_cannot_be_seen_is_taken_for_moved(tmp_path, source, backup):
    shown = tmp_path / "shown"
    os.link(source / "d" / "f", source / "twin")
    with serve(source, shown) as faults:
        backup.sync(shown)
        (source / "twin").rename(source / "z-twin")
        (source / "d" / "e").rename(source / "z-e")
        faults.set(stat={"d": errno.EACCES}, list={"d": errno.EACCES})
        result = backup.sync(shown)
        assert problems(result) == ["d"]
        assert stale(backup) == SUBTREE
        assert row(backup.newest(), "z-e/deep").size == row(backup.newest(), "z-twin").size - 5996
        verify_version(backup.newest())
        faults.set()
        assert not backup.sync(shown).problems
    assert stale(backup) == []
    with backup.newest().catalog() as catalog:
        assert catalog.resolve(b"d/e") is None
    verify_version(backup.newest())


@pytest.mark.needs_fuse
def test_what_moved_out_of_a_directory_that_cannot_be_listed_has_moved(tmp_path, source, backup):
    shown = tmp_path / "shown"
    with serve(source, shown) as faults:
        backup.sync(shown)
        (source / "d" / "f").rename(source / "z")
        faults.set(list={"d": errno.EIO})
        result = backup.sync(shown)
    assert result.counts.moved == 1
    assert stale(backup) == sorted({*SUBTREE} - {"d/f"})
    assert not row(backup.newest(), "z").flags & Flag.STALE
    verify_version(backup.newest())


@pytest.mark.needs_fuse
def test_source_that_goes_away_during_the_walk_loses_nothing(tmp_path, source, backup, monkeypatch):
    shown = tmp_path / "shown"
    with serve(source, shown) as faults:
        backup.sync(shown)
        original = os.listdir
        listed = []

        def listdir(place):
            names = original(place)
            if place_of(place) == str(shown):
                listed.append(place)
                if len(listed) == 2:  # the first was to see whether there is a source
                    faults.end()
            return names

        monkeypatch.setattr(os, "listdir", listdir)
        result = backup.sync(shown)
    assert problems(result) == ["d", "other"]
    assert result.counts.removed == 0
    assert stale(backup) == [*SUBTREE, "other"]
    verify_version(backup.newest())


def test_directory_replaced_by_a_file_after_it_was_looked_at(source, backup, monkeypatch):
    backup.sync(source)
    original = os.open

    def replace(path, *rest, dir_fd=None, **options):
        if place_of(path, dir_fd) == str(source / "d") and (source / "d").is_dir():
            (source / "d").rename(source.parent / "away")
            (source / "d").write_bytes(b"a file")
        return original(path, *rest, dir_fd=dir_fd, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", replace)
        result = backup.sync(source)
    assert problems(result) == ["d"]
    assert "not a directory" in result.problems[0].problem
    assert stale(backup) == SUBTREE
    verify_version(backup.newest())
    result = backup.sync(source)
    assert not result.problems
    assert row(backup.newest(), "d").size == 6
    verify_version(backup.newest())


@pytest.mark.parametrize("before", ["open", "listdir"])
def test_directory_that_vanishes_before_it_is_listed_was_not_there(
    source, backup, monkeypatch, before
):
    backup.sync(source)
    (source / "d" / "e").rename(source / "a-e")  # has moved, as it seems
    original = getattr(os, before)
    seen = []

    def vanish(place, *rest, **options):
        if place_of(place, options.get("dir_fd")) == str(source / "a-e") and not seen:
            seen.append(place)
            (source / "a-e").rename(source / "d" / "later")
            if before == "listdir":
                raise FileNotFoundError(errno.ENOENT, "gone")
        return original(place, *rest, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, before, vanish)
        result = backup.sync(source)
    assert not result.problems
    assert seen
    assert row(backup.newest(), "d/later/deep").size == 4
    with backup.newest().catalog() as catalog:
        assert catalog.resolve(b"a-e") is None
    verify_version(backup.newest())


def test_symlink_that_vanishes_between_look_and_read_was_not_there(source, backup, monkeypatch):
    backup.sync(source)
    (source / "d" / "link").unlink()
    (source / "d" / "link").symlink_to("e")

    def readlink(name, *, dir_fd):
        raise FileNotFoundError(errno.ENOENT, "gone")

    monkeypatch.setattr(os, "readlink", readlink)
    result = backup.sync(source)
    assert not result.problems
    assert result.counts.removed == 1


def test_sockets_are_counted_and_left_out(source, backup, monkeypatch):
    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(source)  # the name of a socket is short
        server.bind("socket")
    result = backup.sync(source)
    assert result.counts.sockets == 1
    assert not result.problems
    assert backup.newest().record().counts.sockets == 1
    with backup.newest().catalog() as catalog:
        assert catalog.resolve(b"socket") is None


# -- never seen at all, and --delete ---------------------------------------------------------------

WITH_DELETE = RestoreOptions(deletes=True, in_place=True)


def tree(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*")}


@pytest.mark.needs_fuse
@pytest.mark.parametrize(
    "faults",
    [
        {"list": {"d": errno.EIO}},
        {"open": {"d": errno.EACCES}},
        {"stat": {"d": errno.EACCES}},
    ],
    ids=["list", "open", "stat"],
)
def test_directory_that_was_never_seen_is_not_deleted(tmp_path, source, backup, faults, restore):
    shown = tmp_path / "shown"
    with serve(source, shown) as found:
        found.set(**faults)
        for _ in range(2):  # nor when the version after still has not seen it
            result = backup.sync(shown)
            assert problems(result) == ["d"]
            assert "not backed up" in result.problems[0].problem or backup.versions()[1:]
            verify_version(backup.newest())
        (source / "other").unlink()
        before = tree(source) | {"other"}
        result = restore(backup.newest(), source, options=WITH_DELETE)
        assert tree(source) == before
        assert (result.deleted, result.problems) == (0, [])
        # Once it is seen the marks go, and what the version does not have then may be deleted.
        found.set()
        assert not backup.sync(shown).problems
        assert stale(backup) == []
        assert not row(backup.newest(), "").flags & Flag.INCOMPLETE
        before = tree(source)
        (source / "d" / "extra").write_bytes(b"extra")
        (source / "extra").write_bytes(b"extra")
        assert restore(backup.newest(), source, options=WITH_DELETE).deleted == 2
    assert tree(source) == before


@pytest.mark.needs_fuse
def test_files_that_were_never_read_are_not_deleted(tmp_path, source, backup, restore):
    (source / "d" / "large").write_bytes(os.urandom(300_000))
    shown = tmp_path / "shown"
    with serve(source, shown) as found:
        found.set(open={"d/f": errno.EACCES, "d/large": errno.EACCES}, read={"d/link": errno.EIO})
        result = backup.sync(shown)
        assert problems(result) == ["d/f", "d/large", "d/link"]
        assert row(backup.newest(), "d").flags & Flag.INCOMPLETE
        assert not row(backup.newest(), "d/e").flags & Flag.INCOMPLETE
        verify_version(backup.newest())
        before = tree(source)
        (source / "d" / "e" / "extra").write_bytes(b"extra")
        (source / "extra").mkdir()
        assert restore(backup.newest(), source, options=WITH_DELETE).deleted == 2
        assert tree(source) == before
        found.set()
        quiet = backup.sync(shown)
        assert not quiet.problems
        assert not row(backup.newest(), "d").flags
        assert backup.sync(shown).counts.bytes_sent < 1000


def test_directory_that_its_user_may_not_list_is_not_deleted(source, tmp_path, monkeypatch):
    """As an ordinary user, with the real command line."""
    (source / "secret").mkdir(mode=0o700)
    (source / "secret" / "file").write_bytes(b"secret")
    (source / "secret").chmod(0o000)
    store = tmp_path / "stored"
    run("init", store, expect=0)
    # The time of change of all of it is now.
    run("sync", source, store, expect=3, powerless=True)
    (source / "other").unlink()
    (source / "extra").mkdir()
    outcome = run(
        *("restore", store, "latest", "--in-place", "--delete", "--yes", "-v"), powerless=True
    )
    assert (source / "other").exists()
    assert not (source / "extra").exists()
    (source / "secret").chmod(0o700)
    assert (source / "secret" / "file").read_bytes() == b"secret"
    assert "secret" in outcome.err


# -- mounts ----------------------------------------------------------------------------------------


@pytest.mark.needs_root
def test_other_file_systems_are_walked_or_left_out_as_asked(source, backup):
    (source / "disk").mkdir()
    with mount("-t", "tmpfs", "tmpfs", source / "disk"):
        (source / "disk" / "f").write_bytes(b"on the disk")
        backup.sync(source)
        assert row(backup.newest(), "disk/f").size == 11
        for _ in range(2):  # the second time there is nothing new about the directory itself
            result = backup.sync(source, exclude=ExcludeOptions(one_file_system=True))
            assert not result.problems
            with backup.newest().catalog() as catalog:
                assert catalog.resolve(b"disk") is not None
                assert catalog.resolve(b"disk/f") is None
            verify_version(backup.newest())
        assert result.counts.removed == 0


@pytest.mark.needs_root
@pytest.mark.parametrize(("outer", "inner"), [("", "d"), ("", "d/e"), ("d", "d/e")])
def test_bind_mounts_of_a_directory_inside_itself_are_named_and_not_entered(
    source, backup, inner, outer
):
    backup.sync(source)
    with mount("--bind", source / outer, source / inner):
        result = backup.sync(source)
        assert problems(result) == [inner]
        assert "one of the directories above it" in result.problems[0].problem
        # What was there is hidden, not gone.
        assert result.counts.removed == 0
        assert stale(backup) == [path for path in SUBTREE if path.startswith(inner)]
        verify_version(backup.newest())
    assert not backup.sync(source).problems
    assert stale(backup) == []


@pytest.mark.needs_root
@pytest.mark.parametrize("has_version", [False, True])
def test_new_bind_mount_loop_is_an_empty_directory(source, backup, has_version):
    (source / "d" / "loop").mkdir()
    if has_version:
        # The root is recorded, and its inode number turns up somewhere else: it has not moved.
        backup.sync(source, patterns=("loop",))
    with mount("--bind", source, source / "d" / "loop"):
        result = backup.sync(source)
    assert problems(result) == ["d/loop"]
    assert row(backup.newest(), "d/loop").id
    assert result.counts.entries == 9
    verify_version(backup.newest())


@pytest.mark.needs_root
def test_directory_mounted_twice_is_backed_up_twice(source, backup):
    (source / "z").mkdir()
    with mount("--bind", source / "d", source / "z"):
        assert not backup.sync(source).problems
        assert not backup.sync(source).problems
    assert row(backup.newest(), "z/e/deep").size == row(backup.newest(), "d/e/deep").size
    verify_version(backup.newest())


@pytest.mark.needs_fuse
def test_hard_link_that_could_not_be_seen_is_restored_and_shown_with_its_own_content(
    tmp_path, source, backup
):
    """The file has changed since: one name is as the version before has it, the others are new."""
    shown = tmp_path / "shown"
    before, after = os.urandom(6000), os.urandom(7000)
    (source / "d" / "first").write_bytes(before)
    for name in ("x1", "x2"):
        os.link(source / "d" / "first", source / name)
    with serve(source, shown) as faults:
        backup.sync(shown)
        (source / "x1").write_bytes(after)
        faults.set(list={"d": errno.EIO})
        backup.sync(shown)
    version = backup.newest()
    assert row(version, "d/first").link_group == row(version, "x1").link_group != 0
    wanted = {"d/first": before, "x1": after, "x2": after}
    for number, restore in enumerate((restore_here, restore_remotely)):
        target = tmp_path / f"target{number}"
        restore(version, target)
        assert {name: (target / name).read_bytes() for name in wanted} == wanted
    with mounted(backup.task(), tmp_path / "mnt"):
        tree = tmp_path / "mnt" / version.record().name
        assert {name: (tree / name).read_bytes() for name in wanted} == wanted
    # Seen again, they are one file again.
    with serve(source, shown):
        backup.sync(shown)
    restore_here(backup.newest(), tmp_path / "again")
    assert os.path.samefile(tmp_path / "again" / "d" / "first", tmp_path / "again" / "x1")
