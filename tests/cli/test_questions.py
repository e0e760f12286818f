"""`ssfs find`, `history`, `diff` and `du` as people and programs see them; from afar: test_remote.py."""

import json
from pathlib import Path

import pytest

from tests.cli.support import run, ssfs, ssfs_json
from tests.fakes.catalogs import Catalogs
from tests.fakes.histories import make_store, make_task

FIND_KEYS = [
    *("task", "path", "kind", "size", "mtime", "versions", "first_version", "first_name"),
    *("last_version", "last_name", "deleted", "moved_to"),
]
HISTORY_KEYS = [
    *("path", "kind", "size", "mtime", "digest", "target", "versions", "first_version"),
    *("first_name", "last_version", "last_name"),
]
DIFF_KEYS = ["change", "path", "from", "kind", "old_kind", "size", "old_size", "fields"]
COUNT_KEYS = [
    *("added", "removed", "modified", "metadata", "moved", "type"),
    *("added_bytes", "removed_bytes", "modified_bytes"),
]
USAGE_KEYS = ["version", "mount_name", "entries", "bytes", "content_bytes", "freed_bytes"]


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with two versions: a file modified, one removed, one added, a directory renamed."""
    path = tmp_path_factory.mktemp("asked") / "store"
    catalogs = Catalogs(make_task(make_store(path), "home"))
    with catalogs.next_version() as version:
        version.directory("ann")
        version.file("ann/report.odt", b"x" * 1500)
        version.file("gone", b"gone")
    with catalogs.next_version() as version:
        version.file("ann/report.odt", b"y" * 2500)
        version.move("ann", "eva")
        version.remove("gone")
        version.file("cursor\x1b[2J", b"")
    return path


def test_json_has_exactly_the_documented_keys(asked: Path):
    found = ssfs_json("find", asked, "*")
    assert list(found) == ["found", "truncated", "problems", "lost"]
    assert all(list(line) == FIND_KEYS for line in found["found"])
    history = ssfs_json("history", asked, "eva/report.odt")
    assert list(history) == ["task", "states", "deleted", "problems"]
    assert all(list(line) == HISTORY_KEYS for line in history["states"])
    diff = ssfs_json("diff", asked, "1", "2")
    assert list(diff) == [
        *("task", "old_version", "new_version", "differences", "counts", "truncated", "problems")
    ]
    assert all(list(line) == DIFF_KEYS for line in diff["differences"])
    assert list(diff["counts"]) == COUNT_KEYS
    usage = ssfs_json("du", asked)
    assert list(usage) == ["point", "content_bytes", "tasks", "problems", "lost"]
    (task,) = usage["tasks"]
    assert list(task) == ["task", "content_bytes", "versions"]
    assert all(list(line) == USAGE_KEYS for line in task["versions"])


def test_find_for_people(asked: Path):
    assert ssfs("find", asked, "*.odt").splitlines() == [
        "TASK    SIZE  MODIFIED             VERSIONS  FIRST       LAST        PATH",
        "home  1.5 kB  2023-11-14 22:13:20         1  2024-01-01  2024-01-01  ann/report.odt (moved to eva/report.odt)",
        "home  2.5 kB  2023-11-14 22:13:20         1  2024-01-02  2024-01-02  eva/report.odt",
    ]
    assert not ssfs("find", f"{asked}::main/home", "*.odt").startswith("TASK")
    assert ssfs("find", "-q", asked, "*").splitlines() == [
        *("ann", "ann/report.odt", "cursor\\x1b[2J", "eva", "eva/report.odt", "gone")
    ]
    assert "000002-2024-01-02T020000Z" in ssfs("find", "-v", asked, "*.odt")
    assert ssfs("find", asked, "absent") == "Nothing matches absent\n"
    assert ssfs("find", "-q", asked, "absent") == ""


def test_limit_that_is_reached_is_said(asked: Path):
    outcome = run("find", "-q", asked, "*", "--limit", "2", expect=0)
    assert len(outcome.out.splitlines()) == 2
    assert "there are more" in outcome.error
    assert ssfs_json("find", asked, "*", "--limit", "2")["truncated"] is True
    outcome = run("diff", asked, "1", "2", "--limit", "1", expect=0)
    assert "there are more" in outcome.error
    assert outcome.out.splitlines()[-1].startswith("1 added")
    run("find", asked, "*", "--limit", "50001", expect=2)


def test_history_for_people(asked: Path):
    assert ssfs("history", asked, "ann/report.odt").splitlines() == [
        "FROM        TO          VERSIONS    SIZE  MODIFIED             PATH",
        "2024-01-01  2024-01-01         1  1.5 kB  2023-11-14 22:13:20  ann/report.odt",
        "2024-01-02  2024-01-02         1  2.5 kB  2023-11-14 22:13:20  eva/report.odt",
    ]
    assert ssfs("history", "-q", asked, "ann/report.odt") == "2024-01-01\n2024-01-02\n"
    assert "000001-2024-01-01T020000Z" in ssfs("history", "-v", asked, "eva/report.odt")
    assert ssfs("history", asked, "gone").splitlines()[-1] == (
        "The newest version does not have it any more"
    )
    error = run("history", asked, "absent", expect=2).error
    assert "No version of task 'main/home' has it" in error
    assert "`ssfs find`" in error


def test_diff_for_people(asked: Path):
    assert ssfs("diff", asked, "1", "latest").splitlines() == [
        "added     cursor\\x1b[2J  (0 B)",
        "moved     ann -> eva",
        "modified  eva/report.odt  (1.5 kB -> 2.5 kB)",
        "removed   gone  (4 B)",
        "1 added (0 B), 1 removed (4 B), 1 modified (2.5 kB), 0 with other metadata, 1 moved, "
        "0 of another type",
    ]
    assert "(1,500 B -> 2,500 B)" in ssfs("diff", "-v", asked, "1", "latest", "ann")
    assert ssfs("diff", "-q", asked, "1", "latest", "gone") == "gone\n"
    assert ssfs("diff", asked, "1", "1") == "No difference\n"


@pytest.mark.parametrize(
    "words",
    [
        "1",
        "1 2 a b",
        "1 2 --exclude x",
        "1 2 --one-file-system",
        "1 2 3 --live .",
        "1 9",
        "9 --live .",
    ],
)
def test_what_makes_no_diff_is_refused(asked: Path, words: str):
    assert run("diff", asked, *words.split(), expect=2).error


def test_what_cannot_be_read_of_a_directory_is_listed(tmp_path: Path, source: Path, store: Path):
    ssfs("sync", "-q", source, store)
    (source / "docs").chmod(0)
    try:
        outcome = run("diff", store, "latest", "--live", source, expect=3, powerless=True)
        assert "docs: directory cannot be read: permission denied" in outcome.error
        assert outcome.out.splitlines()[0] == "metadata  docs  (mode)"
        words = ("diff", "--json", store, "latest", "--live", source)
        (problem,) = json.loads(run(*words, expect=3, powerless=True).out)["problems"]
        assert problem == {
            "path": "docs",
            "problem": "directory cannot be read: permission denied",
        }
    finally:
        (source / "docs").chmod(0o755)
    assert run("diff", store, "latest", "--live", tmp_path / "absent", expect=7).error


def test_store_inside_the_directory_is_left_out(tmp_path: Path, source: Path):
    inside = source / "store"
    ssfs("init", "-q", inside)
    ssfs("sync", "-q", source, inside)
    assert ssfs("diff", inside, "latest", "--live", source) == "No difference\n"


def test_du_for_people(asked: Path):
    assert ssfs("du", asked).splitlines() == [
        "VERSION                    NAME        ENTRIES    SIZE  CONTENT   FREES",
        "000001-2024-01-01T020000Z  2024-01-01        4  1.5 kB   1.5 kB  1.5 kB",
        "000002-2024-01-02T020000Z  2024-01-02        4  2.5 kB   2.5 kB  2.5 kB",
        "Task main/home: 4.0 kB in 2 versions",
    ]
    assert "1,504" in ssfs("du", "-v", asked)
    assert ssfs("du", "-q", asked) == "4004\n"


def test_du_of_several_tasks_has_a_sum(tmp_path: Path):
    store = make_store(tmp_path / "store")
    for name in ("a", "b"):
        with Catalogs(make_task(store, name)).next_version() as version:
            version.file("file", b"x" * 2000)
    assert ssfs("du", tmp_path / "store").splitlines()[-1] == "Sync point main: 4.0 kB in 2 tasks"
    assert ssfs_json("du", tmp_path / "store")["content_bytes"] == 4000
