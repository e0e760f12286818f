"""Sources whose inode numbers and times are odd: a real file system that shows them so, through FUSE.

Its inode numbers are shifted between two syncs, as after another mount of a FUSE or NFS file system that makes them up.
"""

import datetime
import os
from pathlib import Path

import pytest

from ssfs.model.entry import Flag
from tests.fakes.clock import FrozenClock
from tests.fakes.sources import serve
from tests.fakes.syncs import Backup, row, stored
from tests.fakes.trees import verify_version

pytestmark = pytest.mark.needs_fuse
FILES = 12
NS = 10**9


@pytest.fixture
def real(tmp_path: Path) -> Path:
    root = tmp_path / "real"
    (root / "d").mkdir(parents=True)
    for number in range(FILES):
        (root / "d" / f"f{number}").write_bytes(os.urandom(5000 + number))
    return root


@pytest.fixture
def backup(tmp_path: Path) -> Backup:
    # Of next year: nothing changes so shortly before it is read that times prove nothing.
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    return Backup(tmp_path / "store", clock=FrozenClock(now + datetime.timedelta(days=365)))


def changes(result) -> tuple[int, ...]:
    counts = result.counts
    return (counts.new, counts.changed, counts.moved, counts.metadata_only, counts.removed)


def test_changing_inode_numbers_are_noticed_and_harmless(tmp_path, real, backup):
    with serve(real, tmp_path / "shown") as faults:
        assert not backup.sync(tmp_path / "shown").notes
        assert not backup.sync(tmp_path / "shown").notes
        faults.set(shift=1_000_000)
        result = backup.sync(tmp_path / "shown")
    assert changes(result) == (0, 0, 0, 0, 0)
    assert result.counts.bytes_read > FILES * 5000
    (note,) = result.notes
    assert "inode numbers have changed (12 files" in note
    assert "--ignore-inode" in note
    assert not result.problems
    verify_version(backup.newest())


def test_ignored_inode_numbers_cost_nothing(tmp_path, real, backup):
    with serve(real, tmp_path / "shown") as faults:
        backup.sync(tmp_path / "shown", ignore_inode=True)
        faults.set(shift=1_000_000)
        result = backup.sync(tmp_path / "shown", ignore_inode=True)
        assert changes(result) == (0, 0, 0, 0, 0)
        assert (result.counts.bytes_read, list(result.notes)) == (0, [])
        # The rest still counts: times that were set back, and a file of the same size and times.
        status = (real / "d" / "f0").stat()
        (real / "d" / "f0").write_bytes(b"x" * status.st_size)
        os.utime(real / "d" / "f0", ns=(status.st_mtime_ns, status.st_mtime_ns))
        (real / "d" / "f1").chmod(0o600)
        faults.set(shift=2_000_000)
        result = backup.sync(tmp_path / "shown", ignore_inode=True)
    assert changes(result) == (0, 1, 0, 1, 0)
    assert stored(backup.newest(), "d/f0").st_size == status.st_size
    assert (Path(os.fsdecode(backup.newest().path)) / "tree/d/f0").read_bytes()[:1] == b"x"
    verify_version(backup.newest())


def test_moves_are_found_by_content_when_numbers_are_ignored(tmp_path, real, backup):
    with serve(real, tmp_path / "shown") as faults:
        backup.sync(tmp_path / "shown", ignore_inode=True)
        (real / "d").rename(real / "z")
        faults.set(shift=1_000_000)
        result = backup.sync(tmp_path / "shown", ignore_inode=True)
    first, second = backup.versions()
    assert (result.counts.new, result.counts.removed) == (FILES + 1, FILES + 1)
    assert (result.counts.linked, result.counts.moved, result.counts.new_bytes) == (FILES, 0, 0)
    assert stored(first, "d/f0").st_ino == stored(second, "z/f0").st_ino
    verify_version(second)


def test_number_of_an_earlier_run_makes_no_hard_link(tmp_path, real, backup):
    (real / "d" / "f0").rename(real / "a")
    os.link(real / "a", real / "b")
    with serve(real, tmp_path / "shown") as faults:
        backup.sync(tmp_path / "shown")
        assert row(backup.newest(), "a").link_group == row(backup.newest(), "b").link_group != 0
        # Two names of another file, which is shown with the number the first file had.
        os.link(real / "d" / "f1", real / "twin")
        shift = (real / "a").stat().st_ino - (real / "twin").stat().st_ino
        faults.set(shift=shift)
        assert (tmp_path / "shown" / "twin").stat().st_ino == (real / "a").stat().st_ino
        result = backup.sync(tmp_path / "shown", ignore_inode=True)
    assert result.counts.linked == 1
    assert row(backup.newest(), "twin").link_group == row(backup.newest(), "d/f1").link_group == 0
    assert stored(backup.newest(), "twin").st_ino == stored(backup.newest(), "d/f1").st_ino
    verify_version(backup.newest())


def test_hard_links_are_known_again_once_numbers_are_not_ignored_any_more(real, backup):
    os.link(real / "d" / "f0", real / "again")
    os.symlink("away", real / "symlink")
    os.link(real / "symlink", real / "symlink again", follow_symlinks=False)
    backup.sync(real, ignore_inode=True)
    assert row(backup.newest(), "again").link_group == 0
    result = backup.sync(real)
    assert (result.counts.bytes_read, result.counts.metadata_only) == (0, 4)
    assert row(backup.newest(), "again").link_group == row(backup.newest(), "d/f0").link_group != 0
    assert row(backup.newest(), "symlink").link_group != 0
    # Ignored again: what is recorded of an unchanged file stays.
    for ignore_inode in (True, False):
        assert changes(backup.sync(real, ignore_inode=ignore_inode)) == (0, 0, 0, 0, 0)
    assert row(backup.newest(), "again").link_group == row(backup.newest(), "d/f0").link_group != 0


def test_changing_ctimes_too_mean_reading_and_nothing_else(tmp_path, real, backup):
    with serve(real, tmp_path / "shown") as faults:
        backup.sync(tmp_path / "shown", ignore_inode=True)
        times = {
            f"d/f{number}": [(real / "d" / f"f{number}").stat().st_mtime_ns, 5 * NS]
            for number in range(FILES)
        }
        faults.set(shift=1_000_000, times=times)
        result = backup.sync(tmp_path / "shown", ignore_inode=True)
        assert changes(result) == (0, 0, 0, 0, 0)
        assert result.counts.bytes_read > FILES * 5000
        assert result.counts.new_bytes == 0
        # A copy of a whole tree to another disk looks alike, and is not spoken of.
        faults.set(shift=2_000_000)
        assert not backup.sync(tmp_path / "shown").notes
    verify_version(backup.newest())


def test_large_inode_numbers_and_far_times_are_kept_and_recognised(tmp_path, real, backup):
    far = {
        "d/f0": [-1, -1],
        "d/f1": [-(10**10) * NS - 7, 5],
        "d/f2": [9_300_000_000 * NS + 999_999_999, 9_300_000_000 * NS],
        "d": [-5 * NS, 12_000_000_000 * NS],
    }
    with serve(real, tmp_path / "shown", shift=1 << 63, times=far) as faults:
        assert (tmp_path / "shown" / "d" / "f0").stat().st_ino >= 1 << 63
        backup.sync(tmp_path / "shown")
        result = backup.sync(tmp_path / "shown")
        assert changes(result) == (0, 0, 0, 0, 0)
        # Dated after it was read, or far too late: such a file is looked at again each time.
        flagged = [name for name in far if row(backup.newest(), name).flags & Flag.RACY]
        assert flagged == ["d/f2"]
        for path, (mtime_ns, _) in far.items():
            entry = row(backup.newest(), path)
            assert entry.mtime_s * NS + entry.mtime_ns == mtime_ns
        (real / "d" / "f3").rename(real / "z")
        faults.set(shift=1 << 63, times=far)
        assert changes(backup.sync(tmp_path / "shown"))[:3] == (0, 0, 1)
    verify_version(backup.newest())
