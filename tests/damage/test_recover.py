"""Recovery brings back what can be proven, says what is lost, and changes nothing else."""

import datetime
import os
import random
import shutil
import sqlite3
import subprocess
from pathlib import Path

import pytest

from ssfs.clock import SystemClock
from ssfs.engine.recover import Recovery
from ssfs.errors import CorruptStore
from ssfs.model.policy import KEEP_EVERYTHING
from ssfs.monitor import NullMonitor
from ssfs.store.clients import Registry
from ssfs.store.store import Store
from tests.cli.support import run, ssfs_json
from tests.damage.damages import damaged, delete, flip, flip_name, truncate, verify
from tests.fakes.syncs import stored
from tests.fakes.trees import verify_version


def recover(history, *, dry_run=False, yes=False):
    path = os.fsencode(history.backup.path)
    made = Recovery(path, NullMonitor(), SystemClock(), dry_run=dry_run, drops_strays=yes)
    made.run()
    return made.report


def paths(outcomes):
    return sorted(item.path for item in outcomes)


def everything(path: Path) -> bytes:
    """Names, sizes, times and inode numbers of all that a store holds."""
    listing = ["find", path, "-printf", "%P %s %T@ %C@ %i %n\\n"]
    return subprocess.run(listing, check=True, capture_output=True).stdout


def is_whole_again(history):
    assert damaged(verify(history.backup.path)) == {}
    history.check(*history.versions)
    history.sync()
    history.check(*history.versions)


def test_whole_store_is_left_alone(history):
    before = everything(history.backup.path)
    assert recover(history, dry_run=True).recovered == []
    assert everything(history.backup.path) == before
    report = recover(history)
    assert (report.recovered, report.lost) == ([], [])
    is_whole_again(history)


def test_dry_run_changes_nothing(history):
    flip(history.part(1, "version.toml"))
    delete(history.part(2, "catalog.db"))
    delete(history.stored(3, "kept"))
    delete(history.backup.path / "points" / "main" / "point.toml")
    before = everything(history.backup.path)
    report = recover(history, dry_run=True)
    assert len(report.recovered) == 2
    assert len(report.lost) == 2
    assert everything(history.backup.path) == before


@pytest.mark.parametrize("action", [truncate, delete, flip])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_record_comes_back_from_the_catalog(history, action, number):
    before = [version.record() for version in history.versions]
    action(history.part(number, "version.toml"))
    report = recover(history)
    assert paths(report.recovered) == [f"main/task {before[number - 1].id}: version.toml"]
    assert report.lost == []
    made = history.versions[number - 1].record()
    was = before[number - 1]
    for field in ("id", "sequence", "time", "client", "source", "catalog_digest", "root"):
        assert getattr(made, field) == getattr(was, field), field
    assert made.catalog_file == was.catalog_file
    assert (made.counts.entries, made.counts.bytes) == (was.counts.entries, was.counts.bytes)
    is_whole_again(history)


def test_record_does_not_come_back_from_a_damaged_catalog(history):
    catalog = history.part(2, "catalog.db")
    flip(catalog, catalog.read_bytes().rindex(b"inside"))
    delete(history.part(2, "version.toml"))
    report = recover(history)
    assert (len(report.recovered), len(report.lost)) == (0, 1)
    assert not history.part(2, "version.toml").exists()


def test_catalog_comes_back_from_a_version_that_says_the_same(history):
    history.sync()
    history.sync()
    assert len({version.record().catalog_digest for version in history.versions[-2:]}) == 1
    truncate(history.part(5, "catalog.db"))
    report = recover(history)
    assert len(report.recovered) == 1
    assert report.lost == []
    is_whole_again(history)


def test_catalog_comes_back_from_its_own_rows_when_only_an_index_is_damaged(history):
    path = history.part(2, "catalog.db")
    with sqlite3.connect(path) as database:
        query = "SELECT rootpage FROM sqlite_master WHERE name = 'entry_path'"
        ((page,),) = database.execute(query).fetchall()
        ((size,),) = database.execute("PRAGMA page_size").fetchall()
    database.close()
    flip(path, (page - 1) * size + size - 20)
    assert damaged(verify(history.backup.path)) == {"catalog.db": 1}
    report = recover(history)
    assert [item.outcome for item in report.recovered] == [
        "was damaged: made anew from its own rows, all of which are there"
    ]
    is_whole_again(history)


@pytest.mark.parametrize("action", [truncate, delete])
def test_catalog_without_proof_is_said_to_be_lost(history, action):
    action(history.part(2, "catalog.db"))
    report = recover(history)
    assert report.recovered == []
    assert paths(report.lost) == [f"main/task {history.versions[1].id}: catalog.db"]
    assert damaged(verify(history.backup.path)) == {"catalog.db": 1}
    history.check(history.versions[0], history.versions[2])
    assert history.stored(2, "kept").read_bytes() == b"kept" * 2000


def test_directory_gets_its_name_back(history):
    flip_name(history.part(3))
    (history.part(2)).rename(history.part(2).with_name("lost+found"))
    report = recover(history)
    assert len(report.recovered) == 2
    assert report.lost == []
    is_whole_again(history)
    assert len(history.versions) == 4


def test_lost_version_is_said_once(history):
    name = str(history.versions[1].id)
    delete(history.part(2))
    report = recover(history)
    assert paths(report.lost) == [f"main/task {name}"]
    assert recover(history).lost == []
    is_whole_again(history)


@pytest.mark.parametrize("action", [truncate, delete, flip])
def test_settings_of_a_point_are_made_anew_and_keep_everything(history, action):
    path = history.backup.path / "points" / "main" / "point.toml"
    action(path)
    report = recover(history)
    assert paths(report.recovered) == ["points/main/point.toml"]
    assert history.backup.store.point("main").settings.policy == KEEP_EVERYTHING
    run("point", history.backup.path, "--days", "7", expect=0)
    is_whole_again(history)


@pytest.mark.parametrize("action", [truncate, delete, flip])
def test_settings_of_a_task_come_back_from_its_versions(history, action):
    before = history.backup.task().settings
    action(history.task_path / "task.toml")
    report = recover(history)
    assert paths(report.recovered) == ["points/main/tasks/task/task.toml"]
    after = history.backup.task().settings
    assert (after.owner, after.source) == (before.owner, before.source)
    assert after.id != before.id
    is_whole_again(history)
    assert [version.id.sequence for version in history.versions] == [1, 2, 3, 4]


def test_task_that_nothing_speaks_for_is_lost(history):
    task_path = history.task_path
    for number in (1, 2, 3):
        delete(history.part(number, "version.toml"))
    delete(task_path / "task.toml")
    report = recover(history)
    assert any(path.endswith("task.toml") for path in paths(report.lost))
    assert not (task_path / "task.toml").exists()


def test_task_whose_settings_are_lost_is_not_given_to_whoever_comes(history):
    task_path = history.task_path
    delete(task_path / "task.toml")
    with pytest.raises(CorruptStore, match="whose task"):
        history.backup.sync(history.source)
    assert not (task_path / "task.toml").exists()


@pytest.mark.parametrize("action", [truncate, delete])
def test_settings_of_the_store_are_made_anew(history, action):
    store = Store.open(os.fsencode(history.backup.path))
    now = datetime.datetime.now(datetime.UTC)
    Registry(store).ensure_server_certificate(now)
    action(history.backup.path / "store.toml")
    assert "store.toml" in run("versions", history.backup.path, expect=6).error
    report = recover(history)
    assert paths(report.recovered) == ["store.toml"]
    again = Store.open(os.fsencode(history.backup.path))
    assert again.settings.id == store.settings.id, "its certificates know it"
    assert again.settings.policy == KEEP_EVERYTHING
    is_whole_again(history)


def test_directory_that_is_no_store_is_not_made_one(tmp_path):
    (tmp_path / "docs").mkdir()
    assert "Not a store" in run("recover", tmp_path, expect=6).error
    assert os.listdir(tmp_path) == ["docs"]


def test_file_heals_from_a_copy_elsewhere_in_the_store(history):
    # The same content has two inodes: `copy of kept` came with the first version, before it could be linked.
    kept, copy = (stored(history.versions[0], name).st_ino for name in ("kept", "copy of kept"))
    assert kept != copy
    flip(history.stored(1, "kept"))
    verify(history.backup.path)
    report = recover(history)
    assert paths(report.recovered) == ["main/task: kept"]
    assert report.lost == []
    is_whole_again(history)


def test_file_heals_from_another_task(history, tmp_path):
    history.backup.identity = "other"
    history.backup.sync(history.source, task="other")
    history.backup.identity = "history"
    flip(history.stored(1, "large"))
    truncate(history.stored(1, "old"))
    verify(history.backup.path)
    report = recover(history)
    assert paths(report.recovered) == ["main/task: large"]
    assert paths(report.lost) == ["main/task: old"]
    assert damaged(verify(history.backup.path)) == {"old": 1}


def test_missing_names_come_back_from_what_is_elsewhere(history):
    delete(history.stored(2, "deep"))
    delete(history.stored(3, "small"))
    report = recover(history)
    assert report.lost == []
    is_whole_again(history)


def test_strays_are_named_and_go_only_when_told(history):
    (
        history.part(2, "tree") / "deep" / b"str\\ay\xff".decode(errors="surrogateescape")
    ).write_bytes(b"?")
    report = recover(history)
    assert paths(report.lost) == ["main/task: deep/str\\\\ay\\xff"]
    report = recover(history, yes=True)
    assert paths(report.recovered) == ["main/task: deep/str\\\\ay\\xff"]
    is_whole_again(history)


def test_lock_comes_back(history):
    delete(history.part(2, "lock"))
    assert damaged(verify(history.backup.path)) == {"lock": 1}
    report = recover(history)
    assert len(report.recovered) == 1
    is_whole_again(history)


def test_command_says_what_became_of_it(history):
    flip(history.part(1, "version.toml"))
    delete(history.part(2, "catalog.db"))
    outcome = run("recover", history.backup.path, "--dry-run", expect=3)
    assert "Dry run, nothing was changed: 1 recovered, 1 lost" in outcome.out
    report = ssfs_json("recover", history.backup.path, expect=3)
    assert list(report) == ["dry_run", "recovered", "lost"]
    assert len(report["recovered"]) == len(report["lost"]) == 1
    outcome = run("recover", history.backup.path, expect=3)
    assert "lost: main/task" in outcome.err
    assert "::main" in run("recover", f"{history.backup.path}::main", expect=2).error
    assert "own machine" in run("recover", "ssfs://nas2", expect=2).error


@pytest.mark.parametrize("seed", range(12))
def test_any_mix_of_damage_ends_in_a_store_that_tells_the_truth(history, seed):
    """Whatever was damaged: what is not reported is whole, and the next sync is right."""
    rng = random.Random(seed)
    files = sorted(
        path
        for path in history.backup.path.rglob("*")
        if path.is_file() and not path.is_symlink() and path.stat().st_size
    )
    for path in rng.sample(files, 6):
        if path.exists() and path.stat().st_size:
            action = rng.choice([truncate, delete, flip])
            if action is flip:
                flip(path, rng.randrange(path.stat().st_size))
            else:
                action(path)
    recover(history)
    report = verify(history.backup.path)
    hurt = {name for item in report.left for name in item.versions}
    again = Store.open(os.fsencode(history.backup.path))
    try:
        versions = again.point("main").task("task").versions()
    except Exception:
        assert any(item.path.endswith("task.toml") for item in recover(history).lost)
        return
    whole = [version for version in versions if str(version.id) not in hurt]
    for version in whole:
        verify_version(version)
    history.check(*whole)
    history.sync()
    history.check(history.versions[-1])
    shutil.rmtree(history.source)


def test_flag_of_a_source_that_has_lost_its_files_outlives_its_record(history):
    """Else the next sync would hold the source against what is left, and good versions would expire."""
    kept = history.source.with_name("kept elsewhere")
    history.source.rename(kept)
    history.source.mkdir()
    assert history.sync().shrunk
    was = history.versions[-1].record().shrunk
    delete(history.part(4, "version.toml"))
    recover(history)
    assert history.versions[-1].record().shrunk == was
    result = history.sync()
    assert result.shrunk == was
    assert "Expiry holds" in result.expiry_held
