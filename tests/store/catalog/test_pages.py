"""What comparing pages finds is all that differs: held against the rows themselves."""

import contextlib
import itertools
import random
import sqlite3
from pathlib import Path

import pytest

from ssfs.errors import CorruptStore
from ssfs.model.entry import Kind
from ssfs.store.catalog.pages import Changes, Pages
from ssfs.store.catalog.reader import CatalogReader
from ssfs.store.version import Version
from tests.fakes.catalogs import Catalogs, ChangingCatalog, catalog_path
from tests.fakes.histories import make_store, make_task


@pytest.fixture
def catalogs(tmp_path: Path) -> Catalogs:
    """A task with a version of 600 files."""
    made = Catalogs(make_task(make_store(tmp_path / "store"), "docs"))
    with made.next_version() as version:
        for top in range(20):
            directory = version.directory_in(1, b"directory-%d" % top)
            for number in range(30):
                version.file_in(directory, b"file-%d" % number, 1000 + number, number)
    return made


def edit(version: ChangingCatalog, rng: random.Random, edits: int) -> None:
    """Change, remove, add and move files at random."""
    for number in range(edits):
        entry = version.catalog.entry(rng.randrange(22, 700))
        if entry is None or entry.kind != Kind.FILE:
            continue
        match rng.randrange(5):
            case 0:
                version.catalog.remove(entry.id)
            case 1:
                name = b"n%d" % rng.randrange(10 ** rng.randrange(1, 30))
                with contextlib.suppress(Exception):
                    version.file_in(entry.parent, name, 5, number)
            case 2:
                moved = entry._replace(name=b"moved-%d-%d" % (version.version.id.sequence, number))
                version.catalog.put(moved)
            case 3:
                version.catalog.put(
                    entry._replace(size=entry.size + 1), version.catalog.take_content()
                )
            case 4:
                version.catalog.put(entry._replace(mtime_s=entry.mtime_s + 1))


def rows(version: Version) -> dict[int, tuple]:
    with contextlib.closing(sqlite3.connect(catalog_path(version))) as database:
        return {row[0]: row for row in database.execute("SELECT * FROM entry")}


def changes(older: Version, newer: Version, limit: int = 10_000) -> Changes | None:
    with older.catalog() as one, newer.catalog() as two, Pages(one) as left, Pages(two) as right:
        return left.changes(right, limit)


@pytest.mark.parametrize("seed", range(5))
def test_no_row_that_differs_is_missed(catalogs: Catalogs, seed: int):
    rng = random.Random(seed)
    for edits in (0, 1, 3, 30, 500):
        with catalogs.next_version() as version:
            edit(version, rng, edits)
    versions = catalogs.task.versions()
    for older, newer in [*itertools.pairwise(versions), (versions[-1], versions[0])]:
        found = changes(older, newer)
        assert found is not None
        one, two = rows(older), rows(newer)
        differ = {
            entry_id
            for entry_id in one.keys() | two.keys()
            if one.get(entry_id) != two.get(entry_id)
        }
        assert differ <= set(found.ids)
        assert list(found.ids) == sorted(set(found.ids))


def test_equal_rows_are_not_named(catalogs: Catalogs):
    for _ in range(2):
        with catalogs.next_version() as version:
            version.set("directory-3/file-7", mtime_s=version.version.id.sequence)
    _, older, newer = catalogs.task.versions()
    found = changes(older, newer)
    assert found is not None
    assert len(found.ids) == 1
    assert changes(older, newer, limit=0) is None


def test_catalog_written_anew_is_compared_too(catalogs: Catalogs):
    with catalogs.next_version() as version:
        version.remove("directory-3/file-7")
    older, newer = catalogs.task.versions()
    with contextlib.closing(sqlite3.connect(catalog_path(newer))) as database:
        database.execute("VACUUM")
    found = changes(older, newer)
    assert found is not None
    assert rows(older).keys() - rows(newer).keys() <= set(found.ids)
    with contextlib.closing(sqlite3.connect(catalog_path(newer))) as database:
        database.execute("PRAGMA page_size = 8192")
        database.execute("VACUUM")
    assert changes(older, newer) is None


def test_end_of_a_long_row_that_differs_is_told(catalogs: Catalogs):
    with catalogs.next_version() as version:
        version.set("directory-3/file-7", target=b"x" * 9000)
    with catalogs.next_version() as version:
        entry = version.catalog.resolve(b"directory-3/file-7")
        assert entry is not None
        version.catalog.put(entry, version.catalog.take_content())
    _, older, newer = catalogs.task.versions()
    found = changes(older, newer)
    assert found is not None
    assert found.may_be_longer
    with newer.catalog() as catalog:
        assert catalog.long_ids() == [entry.id]


def test_damaged_pages_are_refused(catalogs: Catalogs):
    (version,) = catalogs.task.versions()
    with version.catalog() as catalog:
        root, path = catalog.root_page(), catalog_path(version)
    content = bytearray(path.read_bytes())
    content[(root - 1) * 4096] = 10
    path.write_bytes(content)
    with CatalogReader.open(version.path + b"/catalog.db") as catalog, pytest.raises(CorruptStore):
        Pages(catalog)
