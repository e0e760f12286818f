"""A large file whose backup is killed twice on the way: what travels again is little (2 GB of it: `-m bench`)."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from tests.crash.kills import Kill, run_killed
from tests.crash.support import Rig

_PLACE = "/var/tmp"
_MB = 1 << 20
_NEEDED_TIMES = 5
"""Source, partial, new file, and as much again for others."""
_MOST_AGAIN_BYTES = 64 * 10**6
_HANG_S = 900

pytestmark = [pytest.mark.slow, pytest.mark.needs_root, pytest.mark.timeout(3 * _HANG_S)]


@pytest.fixture
def rig():
    # tmp_path may be in memory.
    with tempfile.TemporaryDirectory(prefix="ssfs-test-", dir=_PLACE) as directory:
        rig = Rig(Path(directory))
        rig.source.mkdir()
        rig.init()
        yield rig


def make_file(path: Path, size: int) -> None:
    """No two blocks of it are alike, wherever they begin."""
    block = os.urandom(1 << 20)
    with path.open("wb") as file:
        for number in range(size >> 20):
            mask = (number * 0x9E3779B97F4A7C15 | 1).to_bytes(10, "little") * 104858
            mixed = int.from_bytes(block, "little") ^ int.from_bytes(mask[: len(block)], "little")
            file.write(mixed.to_bytes(len(block), "little"))


def arrived(rig: Rig) -> int:
    """The most that is in the store of the file."""
    parts = (rig.task_path / "staging" / "partials").glob("*")
    return max((part.stat().st_size for part in parts), default=0)


def kill_at(rig: Rig, kill: Kill) -> int:
    """Kill a sync on the way; how much has arrived."""
    ended, was_killed = run_killed(rig, rig.sync_arguments, kill)
    assert was_killed, ended
    return arrived(rig)


@pytest.mark.parametrize(
    "size",
    [512 * _MB, pytest.param(2048 * _MB, marks=pytest.mark.bench)],
    ids=lambda n: f"{n >> 20} MiB",
)
def test_large_file_killed_on_the_way(rig, size):
    free = shutil.disk_usage(_PLACE).free
    if free < _NEEDED_TIMES * size:
        pytest.skip(f"{free >> 20} MiB free, {_NEEDED_TIMES * size >> 20} needed")
    make_file(rig.source / "image", size)
    # A MiB is such a call of the receiver's; the sender has begun with the rest.
    first = kill_at(rig, Kill("receiver", "pwrite", size // _MB // 2))
    second = kill_at(rig, Kill("sender", "sendmsg", size // _MB // 4))
    assert size // 3 < first < second < size
    process = rig.start(rig.sync_arguments)
    ended = rig.finish(process, timeout_s=_HANG_S)
    summary = rig.acknowledge(ended, {})
    assert summary is not None, ended
    sent = summary["bytes_sent"]
    assert isinstance(sent, int)
    again = sent - (size - second)
    print(f"{second} had arrived, {sent} sent, {again} of it again")  # to be seen with -s
    assert again <= max(second // 20, _MOST_AGAIN_BYTES)
    (version,) = rig.versions()
    tree = Path(os.fsdecode(version.path)) / "tree" / "image"
    assert tree.stat().st_size == size
    assert tree.stat().st_nlink == 1
    assert not (rig.task_path / "staging").exists()
