"""`ssfs versions` and `ssfs points`."""

import datetime
import os
from pathlib import Path

from ssfs.model.policy import Policy
from tests.cli.support import run, ssfs, ssfs_json
from tests.fakes.clock import FrozenClock
from tests.fakes.syncs import Backup

VERSION_KEYS = [
    *("version", "mount_name", "started", "seconds", "entries", "bytes", "new_bytes"),
    *("problems", "pinned", "keep", "damaged", "shrunk"),
]


def test_json_has_exactly_the_documented_keys(read_only_history: Path):
    listed = ssfs_json("versions", read_only_history)
    assert len(listed) == 61
    assert all(list(line) == VERSION_KEYS for line in listed)
    assert listed[0] == {
        "version": "000001-2024-01-01T020000Z",
        "mount_name": "2024-01-01",
        "started": "2024-01-01T02:00:00Z",
        "seconds": 0.0,
        "entries": 2,
        "bytes": 2,
        "new_bytes": 2,
        "problems": 0,
        "pinned": False,
        "keep": ["day 2024-01-01"],
        "damaged": 0,
        "shrunk": None,
    }
    assert [line["mount_name"] for line in listed[-2:]] == ["2024-02-29_020000", "2024-02-29"]
    assert listed[-2]["keep"] == ["last 2"]
    assert listed[-1]["keep"] == ["newest", "last 2", "day 2024-02-29"]


def test_table_shows_names_and_reasons(read_only_history: Path):
    lines = ssfs("versions", read_only_history).splitlines()
    assert len(lines) == 62
    assert lines[0].split() == ["VERSION", "NAME", "ENTRIES", "SIZE", "NEW", "KEPT", "AS"]
    assert lines[1].split()[:3] == ["000001-2024-01-01T020000Z", "2024-01-01", "2"]
    assert lines[1].endswith("day 2024-01-01")


def test_quiet_shows_ids_and_verbose_shows_times(read_only_history: Path):
    ids = ssfs("versions", "-q", read_only_history).splitlines()
    assert (len(ids), ids[0]) == (61, "000001-2024-01-01T020000Z")
    assert "2024-01-01 02:00:00 UTC" in ssfs("versions", "-v", read_only_history).splitlines()[1]


def test_what_goes_next_is_said(history: Path):
    ssfs("point", "-q", history, "--days", "5", "--keep-last", "1")
    listed = ssfs_json("versions", history)
    assert [line["version"][:6] for line in listed if line["keep"]] == [
        *("000056", "000057", "000058", "000059", "000061")
    ]
    assert "goes at the next expiry" in ssfs("versions", history)


def test_damaged_version_is_listed_and_exit_3(history: Path):
    (damaged,) = history.glob("points/main/tasks/task/versions/000061-*/version.toml")
    damaged.write_text("checksum = 'none'\n")
    outcome = run("versions", history, expect=3)
    assert "000061" in outcome.error
    assert "000061-2024-02-29T143000Z  ?" in outcome.out
    listed = ssfs_json("versions", history, expect=3)
    assert listed[-1] == {
        **dict.fromkeys(VERSION_KEYS),
        "version": "000061-2024-02-29T143000Z",
        "started": "2024-02-29T14:30:00Z",
        "pinned": False,
        "keep": ["damaged"],
        "damaged": 0,
    }
    assert listed[-2]["mount_name"] == "2024-02-29"


def test_hold_is_said_and_does_not_disturb_json(tmp_path: Path, source: Path):
    clock = FrozenClock()
    backup = Backup(tmp_path / "held", Policy(days=3, weeks=0, months=0), clock)
    for _ in range(3):
        backup.sync(source)
        clock.advance(datetime.timedelta(days=1))
    clock.advance(datetime.timedelta(days=300))
    backup.sync(source)
    text = ssfs("versions", tmp_path / "held")
    assert text.splitlines()[-1].startswith("Expiry holds because version 4 is dated 301 days")
    assert len(ssfs_json("versions", tmp_path / "held")) == 4
    ssfs("expire", "-q", tmp_path / "held")
    assert "Expiry holds" not in ssfs("versions", tmp_path / "held")


def test_task_without_versions(tmp_path: Path):
    backup = Backup(tmp_path / "store")
    backup.store.create_point("main").claim_task("task", "me", "here", backup.clock)
    assert "has no version yet" in ssfs("versions", tmp_path / "store")
    assert ssfs_json("versions", tmp_path / "store") == []


def test_points_json_has_exactly_the_documented_keys(history: Path):
    ssfs("point", "-q", f"{history}::empty")
    empty, main = ssfs_json("points", history)
    assert empty == {
        "point": "empty",
        "policy": {"days": 10000, "weeks": 0, "months": 0, "keep_last": 2},
        "tasks": [],
        "lost": [],
    }
    (task,) = main.pop("tasks")
    source = task.pop("source")
    assert os.path.basename(source) == "source"
    assert task == {
        "task": "task",
        "owner": "client",
        "versions": 61,
        "last_version": "000061-2024-02-29T143000Z",
        "last_mount_name": "2024-02-29",
        "last_started": "2024-02-29T14:30:00Z",
    }


def test_points_for_people(history: Path):
    ssfs("point", "-q", f"{history}::empty", "--days", "1", "--weeks", "1", "--months", "1")
    text = ssfs("points", history)
    assert "empty: keeps 1 day, 1 week, 1 month and the 2 newest" in text
    assert "no task yet" in text
    assert "000061-2024-02-29T143000Z" in text
    assert ssfs("points", "-q", history) == f"{history}::main/task\n"
    assert ssfs("points", "-v", history).splitlines()[-1].endswith(" 61")


def test_points_of_an_empty_store(store: Path):
    assert "No sync point yet" in ssfs("points", store)
    assert ssfs_json("points", store) == []
