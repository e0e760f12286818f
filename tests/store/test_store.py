"""Stores, points and tasks: made once, named safely, owned by one."""

import concurrent.futures
import os
import threading
from pathlib import Path

import pytest

from ssfs.errors import ConfigError, CorruptStore, StoreError, StoreLocked
from ssfs.model.policy import Policy
from ssfs.store import probe
from ssfs.store.store import Store, check_name
from tests.fakes.clock import FrozenClock

CLOCK = FrozenClock()


def create(path, timezone="Europe/Berlin"):
    return Store.create(bytes(path), Policy(1, 2, 3), timezone, CLOCK)


def test_store_is_what_was_created(tmp_path):
    made = create(tmp_path / "store")
    opened = Store.open(bytes(tmp_path / "store"))
    assert opened.settings == made.settings
    assert (opened.zone.key, opened.settings.policy) == ("Europe/Berlin", Policy(1, 2, 3))
    assert len(opened.settings.id) == 32
    assert sorted(os.listdir(tmp_path / "store")) == ["points", "store.toml"]


def test_store_needs_an_empty_directory_and_a_time_zone(tmp_path):
    create(tmp_path / "store")
    with pytest.raises(ConfigError, match="Already"):
        create(tmp_path / "store")
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").touch()
    with pytest.raises(ConfigError, match="not empty"):
        create(tmp_path / "used")
    for zone in ("Nowhere/Town", "", "../etc/passwd", "/etc/localtime"):
        with pytest.raises(ConfigError, match="time zone"):
            create(tmp_path / "zone", zone)
    assert not (tmp_path / "zone").exists()
    (tmp_path / "disk" / "lost+found").mkdir(parents=True)
    create(tmp_path / "disk")


@pytest.mark.parametrize("pretends", [True, False])
def test_file_system_without_hard_links_is_refused(tmp_path, monkeypatch, pretends):
    def no_link(name, source_fd, target, target_fd):
        if not pretends:
            raise OSError(1, "Operation not permitted")
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, dir_fd=target_fd))

    monkeypatch.setattr(probe, "link_file", no_link)
    with pytest.raises(StoreError, match="hard-link"):
        create(tmp_path / "store")
    assert os.listdir(tmp_path / "store") == []


@pytest.mark.parametrize("what", ["nothing", "file", "empty"])
def test_what_is_no_store_is_refused(tmp_path, what):
    path = tmp_path / "x"
    match what:
        case "file":
            path.touch()
        case "empty":
            path.mkdir()
    with pytest.raises(StoreError, match="Not a store"):
        Store.open(bytes(path))


def test_damaged_or_newer_store_is_refused_and_unchanged(tmp_path):
    create(tmp_path / "store")
    record = tmp_path / "store" / "store.toml"
    whole = record.read_text()
    record.write_text(whole.replace("format = 1", "format = 2"))
    with pytest.raises(StoreError, match="newer"):
        Store.open(bytes(tmp_path / "store"))
    record.write_text("rubbish")
    with pytest.raises(CorruptStore):
        Store.open(bytes(tmp_path / "store"))
    record.write_text(whole.replace("Europe/Berlin", "Europe/Atlantis"))
    with pytest.raises(StoreError, match="tzdata"):
        Store.open(bytes(tmp_path / "store"))


NAMES = ["", ".", "..", ".hidden", "-option", "a/b", "a b", "a\n", "é", "x" * 201, "a\0", "a\udcff"]


@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_names_that_lead_elsewhere_are_refused_everywhere(tmp_path, name):
    store = create(tmp_path / "store")
    point = store.create_point("main")
    for call in (
        lambda: check_name(name, "thing"),
        lambda: store.point(name),
        lambda: store.create_point(name),
        lambda: point.task(name),
        lambda: point.claim_task(name, "c", "/s", CLOCK),
    ):
        with pytest.raises(ConfigError):
            call()
    assert sorted(os.listdir(tmp_path / "store" / "points")) == ["main"]


def test_points_and_tasks_are_listed_by_name(tmp_path):
    store = create(tmp_path / "store")
    for name in ("b", "a", "C"):
        point = store.create_point(name)
    assert [found.name for found in store.points()] == ["C", "a", "b"]
    for name in ("y", "x"):
        point.claim_task(name, "c", "/s", CLOCK)
    # Died while it was made: no task yet.
    (Path(os.fsdecode(point.path)) / "tasks" / "half").mkdir()
    assert [task.name for task in point.tasks()] == ["x", "y"]
    assert point.claim_task("half", "c", "/s", CLOCK).versions() == []
    for missing in (lambda: store.point("d"), lambda: point.task("z")):
        with pytest.raises(ConfigError, match="No "):
            missing()


def test_policy_of_a_point_is_kept_and_not_reset_by_its_next_use(tmp_path):
    store = create(tmp_path / "store")
    store.create_point("main").set_policy(Policy(9, 9, 9))
    assert store.create_point("main", Policy(1, 1, 1)).settings.policy == Policy(9, 9, 9)


def test_task_belongs_to_one_source_of_one_client(tmp_path):
    point = create(tmp_path / "store").create_point("main")
    task = point.claim_task("t", "nas1", "/docs", CLOCK)
    assert point.claim_task("t", "nas1", "/docs", CLOCK).settings == task.settings
    for owner, source in (("nas2", "/docs"), ("nas1", "/other")):
        with pytest.raises(ConfigError, match="/docs"):
            point.claim_task("t", owner, source, CLOCK)


def test_task_claimed_by_many_at_once_is_made_once(tmp_path):
    point = create(tmp_path / "store").create_point("main")
    ids: list[str] = []

    def claim():
        ids.append(point.claim_task("t", "c", "/s", CLOCK).settings.id)

    threads = [threading.Thread(target=claim) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == 8
    assert len(set(ids)) == 1


def test_one_writer_at_a_time_and_the_second_hears_who_it_is(tmp_path):
    task = create(tmp_path / "store").create_point("main").claim_task("t", "c", "/s", CLOCK)
    with (
        task.lock_for_writing("process 17"),
        pytest.raises(StoreLocked, match="process 17"),
    ):
        task.lock_for_writing("process 18")
    task.lock_for_writing("process 18").close()


def test_strange_names_among_the_versions_are_left_alone(tmp_path):
    task = create(tmp_path / "store").create_point("main").claim_task("t", "c", "/s", CLOCK)
    versions = Path(os.fsdecode(task.path)) / "versions"
    for name in ("notes", "0000001-2024-05-01T020000Z", "000002-2024-05-01T020000Z"):
        (versions / name).mkdir()
    assert [str(version.id) for version in task.versions()] == ["000002-2024-05-01T020000Z"]
    assert task.next_sequence() == 3


def test_first_backups_of_several_clients_may_make_one_point_at_once(tmp_path):
    store = create(tmp_path / "store")
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for number in range(10):
            points = list(pool.map(store.create_point, [f"point-{number}"] * 8))
            assert {point.settings for point in points} == {points[0].settings}
