"""What a LOCATION says, and which task it means."""

import os
from pathlib import Path

import pytest

from ssfs.cli.location import (
    LocalPlace,
    SshPlace,
    TlsPlace,
    is_inside,
    open_target,
    open_task,
    parse_location,
    parse_store,
    parse_store_location,
    spell,
)
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
    assert parse_location(text) == LocalPlace(*expected)


def test_relative_store_is_made_absolute():
    assert parse_location(b"store").store == os.path.join(os.getcwdb(), b"store")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ssfs://nas", ("nas", 7433, None, None)),
        ("ssfs://nas/", ("nas", 7433, None, None)),
        ("ssfs://nas/main", ("nas", 7433, "main", None)),
        ("ssfs://nas/main/", ("nas", 7433, "main", None)),
        (
            "ssfs://nas.example.org:4711/main/nas1-home",
            ("nas.example.org", 4711, "main", "nas1-home"),
        ),
        ("ssfs://192.0.2.7:1/x", ("192.0.2.7", 1, "x", None)),
        ("ssfs://[2001:db8::1]/x", ("2001:db8::1", 7433, "x", None)),
        ("ssfs://[fe80::1%eth0]:65535/x/y", ("fe80::1%eth0", 65535, "x", "y")),
    ],
)
def test_place_on_a_server_is_parsed(text: str, expected):
    assert parse_location(text.encode()) == TlsPlace(*expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"ssh://nas/srv/store", (None, "nas", None, b"/srv/store", None, None)),
        (b"ssh://eva@nas:2222/st::main", ("eva", "nas", 2222, b"/st", "main", None)),
        (b"ssh://eva@corp.org@nas/st/", ("eva@corp.org", "nas", None, b"/st", None, None)),
        (b"ssh://[::1]/s\xe9/@a:b::x/y", (None, "::1", None, b"/s\xe9/@a:b", "x", "y")),
        (b"ssh://nas//srv/st::ore::main", (None, "nas", None, b"/srv/st::ore", "main", None)),
    ],
)
def test_place_behind_ssh_is_parsed(text: bytes, expected):
    assert parse_location(text) == SshPlace(*expected)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"::main",
        b"/srv/store::-x",
        b"/srv/store::main/a/b",
        b"/srv/store::ma in",
        b"/srv/store::m\xe9n",
        b"ssfs://",
        b"ssfs:///main",
        b"ssfs://-oProxyCommand=x/main",
        b"ssfs://eva@nas/main",
        b"ssfs://nas:/main",
        b"ssfs://nas:0/main",
        b"ssfs://nas:65536/main",
        b"ssfs://nas:http/main",
        b"ssfs://nas::main",
        b"ssfs://2001:db8::1/main",
        b"ssfs://[]/main",
        b"ssfs://[nas]/main",
        b"ssfs://[::1/main",
        b"ssfs://n\xe4s/main",
        b"ssfs://na s/main",
        b"ssfs://nas/main/a/b",
        b"ssfs://nas//task",
        b"ssfs://nas/-x",
        b"ssh://nas",
        b"ssh://nas/",
        b"ssh://nas/::main",
        b"ssh:///srv/store",
        b"ssh://-oProxyCommand=x/srv/store",
        b"ssh://-l@nas/srv/store",
        b"ssh://@nas/srv/store",
        b"ssh://eva@/srv/store",
        b"ssh://nas/srv/store::a b",
    ],
)
def test_bad_location_is_refused(text):
    with pytest.raises(ConfigError):
        parse_location(text)


def test_refusal_shows_the_right_form():
    for text, form in (
        (b"::x", "/path/store"),
        (b"ssfs://:1", "ssfs://HOST"),
        (b"ssh://h", "ssh://"),
    ):
        with pytest.raises(ConfigError, match=f"write {form}"):
            parse_location(text)


@pytest.mark.parametrize(
    "text",
    [
        "/srv/store",
        "/srv/store::main/docs",
        "ssfs://nas",
        "ssfs://nas/main",
        "ssfs://[::1]:4711/main/docs",
        "ssh://nas/srv/store",
        "ssh://eva@[::1]:22/srv/store::main/docs",
    ],
)
def test_place_is_spelled_as_it_was_written(text: str):
    assert spell(parse_location(text.encode())) == text


def test_tasks_of_a_store_are_spelled_out():
    spelled = [
        spell(parse_location(text), "main", "docs")
        for text in (b"/srv/store", b"ssfs://nas:7433", b"ssh://nas/srv")
    ]
    assert spelled == ["/srv/store::main/docs", "ssfs://nas/main/docs", "ssh://nas/srv::main/docs"]


def test_store_alone_may_name_no_point():
    assert parse_store(b"/srv/store") == b"/srv/store"
    assert parse_store_location(b"ssfs://nas/") == TlsPlace("nas", 7433, None, None)
    for text in (b"/srv/store::main", b"ssfs://nas/main", b"ssh://nas/srv::main"):
        with pytest.raises(ConfigError, match="without a sync point"):
            parse_store_location(text)


def test_what_needs_the_stores_files_is_not_done_from_afar():
    for text in (b"ssfs://nas/main/home", b"ssh://nas/srv/store"):
        place = parse_location(text)
        for call in (open_task, open_target):
            with pytest.raises(ConfigError, match=f"not from here: {text.decode()}"):
                call(place)
    with pytest.raises(ConfigError, match="not from here"):
        parse_store(b"ssfs://nas")


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
