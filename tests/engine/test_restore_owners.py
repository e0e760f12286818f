"""Whose restored files are: by the user's word, by name, by number."""

import os
import subprocess
from pathlib import Path

import pytest

from ssfs.engine.restore.options import OwnerMap, RestoreOptions
from ssfs.store.version import Version
from tests.fakes.syncs import Backup


def backed_up(tmp_path: Path, source: Path) -> Version:
    """The only version of a source; a copy of the source is kept in `as-it-was`."""
    backup = Backup(tmp_path / "store")
    backup.sync(source)
    subprocess.run(["cp", "-a", source, tmp_path / "as-it-was"], check=True)
    return backup.newest()


@pytest.mark.needs_root
def test_owners_go_by_what_the_user_says(restore, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    daemon, nameless = 1, 54321
    for name, number in (("daemon", daemon), ("nameless", nameless), ("root", 0)):
        (source / name).write_text(name)
        os.chown(source / name, number, number)
    version = backed_up(tmp_path, source)

    def owners(**mapped: object) -> list[tuple[int, int]]:
        options = RestoreOptions(owners=OwnerMap(**mapped))
        assert restore(version, tmp_path / "out", options=options).problems == []
        found = [(tmp_path / "out" / name).stat() for name in ("daemon", "nameless", "root")]
        return [(status.st_uid, status.st_gid) for status in found]

    assert owners(users={"daemon": 7, "54321": 8}) == [(7, 1), (8, nameless), (0, 0)]
    assert owners(users={"1": 9}, groups={"daemon": 5, "1": 6}) == [
        (9, 5),
        (nameless, nameless),
        (0, 0),
    ]
    assert owners() == [(1, 1), (nameless, nameless), (0, 0)]


@pytest.mark.needs_root
def test_numbers_count_where_names_are_not_to(restore, tmp_path, monkeypatch):
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_text("x")
    os.chown(source / "file", 1, 1)
    version = backed_up(tmp_path, source)

    def getpwnam(_name: str) -> None:
        raise AssertionError("a name was asked for")

    monkeypatch.setattr("ssfs.engine.restore.owners.pwd.getpwnam", getpwnam)
    options = RestoreOptions(owners=OwnerMap(numeric=True))
    assert restore(version, tmp_path / "out", options=options).problems == []
    assert (tmp_path / "out" / "file").stat().st_uid == 1
