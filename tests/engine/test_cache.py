"""The client's cache: found by digest, lost at any time, never wrong, never anywhere else."""

import os
import shutil
from pathlib import Path

import pytest

from ssfs.engine import cache as cache_module
from ssfs.engine.cache import cache_root, open_cache
from ssfs.errors import ConfigError, RemoteProtocolError
from tests.store.stagings import ROOT, file

TASK = "0123456789abcdef" * 2
NOTHING = bytes(32)


def make(cache, *rows):
    """A catalog of these rows, fetched; its digest."""
    fetched = cache.create()
    fetched.load([ROOT, *rows], [])
    fetched.create_search_indexes()
    digest = fetched.logical_digest()
    cache.finish_fetched(fetched, digest).close()
    return digest


def names(root):
    return sorted(name for name in os.listdir(os.path.join(root, TASK.encode())) if name != b"lock")


@pytest.fixture
def root(tmp_path):
    return bytes(tmp_path / "cache")


def test_fetched_catalog_is_found_again(root):
    with open_cache(root, TASK) as cache:
        assert cache.find(NOTHING) is None
        digest = make(cache, file(2, b"a"))
    with open_cache(root, TASK) as cache:
        with cache.find(digest) as found:
            assert found.child(1, b"a") == file(2, b"a")
        assert cache.find(NOTHING) is None


def test_only_the_committed_catalog_is_kept(root):
    with open_cache(root, TASK) as cache:
        digest = make(cache, file(2, b"a"))
        with cache.find(digest) as compared:
            working = cache.begin_working(compared)
        working.put(file(3, b"b"))
        new = working.logical_digest()
        cache.keep_working(working)
        assert sorted(names(root)) == [new.hex().encode() + end for end in (b".blake3", b".db")]
        with cache.find(new) as found:
            assert found.child(1, b"b") == file(3, b"b")


def test_forgotten_cache_finds_nothing(root):
    with open_cache(root, TASK) as cache:
        digest = make(cache, file(2, b"a"))
        cache.forget()
        assert names(root) == []
        assert cache.find(digest) is None


def test_interrupted_run_is_found_as_of_its_checkpoint(root):
    with open_cache(root, TASK) as cache:
        digest = make(cache, file(2, b"a"))
        with cache.find(digest) as compared:
            working = cache.begin_working(compared)
        working.put(file(3, b"b"))
        working.checkpoint()
        recorded = working.logical_digest()
        working.put(file(4, b"c"))
        # Killed: a copy of the files as they lie there, journal and all.
        working._flush()
        place = os.path.join(root, TASK.encode())
        killed = place + b"-killed"
        shutil.copytree(place, killed)
        working.close()
    shutil.rmtree(place)
    os.rename(killed, place)
    for _ in range(2):
        with open_cache(root, TASK) as cache, cache.find(recorded) as found:
            assert [entry.id for entry in found.entries()] == [1, 2, 3]
            with cache.begin_working(found) as working:
                assert working.logical_digest() == recorded
                assert [entry.id for entry in working.entries()] == [1, 2, 3]


def test_working_catalog_of_another_boot_is_not_trusted(root, tmp_path, monkeypatch):
    (tmp_path / "boot").write_text("another-boot\n")
    with open_cache(root, TASK) as cache:
        digest = make(cache)
        with cache.find(digest) as compared, cache.begin_working(compared) as working:
            working.put(file(2, b"a"))
            working.checkpoint()
            recorded = working.logical_digest()
    monkeypatch.setattr(cache_module, "_BOOT_ID", str(tmp_path / "boot"))
    with open_cache(root, TASK) as cache:
        assert cache.find(recorded) is None
        assert cache.find(digest) is not None


def test_journal_of_a_lost_catalog_is_not_played_back_into_the_next(root):
    with open_cache(root, TASK) as cache:
        rows = [file(number, b"%d" % number) for number in range(2, 300)]
        one = make(cache, *rows)
        other = make(cache, *(row._replace(uid=7) for row in rows))
        with cache.find(one) as compared, cache.begin_working(compared) as working:
            working.query("PRAGMA cache_spill = 1")
            for row in rows:
                working.put(row._replace(mode=0o600))
            path = Path(os.fsdecode(working.path))
            journal = path.with_name(path.name + "-journal")
            left = journal.read_bytes()
        assert len(left) > 4096
        path.unlink()
        with cache.find(other) as compared:
            journal.write_bytes(left)
            with cache.begin_working(compared) as again:
                assert list(again.entries()) == list(compared.entries())


@pytest.mark.parametrize("content", [b"", b"damaged" * 1000])
def test_damaged_catalog_is_fetched_again(root, content):
    with open_cache(root, TASK) as cache:
        digest = make(cache, file(2, b"a"))
        path = Path(os.fsdecode(os.path.join(root, TASK.encode()))) / f"{digest.hex()}.db"
        path.write_bytes(content)
        assert cache.find(digest) is None
        assert make(cache, file(2, b"a")) == digest
        assert cache.find(digest) is not None


def test_interrupted_fetch_is_begun_anew(root):
    with open_cache(root, TASK) as cache:
        fetched = cache.create()
        fetched.load([ROOT], [])
        fetched.close()
        (path,) = Path(os.fsdecode(root)).glob(f"{TASK}/fetched.db")
        path.with_name("fetched.db-journal").write_bytes(b"left over")
        with cache.create() as again:
            assert again.root() is None


def test_second_process_gets_a_place_of_its_own(root):
    with open_cache(root, TASK) as first, open_cache(root, TASK) as second:
        digest = make(second)
        assert first.find(digest) is None
        assert len(os.listdir(root)) == 2
    assert os.listdir(root) == [TASK.encode()]


@pytest.mark.parametrize(
    "task_id",
    ["", ".", "..", "../victim", "/etc", "a/b", "a\0", "A" * 32, "a" * 65, "\udcff", "a\n"],
)
def test_server_cannot_name_a_place_elsewhere(root, task_id):
    with pytest.raises(RemoteProtocolError), open_cache(root, task_id):
        pass
    assert not os.path.exists(root) or os.listdir(root) == []


@pytest.mark.parametrize("task_id", [TASK, "dry-run"])
def test_ids_that_servers_give_are_taken(root, task_id):
    with open_cache(root, task_id) as cache:
        assert cache.find(NOTHING) is None


def test_place_that_cannot_be_made_is_said_with_what_to_do(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(ConfigError, match="SSFS_CACHE_DIR"),
        open_cache(bytes(tmp_path / "file"), TASK),
    ):
        pass


def test_root_follows_the_environment(monkeypatch):
    monkeypatch.setenv("SSFS_CACHE_DIR", "/chosen")
    assert cache_root() == b"/chosen"
    monkeypatch.delenv("SSFS_CACHE_DIR")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert cache_root() == b"/var/cache/ssfs"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_root() == b"/xdg/ssfs"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/eva")
    assert cache_root() == b"/home/eva/.cache/ssfs"
