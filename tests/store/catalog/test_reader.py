"""Questions to a committed catalog, whole and damaged."""

import random
import shutil
from pathlib import Path

import pytest

from ssfs.errors import CorruptStore
from ssfs.model.entry import Entry, Principal
from ssfs.store.catalog.reader import CatalogReader
from ssfs.store.catalog.writer import CatalogWriter
from tests.store.catalog.rows import ROOT, directory, row


@pytest.fixture
def path(tmp_path):
    path = bytes(tmp_path / "catalog ?#%.db")
    with CatalogWriter.open_writer(path, durable=False) as catalog:
        catalog.put(ROOT)
        catalog.put(directory(2, b"d"))
        for number in range(3, 300):
            catalog.put(row(number, b"%03d" % number, 2, size=number * 100, ino=number))
        catalog.name(Principal(0, 0, b"root"))
        catalog.create_search_indexes()
        catalog.checkpoint()
    return path


def test_children_come_in_byte_order_after_a_name(path):
    with CatalogReader.open(path) as catalog:
        names = [entry.name for entry in catalog.children(2, b"290")]
    assert names == [b"%03d" % number for number in range(291, 300)]


def test_paths_are_resolved_by_name_only(path):
    with CatalogReader.open(path) as catalog:
        assert catalog.resolve(b"").id == catalog.resolve(b".").id == 1
        assert catalog.resolve(b"d/003").id == catalog.resolve(b"./d//003").id == 3
        for missing in (b"..", b"d/..", b"d/003/x", b"d/nothing", b"x/003"):
            assert catalog.resolve(missing) is None


def test_content_is_found_from_4_kib_on(path):
    with CatalogReader.open(path) as catalog:
        assert catalog.by_content(4100, bytes(32)).id == 41
        assert catalog.by_content(4000, bytes(32)) is None
        assert (catalog.has_size(4100), catalog.has_size(4000)) == (True, False)
        assert [entry.id for entry in catalog.by_inode(50)] == [50]


def test_numbers_that_no_row_can_hold_are_not_there(path):
    with CatalogReader.open(path) as catalog:
        assert catalog.entry(1 << 63) is None
        assert catalog.path_names(1 << 64) is None
        assert list(catalog.by_inode(1 << 63)) == []


@pytest.mark.parametrize(
    "content", [None, b"", b"no database" * 100], ids=["none", "empty", "text"]
)
def test_what_is_no_catalog_is_refused(tmp_path, content):
    path = tmp_path / "catalog.db"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CorruptStore):
        CatalogReader.open(bytes(path))


def ask_everything(path):
    with CatalogReader.open(path) as catalog:
        catalog.logical_digest()
        catalog.number("entries")
        catalog.principals()
        catalog.path_names(250)
        catalog.has_size(20_000)
        catalog.by_content(20_000, bytes(32))
        list(catalog.children(2))
        list(catalog.entries())
        catalog.resolve(b"d/100")


@pytest.mark.slow
def test_damage_anywhere_is_corruption_and_nothing_else(path, tmp_path):
    whole = Path(path.decode()).read_bytes()
    damaged = tmp_path / "damaged.db"
    rng = random.Random(1)
    page = 4096
    found = 0
    for start in range(0, len(whole), page):
        for spoiled in (bytes(page), rng.randbytes(page), b"\xff" * page):
            damaged.write_bytes(whole[:start] + spoiled + whole[start + page :])
            try:
                ask_everything(bytes(damaged))
            except CorruptStore:
                found += 1
    for _ in range(300):
        spoiled = bytearray(whole)
        for _ in range(3):
            spoiled[rng.randrange(len(whole))] = rng.randrange(256)
        damaged.write_bytes(spoiled)
        try:
            ask_everything(bytes(damaged))
        except CorruptStore:
            found += 1
    assert found > 20


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_cut_catalog_is_corrupt(path, tmp_path, share):
    whole = Path(path.decode()).read_bytes()
    cut = tmp_path / "cut.db"
    cut.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(CorruptStore):
        ask_everything(bytes(cut))


def test_copy_answers_like_the_original(path, tmp_path):
    shutil.copy(path, bytes(tmp_path / "copy.db"))
    with CatalogReader.open(path) as one, CatalogReader.open(bytes(tmp_path / "copy.db")) as two:
        assert list(one.entries()) == list(two.entries())
        assert all(type(entry) is Entry for entry in one.entries())
