"""80,000 entries, 30,000 of them in one directory: memory stays flat in both processes (twice as many: `-m bench`).

What is measured is the most that each process ever had resident, shared libraries included.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.crash.support import Rig
from tests.fakes.arenas import memory_directory

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

_FILES_EACH = 1_000


class Size(NamedTuple):
    """How large a source is, and what its sync may take: half a kilobyte for each entry would be too much.

    Attributes:
        wide: Files in one directory.
        directories: So many others, with `_FILES_EACH`.
        most_bytes: Memory of a process.
    """

    wide: int
    directories: int
    most_bytes: int

    @property
    def entries(self) -> int:
        return 1 + 1 + self.wide + self.directories * (1 + _FILES_EACH)


_HALF = Size(30_000, 50, 78 * 10**6)
_WHOLE = Size(60_000, 100, 120 * 10**6)

_MEASURED = """
import json, re, resource, sys
from ssfs.cli.main import main
code = main()
sender = int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
receiver = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(json.dumps([sender * 1024, receiver * 1024]), file=sys.stderr)
sys.exit(code)
"""

_MAKE = """
import os, sys
for name, files in json.loads(sys.argv[1]):
    os.mkdir(name)
    fd = os.open(name, os.O_RDONLY)
    for number in range(files):
        os.close(os.open("file-%06d" % number, os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=fd))
    os.close(fd)
"""


def _make(root: Path, size: Size) -> None:
    """Make the source with two processes."""
    root.mkdir()
    directories = [(f"dir-{number:03}", _FILES_EACH) for number in range(size.directories)]
    few = size.directories // 5
    halves = [[("wide", size.wide), *directories[:few]], directories[few:]]
    makers = [
        subprocess.Popen([sys.executable, "-c", "import json" + _MAKE, json.dumps(half)], cwd=root)
        for half in halves
    ]
    assert [maker.wait() for maker in makers] == [0, 0]


def _measured_sync(rig: Rig, most_bytes: int, what: str) -> dict[str, object]:
    """One sync, checked to be within bounds; its summary."""
    process = rig.start(rig.sync_arguments, command=[sys.executable, "-c", _MEASURED])
    ended = rig.finish(process, timeout_s=300)
    assert ended.returncode == 0, ended
    sender, receiver = json.loads(ended.stderr.splitlines()[-1])
    summary: dict[str, object] = json.loads(ended.stdout)
    shown = f"{what}: sender {sender >> 20} MiB, receiver {receiver >> 20} MiB, {summary}"
    print(shown)  # to be seen with -s
    assert max(sender, receiver) < most_bytes, shown
    return summary


@pytest.fixture
def place() -> Iterator[Path]:
    # A million names on a disk take minutes to come and go, and the next test would pay for it.
    with memory_directory() as directory:
        yield directory


@pytest.mark.parametrize("size", [_HALF, pytest.param(_WHOLE, marks=pytest.mark.bench)])
def test_no_process_of_a_large_sync_takes_more_for_more_entries(place, size):
    rig = Rig(place)
    _make(rig.source, size)
    rig.init()
    assert _measured_sync(rig, size.most_bytes, "first")["entries"] == size.entries

    unchanged = _measured_sync(rig, size.most_bytes, "unchanged")
    assert (unchanged["new"], unchanged["changed"], unchanged["removed"]) == (0, 0, 0)

    with os.scandir(rig.source / "wide") as entries:
        for entry in entries:
            os.unlink(entry.path)
    assert _measured_sync(rig, size.most_bytes, "removed")["removed"] == size.wide
