"""What a sync makes of each kind of change: ids, inodes, counts, and what crosses the stream."""

import os
import random
from pathlib import Path

import pytest

from ssfs.engine import cache as cache_module
from ssfs.engine.comparison import Comparison
from ssfs.errors import ConfigError, SourceError, StoreLocked
from ssfs.model.entry import Flag
from tests.fakes.syncs import Backup, row, stored
from tests.fakes.trees import compare_with_version, verify_version


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "source"
    root.mkdir()
    return root


@pytest.fixture
def backup(tmp_path: Path) -> Backup:
    return Backup(tmp_path / "store")


def settle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trust times at once, as if every change were more than two seconds old."""
    monkeypatch.setattr("ssfs.engine.plan.RACY_S", -(10**6))


def check(backup: Backup, source: Path) -> None:
    verify_version(backup.newest())
    compare_with_version(source, backup.newest())


def test_second_sync_of_an_unchanged_tree_reads_and_sends_nothing(source, backup, monkeypatch):
    settle(monkeypatch)
    for number in range(300):
        (source / f"f{number}").write_bytes(os.urandom(number))
    backup.sync(source)
    second = backup.sync(source)
    counts = second.counts
    assert (counts.bytes_read, counts.new, counts.changed, counts.linked) == (0, 0, 0, 0)
    assert counts.bytes_sent < 1000
    assert counts.new_bytes == 0
    first, newest = backup.versions()
    assert all(stored(first, f"f{n}").st_ino == stored(newest, f"f{n}").st_ino for n in range(300))
    check(backup, source)


def test_fresh_file_is_read_again_because_its_times_prove_nothing(source, backup):
    file = source / "file"
    file.write_bytes(b"one")
    backup.sync(source)
    assert row(backup.newest(), "file").flags == Flag.RACY
    status = file.stat()
    file.write_bytes(b"two")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    second = backup.sync(source)
    assert second.counts.changed == 1
    check(backup, source)


def test_renamed_directory_is_one_row_and_nothing_read(source, backup, monkeypatch):
    settle(monkeypatch)
    (source / "old").mkdir()
    for number in range(1000):
        (source / "old" / f"{number}").write_bytes(b"%d" % number)
    backup.sync(source)
    before = backup.newest()
    (source / "new").mkdir()
    (source / "old").rename(source / "new" / "deep")
    result = backup.sync(source)
    assert result.counts.bytes_read == 0
    assert result.counts.moved == 1
    assert result.counts.removed == 0
    assert result.counts.bytes_sent < 2000
    after = backup.newest()
    assert row(after, "new/deep").id == row(before, "old").id
    assert row(after, "new/deep/7").id == row(before, "old/7").id
    assert stored(after, "new/deep/7").st_ino == stored(before, "old/7").st_ino
    check(backup, source)


def test_moved_file_keeps_its_id_and_inode(source, backup):
    content = os.urandom(200_000)
    (source / "a").write_bytes(content)
    (source / "d").mkdir()
    backup.sync(source)
    (source / "a").rename(source / "d" / "b")
    result = backup.sync(source)
    assert (result.counts.moved, result.counts.new, result.counts.removed) == (1, 0, 0)
    assert result.counts.bytes_sent < 2000
    first, second = backup.versions()
    assert row(first, "a").id == row(second, "d/b").id
    assert stored(first, "a").st_ino == stored(second, "d/b").st_ino
    check(backup, source)


def test_rotated_logs_are_linked_not_sent(source, backup):
    for name in ("log", "log.1", "log.2"):
        (source / name).write_bytes(os.urandom(300_000))
    backup.sync(source)
    (source / "log.2").unlink()
    (source / "log.1").rename(source / "log.2")
    (source / "log").rename(source / "log.1")
    (source / "log").write_bytes(b"new\n")
    result = backup.sync(source)
    assert result.counts.bytes_sent < 3000
    assert result.counts.new_bytes == 4
    first, second = backup.versions()
    assert stored(second, "log.1").st_ino == stored(first, "log").st_ino
    assert stored(second, "log.2").st_ino == stored(first, "log.1").st_ino
    # The path is what a user follows: it keeps its id.
    assert row(second, "log").id == row(first, "log").id
    check(backup, source)


def test_swapped_files_and_directories_change_places(source, backup):
    for name in ("a", "b"):
        (source / name).write_bytes(os.urandom(150_000))
        (source / f"dir-{name}").mkdir()
        (source / f"dir-{name}" / "same-name").write_bytes(name.encode() * 9000)
    backup.sync(source)
    for one, other in (("a", "b"), ("dir-a", "dir-b")):
        (source / one).rename(source / "aside")
        (source / other).rename(source / one)
        (source / "aside").rename(source / other)
    result = backup.sync(source)
    assert result.counts.new_bytes == 0
    check(backup, source)


def test_file_becomes_directory_and_back(source, backup):
    (source / "x").write_bytes(b"file")
    backup.sync(source)
    (source / "x").unlink()
    (source / "x").mkdir()
    (source / "x" / "inside").write_bytes(b"file")
    backup.sync(source)
    check(backup, source)
    second = backup.newest()
    (source / "x" / "inside").unlink()
    (source / "x").rmdir()
    (source / "x").symlink_to("nowhere")
    backup.sync(source)
    check(backup, source)
    assert row(second, "x").id != row(backup.newest(), "x").id
    for version in backup.versions():
        verify_version(version)


def test_metadata_change_stores_no_content_and_leaves_old_versions_alone(source, backup):
    file = source / "file"
    file.write_bytes(os.urandom(300_000))
    file.chmod(0o644)
    backup.sync(source)
    file.chmod(0o600)
    os.chown(file, 12345, 54321)
    os.utime(file, ns=(5, 1_234_567_891_234_567_891))
    result = backup.sync(source)
    assert (result.counts.metadata_only, result.counts.new_bytes) == (1, 0)
    first, second = backup.versions()
    assert (row(first, "file").mode, row(second, "file").mode) == (0o644, 0o600)
    assert (row(second, "file").uid, row(second, "file").gid) == (12345, 54321)
    assert stored(first, "file").st_ino == stored(second, "file").st_ino
    check(backup, source)


def test_copied_file_is_linked_by_digest(source, backup):
    (source / "a").write_bytes(os.urandom(5000))
    (source / "small").write_bytes(b"tiny")
    backup.sync(source)
    (source / "b").write_bytes((source / "a").read_bytes())
    (source / "small2").write_bytes(b"tiny")
    result = backup.sync(source)
    assert result.counts.linked == 1
    assert stored(backup.newest(), "b").st_ino == stored(backup.newest(), "a").st_ino
    # Below 4 KiB nothing is shared by digest: empty files would use up an inode's links.
    assert stored(backup.newest(), "small").st_ino != stored(backup.newest(), "small2").st_ino
    check(backup, source)


def test_changed_blocks_travel_as_a_delta(source, backup):
    content = bytearray(random.Random(1).randbytes(20_000_000))
    file = source / "image"
    file.write_bytes(content)
    backup.sync(source)
    for at in range(0, len(content), 4_000_000):
        content[at : at + 4096] = os.urandom(4096)
    file.write_bytes(content)
    overwritten = backup.sync(source)
    assert overwritten.counts.bytes_sent < len(content) // 100
    file.write_bytes(b"x" * 100 + content)
    inserted = backup.sync(source)
    assert inserted.counts.bytes_sent < len(content) // 100
    file.write_bytes(content[: len(content) // 2])
    assert backup.sync(source).counts.bytes_sent < len(content) // 100
    check(backup, source)


def test_many_deltas_wait_for_their_signatures_together(source, backup):
    for number in range(150):
        (source / f"f{number}").write_bytes(random.Random(number).randbytes(200_000))
    backup.sync(source)
    for number in range(150):
        with (source / f"f{number}").open("r+b") as file:
            file.seek(1000 * number)
            file.write(b"changed")
    result = backup.sync(source)
    assert result.counts.changed == 150
    assert result.counts.bytes_sent < 150 * 20_000
    check(backup, source)


def test_lost_cache_costs_one_catalog_and_nothing_else(source, backup, monkeypatch, tmp_path):
    settle(monkeypatch)
    for number in range(2500):
        (source / f"{number}").write_bytes(b"%d" % number)
    backup.sync(source)
    monkeypatch.setenv("SSFS_CACHE_DIR", str(tmp_path / "elsewhere"))
    result = backup.sync(source)
    assert (result.counts.bytes_read, result.counts.new, result.counts.changed) == (0, 0, 0)
    assert result.counts.bytes_received > 50_000
    assert backup.sync(source).counts.bytes_received < 1000
    check(backup, source)


def test_lost_cache_costs_a_dry_run_one_catalog(source, backup, monkeypatch, tmp_path):
    settle(monkeypatch)
    (source / "file").write_bytes(b"one")
    backup.sync(source)
    (source / "file").write_bytes(b"another")
    monkeypatch.setenv("SSFS_CACHE_DIR", str(tmp_path / "elsewhere"))
    counts = backup.sync(source, dry_run=True).counts
    assert (counts.entries, counts.changed, counts.new) == (2, 1, 0)


def test_catalog_of_long_links_travels_in_frames_that_are_not_too_long(
    source, backup, monkeypatch, tmp_path
):
    rng = random.Random(3)
    for number in range(2500):
        (source / f"{number}").symlink_to(rng.randbytes(2000).hex())
    backup.sync(source)
    monkeypatch.setenv("SSFS_CACHE_DIR", str(tmp_path / "elsewhere"))
    result = backup.sync(source)
    assert (result.counts.new, result.counts.changed) == (0, 0)
    assert result.counts.bytes_received > 5_000_000, "most of what is random"
    check(backup, source)


def test_cache_of_another_boot_is_not_trusted(source, backup, monkeypatch, tmp_path):
    (source / "a").write_bytes(b"a")
    backup.sync(source)
    boot = tmp_path / "boot_id"
    boot.write_text("another-boot\n")
    monkeypatch.setattr(cache_module, "_BOOT_ID", str(boot))
    (source / "b").write_bytes(b"b")
    backup.sync(source)
    check(backup, source)


def test_damaged_link_source_is_asked_for_again(source, backup):
    """NEED: the base lost a file that the client believes is there."""
    (source / "keep").write_bytes(os.urandom(300_000))
    (source / "other").write_bytes(b"other")
    backup.sync(source)
    os.unlink(os.path.join(backup.newest().path, b"tree/keep"))
    (source / "copy").write_bytes((source / "keep").read_bytes())
    result = backup.sync(source)
    assert result.counts.bytes_sent > 300_000
    assert not result.problems
    check(backup, source)


def test_content_needed_but_gone_is_a_problem_and_not_in_the_version(source, backup):
    (source / "keep").write_bytes(os.urandom(9000))
    (source / "dir").mkdir()
    backup.sync(source)
    os.unlink(os.path.join(backup.newest().path, b"tree/keep"))
    os.chmod(source / "keep", 0o600)
    original = Comparison.resend

    def resend(self, entry_id):
        (source / "keep").unlink(missing_ok=True)
        original(self, entry_id)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Comparison, "resend", resend)
        result = backup.sync(source)
    assert [problem.path for problem in result.problems] == [b"keep"]
    verify_version(backup.newest())


def test_excluded_paths_are_not_in_the_version(source, backup):
    for path in ("a.log", "b.txt", "cache/x", "sub/c.log", "sub/keep.log"):
        (source / path).parent.mkdir(exist_ok=True)
        (source / path).write_bytes(b"x")
    backup.sync(source)
    backup.sync(source, patterns=("*.log", "!keep.log", "cache/"))
    with backup.newest().catalog() as catalog:
        names = {b"/".join(catalog.path_names(entry.id) or []) for entry in catalog.entries()}
    assert names == {b"", b"b.txt", b"sub", b"sub/keep.log"}
    verify_version(backup.newest())


def test_cache_directories_keep_only_their_mark(source, backup):
    (source / "c").mkdir()
    (source / "c" / "CACHEDIR.TAG").write_bytes(b"Signature: 8a477f597d28d172789f06886806bc55\n")
    (source / "c" / "junk").write_bytes(b"x")
    backup.sync(source, caches=True)
    with backup.newest().catalog() as catalog:
        assert catalog.resolve(b"c/CACHEDIR.TAG") is not None
        assert catalog.resolve(b"c/junk") is None


def test_dry_run_writes_nothing(source, backup):
    (source / "a").write_bytes(b"a")
    result = backup.sync(source, dry_run=True)
    assert result.version == ""
    assert result.counts.new == 2
    assert os.listdir(backup.path / "points") == []
    backup.sync(source)
    (source / "a").write_bytes(b"changed")
    (source / "b").write_bytes(b"b")
    result = backup.sync(source, dry_run=True)
    assert (result.counts.new, result.counts.changed) == (1, 1)
    assert len(backup.versions()) == 1


def test_another_source_is_refused(source, backup, tmp_path):
    backup.sync(source)
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(ConfigError, match="backs up"):
        backup.sync(other)
    assert len(backup.versions()) == 1


def test_second_sync_of_a_task_says_who_is_at_it(source, backup):
    backup.sync(source)
    with backup.task().lock_for_writing("process 42 for nas1"):
        with pytest.raises(StoreLocked, match="process 42 for nas1"):
            backup.sync(source)
    backup.sync(source)


def test_missing_source_is_said_before_anything_happens(backup, tmp_path):
    with pytest.raises(SourceError, match="cannot be read"):
        backup.sync(tmp_path / "nothing")
    assert os.listdir(backup.path / "points") == []


def test_deep_and_odd_names(source, backup):
    deep = os.fsencode(source)
    fd = os.open(deep, os.O_RDONLY)
    for _ in range(60):
        name = b"d" * 200
        os.mkdir(name, dir_fd=fd)
        below = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    file = os.open(b"\xff" * 255, os.O_CREAT | os.O_WRONLY, dir_fd=fd)
    os.write(file, b"deep")
    os.close(file)
    os.close(fd)
    backup.sync(source)
    result = backup.sync(source)
    assert result.counts.entries == 62
    assert not result.problems
    with backup.newest().catalog() as catalog:
        assert catalog.number("bytes") == 4
