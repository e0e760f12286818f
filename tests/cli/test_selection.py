"""Which version a VERSION means."""

import os
from pathlib import Path

import pytest

from ssfs.cli.location import open_task, parse_location
from ssfs.engine.selection import choose_version, mount_name_of
from ssfs.errors import ConfigError
from ssfs.store.store import Task
from tests.fakes.syncs import Backup


def task_of(store: Path) -> Task:
    return open_task(parse_location(os.fsencode(store)))


@pytest.mark.parametrize(
    ("text", "sequence"),
    [
        ("000001-2024-01-01T020000Z", 1),
        ("17", 17),
        ("000017", 17),
        ("latest", 61),
        ("latest~0", 61),
        ("latest~1", 60),
        ("latest~60", 1),
        ("2024-01-31", 31),
        ("2024-01-31_020000", 31),
        ("2024-02-29", 61),
        ("2024-02-29_143000", 61),
        ("2024-02-29_020000", 60),
    ],
)
def test_version_is_found(read_only_history: Path, text: str, sequence: int):
    assert choose_version(task_of(read_only_history), text).id.sequence == sequence


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "62",
        "latest~61",
        "latest~",
        "latest~-1",
        "latest~99999999999",
        "LATEST",
        "2024-02-30",
        "2024-13-99",
        "2023-12-31",
        "2024-02",
        "2024-01-31_020001",
        "000001-2024-01-02T020000Z",
        "000017-2024-01-01T020000Z",
        "\u0661",
        "../000001-2024-01-01T020000Z",
    ],
)
def test_unknown_version_is_refused(read_only_history: Path, text: str):
    with pytest.raises(ConfigError, match="No version"):
        choose_version(task_of(read_only_history), text)


def test_refusal_names_the_nearest(read_only_history: Path):
    with pytest.raises(ConfigError) as caught:
        choose_version(task_of(read_only_history), "2024-01-31_120000")
    for near in ("2024-01-30", "2024-01-31", "2024-02-01", "2024-02-02"):
        assert near in str(caught.value)
    with pytest.raises(ConfigError, match="2024-02-29"):
        choose_version(task_of(read_only_history), "newest")


def test_task_without_versions_says_so(tmp_path: Path):
    backup = Backup(tmp_path / "store")
    backup.store.create_point("main").claim_task("task", "me", "here", backup.clock)
    with pytest.raises(ConfigError, match="no version yet"):
        choose_version(task_of(tmp_path / "store"), "latest")


def test_damaged_version_is_chosen_by_number_alone(history: Path):
    task = task_of(history)
    newest = task.versions()[-1]
    Path(os.fsdecode(newest.path), "version.toml").write_text("garbage")
    assert choose_version(task, "61").id.sequence == 61
    assert choose_version(task, str(newest.id)).id.sequence == 61
    assert choose_version(task, "latest").id.sequence == 60
    assert choose_version(task, "2024-02-29").id.sequence == 60
    assert mount_name_of(task, newest) is None
    assert mount_name_of(task, choose_version(task, "60")) == "2024-02-29"
