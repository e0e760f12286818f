"""Stores to try commands on: an empty one, and one with half a year of versions."""

import datetime
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ssfs.model.policy import Policy
from tests.fakes.clock import FrozenClock
from tests.fakes.syncs import Backup

FIRST = datetime.datetime(2024, 1, 1, 2, 0, tzinfo=datetime.UTC)
DAYS = 60
NEWEST = "2024-02-29"
_KEEP_ALL = Policy(days=10_000, weeks=0, months=0, keep_last=2)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A small source."""
    root = tmp_path / "source"
    (root / "docs" / "empty").mkdir(parents=True)
    (root / "docs" / "letter.txt").write_text("Dear reader\n")
    (root / "docs" / "big.bin").write_bytes(bytes(range(256)) * 400)
    (root / "to-letter").symlink_to("docs/letter.txt")
    return root


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """An empty store."""
    path = tmp_path / "store"
    Backup(path, Policy(), FrozenClock())
    return path


@pytest.fixture(scope="session")
def _made_history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a version for each day since New Year, and a second one on the last."""
    top = tmp_path_factory.mktemp("history")
    source = top / "source"
    source.mkdir()
    clock = FrozenClock(FIRST)
    backup = Backup(top / "store", _KEEP_ALL, clock)
    for day in range(DAYS):
        (source / "day").write_text(f"{day}\n")
        backup.sync(source)
        clock.advance(datetime.timedelta(days=1))
    clock.set(FIRST + datetime.timedelta(days=DAYS - 1, hours=12, minutes=30))
    (source / "day").write_text("afternoon\n")
    backup.sync(source)
    return top / "store"


@pytest.fixture
def history(_made_history: Path, tmp_path: Path) -> Path:
    """That store, a copy of one's own; versions 1 to 60 are days, 61 is the afternoon of the last."""
    copy = tmp_path / "history"
    subprocess.run(["cp", "-a", _made_history, copy], check=True)
    return copy


@pytest.fixture
def read_only_history(_made_history: Path) -> Path:
    """That store, for tests that only look."""
    return _made_history


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A mounted ext4 file system of 16 MB; needs root."""
    image, mountpoint = tmp_path / "disk.img", tmp_path / "disk"
    with open(image, "wb") as file:
        file.truncate(16 << 20)
    mountpoint.mkdir()
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, mountpoint], check=True)
    try:
        yield mountpoint
    finally:
        subprocess.run(["umount", "-l", mountpoint], check=True)
