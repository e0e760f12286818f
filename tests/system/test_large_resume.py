"""A file of 2 GB whose backup is killed twice on the way: what travels again is little."""

import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.crash.support import Rig, fork_of, has_ended

GB = 1 << 30
SIZE = 2 * GB
_NEEDED_BYTES = 10 * GB
"""Source, partial, new file, and as much again for others."""
_MOST_AGAIN_BYTES = 64 * 10**6
_HANG_S = 900

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3 * _HANG_S)]


@pytest.fixture
def rig(tmp_path):
    free = shutil.disk_usage(tmp_path).free
    if free < _NEEDED_BYTES:
        pytest.skip(f"{free >> 20} MiB free, {_NEEDED_BYTES >> 20} needed")
    rig = Rig(tmp_path)
    rig.source.mkdir()
    rig.init()
    yield rig
    shutil.rmtree(rig.store)
    shutil.rmtree(rig.source)


def make_file(path: Path) -> None:
    """No two blocks of it are alike, wherever they begin."""
    block = os.urandom(1 << 20)
    with path.open("wb") as file:
        for number in range(SIZE >> 20):
            mask = (number * 0x9E3779B97F4A7C15 | 1).to_bytes(10, "little") * 104858
            mixed = int.from_bytes(block, "little") ^ int.from_bytes(mask[: len(block)], "little")
            file.write(mixed.to_bytes(len(block), "little"))


def arrived(rig: Rig) -> int:
    """The most that is in the store of the file."""
    parts = (rig.task_path / "staging" / "partials").glob("*")
    return max((part.stat().st_size for part in parts), default=0)


def kill_at(rig: Rig, victim: str, wanted: int) -> int:
    """Kill one of the processes once so much has arrived; how much that was."""
    process = rig.start(rig.sync_arguments)
    deadline = time.monotonic() + _HANG_S
    while arrived(rig) < wanted:
        assert not has_ended(process.pid), rig.finish(process)
        assert time.monotonic() < deadline
        time.sleep(0.01)
    chosen = process.pid if victim == "sender" else fork_of(process.pid)
    os.kill(chosen, signal.SIGKILL)
    assert rig.finish(process).returncode != 0
    return arrived(rig)


def test_two_gigabytes_killed_on_the_way(rig):
    make_file(rig.source / "image")
    first = kill_at(rig, "receiver", SIZE // 2)
    second = kill_at(rig, "sender", SIZE * 3 // 4)
    assert second > first
    process = rig.start(rig.sync_arguments)
    ended = rig.finish(process, timeout_s=_HANG_S)
    summary = rig.acknowledge(ended, {})
    assert summary is not None, ended
    sent = summary["bytes_sent"]
    assert isinstance(sent, int)
    again = sent - (SIZE - second)
    print(f"{second} had arrived, {sent} sent, {again} of it again")  # to be seen with -s
    assert again <= max(second // 20, _MOST_AGAIN_BYTES)
    (version,) = rig.versions()
    tree = Path(os.fsdecode(version.path)) / "tree" / "image"
    assert tree.stat().st_size == SIZE
    assert tree.stat().st_nlink == 1
    assert not (rig.task_path / "staging").exists()
