"""Which task is meant, and which version a VERSION means."""

import os
from pathlib import Path

import pytest

from ssfs.engine.selection import choose_task, choose_version, mount_name_of, readable_tasks
from ssfs.errors import ConfigError, TrustError
from ssfs.model.peer import LOCAL, Peer, Role
from ssfs.store.store import Task
from tests.fakes.histories import add_two_months, make_store, make_task

MAIN = frozenset({"main"})


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Task:
    """Two months of versions that no test changes."""
    return add_two_months(make_task(make_store(tmp_path_factory.mktemp("history") / "store")))


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
def test_version_is_found(history: Task, text: str, sequence: int):
    assert choose_version(history, text).id.sequence == sequence


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
def test_unknown_version_is_refused(history: Task, text: str):
    with pytest.raises(ConfigError, match="No version"):
        choose_version(history, text)


def test_refusal_names_the_nearest(history: Task):
    with pytest.raises(ConfigError) as caught:
        choose_version(history, "2024-01-31_120000")
    for near in ("2024-01-30", "2024-01-31", "2024-02-01", "2024-02-02"):
        assert near in str(caught.value)
    with pytest.raises(ConfigError, match="2024-02-29"):
        choose_version(history, "newest")


def test_numbers_of_any_length_are_looked_for(history: Task):
    assert choose_version(history, "0" * 90 + "17").id.sequence == 17
    for text in ("9" * 5000, "9" * 5000 + "-2024-01-01T020000Z"):
        with pytest.raises(ConfigError, match="No version"):
            choose_version(history, text)


def test_task_without_versions_says_so(tmp_path: Path):
    task = make_task(make_store(tmp_path / "store"))
    with pytest.raises(ConfigError, match="no version yet"):
        choose_version(task, "latest")


def test_damaged_version_is_chosen_by_number_alone(tmp_path: Path):
    task = add_two_months(make_task(make_store(tmp_path / "store")))
    newest = task.versions()[-1]
    Path(os.fsdecode(newest.path), "version.toml").write_text("garbage")
    assert choose_version(task, "61").id.sequence == 61
    assert choose_version(task, str(newest.id)).id.sequence == 61
    assert choose_version(task, "latest").id.sequence == 60
    assert choose_version(task, "2024-02-29").id.sequence == 60
    assert mount_name_of(task, newest) is None
    assert mount_name_of(task, choose_version(task, "60")) == "2024-02-29"


# -- tasks ----------------------------------------------------------------------------------------


def client(*roles: Role) -> Peer:
    return Peer("nas1", frozenset(roles), MAIN)


def test_the_only_task_that_the_peer_may_read_is_meant(tmp_path: Path):
    store = make_store(tmp_path / "store")
    make_task(store, "docs", owner="nas1")
    make_task(store, "photos", owner="nas2")
    assert choose_task(store, client(Role.BACKUP), "main", "").name == "docs"
    assert choose_task(store, client(Role.RESTORE), "main", "photos").name == "photos"
    with pytest.raises(ConfigError, match=r"docs, photos.*store::main/docs"):
        choose_task(store, LOCAL, "main", "")
    with pytest.raises(ConfigError, match=r"docs, photos.*name one: \.\.\./main/docs"):
        choose_task(store, client(Role.ADMIN), "main", "")
    with pytest.raises(TrustError, match="'nas1' may not read task 'main/photos'"):
        choose_task(store, client(Role.BACKUP), "main", "photos")
    with pytest.raises(ConfigError, match="No task 'x'"):
        choose_task(store, LOCAL, "main", "x")


def test_all_tasks_are_those_that_the_peer_may_read(tmp_path: Path):
    store = make_store(tmp_path / "store")
    for name, owner in (("a", "nas2"), ("b", "nas1"), ("c", "nas1")):
        make_task(store, name, owner)
    names = {
        peer: [task.name for task in readable_tasks(store, peer, "main", "")]
        for peer in (LOCAL, client(Role.RESTORE), client(Role.BACKUP), client())
    }
    assert list(names.values()) == [["a", "b", "c"], ["a", "b", "c"], ["b", "c"], []]


def test_nothing_to_choose_from_is_said(tmp_path: Path):
    store = make_store(tmp_path / "store")
    with pytest.raises(ConfigError, match="No sync point 'main'"):
        choose_task(store, LOCAL, "main", "")
    store.create_point("main")
    with pytest.raises(ConfigError, match=r"no task yet.*ssfs sync"):
        choose_task(store, LOCAL, "main", "")
    with pytest.raises(ConfigError, match="no task that client 'nas1' may read"):
        choose_task(store, client(Role.BACKUP), "main", "")


def test_other_sync_points_are_none_of_the_peers_business(tmp_path: Path):
    store = make_store(tmp_path / "store")
    for point in ("other", "absent"):
        with pytest.raises(TrustError, match=f"may not use sync point '{point}'"):
            choose_task(store, client(*Role), point, "")
