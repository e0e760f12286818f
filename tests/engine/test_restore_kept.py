"""A restore by the catalog that this machine's last sync has left in its cache: no row travels."""

import os
import shutil
import sqlite3
from pathlib import Path

import pytest

from ssfs.clock import SystemClock
from ssfs.engine.cache import cache_root
from ssfs.engine.restore.client import fetch_version
from ssfs.engine.restore.kept import MOST_KEPT, KeptCatalogs
from ssfs.engine.restore.options import RestoreOptions
from ssfs.engine.restore.restorer import RestoreResult
from ssfs.errors import ConfigError, RemoteProtocolError
from ssfs.monitor import NullMonitor
from ssfs.protocol.messages import CatalogEnd
from ssfs.protocol.restoring import Fetched
from ssfs.store.catalog.reader import CatalogReader
from ssfs.store.version import Version
from tests.engine.test_restore_hostile_server import ROOT, restore_from, rows, say
from tests.fakes.comparing import assert_same_tree
from tests.fakes.restores import RestoreServer, make_source, request_of, store_of
from tests.fakes.syncs import Backup

FILES = 300
ROWS_BYTES = 10_000
"""Less than the rows of so many files."""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = make_source(tmp_path / "source")
    (root / "many").mkdir()
    for number in range(FILES):
        (root / "many" / f"file {number}").write_text(f"{number}")
    os.setxattr(root / "many" / "file 0", "user.note", b"kept too")
    return root


@pytest.fixture
def backup(tmp_path: Path, source: Path) -> Backup:
    made = Backup(tmp_path / "store")
    made.sync(source)
    return made


@pytest.fixture
def out(tmp_path: Path) -> Path:
    directory = tmp_path / "out"
    directory.mkdir()
    return directory


def fetch(
    version: Version, target: Path, *paths: str, cached: bool = True
) -> tuple[RestoreResult, int]:
    """A restore through a server, and what the client received."""
    server = RestoreServer(store_of(version))
    options = RestoreOptions(cache=cache_root() if cached else None)
    with server.session() as channel:
        request = request_of(version, *paths)
        where = os.fsencode(target)
        _, result = fetch_version(channel, request, where, NullMonitor(), SystemClock(), options)
        return result, channel.received_bytes


def kept() -> Path:
    """The only finished catalog in the cache."""
    (path,) = Path(os.fsdecode(cache_root())).glob("*/*.db")
    return path


def test_rows_that_are_here_are_not_sent(backup: Backup, source: Path, tmp_path: Path):
    targets = tmp_path / "with", tmp_path / "without"
    result, with_cache = fetch(backup.newest(), targets[0])
    other, without = fetch(backup.newest(), targets[1], cached=False)
    assert result.problems == other.problems == []
    assert (result.entries, result.created) == (other.entries, other.created)
    assert with_cache < without - ROWS_BYTES
    for target in targets:
        assert_same_tree(source, target)


def test_right_tree_costs_some_hundred_bytes(backup: Backup, source: Path):
    result, received = fetch(backup.newest(), source)
    assert (result.unchanged, received < 500) == (result.entries, True)


def test_a_part_is_restored_by_the_whole_catalog(backup: Backup, source: Path, out: Path):
    result, received = fetch(backup.newest(), out, "a", "many/file 0")
    assert (result.problems, received < (1 << 20) + ROWS_BYTES) == ([], True)
    assert sorted(os.listdir(out)) == ["a", "file 0"]
    assert_same_tree(source / "a", out / "a")
    assert os.getxattr(out / "file 0", "user.note") == b"kept too"


def test_a_path_that_is_not_there_is_still_refused(backup: Backup, out: Path):
    with pytest.raises(ConfigError, match="Not in the version"):
        fetch(backup.newest(), out, "a", "nowhere")
    assert os.listdir(out) == []


def test_rows_of_an_older_version_are_sent(backup: Backup, source: Path, out: Path):
    shutil.copytree(source, out.with_name("before"), symlinks=True, ignore=lambda *_: ["fifo"])
    (source / "many" / "new").write_text("new")
    backup.sync(source)
    old = backup.versions()[0]
    result, received = fetch(old, out)
    assert (result.problems, received > ROWS_BYTES) == ([], True)
    assert not (out / "many" / "new").exists()


def test_a_cache_that_is_not_there_is_none(out: Path):
    assert KeptCatalogs(None).digests() == []
    assert KeptCatalogs(os.fsencode(out / "nowhere")).digests() == []


def test_the_newest_are_named_and_nothing_else(tmp_path: Path, backup: Backup):
    for number in range(MOST_KEPT + 10):
        task = tmp_path / "cache" / f"task-{number}"
        task.mkdir(parents=True)
        shutil.copy(kept(), task / f"{number:064x}.db")
        os.utime(task / f"{number:064x}.db", (number, number))
        (task / "working-x.db").write_bytes(b"not finished")
        (task / f"{number + 1000:064x}.db").write_bytes(b"no catalog")
        os.utime(task / f"{number + 1000:064x}.db", (0, 0))
    catalogs = KeptCatalogs(os.fsencode(tmp_path / "cache"))
    numbers = [int.from_bytes(digest, "big") for digest in catalogs.digests()]
    catalogs.close()
    assert numbers == list(range(MOST_KEPT + 9, 9, -1))


def test_a_sync_may_delete_it_meanwhile(backup: Backup):
    digest = bytes.fromhex(kept().stem)
    catalogs = KeptCatalogs(cache_root())
    kept().unlink()
    root = catalogs.find(digest).root()
    catalogs.close()
    assert root is not None


def test_rows_are_looked_at_one_by_one_only_where_the_bytes_may_be_others(
    backup: Backup, monkeypatch
):
    looked: list[bytes] = []
    digests_of = CatalogReader.recomputed_digest

    def recomputed_digest(catalog: CatalogReader, *, by_path: bool) -> bytes:
        looked.append(catalog.path)
        return digests_of(catalog, by_path=by_path)

    monkeypatch.setattr(CatalogReader, "recomputed_digest", recomputed_digest)

    def looked_at() -> int:
        looked.clear()
        catalogs = KeptCatalogs(cache_root())
        catalogs.find(bytes.fromhex(kept().stem))
        catalogs.close()
        return len(looked)

    assert looked_at() == 0
    written = kept().with_suffix(".blake3")
    for other in (bytes(32), b"", kept().read_bytes()[:32]):
        written.write_bytes(other)
        assert looked_at() == 1
    written.unlink()
    assert looked_at() == 1


DAMAGES = {
    "row": "UPDATE entry SET mode = mode + 1 WHERE name = CAST('file 7' AS BLOB)",
    "lost row": "DELETE FROM entry WHERE name = CAST('file 7' AS BLOB)",
    "index": "DROP INDEX entry_path",
    "index with a hole": "DROP INDEX entry_path; "
    "CREATE INDEX entry_path ON entry (parent, name) WHERE name <> CAST('file 7' AS BLOB)",
    "owner's name": "UPDATE principal SET name = x'78'",
    "attributes": "UPDATE xattr_set SET pairs = x'90'",
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_one_that_is_damaged_is_named_and_deleted_and_nothing_written(
    backup: Backup, out: Path, damage: str
):
    path = kept()
    database = sqlite3.connect(path)
    database.executescript(damage)
    database.close()
    with pytest.raises(ConfigError, match="cache was damaged") as caught:
        fetch(backup.newest(), out)
    assert (caught.value.path, path.exists()) == (os.fsencode(path), False)
    assert os.listdir(out) == []
    assert fetch(backup.newest(), out)[0].problems == []


def test_names_out_of_order_are_damage(backup: Backup, out: Path):
    # The index's pages say another order than the names do: by its middle a name would not be found.
    path = kept()
    content = path.read_bytes()
    for offset in range(len(content) - 7):
        if content[offset : offset + 7] == b"file 71":
            content = content[:offset] + b"file 6z" + content[offset + 7 :]
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="cache was damaged"):
        fetch(backup.newest(), out)
    assert os.listdir(out) == []


def test_a_server_may_not_name_what_it_was_not_told_of(out: Path):
    fetched = Fetched("000001-2024-05-01T020000Z", "", 0, 0, "", b"x" * 32)
    with pytest.raises(RemoteProtocolError, match="that we do not have"):
        restore_from(say(fetched, CatalogEnd()), out)
    assert os.listdir(out) == []


def test_a_server_may_not_send_rows_that_it_said_are_here(backup: Backup, out: Path):
    fetched = Fetched("000001-2024-05-01T020000Z", "", 0, 0, "", bytes.fromhex(kept().stem))
    with pytest.raises(RemoteProtocolError, match="rows that it said we have"):
        restore_from(
            say(fetched, rows(ROOT), CatalogEnd()), out, options=RestoreOptions(cache=cache_root())
        )
    assert os.listdir(out) == []
