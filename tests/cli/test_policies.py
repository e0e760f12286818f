"""`ssfs point`, `expire`, `delete`, `pin` and `unpin`: what stays and what goes."""

import datetime
import os
from pathlib import Path

import pytest

from ssfs.model.policy import Policy
from ssfs.model.version import Counts, RootMetadata, VersionRecord
from ssfs.store.store import Store
from ssfs.store.version import encode_record
from tests.cli.support import run, run_on_terminal, ssfs, ssfs_json
from tests.fakes.clock import FrozenClock
from tests.fakes.syncs import Backup


def sequences(store: Path) -> list[int]:
    return [int(line["version"][:6]) for line in ssfs_json("versions", store)]


def tasks_trash(store: Path) -> list[str]:
    return os.listdir(store / "points" / "main" / "tasks" / "task" / "trash")


def set_policy(store: Path, *options: str) -> dict:
    return ssfs_json("point", store, *options)


# -- point ----------------------------------------------------------------------------------------


def test_point_is_shown(history: Path):
    assert ssfs("point", history) == "main keeps 10,000 days, 0 weeks, 0 months and the 2 newest\n"
    assert ssfs_json("point", history) == {
        "point": "main",
        "policy": {"days": 10_000, "weeks": 0, "months": 0, "keep_last": 2},
        "max_concurrent": 8,
        "quota": None,
        "used": None,
        "created": False,
        "changed": False,
        "expires": [],
    }


def test_point_is_made_with_the_stores_policy(store: Path):
    made = ssfs_json("point", f"{store}::weekly", "--weeks", "52")
    assert made == {
        "point": "weekly",
        "policy": {"days": 10, "weeks": 52, "months": 5, "keep_last": 1},
        "max_concurrent": 8,
        "quota": None,
        "used": None,
        "created": True,
        "changed": True,
        "expires": [],
    }
    assert "now keeps 10 days" in ssfs("point", f"{store}::other")
    assert ssfs("point", "-q", f"{store}::third") == ""


def test_new_policy_is_set_and_deletes_nothing_by_itself(history: Path):
    outcome = run("point", history, "--days", "50", expect=0)
    assert outcome.out == "main now keeps 50 days, 0 weeks, 0 months and the 2 newest\n"
    assert "Task 'task': 10 versions will go" in outcome.err
    assert "000001-2024-01-01T020000Z, " in outcome.err
    assert len(sequences(history)) == 61


def test_lost_versions_are_named(history: Path):
    changed = set_policy(history, "--days", "57")
    assert [loss["task"] for loss in changed["expires"]] == ["task"]
    assert [v[:6] for v in changed["expires"][0]["versions"]] == ["000001", "000002", "000003"]
    few = run("point", history, "--days", "20", expect=0)
    assert few.err.endswith(" and 27 more\n")
    many = run("point", history, "--days", "10", "-v", expect=0)
    assert "more" not in many.err
    assert "000050-" in many.err
    assert run("point", history, "--days", "5", "-q", expect=0) == (0, "", "")


def test_point_asks_on_a_terminal(history: Path):
    arguments = ["point", str(history), "--days", "5"]
    refused = run_on_terminal(arguments, answer="n\n")
    assert refused.code == 130
    assert "Set the policy of 'main' to 5 days" in refused.err
    assert "Nothing was changed" in refused.err
    assert "10,000 days" in ssfs("point", history)
    assert run_on_terminal(arguments, answer="y\n").code == 0
    assert "5 days" in ssfs("point", history)


def test_point_does_not_ask_without_need(history: Path):
    assert "[y/N]" not in run_on_terminal(["point", history, "--days", "5", "--yes"]).err
    assert "[y/N]" not in run_on_terminal(["point", history, "--days", "500"]).err


def test_policy_of_a_task_is_refused(history: Path):
    assert "whole sync point" in run("point", f"{history}::main/task", expect=2).error


def test_limits_are_set_shown_and_taken_away(history: Path):
    text = ssfs("point", history, "--max-concurrent", "2", "--quota", "1.5k")
    assert text == (
        "main now keeps 10,000 days, 0 weeks, 0 months and the 2 newest; "
        "at most 1.5 kB, 180 B used; 2 backups at once\n"
    )
    report = ssfs_json("point", history, "--quota", "2Ki")
    assert (report["quota"], report["used"], report["max_concurrent"]) == (2048, 180, 2)
    assert (report["changed"], report["expires"]) == (True, [])
    assert not ssfs_json("point", history, "--quota", "2Ki")["changed"]
    ssfs("point", "-q", history, "--quota", "none", "--max-concurrent", "8")
    assert ssfs("point", history).endswith("the 2 newest\n")
    assert "quota" not in (history / "points" / "main" / "point.toml").read_text()


@pytest.mark.parametrize(
    "options",
    [
        ("--quota", "0"),
        ("--quota", "some"),
        ("--max-concurrent", "0"),
        ("--max-concurrent", "1001"),
    ],
    ids=" ".join,
)
def test_wrong_limits_are_refused(store: Path, options: tuple[str, ...]):
    error = run("point", store, *options, expect=2).error
    assert options[0] in error
    assert os.listdir(store / "points") == []


# -- expire ---------------------------------------------------------------------------------------


def test_dry_run_shows_what_goes_and_why_the_rest_stays(history: Path):
    set_policy(history, "--days", "2", "--weeks", "2", "--months", "1", "--keep-last", "1")
    text = ssfs("expire", history, "--dry-run")
    for line in (
        "000061-2024-02-29T143000Z  2024-02-29         stays: newest, day 2024-02-29",
        "000060-2024-02-29T020000Z  2024-02-29_020000  goes",
        "000058-2024-02-27T020000Z  2024-02-27         stays: week 2024-W09",
        "000049-2024-02-18T020000Z  2024-02-18         goes",
    ):
        assert line in text or line.split()[0] in text
    assert "stays: month 2024-02" in text
    assert text.endswith("would go\n")
    assert len(sequences(history)) == 61


def test_expire_deletes_what_the_policy_lets_go(history: Path):
    set_policy(history, "--days", "3", "--keep-last", "1")
    planned = ssfs_json("expire", history, "--dry-run")
    done = ssfs_json("expire", history)
    assert planned == {**done, "dry_run": True}
    assert set(done) == {"dry_run", "tasks", "lost"}
    (task,) = done["tasks"]
    assert set(task) == {"task", "expired", "versions", "held"}
    assert (task["task"], len(task["expired"]), len(task["versions"])) == ("task", 58, 61)
    assert task["versions"][-1] == {
        "version": "000061-2024-02-29T143000Z",
        "mount_name": "2024-02-29",
        "keep": ["newest", "day 2024-02-29"],
    }
    assert sequences(history) == [58, 59, 61]
    assert tasks_trash(history) == []
    assert "Expired 0 versions" in ssfs("expire", history)
    assert ssfs("expire", "-q", history) == ""


def test_expire_asks_on_a_terminal(history: Path):
    set_policy(history, "--days", "3")
    refused = run_on_terminal(["expire", history], answer="n\n")
    assert (refused.code, "Delete 57 versions?" in refused.err) == (130, True)
    assert len(sequences(history)) == 61
    assert run_on_terminal(["expire", history], answer="y\n").code == 0
    assert len(sequences(history)) == 4
    assert "[y/N]" not in run_on_terminal(["expire", "--yes", history]).err


def test_expire_covers_all_tasks_unless_one_is_named(tmp_path: Path, source: Path):
    clock = FrozenClock()
    backup = Backup(tmp_path / "store", Policy(days=100, keep_last=9), clock)
    for task in ("one", "two"):
        for _ in range(3):
            backup.sync(source, task=task)
            clock.advance(datetime.timedelta(hours=1))
    store = tmp_path / "store"
    set_policy(store, "--keep-last", "1")
    assert "Expired 2 versions" in ssfs("expire", f"{store}::main/one")
    assert len(sequences(Path(f"{store}::main/two"))) == 3
    assert "Expired 2 versions" in ssfs("expire", "-v", store)


def test_expire_of_an_empty_point(store: Path):
    ssfs("point", "-q", store)
    assert ssfs_json("expire", store) == {"dry_run": False, "tasks": [], "lost": []}


def test_daily_backups_leave_22_versions(tmp_path: Path):
    # The paper's example, over the real command.
    store = Store.create(os.fsencode(tmp_path / "s"), Policy(), "UTC", FrozenClock())
    task = store.create_point("main").claim_task("task", "me", "here", FrozenClock())
    for number in range(1, 401):
        date = datetime.datetime(2023, 1, 1, 2, tzinfo=datetime.UTC)
        date += datetime.timedelta(days=number - 1)
        name = f"{number:06d}-{date:%Y-%m-%dT%H%M%SZ}"
        make_bare_version(Path(os.fsdecode(task.path), "versions", name), name, number, date)
    ssfs("expire", "-q", tmp_path / "s")
    assert len(sequences(tmp_path / "s")) == 22


def make_bare_version(path: Path, name: str, number: int, date: datetime.datetime) -> None:
    """A version that has a record, and nothing else that retention would ask for."""
    root = RootMetadata(0o755, 0, 0, "root", "root", 0, 0)
    record = VersionRecord(
        *(1, name, number, date, date, f"{date:%Y-%m-%d_%H%M%S}", 1.0, "me", "here", "", ""),
        counts=Counts(),
        root=root,
    )
    path.mkdir()
    (path / "lock").touch()
    (path / "version.toml").write_bytes(encode_record(record))


# -- delete ---------------------------------------------------------------------------------------


def test_delete_takes_several_names(history: Path):
    text = ssfs("delete", history, "1", "2024-01-02", "000003-2024-01-03T020000Z", "000001", "-v")
    assert text.startswith("Deleted 3 versions: 000001-")
    assert sequences(history)[0] == 4
    assert tasks_trash(history) == []
    assert ssfs("delete", "-q", history, "4") == ""


def test_nothing_is_deleted_if_one_name_is_wrong(history: Path):
    ssfs("pin", "-q", history, "2")
    for wrong in ("2024-03-01", "2", "latest", "61", "2024-02-29"):
        assert run("delete", history, "1", wrong, "3", expect=2).error
    assert len(sequences(history)) == 61


def test_newest_is_deleted_by_its_id_alone(history: Path):
    newest = "000061-2024-02-29T143000Z"
    error = run("delete", history, "latest", expect=2).error
    assert newest in error
    ssfs("delete", "-q", history, newest)
    assert sequences(history)[-1] == 60


def test_pinned_version_is_not_deleted(history: Path):
    ssfs("pin", "-q", history, "5")
    assert "is pinned" in run("delete", history, "5", expect=2).error
    ssfs("unpin", "-q", history, "5")
    ssfs("delete", "-q", history, "5")
    assert 5 not in sequences(history)


def test_delete_asks_on_a_terminal(history: Path):
    refused = run_on_terminal(["delete", history, "1"], answer="\n")
    assert (refused.code, "000001-2024-01-01T020000Z" in refused.err) == (130, True)
    ended = run_on_terminal(["delete", history, "1"], answer="\x04")
    assert ended.code == 130
    interrupted = run_on_terminal(["delete", history, "1"], answer="\x03")
    assert interrupted.code == 130
    assert "Traceback" not in interrupted.err
    assert sequences(history)[0] == 1
    assert run_on_terminal(["delete", history, "1"], answer="y\n").code == 0
    assert run_on_terminal(["delete", "--yes", history, "2"]).code == 0
    assert sequences(history)[0] == 3


# -- pins -----------------------------------------------------------------------------------------


def test_pin_keeps_a_version_until_unpinned(history: Path):
    assert ssfs("pin", history, "2024-01-05") == "Pinned 2024-01-05\n"
    pin = next(history.glob("points/main/tasks/task/versions/000005-*")) / "pin.toml"
    since = pin.read_text()
    assert "000005-2024-01-05T020000Z" in ssfs("pin", "-v", history, "5")
    assert pin.read_text() == since
    set_policy(history, "--days", "1", "--keep-last", "1")
    ssfs("expire", "-q", history)
    (pinned, newest) = ssfs_json("versions", history)
    assert (pinned["pinned"], pinned["keep"], newest["pinned"]) == (True, ["pinned"], False)
    assert ssfs("unpin", history, "5") == "Unpinned 5\n"
    assert ssfs("unpin", "-q", history, "5") == ""
    ssfs("expire", "-q", history)
    assert sequences(history) == [61]


@pytest.mark.parametrize("command", ["pin", "unpin", "delete"])
def test_unknown_version_is_named_with_its_neighbours(history: Path, command: str):
    error = run(command, history, "2024-01-32", expect=2).error
    assert "No version '2024-01-32'" in error
    assert "2024-01-31, 2024-02-01" in error


def test_a_damaged_version_can_be_deleted(history: Path):
    (record,) = history.glob("points/main/tasks/task/versions/000007-*/version.toml")
    record.write_bytes(b"")
    ssfs("delete", "-q", history, "7")
    assert 7 not in sequences(history)
