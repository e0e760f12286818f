"""Whole catalogs, fetched from a server as a mount does it: what is sent, what is believed, and what is kept."""

import contextlib
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from ssfs.engine.browse import rows as server_rows
from ssfs.engine.browse.link import ask_once
from ssfs.engine.browse.partial import PartialCatalog
from ssfs.engine.browse.requests import (
    CatalogQuestion,
    Lacked,
    SpaceQuestion,
    VersionRef,
)
from ssfs.engine.browse.shelf import open_shelf
from ssfs.engine.browse.whole import Base, FetchedCatalog, WrongCatalog
from ssfs.errors import ConfigError, RemoteProtocolError
from ssfs.model.entry import MAX_ENTRY_ID, ROOT_ID, USER, Entry, Kind, Principal
from ssfs.model.xattrs import encode_set, set_key
from ssfs.net.channel import Channel
from ssfs.protocol.browsing import CatalogPart, LetGo
from ssfs.protocol.messages import CatalogBatch
from ssfs.store.catalog.digest import digest_bytes, rows_digest
from ssfs.store.version import Version
from tests.engine.test_browse import browsing
from tests.fakes.edits import EDITS, Edits
from tests.fakes.syncs import Backup
from tests.mount.stores import directory, entry

ROOT = directory(ROOT_ID, 0, b"")
SUB = directory(2, ROOT_ID, b"sub")
FILE = entry(5, 2, b"file", Kind.FILE, digest=bytes(32))


def digest_of(version: Version) -> bytes:
    return bytes.fromhex(version.record().catalog_digest)


class Fetcher:
    """A client that browses and fetches.

    Attributes:
        rows: How many have come.
        answers: In how many answers.
    """

    def __init__(self, channel: Channel, ref: VersionRef, path: Path) -> None:
        self.channel = channel
        self.ref = ref
        self.path = path
        self.rows = self.answers = 0

    def fetch(self, version: Version, base: Version | None = None) -> Path:
        """The file of a version's catalog; of the base the file must be there."""
        path = self.path / f"{version.id}.db"
        start = base and Base(os.fsencode(self.path / f"{base.id}.db"), digest_of(base))
        fetched = FetchedCatalog.begin(os.fsencode(path), start)

        def take(batch: CatalogBatch) -> None:
            self.rows += len(batch.entries)
            fetched.take(batch)

        with contextlib.closing(fetched):
            while not fetched.has_all:
                ref = self.ref._replace(version=str(version.id))
                base_id = str(base.id) if base else ""
                question = CatalogQuestion(ref, base_id, fetched.through, take)
                ask_once(self.channel, question)
                self.answers += 1
                fetched.end_part(question.part)
            fetched.finish(digest_of(version))
        return path


def assert_same(path: Path, version: Version) -> None:
    """It is the catalog of the version, and whole."""
    with PartialCatalog.open_partial(os.fsencode(path)) as here, version.catalog() as there:
        assert list(here.entries()) == list(there.entries())
        assert sorted(here.principals()) == sorted(there.principals())
        assert list(here.xattr_sets()) == list(there.xattr_sets())
        groups = there.link_groups()
        for row in there.entries():
            assert here.linked(row.link_group) == groups.find(row.link_group)
        assert here.is_whole
        assert here.is_complete(ROOT_ID)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    for number in range(20):
        (source / "sub" / f"{number}").write_text(f"{number}")
    os.link(source / "sub" / "1", source / "linked")
    os.setxattr(source / "sub" / "2", "user.colour", b"red")
    return source


@pytest.fixture
def backup(tmp_path: Path, source: Path, cache_dir: Path) -> Backup:
    made = Backup(tmp_path / "store")
    made.sync(source)
    return made


@contextlib.contextmanager
def fetching(backup: Backup, tmp_path: Path) -> Iterator[Fetcher]:
    with browsing(backup) as (channel, ref):
        yield Fetcher(channel, ref, tmp_path)


def test_whole_catalog_is_fetched_in_parts(
    backup: Backup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    version = backup.newest()
    with fetching(backup, tmp_path) as client:
        assert_same(client.fetch(version), version)
        assert client.answers == 1
        monkeypatch.setattr(server_rows, "PART_ROWS", 7)
        assert_same(client.fetch(version), version)
        assert client.answers == 1 + 23 // 7 + 1


def test_only_what_differs_from_another_version_is_sent(
    backup: Backup, source: Path, tmp_path: Path
):
    (source / "sub" / "3").rename(source / "sub" / "parked")
    (source / "sub" / "4").rename(source / "sub" / "3")
    (source / "sub" / "parked").rename(source / "sub" / "4")
    (source / "sub" / "5").unlink()
    (source / "linked").unlink()
    os.removexattr(source / "sub" / "2", "user.colour")
    (source / "new").write_text("new")
    backup.sync(source)
    older, newer = backup.versions()
    with fetching(backup, tmp_path) as client:
        client.fetch(older)
        before = client.rows
        assert_same(client.fetch(newer, older), newer)
        # The root, sub, two that were swapped, one that was linked, one with an attribute, one that is new.
        assert 5 <= client.rows - before <= 8
        # And back.
        (tmp_path / f"{older.id}.db").unlink()
        assert_same(client.fetch(older, newer), older)


@pytest.mark.parametrize("seed", range(6))
def test_any_version_is_made_of_any_other(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch, cache_dir: Path
):
    source = tmp_path / "source"
    source.mkdir()
    dice = random.Random(seed)
    edits = Edits(source)
    backup = Backup(tmp_path / "store")
    for _ in range(5):
        for _ in range(30):
            edits.do(dice.choice(EDITS), dice.randrange(1000), dice.randrange(1000))
        backup.sync(source)
    monkeypatch.setattr(server_rows, "PART_ROWS", dice.choice([2, 5, 1000]))
    monkeypatch.setattr(server_rows, "_PART_GONE", dice.choice([1, 3, 1000]))
    versions = backup.versions()
    with fetching(backup, tmp_path) as client:
        for version in versions:
            assert_same(client.fetch(version), version)
        for _ in range(6):
            base, version = dice.sample(versions, 2)
            assert_same(client.fetch(version, base), version)


def test_what_is_not_there_or_not_allowed_lacks(backup: Backup, tmp_path: Path):
    with fetching(backup, tmp_path) as client:
        ref = client.ref

        def ask(ref: VersionRef, base: str) -> None:
            ask_once(client.channel, CatalogQuestion(ref, base, 0, lambda _: None))

        for gone in (ref._replace(version="000009-2024-05-01T020000Z"), ref._replace(task="no")):
            with pytest.raises(Lacked):
                ask(gone, "")
        with pytest.raises(Lacked):
            ask(ref, "000009-2024-05-01T020000Z")
        client.channel.send(LetGo(*ref))
        ask(ref, "")


@pytest.mark.parametrize("after", [-1, MAX_ENTRY_ID, 1 << 63])
def test_client_that_asks_for_rows_behind_all_ids_is_sent_away(backup: Backup, after: int):
    with browsing(backup) as (channel, ref), pytest.raises(ConfigError, match="The client "):
        ask_once(channel, CatalogQuestion(ref, "", after, lambda _: None))


def test_sizes_of_the_disk_are_told(backup: Backup, tmp_path: Path):
    with browsing(backup) as (channel, _):
        question = SpaceQuestion()
        ask_once(channel, question)
        there = os.statvfs(backup.path)
        assert question.space.fragment * question.space.blocks == there.f_frsize * there.f_blocks
        assert 0 < question.space.available <= question.space.free


# -- what is believed -------------------------------------------------------------------------------


@pytest.fixture
def fetched(tmp_path: Path) -> Iterator[FetchedCatalog]:
    made = FetchedCatalog.begin(os.fsencode(tmp_path / "fetched"), None)
    with contextlib.closing(made):
        yield made


def digest(*rows: tuple[object, ...]) -> bytes:
    return digest_bytes(rows_digest(list(rows)))


def test_rows_that_come_again_on_a_new_connection_count_once(fetched: FetchedCatalog):
    owner = Principal(USER, 7, b"ann")
    encoded = encode_set([(b"user.a", b"1")])
    attributes = (set_key(encoded), encoded)
    fetched.take(CatalogBatch([ROOT, SUB], [owner], [attributes]))
    fetched.take(CatalogBatch([ROOT, SUB, FILE], [owner], [attributes]))
    fetched.end_part(CatalogPart(5, True, []))
    fetched.finish(digest(ROOT, SUB, FILE, owner, attributes))
    with PartialCatalog.open_partial(fetched.path) as kept:
        assert list(kept.entries()) == [ROOT, SUB, FILE]


@pytest.mark.parametrize(
    "rows",
    [
        [SUB, SUB],
        [FILE, SUB],
        [SUB, FILE._replace(name=b"../x")],
        [SUB, FILE._replace(size=-1)],
        [SUB, FILE._replace(parent=1, name=b"sub")],
        [SUB, FILE._replace(link_group=1 << 70)],
        [SUB, directory(ROOT_ID, 2, b"again")],
    ],
)
def test_rows_that_no_catalog_has_are_refused(fetched: FetchedCatalog, rows: list[Entry]):
    with pytest.raises(RemoteProtocolError):
        fetched.take(CatalogBatch([ROOT, *rows], []))


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [SUB],
        [ROOT, FILE],
        [ROOT, SUB._replace(parent=3), directory(3, 2, b"in a circle")],
        [ROOT, FILE._replace(id=2, parent=ROOT_ID), FILE._replace(parent=2)],
        [ROOT, SUB._replace(parent=2)],
    ],
)
def test_catalog_that_is_no_tree_is_not_believed(fetched: FetchedCatalog, rows: list[Entry]):
    fetched.take(CatalogBatch(rows, []))
    with pytest.raises(WrongCatalog):
        fetched.finish(digest(*rows))
    fetched.close()
    assert not os.path.exists(fetched.path)


def test_catalog_with_another_digest_is_not_believed(fetched: FetchedCatalog):
    fetched.take(CatalogBatch([ROOT, SUB], []))
    with pytest.raises(WrongCatalog):
        fetched.finish(digest(ROOT))


def test_nothing_goes_from_nothing_and_nothing_comes_after_the_end(fetched: FetchedCatalog):
    with pytest.raises(RemoteProtocolError):
        fetched.end_part(CatalogPart(9, True, [4]))
    fetched.close()
    fetched.take(CatalogBatch([ROOT], []))
    assert not os.path.exists(fetched.path)


def test_answer_that_leads_no_further_is_refused():
    ref = VersionRef("main", "docs", "000001-2024-05-01T020000Z")
    for through in (7, 0, -1, MAX_ENTRY_ID):
        question = CatalogQuestion(ref, "", 7, lambda _: None)
        with pytest.raises(RemoteProtocolError):
            question.hear(CatalogPart(through, False, []))


# -- what is kept -----------------------------------------------------------------------------------


def test_whole_catalog_takes_the_place_of_a_partial_one(tmp_path: Path):
    with open_shelf(os.fsencode(tmp_path), "ssfs://nas2/main") as shelf:
        lease = shelf.lease("a" * 64)
        lease.catalog.store(CatalogBatch([ROOT], []), ROOT_ID)
        assert not lease.is_whole
        fetched = FetchedCatalog.begin(shelf.new_path(), None)
        fetched.take(CatalogBatch([ROOT, SUB, FILE], []))
        fetched.end_part(CatalogPart(5, True, []))
        fetched.finish(digest(ROOT, SUB, FILE))
        lease.replace(fetched.path)
        assert lease.is_whole
        assert list(lease.catalog.children(SUB.id)) == [FILE]
        # What was still on its way is here already.
        lease.catalog.store(CatalogBatch([SUB, FILE], []), SUB.id)
        lease.catalog.mark_complete([SUB.id])
        with pytest.raises(RemoteProtocolError):
            lease.catalog.store(CatalogBatch([SUB._replace(mode=0)], []), SUB.id)
    with open_shelf(os.fsencode(tmp_path), "ssfs://nas2/main") as shelf:
        lease = shelf.lease("a" * 64)
        assert lease.is_whole
        lease.discard()
        assert not lease.is_whole
        assert not lease.catalog.has(ROOT_ID)
