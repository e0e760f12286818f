"""Large files that changed since the last sync: what is asked for, what travels, and that the result is right."""

import os
from pathlib import Path

import pytest

from ssfs.engine import kept_sums
from ssfs.engine.cache import cache_root
from tests.delta.support import noise
from tests.fakes.syncs import Backup
from tests.fakes.trees import compare_with_version, verify_version

SIZE = 17 << 20
SIGNATURE_BYTES = 80_000
"""Less than that of SIZE bytes takes."""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "source"
    root.mkdir()
    (root / "image").write_bytes(noise(SIZE))
    return root


@pytest.fixture
def backup(tmp_path: Path, source: Path) -> Backup:
    """With a version of the source in it."""
    backup = Backup(tmp_path / "store")
    backup.sync(source)
    return backup


def kept() -> list[Path]:
    return sorted(Path(os.fsdecode(cache_root())).glob("*/*.sums"))


def check(backup: Backup, source: Path) -> None:
    verify_version(backup.newest())
    compare_with_version(source, backup.newest())


def overwrite(source: Path, *places: int) -> None:
    with open(source / "image", "r+b") as image:
        for number, place in enumerate(places):
            image.seek(place)
            image.write(noise(3000, seed=number))


def test_blocks_written_in_place_travel_alone_and_nothing_is_asked_for(source, backup):
    for place in (5 << 20, 9 << 20):
        overwrite(source, 0, place, place + 500_000, SIZE - 3000)
        result = backup.sync(source)
        assert result.counts.changed == 1
        assert result.counts.bytes_received < 1000
        assert result.counts.bytes_sent < 8 * 4096 + 5000
        check(backup, source)
        assert len(kept()) == 1


def test_appended_file_sends_what_was_appended(source, backup):
    with open(source / "image", "ab") as image:
        image.write(noise(1 << 20, seed=7))
    result = backup.sync(source)
    assert result.counts.bytes_received < 1000
    assert result.counts.bytes_sent < (1 << 20) + 10_000
    check(backup, source)


@pytest.mark.parametrize("place", [0, 9 << 20])
def test_inserted_bytes_are_found_by_a_signature(source, backup, place):
    content = (source / "image").read_bytes()
    (source / "image").write_bytes(content[:place] + b"inserted" + content[place:])
    result = backup.sync(source)
    assert result.counts.bytes_received > SIGNATURE_BYTES
    assert result.counts.bytes_sent < 50_000
    check(backup, source)
    overwrite(source, 5 << 20)
    assert backup.sync(source).counts.bytes_received < 1000
    check(backup, source)


def test_lost_or_spoilt_sums_cost_a_signature(source, backup):
    for spoil in (lambda path: path.unlink(), lambda path: path.write_bytes(b"sums")):
        spoil(kept()[0])
        overwrite(source, 5 << 20)
        result = backup.sync(source)
        assert result.counts.bytes_received > SIGNATURE_BYTES
        assert result.counts.bytes_sent < 50_000
        check(backup, source)


def test_wrong_sums_do_not_make_a_wrong_version(source, backup, tmp_path):
    """Those of another file of the same length, of which one part in ten is other content."""
    name = kept()[0]
    lying = bytearray((source / "image").read_bytes())
    lying[: SIZE // 10] = noise(SIZE // 10, seed=3)
    other = tmp_path / "other"
    other.mkdir()
    (other / "image").write_bytes(lying)
    backup.sync(other, task="other")
    (wrong,) = (path for path in kept() if path.parent != name.parent)
    name.write_bytes(wrong.read_bytes())
    (source / "image").write_bytes(lying)
    result = backup.sync(source)
    check(backup, source)
    assert result.counts.bytes_sent > SIZE


def test_sums_go_with_their_content_and_the_oldest_go_when_it_is_too_much(
    source, backup, monkeypatch
):
    # No file is looked at again, and its sums with it, because its times prove nothing yet.
    monkeypatch.setattr("ssfs.engine.plan.RACY_S", -(10**6))
    for number in range(3):
        (source / f"more{number}").write_bytes(noise(SIZE, seed=number + 10))
    backup.sync(source)
    assert len(kept()) == 4
    (source / "more0").unlink()
    backup.sync(source)
    assert len(kept()) == 3
    one = kept()[0].stat().st_size
    monkeypatch.setattr(kept_sums, "MOST_BYTES", 2 * one)
    used = kept()
    os.utime(used[1], (1, 1))
    backup.sync(source)
    assert kept() == [used[0], used[2]]


def test_small_and_sparse_files(source, backup):
    """Of a file below 16 MiB nothing is kept; blocks of a sparse one are blocks of its stream."""
    (source / "small").write_bytes(noise((16 << 20) - 1))
    with open(source / "sparse", "wb") as sparse:
        sparse.truncate(200 << 20)
        sparse.seek(100 << 20)
        sparse.write(noise(SIZE, seed=4))
    backup.sync(source)
    assert len(kept()) == 2
    with open(source / "sparse", "r+b") as sparse:
        sparse.seek((100 << 20) + 40960)
        sparse.write(b"changed")
    result = backup.sync(source)
    assert result.counts.bytes_received < 1000
    assert result.counts.bytes_sent < 3 * 4096 + 5000
    check(backup, source)


def test_full_cache_forgets_the_sums_and_syncs_all_the_same(source, backup, monkeypatch):
    def full(_fd: int, _content: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kept_sums, "write_all", full)
    overwrite(source, 5 << 20)
    backup.sync(source)
    check(backup, source)
    assert not kept()
