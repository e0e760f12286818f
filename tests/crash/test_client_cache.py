"""A client's cache that a crash or a bad disk has damaged: at most one run fails over it.

Whatever is wrong with it, no wrong version is made: the server compares the logical digest of what it
was told with what the client believes.
"""

import contextlib
import os
import sqlite3
from pathlib import Path

import pytest

from tests.crash.support import Rig
from tests.fakes.trees import build_tree, edit_tree, remember

pytestmark = pytest.mark.slow


@pytest.fixture
def rig(tmp_path) -> Rig:
    """A source with one version, edited since."""
    rig = Rig(tmp_path)
    build_tree(rig.source, 6)
    rig.init()
    rig.sync()
    edit_tree(rig.source, 6)
    return rig


def _cached(rig: Rig) -> Path:
    (catalog,) = rig.cache.glob("*/*.db")
    return catalog


def _change_row(catalog: Path) -> None:
    with contextlib.closing(sqlite3.connect(catalog)) as database:
        database.execute("UPDATE entry SET size = size + 1, mode = 511 WHERE kind = 1")
        database.commit()


def _cut(catalog: Path) -> None:
    os.truncate(catalog, catalog.stat().st_size // 2)


def _empty(catalog: Path) -> None:
    os.truncate(catalog, 0)


def _overwrite_pages(catalog: Path) -> None:
    with catalog.open("r+b") as file:
        file.seek(2 * 4096)
        file.write(bytes(catalog.stat().st_size - 4 * 4096))


@pytest.mark.parametrize("damage", [_change_row, _cut, _empty, _overwrite_pages])
def test_damaged_cache_fails_one_run_at_most(rig, damage):
    damage(_cached(rig))
    image = remember(rig.source)
    rig.acknowledge(rig.run(*rig.sync_arguments), image)
    rig.check()
    rig.sync()


def test_unsynced_catalogs_of_an_earlier_boot_are_not_compared_with(rig):
    """The name of a catalog that was never synced holds the boot it can be trusted in."""
    catalog = _cached(rig)
    _change_row(catalog)
    boot = "00000000-0000-0000-0000-000000000000"
    for name in ("compared.db", f"compared-{boot}.db", f"working-{boot}.db"):
        (catalog.parent / name).write_bytes(catalog.read_bytes())
    catalog.unlink()
    rig.sync()
