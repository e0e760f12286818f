"""What comes back is what was there: every case of the menagerie, and real trees, with zero differences.

Each case is a test of its own, so that a failure says what is lost and on which way: restored by the command
line, restored through a server, or seen through a mount.
"""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ssfs.protocol.restoring import Fetch
from tests.fakes.arenas import memory_directory
from tests.fakes.comparing import differences
from tests.fakes.menagerie import CASES, build_menagerie
from tests.fakes.restores import RestoreServer
from tests.system.programs import mounted, ssfs, sync

pytestmark = [pytest.mark.slow, pytest.mark.needs_root]

MANY = [
    10_000,
    pytest.param(200_000, marks=[pytest.mark.bench, pytest.mark.timeout(1800)]),
]
# The huge file is a test of its own.
HUGE = "a huge hole"
WAYS = ["restored", "fetched", pytest.param("seen", marks=pytest.mark.needs_fuse)]
REAL_TREES = [
    "/etc",
    "/var/lib/dpkg",
    "/usr/lib/git-core",  # many hard links, where it is
    pytest.param("/usr/lib", marks=[pytest.mark.bench, pytest.mark.timeout(3600)]),
]


class Kept:
    """A source, and a store with a version of it."""

    def __init__(self, place: Path, source: Path) -> None:
        self.source = source
        self.summary: dict = {}
        self._place = place
        self._store = place / "store"
        self._location = f"{self._store}::main/task"
        ssfs("init", self._store, "--timezone", "UTC", "--keep-last", "10")

    def sync(self) -> dict:
        self.summary = sync(self.source, self._location)
        assert self.summary["problems"] == []
        return self.summary

    def restored(self) -> list[str]:
        """Differences after `ssfs restore`."""
        target = self._place / "restored"
        ssfs("restore", self._location, "latest", "--to", target)
        return self._compared(target)

    def fetched(self) -> list[str]:
        """Differences after a restore through a server."""
        target = self._place / "fetched"
        server = RestoreServer(self._store)
        _, result = server.restore(Fetch("main", "task", "latest", []), target)
        assert server.errors == result.problems == []
        return self._compared(target)

    def seen(self) -> list[str]:
        """Differences through a mount."""
        with mounted(self._store, self._place / "mnt") as mountpoint:
            latest = mountpoint / "main" / "task" / "latest"
            return differences(self.source, latest)

    def _compared(self, target: Path) -> list[str]:
        found = differences(self.source, target)
        subprocess.run(["rm", "-rf", target], check=True)  # rmtree knows no path beyond PATH_MAX
        return found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    place = tmp_path_factory.mktemp("whole-truth")
    yield place
    subprocess.run(["rm", "-rf", place], check=True)


@pytest.fixture(scope="module")
def menagerie(place: Path) -> Kept:
    source = place / "menagerie"
    assert build_menagerie(source, without={HUGE}) == []
    kept = Kept(place, source)
    kept.sync()
    return kept


@pytest.fixture(scope="module")
def found(menagerie: Kept) -> dict[str, list[str]]:
    """The differences of each way, found once."""
    return {}


@pytest.mark.parametrize("case", [*(case for case in CASES if case != HUGE), "the root"])
@pytest.mark.parametrize("way", WAYS)
def test_case_comes_back_whole(
    menagerie: Kept, found: dict[str, list[str]], way: str, case: str
) -> None:
    if way not in found:
        found[way] = getattr(menagerie, way)()
    assert [line for line in found[way] if case_of(line) == case] == []


def case_of(line: str) -> str:
    """The case that a difference belongs to: the first name of its path."""
    name = line[2:].split("/")[0].split("': ")[0]
    return name if name in CASES else "the root"


def test_terabytes_of_holes_are_neither_read_nor_stored(tmp_path: Path) -> None:
    kept = Kept(tmp_path, tmp_path / "source")
    left_out = build_menagerie(kept.source, without=CASES.keys() - {HUGE})
    summary = kept.sync()
    assert summary["bytes_read"] < 100_000
    assert summary["bytes_sent"] < 100_000
    assert kept.restored() == kept.fetched() == []
    assert (kept.source / HUGE / "image").exists() or left_out
    with open(kept.source / HUGE / "image", "r+b") as file:
        file.seek(3 << 40)
        file.write(b"new data amid a hole")
        file.truncate((7 << 40) + 1)
    summary = kept.sync()
    assert summary["bytes_read"] < 100_000
    assert summary["bytes_sent"] < 100_000
    assert kept.restored() == kept.fetched() == []


@pytest.mark.needs_fuse
@pytest.mark.parametrize("entries", MANY)
def test_directory_of_many_entries_comes_back(entries: int) -> None:
    with memory_directory() as place:
        kept = Kept(place, place / "source")
        build_menagerie(kept.source, without=CASES.keys() - {"a wide directory"}, wide=entries)
        assert kept.sync()["entries"] == entries + 2
        assert kept.restored() == kept.seen() == []


@pytest.mark.needs_fuse
@pytest.mark.parametrize("tree", REAL_TREES)
def test_real_tree_comes_back(tmp_path: Path, tree: str) -> None:
    if not os.path.isdir(tree):
        pytest.skip(f"no {tree} here")
    kept = Kept(tmp_path, Path(tree))
    kept.sync()
    assert kept.restored() == kept.fetched() == kept.seen() == []
