"""A store on a disk without space, or without inodes, for what is to be backed up.

A sync that does not fit says so and what would help, the old versions stay whole, and as soon as there is room the
next sync succeeds. Deleting a version must work on a disk that is full to the last block.
"""

import contextlib
import os
import random

import pytest

from ssfs.store.version import Version
from tests.crash.disks import mounted_disk
from tests.crash.kills import Kill, run_killed
from tests.crash.support import Rig

pytestmark = [pytest.mark.slow, pytest.mark.needs_root]

_DISK_BYTES = 30 << 20
_VERSION_BYTES = 9 << 20


def _sync_that_does_not_fit(rig: Rig) -> None:
    ended = rig.run(*rig.sync_arguments)
    assert ended.returncode == 6, ended
    assert ended.stdout == ""
    (line,) = ended.stderr.splitlines()
    assert "No space or no inodes left" in line
    assert "ssfs delete" in line
    assert "ssfs point" in line
    rig.check()


def _init_without_reserve(rig: Rig) -> None:
    """A store that fills its disk to the last block, as one of an older ssfs does."""
    rig.init()
    with (rig.store / "store.toml").open("a", encoding="ascii") as settings:
        settings.write("\n[reserve]\nspace_percent = 0\ninodes_percent = 0\n")


def _delete(rig: Rig, version: Version) -> None:
    deleted = rig.run("delete", rig.location, str(version.id), "--yes")
    assert deleted.returncode == 0, deleted
    del rig.acknowledged[str(version.id)]
    rig.check()


def _fill(rig: Rig) -> None:
    """Leave not one block and not one inode in the disk that holds the store."""
    with (rig.store.parent / "filler").open("wb", buffering=0) as file:
        with contextlib.suppress(OSError):
            for number in range(100_000):
                (rig.store.parent / f"filler-{number}").write_bytes(b"x")
        for size in (1 << 16, 1 << 12, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))


def _two_versions(rig: Rig, rng: random.Random) -> None:
    """Two versions that have nothing in common."""
    rig.source.mkdir()
    _init_without_reserve(rig)
    for _ in range(2):
        (rig.source / "large").write_bytes(rng.randbytes(_VERSION_BYTES))
        for number in range(20):
            (rig.source / f"small-{number}").write_bytes(rng.randbytes(3000))
        rig.sync()


@pytest.mark.parametrize("file_bytes", [_VERSION_BYTES, 100_000])
def test_sync_that_does_not_fit_says_so_and_fits_after_a_deletion(tmp_path, file_bytes):
    rng = random.Random(1)
    with mounted_disk(tmp_path, "ext4", _DISK_BYTES) as disk:
        rig = Rig(tmp_path, disk.mountpoint / "store")
        _two_versions(rig, rng)
        for number in range(_VERSION_BYTES // file_bytes):
            (rig.source / f"new-{number}").write_bytes(rng.randbytes(file_bytes))
        for _ in range(3):
            _sync_that_does_not_fit(rig)
        _delete(rig, rig.versions()[0])
        rig.sync()


def test_disk_without_inodes_says_so_and_fits_after_a_deletion(tmp_path):
    with mounted_disk(tmp_path, "ext4", _DISK_BYTES, ["-N", "400"]) as disk:
        rig = Rig(tmp_path, disk.mountpoint / "store")
        rig.source.mkdir()
        _init_without_reserve(rig)
        for number in range(100):
            (rig.source / f"{number}").write_bytes(b"%d" % number)
        rig.sync()
        for number in range(100):
            (rig.source / f"{number}").write_bytes(b"another %d" % number)
        rig.sync()
        for number in range(100, 300):
            (rig.source / f"{number}").write_bytes(b"%d" % number)
        for _ in range(3):
            _sync_that_does_not_fit(rig)
        _delete(rig, rig.versions()[0])
        for number in range(200, 300):
            (rig.source / f"{number}").unlink()
        rig.sync()


@pytest.mark.parametrize("is_interrupted", [False, True])
def test_deletion_works_on_a_disk_that_is_full_to_the_last_block(tmp_path, is_interrupted):
    rng = random.Random(2)
    with mounted_disk(tmp_path, "ext4", _DISK_BYTES) as disk:
        rig = Rig(tmp_path, disk.mountpoint / "store")
        _two_versions(rig, rng)
        (rig.source / "new").write_bytes(rng.randbytes(_VERSION_BYTES))
        if is_interrupted:
            _sync_that_does_not_fit(rig)
        _fill(rig)
        _sync_that_does_not_fit(rig)
        _delete(rig, rig.versions()[0])
        rig.sync()


def test_expiry_works_on_a_disk_that_is_full_to_the_last_block(tmp_path):
    rng = random.Random(3)
    with mounted_disk(tmp_path, "ext4", _DISK_BYTES) as disk:
        rig = Rig(tmp_path, disk.mountpoint / "store")
        _two_versions(rig, rng)
        rig.set_policy(keep_last=1)
        _fill(rig)
        expired = rig.run("expire", rig.location, "--yes")
        assert expired.returncode == 0, expired
        first, _ = sorted(rig.acknowledged)
        del rig.acknowledged[first]
        rig.check()
        os.unlink(rig.store.parent / "filler")
        rig.sync()


def test_half_received_file_does_not_take_the_room_of_the_whole_one(tmp_path):
    with mounted_disk(tmp_path, "ext4", _DISK_BYTES) as disk:
        rig = Rig(tmp_path, disk.mountpoint / "store")
        rig.source.mkdir()
        _init_without_reserve(rig)
        (rig.source / "image").write_bytes(random.Random(4).randbytes(18 << 20))
        # The first such calls are those of the catalog, then a MiB each.
        kill = Kill("receiver", "pwrite", 31)
        assert run_killed(rig, rig.sync_arguments, kill)[1]
        (part,) = (rig.task_path / "staging" / "partials").iterdir()
        assert part.stat().st_size > 12 << 20
        rig.sync()
