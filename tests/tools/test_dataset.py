"""The tree of the benchmark, what is done to it, and how it is seen whether a tool did its work."""

import os
import shutil
import sqlite3
from pathlib import Path

import pytest

from tools.benchmark import dataset, edits, steps
from tools.benchmark.comparison import differences, require_same
from tools.benchmark.ends import BenchmarkError
from tools.benchmark.results import Reading


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = tmp_path_factory.mktemp("built") / "source"
    made = dataset.build(source, 60, 1)
    assert made.small_files == 60
    assert made.entries == dataset.entries(source)
    assert 900_000 < made.big_bytes < 1_200_000
    return source


@pytest.fixture
def source(built: Path, tmp_path: Path) -> Path:
    return shutil.copytree(built, tmp_path / "source", symlinks=True)


def edited(source: Path, target: Path, seed: int) -> Path:
    shutil.copytree(source, target, symlinks=True)
    edits.one_day(target, seed)
    edits.reorganise(target, seed)
    return target


def names(tree: Path) -> set[str]:
    return {str(path.relative_to(tree)) for path in tree.rglob("*")}


def test_edits_of_one_seed_are_the_same(source: Path, tmp_path: Path) -> None:
    one, two = (edited(source, tmp_path / name, 7) for name in ("one", "two"))
    other = edited(source, tmp_path / "other", 8)
    assert names(one) == names(two)
    images = [(edits.find_big(tree) / "image-a").read_bytes() for tree in (one, two, other)]
    assert images[0] == images[1]
    assert images[0] != images[2]


def test_a_day_changes_small_files_images_and_database(source: Path, tmp_path: Path) -> None:
    before = shutil.copytree(source, tmp_path / "before", symlinks=True)
    edits.one_day(source, 1)
    found = list(differences(before, source))
    assert any("is only in" in line and str(before) in line for line in found)
    assert any("new-1-0" in line for line in found)
    for name in ("image-a", "image-b", "notes.sqlite"):
        assert any(name in line for line in found), name
    old, new = ((tree / "big" / "image-b").read_bytes() for tree in (before, source))
    assert new[edits.INSERTED_BYTES :] == old
    with sqlite3.connect(source / "big" / "notes.sqlite") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


def test_reorganisation_moves_without_changing(source: Path) -> None:
    before = {path.stat().st_ino for path in edits.regular_files(source)}
    edits.reorganise(source, 3)
    assert not (source / "big").exists()
    assert (source / "big-3" / "image-a").exists()
    assert {path.stat().st_ino for path in edits.regular_files(source)} == before


def test_damage_shows_in_size_or_time(source: Path, tmp_path: Path) -> None:
    restored = shutil.copytree(source, tmp_path / "restored", symlinks=True)
    edits.damage(restored, 1)
    found = list(differences(source, restored))
    assert len(found) >= 4
    assert all("is only in" in line or "size" in line or "mtime" in line for line in found)
    with pytest.raises(BenchmarkError, match="a tool did not bring back the tree"):
        require_same(source, restored, "a tool")


def test_equal_trees_have_no_differences(source: Path, tmp_path: Path) -> None:
    require_same(source, shutil.copytree(source, tmp_path / "copy", symlinks=True), "cp")


@pytest.mark.parametrize("what", ["content", "mode", "target", "type", "lost"])
def test_any_difference_is_seen(what: str, tmp_path: Path) -> None:
    for name in ("one", "two"):
        tree = tmp_path / name
        tree.mkdir()
        (tree / "file").write_bytes(b"some bytes")
        (tree / "link").symlink_to("file")
        os.utime(tree / "file", (1_000, 1_000))
    two = tmp_path / "two"
    match what:
        case "content":
            (two / "file").write_bytes(b"same bytes")
            os.utime(two / "file", (1_000, 1_000))
        case "mode":
            (two / "file").chmod(0o600)
        case "target":
            (two / "link").unlink()
            (two / "link").symlink_to("other")
        case "type":
            (two / "link").unlink()
            (two / "link").mkdir()
        case "lost":
            (two / "file").unlink()
    assert len(list(differences(tmp_path / "one", two))) == 1


def test_counted_tree_has_as_many_entries_as_asked_for(tmp_path: Path) -> None:
    dataset.build_counted(tmp_path / "tree", 2_345)
    assert dataset.entries(tmp_path / "tree") == 2_345


class LazyTool:
    """Says that it has backed up, and has not."""

    name = "lazy"
    versions = 1
    environment: dict[str, str] = {}  # noqa: RUF012

    def __init__(self, store: Path) -> None:
        self.store = store

    def backup(self, source: Path) -> list[str]:
        return ["true"]

    def entries_of(self, version: int, said: str) -> int:
        return 0


class IdleMeter:
    def run(self, *_: object) -> tuple[Reading, list[str]]:
        return Reading(0.1, 0.0, 0.1, 0.1, 1, 1), [""]


def test_a_tool_that_did_not_do_its_work_gets_no_reading(source: Path, tmp_path: Path) -> None:
    bench = steps.Bench(tmp_path, source, {"lazy": IdleMeter()}, 0, is_quick=True)
    with pytest.raises(BenchmarkError, match="lazy has 0 entries in its version"):
        steps.back_up(bench, LazyTool(tmp_path))


def test_steps_bring_those_that_they_need() -> None:
    assert [each.name for each in steps.needed(["restore-damaged"])] == [
        "initial",
        "restore",
        "restore-damaged",
    ]
    assert [each.name for each in steps.needed(["expire"])] == ["initial", "nothing", "expire"]
