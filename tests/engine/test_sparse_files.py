"""Sparse files: holes are neither read, sent, stored nor restored as zeros."""

import os
import random
import subprocess

import pytest

from ssfs.clock import SystemClock
from ssfs.engine.restore import contents, existing
from ssfs.engine.restore.client import fetch_version
from ssfs.engine.restore.local import restore_version
from ssfs.engine.restore.options import Overwrite, RestoreOptions
from ssfs.monitor import NullMonitor
from tests.fakes.comparing import assert_same_tree
from tests.fakes.restores import RestoreServer, request_of, restore_here, restore_remotely
from tests.fakes.syncs import Backup, row, stored

BLOCK = 4096
MIB = 1 << 20
HUGE = 1 << 43


def write(path, size: int, extents: dict[int, bytes]) -> None:
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    for offset, content in extents.items():
        os.pwrite(fd, content, offset)
    os.ftruncate(fd, size)
    os.close(fd)


@pytest.fixture
def source(tmp_path):
    root = tmp_path / "source"
    root.mkdir()
    noise = random.Random(1).randbytes
    write(root / "small", 20 * BLOCK, {5 * BLOCK: noise(100), 19 * BLOCK: noise(BLOCK)})
    write(root / "one-hole", 10 * MIB, {})
    write(root / "image", 200 * MIB, {0: noise(MIB), 100 * MIB: noise(MIB), 199 * MIB: b"end"})
    write(root / "huge", HUGE, {BLOCK: noise(BLOCK), HUGE // 2: noise(300_000)})
    (root / "plain").write_bytes(noise(2 * MIB))
    return root


@pytest.fixture
def backup(tmp_path, cache_dir):
    return Backup(tmp_path / "store")


def check(backup: Backup, source, tmp_path) -> None:
    number = backup.newest().id.sequence
    local, remote = tmp_path / f"local-{number}", tmp_path / f"remote-{number}"
    result = restore_version(backup.newest(), (), os.fsencode(local), NullMonitor(), SystemClock())
    assert result.problems == []
    assert_same_tree(source, local)
    assert restore_remotely(backup.newest(), remote).problems == []
    assert_same_tree(source, remote)


def test_holes_are_not_read_sent_or_stored(backup, source, tmp_path):
    result = backup.sync(source)
    data = 20 * BLOCK + 2 * MIB + BLOCK + 300_000 + 2 * MIB + 3 * BLOCK
    assert result.counts.bytes_read < data + BLOCK
    assert result.counts.bytes_sent < data + 10_000
    for name in ("small", "one-hole", "image", "huge"):
        assert stored(backup.newest(), name).st_blocks <= (source / name).stat().st_blocks + 16
        assert stored(backup.newest(), name).st_size == (source / name).stat().st_size
    check(backup, source, tmp_path)


def test_a_change_in_a_sparse_file_is_a_delta(backup, source, tmp_path):
    backup.sync(source)
    with open(source / "image", "r+b") as file:
        file.seek(100 * MIB + 5000)
        file.write(b"changed")
        file.seek(150 * MIB)
        file.write(os.urandom(BLOCK))
    result = backup.sync(source)
    assert result.counts.bytes_sent < 60_000
    check(backup, source, tmp_path)


def test_holes_that_are_filled_or_punched_are_followed(backup, source, tmp_path):
    backup.sync(source)
    with open(source / "plain", "r+b") as file:
        file.truncate(MIB)
        file.truncate(4 * MIB)
    with open(source / "small", "r+b") as file:
        file.write(os.urandom(20 * BLOCK))
    os.truncate(source / "one-hole", 11 * MIB)
    result = backup.sync(source)
    assert row(backup.newest(), "plain").holes
    assert not row(backup.newest(), "small").holes
    assert result.counts.bytes_sent < 20 * BLOCK + 50_000
    check(backup, source, tmp_path)


def test_a_sparse_file_that_was_cut_goes_on_where_it_was(backup, source, tmp_path):
    for name in os.listdir(source):
        (source / name).unlink()
    noise = random.Random(2).randbytes
    write(source / "image", 1 << 40, {number << 30: noise(MIB) for number in range(64)})
    with pytest.raises(Exception, match=r"."):
        backup.sync(source, cut_after=40 * MIB)
    result = backup.sync(source)
    assert result.counts.bytes_sent < 30 * MIB
    check(backup, source, tmp_path)


def test_equal_sparse_files_are_linked(backup, source, tmp_path):
    backup.sync(source)
    os.rename(source / "image", source / "moved")
    write(source / "again", HUGE, {})
    with open(source / "huge", "rb") as huge, open(source / "again", "r+b") as again:
        for offset, length in ((BLOCK, BLOCK), (HUGE // 2, 300_000)):
            again.seek(offset)
            again.write(os.pread(huge.fileno(), length, offset))
    result = backup.sync(source)
    assert result.counts.bytes_sent < 10_000
    assert stored(backup.newest(), "again").st_ino == stored(backup.newest(), "huge").st_ino
    check(backup, source, tmp_path)


def test_a_restore_mends_what_lies_in_holes_of_the_target(backup, source, tmp_path):
    backup.sync(source)
    target = tmp_path / "target"
    restore_remotely(backup.newest(), target)
    for name in ("image", "huge"):
        with open(target / name, "r+b") as file:
            file.seek(50 * MIB)
            file.write(b"\1")
    assert restore_remotely(backup.newest(), target).problems == []
    assert_same_tree(source, target, ignoring={"root"})


def fill_holes(path) -> None:
    """Nothing but its layout changes: as after `cp --sparse=never`."""
    times = path.stat()
    subprocess.run(["cp", "--sparse=never", path, f"{path}.full"], check=True)
    with open(path, "r+b") as file, open(f"{path}.full", "rb") as full:
        file.write(full.read())
    os.unlink(f"{path}.full")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_a_restore_gives_back_holes_that_were_filled_and_sends_nothing(
    backup, source, tmp_path, restore
):
    (source / "huge").unlink()
    os.link(source / "small", source / "small link")
    backup.sync(source)
    target = tmp_path / "target"
    restore(backup.newest(), target)
    for name in ("small", "one-hole", "image"):
        fill_holes(target / name)
        assert (target / name).stat().st_blocks * 512 >= (target / name).stat().st_size
    foreseen = restore(backup.newest(), target, options=RestoreOptions(dry_run=True))
    assert (foreseen.replaced, foreseen.unchanged) == (3, 2 + 1)
    assert (target / "image").stat().st_blocks * 512 >= 200 * MIB
    kept = restore(backup.newest(), target, options=RestoreOptions(overwrite=Overwrite.NEVER))
    assert kept.replaced == 0
    result = restore(backup.newest(), target)
    assert result.problems == []
    assert result.replaced == foreseen.replaced + 1
    assert_same_tree(source, target, ignoring={"root"})
    again = restore(backup.newest(), target)
    assert again.replaced == again.metadata_only == 0


def test_filled_holes_of_a_target_travel_in_no_direction(backup, source, tmp_path):
    (source / "huge").unlink()
    backup.sync(source)
    target = tmp_path / "target"
    restore_remotely(backup.newest(), target)
    fill_holes(target / "image")
    server = RestoreServer(backup.path)
    server.restore(request_of(backup.newest()), target)
    assert server.received_bytes < 10_000
    assert server.served[0].files == 0
    assert (target / "image").stat().st_blocks * 512 < 3 * MIB


def test_a_file_system_that_makes_no_holes_keeps_right_files_as_they_are(
    backup, source, tmp_path, monkeypatch
):
    (source / "huge").unlink()
    backup.sync(source)
    target = tmp_path / "target"
    restore_here(backup.newest(), target)
    fill_holes(target / "image")
    before = (target / "image").stat()
    monkeypatch.setattr(existing, "fills_holes", lambda fd, layout: layout.size > 100 * MIB)
    result = restore_here(backup.newest(), target)
    assert (result.replaced, result.problems) == (0, [])
    assert result.unchanged == result.entries
    assert (target / "image").stat().st_ino == before.st_ino
    assert sorted(os.listdir(target)) == sorted(os.listdir(source))


def test_no_room_to_give_holes_back_is_no_problem(backup, source, tmp_path, monkeypatch):
    (source / "huge").unlink()
    backup.sync(source)
    target = tmp_path / "target"
    restore_here(backup.newest(), target)
    fill_holes(target / "image")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(contents, "write_at", full)
    result = restore_here(backup.newest(), target)
    assert (result.replaced, result.problems) == (0, [])
    assert sorted(os.listdir(target)) == sorted(os.listdir(source))


def test_a_restore_sends_only_what_changed_in_a_sparse_file(backup, source, tmp_path):
    backup.sync(source)
    target = tmp_path / "target"
    restore_remotely(backup.newest(), target)
    with open(target / "image", "r+b") as file:
        file.seek(100 * MIB + 5000)
        file.write(b"damage")
    server = RestoreServer(backup.path)
    with server.session() as channel:
        fetch_version(
            channel, request_of(backup.newest()), os.fsencode(target), NullMonitor(), SystemClock()
        )
        assert channel.received_bytes < 60_000
    assert_same_tree(source, target, ignoring={"root"})
