"""What a LOCATION says, and which task it means."""

import os
from pathlib import Path

import pytest

from ssfs.cli.location import is_inside, open_target, open_task, parse_location, parse_store
from ssfs.errors import ConfigError, StoreError
from ssfs.store.store import Point, Store, Task
from tests.fakes.syncs import Backup


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"/srv/store", (b"/srv/store", None, None)),
        (b"/srv/store/", (b"/srv/store", None, None)),
        (b"/srv/store::main", (b"/srv/store", "main", None)),
        (b"/srv/store::main/", (b"/srv/store", "main", None)),
        (b"/srv/store::main/nas1-home", (b"/srv/store", "main", "nas1-home")),
        (b"/srv/st::ore::main", (b"/srv/st::ore", "main", None)),
        (b"/srv/st\xe9re::main", (b"/srv/st\xe9re", "main", None)),
    ],
)
def test_location_is_parsed(text, expected):
    assert parse_location(text) == expected


def test_relative_store_is_made_absolute():
    assert parse_location(b"store").store == os.path.join(os.getcwdb(), b"store")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"::main",
        b"/srv/store::-x",
        b"/srv/store::main/a/b",
        b"/srv/store::ma in",
        b"/srv/store::m\xe9n",
        b"ssfs://nas/main",
        b"ssh://me@nas/srv/store",
    ],
)
def test_bad_location_is_refused(text):
    with pytest.raises(ConfigError):
        parse_location(text)


def test_remote_location_says_not_yet():
    with pytest.raises(ConfigError, match="not supported yet"):
        parse_location(b"ssfs://nas1:4711/main/home")


def test_store_alone_may_name_no_point():
    assert parse_store(b"/srv/store") == b"/srv/store"
    with pytest.raises(ConfigError):
        parse_store(b"/srv/store::main")


def test_the_only_task_is_meant_unless_one_is_named(tmp_path: Path, source: Path):
    backup = Backup(tmp_path / "store")
    place = parse_location(os.fsencode(tmp_path / "store"))
    with pytest.raises(ConfigError, match="No sync point 'main'"):
        open_task(place)
    backup.sync(source, task="one")
    assert open_task(place).name == "one"
    backup.sync(source, task="two")
    with pytest.raises(ConfigError, match="one, two"):
        open_task(place)
    assert open_task(place._replace(task="two")).name == "two"
    with pytest.raises(ConfigError, match="No task 'three'"):
        open_task(place._replace(task="three"))


def test_point_without_tasks_says_so(tmp_path: Path):
    Backup(tmp_path / "store").store.create_point("empty")
    with pytest.raises(ConfigError, match="no task yet"):
        open_task(parse_location(os.fsencode(tmp_path / "store") + b"::empty"))


def test_mount_target_is_what_the_location_names(tmp_path: Path, source: Path):
    Backup(tmp_path / "store").sync(source, task="one")
    store = os.fsencode(tmp_path / "store")
    kinds = {b"": Store, b"::main": Point, b"::main/one": Task}
    for rest, kind in kinds.items():
        assert isinstance(open_target(parse_location(store + rest)), kind)


def test_no_store_is_a_store_error(tmp_path: Path):
    with pytest.raises(StoreError, match="Not a store"):
        open_task(parse_location(os.fsencode(tmp_path)))


def test_inside_is_judged_where_symlinks_lead(tmp_path: Path):
    (tmp_path / "store" / "points").mkdir(parents=True)
    (tmp_path / "way").symlink_to("store/points")
    store = os.fsencode(tmp_path / "store")
    assert is_inside(store, store)
    assert is_inside(os.fsencode(tmp_path / "way"), store)
    assert is_inside(store + b"/not/there/yet", store)
    assert not is_inside(store + b"-2", store)
    assert not is_inside(os.fsencode(tmp_path), store)
