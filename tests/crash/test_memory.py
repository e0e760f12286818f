"""160,000 entries, 60,000 of them in one directory: memory stays flat in both processes.

What is measured is the most that each process ever had resident, shared libraries included.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.support import Rig
from tests.fakes.arenas import memory_directory

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

_MOST_BYTES = 120 * 10**6
_WIDE = 60_000
_DIRECTORIES = 100
_FILES_EACH = 1_000
_ENTRIES = 1 + 1 + _WIDE + _DIRECTORIES * (1 + _FILES_EACH)

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


def _make(root: Path) -> None:
    """Make the source with two processes."""
    root.mkdir()
    directories = [(f"dir-{number:03}", _FILES_EACH) for number in range(_DIRECTORIES)]
    halves = [[("wide", _WIDE), *directories[:20]], directories[20:]]
    makers = [
        subprocess.Popen([sys.executable, "-c", "import json" + _MAKE, json.dumps(half)], cwd=root)
        for half in halves
    ]
    assert [maker.wait() for maker in makers] == [0, 0]


def _measured_sync(rig: Rig, what: str) -> dict[str, object]:
    """One sync, checked to be within bounds; its summary."""
    process = rig.start(rig.sync_arguments, command=[sys.executable, "-c", _MEASURED])
    ended = rig.finish(process, timeout_s=300)
    assert ended.returncode == 0, ended
    sender, receiver = json.loads(ended.stderr.splitlines()[-1])
    summary: dict[str, object] = json.loads(ended.stdout)
    shown = f"{what}: sender {sender >> 20} MiB, receiver {receiver >> 20} MiB, {summary}"
    print(shown)  # to be seen with -s
    assert max(sender, receiver) < _MOST_BYTES, shown
    return summary


@pytest.fixture
def place() -> Iterator[Path]:
    # A million names on a disk take minutes to come and go, and the next test would pay for it.
    with memory_directory() as directory:
        yield directory


def test_no_process_of_a_large_sync_passes_120_mb(place):
    rig = Rig(place)
    _make(rig.source)
    rig.init()
    assert _measured_sync(rig, "first")["entries"] == _ENTRIES

    unchanged = _measured_sync(rig, "unchanged")
    assert (unchanged["new"], unchanged["changed"], unchanged["removed"]) == (0, 0, 0)

    with os.scandir(rig.source / "wide") as entries:
        for entry in entries:
            os.unlink(entry.path)
    assert _measured_sync(rig, "60,000 removed")["removed"] == _WIDE
