"""Differences of two versions, and of a version and a directory."""

import os
import shutil
import sqlite3
from pathlib import Path

import pytest

from ssfs.clock import SystemClock
from ssfs.engine.commands import answer
from ssfs.engine.questions.live import LiveRequest, compare_version_with
from ssfs.errors import ConfigError, CorruptStore, SourceError
from ssfs.model.peer import LOCAL
from ssfs.monitor import NullMonitor
from ssfs.protocol.questions import CompareVersions, DiffReport
from ssfs.source.exclude import ExcludeOptions
from tests.fakes.catalogs import Catalogs, catalog_path
from tests.fakes.histories import make_store, make_task
from tests.fakes.syncs import Backup
from tests.fakes.trees import build_tree, edit_tree, remember

Shown = list[tuple[str, ...]]


@pytest.fixture
def catalogs(tmp_path: Path) -> Catalogs:
    """A task with one version."""
    made = Catalogs(make_task(make_store(tmp_path / "store"), "docs"))
    with made.next_version() as version:
        version.directory("a")
        version.directory("a/deep")
        version.file("a/one", b"1")
        version.file("a/deep/two", b"22")
        version.file("top", b"top")
    return made


def ask(catalogs: Catalogs, old: str = "1", new: str = "latest", **more: object) -> DiffReport:
    request = CompareVersions("main", "docs", old, new, **more)
    return answer(catalogs.task.point.store, LOCAL, request, SystemClock())


def shown(report: DiffReport) -> Shown:
    """Change and path, with what is particular."""
    return [
        (one.change, one.path, *([one.origin] if one.origin is not None else []), *one.fields)
        for one in report.differences
    ]


def diff(catalogs: Catalogs, old: str = "1", new: str = "latest", **more: object) -> Shown:
    report = ask(catalogs, old, new, **more)
    assert not report.truncated
    return shown(report)


# -- two versions ---------------------------------------------------------------------------------


def test_equal_versions_do_not_differ(catalogs: Catalogs):
    with catalogs.next_version() as version:
        # A sync sees these change without anything having changed that a person would see.
        version.set("top", ctime_s=9, ino=77, dev=5, flags=4)
        version.set("a", mtime_s=9, mtime_ns=9)
    assert diff(catalogs) == []
    assert diff(catalogs, "1", "1") == []


def test_each_kind_of_difference_is_told(catalogs: Catalogs):
    with catalogs.next_version() as version:
        version.file("a/new", b"1234")
        version.remove("a/deep/two")
        version.file("a/one", b"changed", mtime_s=5)
        version.set("top", mode=0o600, uid=5)
    report = ask(catalogs)
    assert shown(report) == [
        ("removed", "a/deep/two"),
        ("added", "a/new"),
        ("modified", "a/one", "mtime"),
        ("metadata", "top", "mode", "owner"),
    ]
    sizes = [(one.old_size, one.size, one.old_kind, one.kind) for one in report.differences]
    assert sizes == [
        (2, None, "file", "file"),
        (None, 4, None, "file"),
        (1, 7, "file", "file"),
        (3, 3, "file", "file"),
    ]
    counts = report.counts
    assert (counts.added, counts.removed, counts.modified, counts.metadata) == (1, 1, 1, 1)
    assert (counts.added_bytes, counts.removed_bytes, counts.modified_bytes) == (4, 2, 7)
    assert (report.task, report.old_version[:6], report.new_version[:6]) == (
        "main/docs",
        "000001",
        "000002",
    )


def test_differences_the_other_way_round(catalogs: Catalogs):
    with catalogs.next_version() as version:
        version.file("a/new", b"1234")
        version.move("top", "a/top")
    assert diff(catalogs, "latest", "1") == [("removed", "a/new"), ("moved", "top", "a/top")]


def test_moved_directory_is_one_line_whatever_is_in_it(catalogs: Catalogs):
    with catalogs.next_version() as version:
        version.move("a", "b")
    assert diff(catalogs) == [("moved", "b", "a")]
    with catalogs.next_version() as version:
        version.file("b/one", b"other")
        version.move("b/deep/two", "b/two")
    assert diff(catalogs) == [
        ("moved", "b", "a"),
        ("modified", "b/one"),
        ("moved", "b/two", "a/deep/two"),
    ]


def test_hard_links_differ_when_the_names_do_and_not_with_their_number(catalogs: Catalogs):
    with catalogs.next_version() as version:
        version.file("x", b"same")
        version.file("y", b"same")
    with catalogs.next_version() as version:
        version.set("x", link_group=4)
        version.set("y", link_group=4)
    assert diff(catalogs, "2") == [
        ("metadata", "x", "hard links"),
        ("metadata", "y", "hard links"),
    ]
    # The same names of a file with another inode number, as after a restore.
    with catalogs.next_version() as version:
        version.set("x", link_group=5)
        version.set("y", link_group=5)
    assert diff(catalogs, "3", "4") == []
    # A name outside the source makes a group of one.
    with catalogs.next_version() as version:
        version.set("a/deep/two", link_group=6)
    assert diff(catalogs, "4", "5") == []


@pytest.mark.parametrize(
    ("columns", "field"),
    [
        ({"mode": 0o4755}, "mode"),
        ({"uid": 1}, "owner"),
        ({"gid": 1}, "group"),
        ({"mtime_ns": 6}, "mtime"),
        ({"mtime_s": -1}, "mtime"),
        ({"rdev": 3}, "device"),
        ({"xattrs": b"x" * 32}, "xattrs"),
        ({"holes": b"\x00\x01"}, "holes"),
    ],
)
def test_metadata_is_named(catalogs: Catalogs, columns: dict[str, object], field: str):
    with catalogs.next_version() as version:
        pass
    # Not by a writer, which would want the attributes and a file with such holes.
    ((column, value),) = columns.items()
    with sqlite3.connect(catalog_path(version.version)) as database:
        database.execute(f"UPDATE entry SET {column} = ? WHERE name = x'746f70'", (value,))
    database.close()
    assert diff(catalogs) == [("metadata", "top", field)]


def test_another_kind_at_a_path_is_one_line(catalogs: Catalogs):
    with catalogs.next_version() as version:
        version.remove("top")
        version.directory("top")
        version.file("top/below", b"x")
        version.remove("a/deep")
        version.file("a/deep", b"file now")
    assert diff(catalogs) == [
        ("type", "a/deep"),
        ("removed", "a/deep/two"),
        ("type", "top"),
        ("added", "top/below"),
    ]


def test_what_was_deleted_and_made_anew_is_compared_by_path(catalogs: Catalogs):
    with catalogs.next_version() as version:
        version.remove("a")
        version.remove("top")
    with catalogs.next_version() as version:
        version.file("top", b"top")
        version.directory("a")
        version.directory("a/deep")
        version.file("a/deep/two", b"2!")
        version.file("a/deep/three", b"3")
    assert diff(catalogs) == [
        ("added", "a/deep/three"),
        ("modified", "a/deep/two"),
        ("removed", "a/one"),
    ]


def test_made_anew_in_a_directory_that_has_moved(catalogs: Catalogs):
    with catalogs.next_version() as version:
        version.move("a", "b")
        version.remove("b/one")
    with catalogs.next_version() as version:
        version.file("b/one", b"1")
    assert diff(catalogs) == [("moved", "b", "a")]


def test_file_moved_onto_another(catalogs: Catalogs):
    with catalogs.next_version() as version:
        version.remove("top")
        version.move("a/one", "top")
    assert diff(catalogs) == [("moved", "top", "a/one"), ("removed", "top")]


def test_path_limits_what_is_shown(catalogs: Catalogs):
    with catalogs.next_version() as version:
        version.file("top", b"other")
        version.file("ab", b"")
        version.file("a/one", b"other")
        version.move("a/deep/two", "two")
    assert diff(catalogs, path=b"a") == [("modified", "a/one"), ("moved", "two", "a/deep/two")]
    assert diff(catalogs, path=b"./top/") == [("modified", "top")]
    with pytest.raises(ConfigError, match="Neither version has it"):
        diff(catalogs, path=b"absent")


def test_all_are_counted_beyond_the_limit(catalogs: Catalogs):
    with catalogs.next_version() as version:
        for number in range(30):
            version.file(f"file-{number:02}", b"12")
    report = ask(catalogs, limit=10)
    assert (len(report.differences), report.truncated) == (10, True)
    assert (report.counts.added, report.counts.added_bytes) == (30, 60)
    assert not ask(catalogs, limit=30).truncated


def test_damaged_catalog_is_said(catalogs: Catalogs):
    with catalogs.next_version() as version:
        version.remove("top")
    path = catalog_path(catalogs.task.versions()[0])
    path.write_bytes(path.read_bytes()[:5000])
    for old, new in (("1", "2"), ("2", "1")):
        with pytest.raises(CorruptStore):
            ask(catalogs, old, new)


# -- against plain trees --------------------------------------------------------------------------


def changed_paths(before: dict, after: dict) -> set[str]:
    """The paths at which two images of a tree differ, directories' times aside."""

    def known(image: dict, path: bytes):
        seen = image.get(path)
        return seen._replace(mtime_ns=0) if seen is not None and seen.kind == 2 else seen

    differ = {path for path in before | after if known(before, path) != known(after, path)}
    return {path.replace(b"\\", b"\\\\").decode(errors="backslashreplace") for path in differ}


def told_paths(report: DiffReport, before: dict, after: dict) -> set[str]:
    """The paths that a report means: a moved directory stands for all that is in it."""
    told = {one.path for one in report.differences}
    moved = [(one.origin, one.path) for one in report.differences if one.origin is not None]
    for image, which in ((before, 0), (after, 1)):
        for path in image:
            text = path.replace(b"\\", b"\\\\").decode(errors="backslashreplace")
            if any(text == pair[which] or text.startswith(f"{pair[which]}/") for pair in moved):
                told.add(text)
    return told


@pytest.mark.parametrize("seed", range(6))
def test_differences_are_those_of_the_trees(tmp_path: Path, seed: int):
    backup = Backup(tmp_path / "store")
    source = build_tree(tmp_path / "source", seed, files=25, large_bytes=200_000)
    images = [remember(source)]
    backup.sync(source)
    for step in range(3):
        edit_tree(source, seed * 10 + step, large_bytes=200_000)
        images.append(remember(source))
        backup.sync(source)
    for old, new in ((1, 2), (1, 4), (4, 2)):
        request = CompareVersions("main", "", str(old), str(new))
        report = answer(backup.store, LOCAL, request, SystemClock())
        before, after = images[old - 1], images[new - 1]
        missing = changed_paths(before, after) - told_paths(report, before, after)
        assert not missing
        unmoved = {one.path for one in report.differences if one.change != "moved"}
        origins = [one.origin for one in report.differences if one.origin]
        strange = {
            path
            for path in unmoved - changed_paths(before, after)
            if not any(path == origin or path.startswith(f"{origin}/") for origin in origins)
        }
        assert not strange


# -- a version and a directory --------------------------------------------------------------------


@pytest.fixture
def backup(tmp_path: Path) -> Backup:
    """A store with a version of tmp_path/source."""
    source = tmp_path / "source"
    (source / "docs" / "old").mkdir(parents=True)
    (source / "docs" / "letter.txt").write_text("Dear reader\n")
    (source / "docs" / "old" / "note").write_text("note\n")
    (source / "big").write_bytes(bytes(range(256)) * 1000)
    (source / "link").symlink_to("big")
    made = Backup(tmp_path / "store")
    made.sync(source)
    return made


def live(backup: Backup, directory: Path, path: bytes = b"", **more: object) -> DiffReport:
    request = LiveRequest(os.fsencode(directory), path, ExcludeOptions(**more), frozenset(), 1000)
    version = backup.newest()
    return compare_version_with(version, "main/task", request, NullMonitor(), SystemClock())


def test_untouched_source_does_not_differ(backup: Backup, tmp_path: Path):
    report = live(backup, tmp_path / "source")
    assert (shown(report), report.new_version, report.problems) == ([], "", ())


def test_copy_with_other_inodes_does_not_differ(backup: Backup, tmp_path: Path):
    copy = shutil.copytree(tmp_path / "source", tmp_path / "copy", symlinks=True)
    shutil.copystat(tmp_path / "source" / "link", copy / "link", follow_symlinks=False)
    assert shown(live(backup, copy)) == []


def test_what_was_done_to_a_directory_is_told(backup: Backup, tmp_path: Path):
    source = tmp_path / "source"
    (source / "docs" / "old").rename(source / "older")
    (source / "docs" / "letter.txt").write_text("Dear writer\n")
    (source / "big").write_bytes(b"small now")
    (source / "huge").write_bytes(bytes(300_000))
    (source / "link").unlink()
    (source / "link").mkdir()
    report = live(backup, source)
    assert shown(report) == [
        ("modified", "big", "mtime"),
        ("modified", "docs/letter.txt", "mtime"),
        ("added", "huge"),
        ("type", "link"),
        ("moved", "older", "docs/old"),
    ]
    assert report.counts.added_bytes == 300_000


def test_content_that_changed_under_the_same_size_and_time_is_told(backup: Backup, tmp_path: Path):
    path = tmp_path / "source" / "big"
    before = path.stat()
    with path.open("r+b") as file:
        file.write(b"x")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert shown(live(backup, tmp_path / "source")) == [("modified", "big")]


def test_only_a_path_of_a_directory(backup: Backup, tmp_path: Path):
    source = tmp_path / "source"
    (source / "big").write_bytes(b"")
    (source / "docs" / "letter.txt").write_text("")
    (source / "docs" / "new").write_text("")
    assert shown(live(backup, source, b"docs")) == [
        ("modified", "docs/letter.txt", "mtime"),
        ("added", "docs/new"),
    ]
    assert shown(live(backup, source, b"docs/letter.txt/")) == [
        ("modified", "docs/letter.txt", "mtime")
    ]
    assert shown(live(backup, source, b"docs/old")) == []
    (source / "docs" / "letter.txt").unlink()
    assert shown(live(backup, source, b"docs/letter.txt")) == [("removed", "docs/letter.txt")]
    with pytest.raises(ConfigError, match="Not in the version"):
        live(backup, source, b"docs/new")
    shutil.rmtree(source / "docs")
    with pytest.raises(SourceError):
        live(backup, source, b"docs")


def test_file_of_odd_name_alone(backup: Backup, tmp_path: Path):
    source = tmp_path / "source"
    for name in (b"*", b"!x ", b"#\xff", b"a[b]\\"):
        (source / os.fsdecode(name)).write_text("1")
    backup.sync(source)
    for name in (b"*", b"!x ", b"#\xff", b"a[b]\\"):
        (source / os.fsdecode(name)).write_text("22")
        (told,) = live(backup, source, name).differences
        assert told.change == "modified"


def test_left_out_of_a_directory(backup: Backup, tmp_path: Path):
    (tmp_path / "source" / "a.tmp").write_text("")
    assert shown(live(backup, tmp_path / "source", patterns=("*.tmp",))) == []


def test_directory_stays_as_it_is(backup: Backup, tmp_path: Path):
    source = tmp_path / "source"
    (source / "docs" / "letter.txt").write_text("")
    before = remember(source)
    live(backup, source)
    assert remember(source) == before
    assert not list(tmp_path.glob("ssfs-diff-*"))
