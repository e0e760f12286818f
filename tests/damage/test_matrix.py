"""Every single damage: verify finds it, no other version suffers, the next sync is right."""

import os
from pathlib import Path

import pytest

from ssfs.errors import SsfsError
from tests.cli.support import run
from tests.damage.damages import (
    damaged,
    delete,
    flip,
    flip_name,
    truncate,
    verify,
)

ACTIONS = {"truncate": truncate, "delete": delete, "flip": flip}
each_action = pytest.mark.parametrize("action", ACTIONS.values(), ids=ACTIONS)
each_number = pytest.mark.parametrize("number", [1, 2, 3])


def others(history, number):
    return [version for at, version in enumerate(history.versions, 1) if at != number]


def next_sync_is_right(history):
    """Twice: the second has the first for its base."""
    for _ in range(2):
        history.sync()
        history.check(history.versions[-1])


@each_number
@each_action
def test_data_file_of_one_version(history, action, number):
    path = history.stored(number, "grows")
    action(path)
    assert damaged(verify(history.backup.path)) == {"grows": 1}
    history.check(*others(history, number))
    next_sync_is_right(history)
    history.check(*others(history, number))


@pytest.mark.parametrize("action", [truncate, flip])
@pytest.mark.parametrize("name", ["large", "kept", "small", "deep/er/inside"])
def test_data_file_that_all_versions_share(history, action, name):
    action(history.stored(1, name))
    found = damaged(verify(history.backup.path))
    assert found[name] == 3
    next_sync_is_right(history)
    # What the client still has heals the old versions, too.
    assert damaged(verify(history.backup.path)) == {}
    history.check(*history.versions)


@each_number
@each_action
def test_catalog(history, action, number):
    action(history.part(number, "catalog.db"))
    assert damaged(verify(history.backup.path)) == {"catalog.db": 1}
    history.check(*others(history, number))
    next_sync_is_right(history)
    assert damaged(verify(history.backup.path)) == {"catalog.db": 1}


@pytest.mark.parametrize("part", range(8))
def test_catalog_with_any_bit_flipped_is_no_base(history, part):
    path = history.part(3, "catalog.db")
    flip(path, path.stat().st_size * part // 8 + 1001 * (part > 0))
    next_sync_is_right(history)
    assert damaged(verify(history.backup.path)) == {"catalog.db": 1}


@each_number
@each_action
def test_record(history, action, number):
    action(history.part(number, "version.toml"))
    assert damaged(verify(history.backup.path)) == {"version.toml": 1}
    history.check(*others(history, number))
    next_sync_is_right(history)


@each_action
def test_settings_of_the_point(history, action):
    path = history.backup.path / "points" / "main" / "point.toml"
    action(path)
    assert damaged(verify(history.backup.path)) == {"points/main/point.toml": 0}
    history.check(*history.versions)
    for _ in range(3):
        assert "Everything is kept" in history.sync().expiry_held
        history.check(*history.versions)
    assert len(history.versions) == 6


@pytest.mark.parametrize("at", range(0, 200, 7))
def test_settings_of_the_point_with_any_bit_flipped(history, at):
    path = history.backup.path / "points" / "main" / "point.toml"
    flip(path, at % path.stat().st_size)
    assert damaged(verify(history.backup.path)) == {"points/main/point.toml": 0}


@each_number
@pytest.mark.parametrize("action", [truncate, delete, flip_name])
def test_version_directory(history, action, number):
    versions = history.versions
    name = str(versions[number - 1].id)
    action(history.part(number))
    found = damaged(verify(history.backup.path))
    if action is truncate:
        assert {"version.toml", "catalog.db", "lock"} <= set(found)
    else:
        assert f"versions/{name}" in found
    history.check(*(version for version in versions if str(version.id) != name))
    next_sync_is_right(history)


def interrupt(history):
    """A sync that breaks off; what it received was recorded."""
    content = os.urandom(3_000_000)
    (history.source / "new").mkdir()
    for number in range(20):
        (history.source / "new" / str(number)).write_bytes(content[: 1000 * (number + 1)])
    (history.source / "new" / "large").write_bytes(content)
    with pytest.raises(SsfsError):
        history.backup.sync(history.source, cut_after=1_500_000)
    staging = history.task_path / "staging"
    assert (staging / "staging.toml").exists()
    return staging


def damage_staged(path, action):
    """Flip a bit where it tells: a database has much room for nothing."""
    if action is flip and path.name == "catalog.db":
        flip(path, path.read_bytes().rindex(b"inside"))
    else:
        action(path)


@each_action
@pytest.mark.parametrize("name", ["staging.toml", "catalog.db"])
def test_staging(history, action, name):
    staging = interrupt(history)
    assert damaged(verify(history.backup.path)) == {}
    damage_staged(staging / name, action)
    assert damaged(verify(history.backup.path)) == {"staging": 0}
    history.check(*history.versions)
    next_sync_is_right(history)
    assert damaged(verify(history.backup.path)) == {}


def test_file_received_in_staging_with_a_flipped_bit(history):
    staging = interrupt(history)
    flip(staging / "tree" / "new" / "15")
    assert damaged(verify(history.backup.path)) == {"staging": 0}
    next_sync_is_right(history)
    assert damaged(verify(history.backup.path)) == {}


@each_action
def test_staging_that_nobody_verified(history, action):
    staging = interrupt(history)
    damage_staged(staging / "catalog.db", action)
    next_sync_is_right(history)


@pytest.mark.parametrize("name", ["versions.toml", "task.toml"])
@pytest.mark.parametrize("action", [truncate, flip])
def test_files_of_the_task(history, action, name):
    action(history.task_path / name)
    assert any(path.endswith(name) for path in damaged(verify(history.backup.path)))


def test_names_and_links_that_are_not_the_catalogs(history):
    tree = history.part(2, "tree")
    Path(tree / "stranger").write_bytes(b"stranger")
    (tree / "deep" / "link").unlink()
    (tree / "deep" / "link").symlink_to("/etc/passwd")
    (tree / "small").unlink()
    (tree / "small").mkdir()
    assert damaged(verify(history.backup.path)) == {"stranger": 1, "deep/link": 1, "small": 1}
    next_sync_is_right(history)
    assert damaged(verify(history.backup.path)) == {"stranger": 1}


def unreadable(path):
    """A directory has its place: to read it fails as a bad spot of the disk does, with an error of its own."""
    path.unlink()
    path.mkdir()


@each_number
@pytest.mark.parametrize("name", ["version.toml", "damage.toml"])
def test_part_of_a_version_that_the_disk_does_not_give_back(history, number, name):
    path = history.part(number, name)
    path.touch()
    unreadable(path)
    # That of the list would be replaced, which a directory does not let happen.
    found = damaged(verify(history.backup.path, records=name == "version.toml"))
    assert found == ({"version.toml": 1} if name == "version.toml" else {})
    history.check(*others(history, number))
    next_sync_is_right(history)


def no_directory(path):
    delete(path)
    path.touch()


@pytest.mark.parametrize("action", [truncate, delete, no_directory])
def test_tree_of_the_newest_version_that_nobody_verified(history, action):
    action(history.part(3, "tree"))
    next_sync_is_right(history)
    history.check(*history.versions[:2])


@pytest.mark.parametrize("action", [truncate, flip, delete, unreadable])
def test_settings_of_another_task_stop_nobody(history, action):
    backup = history.backup
    backup.sync(history.source, task="other")
    action(Path(os.fsdecode(backup.task("other").path)) / "task.toml")
    # A quota is counted over all tasks.
    run("point", f"{backup.path}::main", "--quota", "1G", expect=0)
    next_sync_is_right(history)
    assert [task.name for task in backup.store.point("main").tasks()] == ["task"]
    assert backup.store.point("main").lost_tasks() == ["other"]
    # Which of the two is meant nobody knows any more.
    refused = run("delete", backup.path, "1", expect=6)
    assert "lost: other" in refused.error
    assert "ssfs recover" in refused.error
    shown = run("points", backup.path, expect=3)
    assert "other" in shown.error
    if action is not unreadable:
        run("recover", backup.path, expect=0)
        run("points", backup.path, expect=0)


def test_lost_versions_of_another_task_stop_nobody(history):
    backup = history.backup
    backup.sync(history.source, task="other")
    delete(Path(os.fsdecode(backup.task("other").path)) / "versions")
    next_sync_is_right(history)
    point = f"{backup.path}::main"
    for asked in (["points", backup.path], ["find", point, "*"], ["du", point], ["expire", point]):
        shown = run(*asked, expect=3)
        assert "main/other is left out" in shown.error
        assert "recover" in shown.error
    assert "task" in run("points", backup.path, expect=3).out
    assert "other" in run("verify", backup.path, expect=6).error
    # Which of the two is meant must be said.
    assert "several tasks" in run("delete", backup.path, "1", expect=2).error
    run("recover", backup.path, expect=3)
    run("points", backup.path, expect=0)
