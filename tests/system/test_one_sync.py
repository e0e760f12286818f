"""One edit, one sync: what was sent, linked, recorded and shown. Read it beside ssfs/engine/SYNC.md."""

import os
from pathlib import Path

import pytest

from tests.fakes.syncs import Backup, row, stored
from tests.fakes.trees import compare_with_version, verify_version


@pytest.mark.slow
def test_one_edit_one_sync(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "letters").mkdir(parents=True)
    (source / "letters" / "ann.txt").write_text("Dear Ann")
    (source / "letters" / "bob.txt").write_text("Dear Bob")
    (source / "image").write_bytes(os.urandom(1_000_000))
    backup = Backup(tmp_path / "store")
    backup.sync(source)

    # The edit: some bytes of a large file, and nothing else.
    with (source / "image").open("r+b") as image:
        image.seek(500_000)
        image.write(b"edited")
    result = backup.sync(source)

    # Sent: a delta of a block or so, and bookkeeping; not the file.
    assert result.counts.changed == 1
    assert result.counts.bytes_sent < 10_000

    # Linked: what did not change is one inode in both versions; what changed is not.
    first, second = backup.versions()
    for name in ("letters/ann.txt", "letters/bob.txt"):
        assert stored(first, name).st_ino == stored(second, name).st_ino
        assert stored(second, name).st_nlink == 2
    assert stored(first, "image").st_ino != stored(second, "image").st_ino

    # Recorded: the same entry, another digest; the unchanged entries' rows are equal.
    assert row(first, "image").id == row(second, "image").id
    assert row(first, "image").digest != row(second, "image").digest
    assert row(first, "letters/ann.txt").digest == row(second, "letters/ann.txt").digest

    # Shown: the newest version of the day has the bare date.
    assert result.mount_name == f"{second.id.time:%Y-%m-%d}"
    for version in (first, second):
        verify_version(version)
    compare_with_version(source, second)
