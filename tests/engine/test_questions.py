"""Questions about versions: find, history and du; who may ask is tests/engine/test_commands.py's."""

import random
import sqlite3
from pathlib import Path

import pytest

from ssfs.engine.commands import answer
from ssfs.engine.questions import find as find_module
from ssfs.engine.questions import tally
from ssfs.errors import ConfigError
from ssfs.model.entry import Kind
from ssfs.model.peer import LOCAL, Peer, Role
from ssfs.protocol.questions import Finding, FindPaths, ShowHistory, ShowUsage
from ssfs.store.store import Store
from ssfs.store.usage import task_usage_bytes
from tests.fakes.catalogs import Catalogs, catalog_path
from tests.fakes.clock import FrozenClock
from tests.fakes.histories import make_store, make_task
from tests.fakes.syncs import Backup
from tests.fakes.trees import build_tree, edit_tree

CLOCK = FrozenClock()


@pytest.fixture
def catalogs(tmp_path: Path) -> Catalogs:
    """A task without versions."""
    return Catalogs(make_task(make_store(tmp_path / "store"), "docs"))


@pytest.fixture
def made(catalogs: Catalogs) -> Catalogs:
    """Four versions: 1 as made, 2 modified, 3 a directory renamed, 4 a file deleted."""
    with catalogs.next_version() as version:
        version.directory("ann")
        version.directory("ann/old")
        version.file("ann/old/report.odt", b"one", mtime_s=1000)
        version.file("ann/Report.txt", b"text")
        version.file("top.odt", b"top")
    with catalogs.next_version() as version:
        version.file("ann/old/report.odt", b"second", mtime_s=2000)
    with catalogs.next_version() as version:
        version.move("ann/old", "ann/new")
    with catalogs.next_version() as version:
        version.remove("top.odt")
    return catalogs


def tell(catalogs: Catalogs, request, peer: Peer = LOCAL):
    return answer(Store.open(catalogs.task.point.store.path), peer, request, CLOCK)


def find(catalogs: Catalogs, pattern: str, **options: object) -> list[Finding]:
    report = tell(catalogs, FindPaths("main", "docs", pattern.encode(), **options))
    assert not report.truncated
    assert not report.problems
    return list(report.found)


def spans(found: list[Finding]) -> dict[str, tuple[int, str, str]]:
    """By path: number of versions, and the sequence numbers of first and last."""
    return {
        one.path: (one.versions, one.first_version[5:6], one.last_version[5:6]) for one in found
    }


# -- find -----------------------------------------------------------------------------------------


def test_find_says_which_versions_have_a_path(made: Catalogs):
    assert spans(find(made, "*.odt")) == {
        "ann/new/report.odt": (2, "3", "4"),
        "ann/old/report.odt": (2, "1", "2"),
        "top.odt": (3, "1", "3"),
    }
    assert [one.deleted for one in find(made, "*.odt")] == [False, False, True]
    moved = [one.moved_to for one in find(made, "*.odt")]
    assert moved == [None, "ann/new/report.odt", None]


def test_find_shows_the_newest_state_of_a_path(made: Catalogs):
    (found,) = find(made, "ann/old/report.odt")
    assert found == Finding(
        task="docs",
        path="ann/old/report.odt",
        kind="file",
        size=6,
        mtime="1970-01-01T00:33:20.000000005Z",
        versions=2,
        first_version="000001-2024-01-01T020000Z",
        first_name="2024-01-01",
        last_version="000002-2024-01-02T020000Z",
        last_name="2024-01-02",
        deleted=False,
        moved_to="ann/new/report.odt",
    )


def test_pattern_is_of_the_name_or_of_the_whole_path(made: Catalogs):
    assert spans(find(made, "ann/*")).keys() == {"ann/Report.txt", "ann/new", "ann/old"}
    assert spans(find(made, "/*.odt")).keys() == {"top.odt"}
    assert spans(find(made, "n*/")).keys() == {"ann/new"}
    assert find(made, "report.txt") == []
    assert spans(find(made, "report.*", ignore_case=True)).keys() == {
        "ann/Report.txt",
        "ann/new/report.odt",
        "ann/old/report.odt",
    }


def test_find_from_a_date_asks_no_older_version(made: Catalogs):
    assert spans(find(made, "*.odt", since="2024-01-03")) == {
        "ann/new/report.odt": (2, "3", "4"),
        "top.odt": (1, "3", "3"),
    }
    assert spans(find(made, "*.odt", since="2024-01-03", deleted=True)) == {
        "top.odt": (1, "3", "3")
    }
    assert find(made, "*.odt", since="2030-01-01") == []
    with pytest.raises(ConfigError, match="no date"):
        find(made, "*.odt", since="2024-13-99")
    with pytest.raises(ConfigError, match="no date"):
        find(made, "*.odt", since="yesterday")


def test_what_has_only_moved_is_not_deleted(made: Catalogs):
    assert spans(find(made, "*", deleted=True)) == {"top.odt": (3, "1", "3")}


def test_what_was_made_anew_is_not_deleted(catalogs: Catalogs):
    with catalogs.next_version() as version:
        version.file("a", b"1")
    with catalogs.next_version() as version:
        version.remove("a")
    with catalogs.next_version() as version:
        version.file("a", b"2")
    assert find(catalogs, "a", deleted=True) == []
    assert [one.moved_to for one in find(catalogs, "a")] == [None]
    assert spans(find(catalogs, "a")) == {"a": (2, "1", "3")}


def test_deleted_path_counts_its_versions_under_any_id(catalogs: Catalogs):
    """The first file of that name lives on elsewhere, the second one is deleted."""
    with catalogs.next_version() as version:
        version.file("log", b"1")
    with catalogs.next_version() as version:
        version.move("log", "log.1")
        version.file("log", b"2")
    with catalogs.next_version() as version:
        version.remove("log")
    assert spans(find(catalogs, "*", deleted=True)) == {"log": (2, "1", "2")}


@pytest.mark.parametrize("deleted", [False, True])
def test_more_than_the_limit_is_said(made: Catalogs, deleted: bool):
    with made.next_version() as version:
        version.remove("ann")
    for limit in (1, 2, 3):
        request = FindPaths("main", "docs", b"*.odt", deleted=deleted, limit=limit)
        report = tell(made, request)
        assert len(report.found) == limit
        assert report.truncated == (limit < 3)
        whole = tell(made, FindPaths("main", "docs", b"*.odt", deleted=deleted))
        assert set(report.found) <= set(whole.found)


def test_all_tasks_that_may_be_read_are_searched(made: Catalogs):
    store = Store.open(made.task.point.store.path)
    for name, owner in (("photos", "nas2"), ("mine", "nas1")):
        with Catalogs(make_task(store, name, owner=owner)).next_version() as version:
            version.file("top.odt", b"other")
    request = FindPaths("main", "", b"top.odt")
    assert [one.task for one in tell(made, request).found] == ["docs", "mine", "photos"]
    nas1 = Peer("nas1", frozenset({Role.BACKUP}), frozenset({"main"}))
    assert [one.task for one in tell(made, request, nas1).found] == ["docs", "mine"]
    assert [task.task for task in tell(made, ShowUsage("main", ""), nas1).tasks] == ["docs", "mine"]


def test_names_of_any_bytes_are_found(catalogs: Catalogs):
    with catalogs.next_version() as version:
        version.file("caf\udce9 \\ \n%_.odt", b"x")
    for pattern in ("caf*", "*_.odt", "*\\\\*", "caf? *"):
        assert [one.path for one in find(catalogs, pattern)] == ["caf\\xe9 \\\\ \n%_.odt"]
    assert len(find(catalogs, "CAF*%_.ODT", ignore_case=True)) == 1


# -- history --------------------------------------------------------------------------------------


def history(catalogs: Catalogs, path: str) -> list[tuple[str, int, str, str]]:
    report = tell(catalogs, ShowHistory("main", "docs", path.encode()))
    assert not report.problems
    return [
        (one.path, one.size, one.first_version[5:6], one.last_version[5:6]) for one in report.states
    ]


def test_history_follows_a_file_from_any_of_its_paths(made: Catalogs):
    expected = [
        ("ann/old/report.odt", 3, "1", "1"),
        ("ann/old/report.odt", 6, "2", "2"),
        ("ann/new/report.odt", 6, "3", "4"),
    ]
    assert history(made, "ann/new/report.odt") == expected
    assert history(made, "/ann//old/./report.odt") == expected


def test_history_has_all_of_a_state(made: Catalogs):
    report = tell(made, ShowHistory("main", "", b"top.odt"))
    (state,) = report.states
    assert (report.task, report.deleted) == ("main/docs", True)
    assert (state.kind, state.versions, state.target) == ("file", 3, None)
    assert (state.first_name, state.last_name) == ("2024-01-01", "2024-01-03")
    assert len(bytes.fromhex(state.digest)) == 32


def test_history_goes_on_where_a_file_was_made_anew(catalogs: Catalogs):
    with catalogs.next_version() as version:
        version.file("a", b"1")
    with catalogs.next_version() as version:
        version.remove("a")
    with catalogs.next_version() as version:
        version.directory("a")
    with catalogs.next_version() as version:
        version.remove("a")
        version.file("a", b"four")
    assert history(catalogs, "a") == [("a", 1, "1", "1"), ("a", 0, "3", "3"), ("a", 4, "4", "4")]


def test_history_follows_the_file_and_not_the_path(catalogs: Catalogs):
    """A rotated log: what is under a name now was under another one before."""
    with catalogs.next_version() as version:
        version.file("log", b"1")
    for _ in range(2):
        with catalogs.next_version() as version:
            if version.catalog.resolve(b"log.1"):
                version.move("log.1", "log.2")
            version.move("log", "log.1")
            version.file("log", b"more")
    assert history(catalogs, "log.2") == [
        ("log", 1, "1", "1"),
        ("log.1", 1, "2", "2"),
        ("log.2", 1, "3", "3"),
    ]


def test_versions_between_two_files_of_a_path_show_where_the_first_went(catalogs: Catalogs):
    with catalogs.next_version() as version:
        version.file("a", b"1")
    with catalogs.next_version() as version:
        version.move("a", "b")
    with catalogs.next_version() as version:
        version.remove("b")
        version.file("a", b"new")
    assert history(catalogs, "a") == [("a", 1, "1", "1"), ("b", 1, "2", "2"), ("a", 3, "3", "3")]


def test_unknown_path_is_refused_with_a_hint(made: Catalogs):
    with pytest.raises(ConfigError, match=r"No version .* has it.*`ssfs find`"):
        history(made, "absent")


def test_symlink_shows_its_target(catalogs: Catalogs):
    with catalogs.next_version() as version:
        entry_id = version.directory("link")
        entry = version.catalog.entry(entry_id)
        version.remove("link")
        link = entry._replace(id=version.catalog.take_id(), kind=int(Kind.SYMLINK), target=b"\xff")
        version.catalog.put(link)
    (state,) = tell(catalogs, ShowHistory("main", "docs", b"link")).states
    assert (state.kind, state.target, state.digest) == ("symlink", "\\xff", None)


# -- du -------------------------------------------------------------------------------------------


def test_du_counts_what_is_shared_once_and_what_is_alone(made: Catalogs):
    report = tell(made, ShowUsage("main", "docs"))
    (task,) = report.tasks
    assert [(one.entries, one.bytes, one.content_bytes) for one in task.versions] == [
        (6, 10, 10),
        (6, 13, 13),
        (6, 13, 13),
        (5, 10, 10),
    ]
    assert [one.freed_bytes for one in task.versions] == [3, 0, 0, 0]
    assert task.content_bytes == report.content_bytes == 3 + 4 + 3 + 6


@pytest.mark.slow
def test_du_agrees_with_what_is_on_the_disk(tmp_path: Path):
    backup = Backup(tmp_path / "store")
    source = build_tree(tmp_path / "source", 1)
    for seed in range(6):
        backup.sync(source)
        edit_tree(source, seed)
    asked = answer(backup.store, LOCAL, ShowUsage("main", ""), CLOCK).tasks[0]
    assert asked.content_bytes == task_usage_bytes(backup.task())
    inodes = [
        {
            status.st_ino: status.st_size
            for path in Path(version.path.decode(), "tree").rglob("*")
            if path.is_file() and not path.is_symlink() and (status := path.lstat())
        }
        for version in backup.versions()
    ]
    for at, line in enumerate(asked.versions):
        others = set().union(*(inode for other, inode in enumerate(inodes) if other != at))
        mine = inodes[at]
        assert line.content_bytes == sum(mine.values())
        assert line.freed_bytes == sum(size for ino, size in mine.items() if ino not in others)


# -- damage ---------------------------------------------------------------------------------------


def damage_record(catalogs: Catalogs, sequence: int) -> None:
    version = catalogs.task.versions()[sequence - 1]
    Path(version.path.decode(), "version.toml").write_bytes(b"checksum = 'none'\n")


def cut_catalog(catalogs: Catalogs, sequence: int) -> None:
    path = catalog_path(catalogs.task.versions()[sequence - 1])
    path.write_bytes(path.read_bytes()[:5000])


def remove_catalog(catalogs: Catalogs, sequence: int) -> None:
    catalog_path(catalogs.task.versions()[sequence - 1]).unlink()


def remove_lock(catalogs: Catalogs, sequence: int) -> None:
    catalog_path(catalogs.task.versions()[sequence - 1]).with_name("lock").unlink()


def retype_columns(catalogs: Catalogs, sequence: int) -> None:
    """What a flipped bit in a row's header makes of it."""
    with sqlite3.connect(catalog_path(catalogs.task.versions()[sequence - 1])) as database:
        database.execute("UPDATE entry SET name = 7, size = 'x' WHERE kind = 1")
    database.close()


@pytest.mark.parametrize(
    "damage", [damage_record, cut_catalog, remove_catalog, remove_lock, retype_columns]
)
@pytest.mark.parametrize("sequence", [1, 2, 4])
def test_damaged_version_is_left_out_and_named(made: Catalogs, damage, sequence: int):
    damage(made, sequence)
    found = tell(made, FindPaths("main", "docs", b"*"))
    gone = tell(made, FindPaths("main", "docs", b"*", deleted=True))
    states = tell(made, ShowHistory("main", "docs", b"ann/Report.txt"))
    usage = tell(made, ShowUsage("main", "docs"))
    # What only has wrong types is not met where nothing but ids is asked for.
    assert len(gone.problems) == (0 if damage is retype_columns and sequence == 4 else 1)
    for report in (found, states, usage):
        (problem,) = report.problems
        assert problem.version.startswith(f"00000{sequence}-")
        assert problem.task == "docs"
    by_path = {one.path: one for one in found.found}
    assert by_path["ann/Report.txt"].versions == 3
    assert [state.versions for state in states.states] == [3]
    (task,) = usage.tasks
    assert len(task.versions) == 3
    beside = {int(v.version[:6]) for v in task.versions if v.freed_bytes is None}
    assert beside == {sequence - 1, sequence + 1} & {1, 2, 3, 4}


def test_task_of_damaged_versions_only(made: Catalogs):
    for sequence in (1, 2, 3, 4):
        damage_record(made, sequence)
    report = tell(made, FindPaths("main", "docs", b"*"))
    assert (report.found, len(report.problems)) == ((), 4)
    with pytest.raises(ConfigError, match="no version that can be read"):
        history(made, "top.odt")
    assert tell(made, ShowUsage("main", "docs")).content_bytes == 0


def test_task_without_versions(catalogs: Catalogs):
    assert find(catalogs, "*") == []
    assert tell(catalogs, ShowUsage("main", "")).tasks[0].versions == ()


# -- of each version only what differs --------------------------------------------------------------


def build_random_history(catalogs: Catalogs, seed: int) -> None:
    """Twelve versions in which files and directories come, go, change and move."""
    rng = random.Random(seed)
    for _ in range(12):
        with catalogs.next_version() as version:
            for _ in range(12):
                directories = [e for e in version.catalog.entries() if e.kind == Kind.DIRECTORY]
                parent = rng.choice(directories)
                name = (
                    f"{rng.choice('abc')}{rng.randrange(4)}.{rng.choice(['odt', 'txt'])}".encode()
                )
                there = version.catalog.child(parent.id, name)
                files = list(version.files())
                match rng.randrange(6):
                    case 0 if not there:
                        version.directory_in(parent.id, name)
                    case 1 if files:
                        version.catalog.remove(rng.choice(files).id)
                    case 2 if not there and len(directories) > 1:
                        # Below itself it would be nowhere.
                        moved = rng.choice(directories[1:])
                        above = version.catalog.path_names(parent.id)
                        own = version.catalog.path_names(moved.id)
                        if above is not None and own is not None and above[: len(own)] != own:
                            version.catalog.put(moved._replace(parent=parent.id, name=name))
                    case 3 if files and not there:
                        file = rng.choice(files)
                        version.catalog.put(file._replace(parent=parent.id, name=name))
                    case 4 if files:
                        file, other = rng.choice(files), rng.choice(files)
                        content = version.catalog.content_of(other.id)
                        same = file._replace(size=other.size, digest=other.digest)
                        version.catalog.put(
                            same, rng.choice([content, version.catalog.take_content()])
                        )
                    case _ if not there:
                        version.file_in(parent.id, name, rng.randrange(100), rng.randrange(9))


@pytest.mark.parametrize("seed", range(4))
def test_answers_are_the_same_however_much_is_looked_at(
    catalogs: Catalogs, monkeypatch: pytest.MonkeyPatch, seed: int
):
    build_random_history(catalogs, seed)
    requests = [
        FindPaths("main", "docs", pattern, deleted=deleted, limit=limit)
        for pattern in (b"*", b"*.odt", b"a*", b"**/b*.txt", b"a*.odt/**", b"*/", b"/*/*.txt")
        for deleted in (False, True)
        for limit in (1000, 5)
    ]
    answers = {}
    for quick in (False, True):
        monkeypatch.setattr(find_module, "_MANY_ROWS", 0 if quick else 1 << 60)
        for module in (find_module, tally):
            monkeypatch.setattr(module, "_MOST_CHANGES", 1 << 60 if quick else -1)
        answers[quick] = [tell(catalogs, request) for request in requests]
        answers[quick].append(tell(catalogs, ShowUsage("main", "docs")))
    whole, parts = answers[False], answers[True]
    assert whole[-1] == parts[-1]
    for request, one, other in zip(requests, whole, parts, strict=False):
        if request.limit == 1000:
            assert one == other, request
        else:
            # Which of them are found first is not said.
            assert (len(one.found), one.truncated) == (len(other.found), other.truncated)
