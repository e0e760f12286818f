"""kill -9 of one process of a run, just before the Nth disk call of one name: strace does it.

All N up to 10 are tried, then some; SSFS_EXHAUSTIVE=1 tries them all.
"""

import itertools
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tests.crash.support import HANG_S, Rig

if TYPE_CHECKING:
    import subprocess

IS_EXHAUSTIVE = os.environ.get("SSFS_EXHAUSTIVE") == "1"
_ALL_UP_TO = 10
_STEP = 9

CALLS = {
    "link": "link,linkat",
    "rename": "rename,renameat,renameat2",
    "fsync": "fsync",
    "fdatasync": "fdatasync",
    "syncfs": "syncfs",
    "mkdir": "mkdir,mkdirat",
    "unlink": "unlink,unlinkat,rmdir",
    "pwrite": "pwrite64",
    "write": "write",
    "ftruncate": "ftruncate",
}

_ENDING = re.compile(r"^\+\+\+ (exited|killed) ", re.MULTILINE)

_TRACED_RECEIVER = """
import os, subprocess, sys, time
import ssfs.engine.local as local
import ssfs.engine.outgoing
from ssfs.cli.main import main

ssfs.engine.outgoing.CHECKPOINT_BYTES = {checkpoint_bytes}
receive = local._receive

def traced(*arguments):
    strace = subprocess.Popen({strace!r} + ["-p", str(os.getpid())], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while "TracerPid:\\t0\\n" in open("/proc/self/status").read():
        assert strace.poll() is None, "strace does not attach"
        time.sleep(0.001)
    return receive(*arguments)

local._receive = traced
sys.exit(main())
"""


class Kill(NamedTuple):
    """Which process is killed, before which call.

    Attributes:
        victim: "sender" (or whatever process was started), or "receiver", its fork.
        calls: Names of system calls.
        nth: The how manieth of them.
        checkpoint_bytes: What a receiver's sync makes a checkpoint after.
    """

    victim: str
    calls: str
    nth: int
    checkpoint_bytes: int = 1 << 28


def run_killed(
    rig: Rig, arguments: list[str], kill: Kill
) -> tuple["subprocess.CompletedProcess[str]", bool]:
    """Run it and kill one of its processes; how it ended, and whether there was such a call."""
    log = rig.directory / "strace"
    inject = f"inject={kill.calls}:signal=SIGKILL:when={kill.nth}"
    strace = ["strace", "-o", str(log), "-e", f"trace={kill.calls}", "-e", inject]
    if kill.victim == "receiver":
        script = _TRACED_RECEIVER.format(strace=strace, checkpoint_bytes=kill.checkpoint_bytes)
        ended = rig.run(*arguments, command=[sys.executable, "-c", script])
    else:
        ended = rig.run(*arguments, wrapper=strace)
    return ended, "killed by SIGKILL" in _whole(log)


def _whole(log: Path) -> str:
    """What strace has written, its last line included, which says how the process ended.

    The one that traces a receiver is nobody's child that could be waited for.
    """
    give_up_at = time.monotonic() + HANG_S
    while not _ENDING.search(text := log.read_text()):
        assert time.monotonic() < give_up_at, f"strace does not say how it ended: {text}"
        time.sleep(0.001)
    return text


def _numbers() -> Iterator[int]:
    """The N to try."""
    if IS_EXHAUSTIVE:
        return itertools.count(1)
    return itertools.chain(range(1, _ALL_UP_TO + 1), itertools.count(_ALL_UP_TO + _STEP, _STEP))


def at_every_call(attempt: Callable[[int], bool]) -> int:
    """Try each N, two at a time, until nothing is killed any more; how many kills there were."""
    kills = 0
    numbers = _numbers()
    with ThreadPoolExecutor(2) as pool:
        while True:
            batch = list(itertools.islice(numbers, 2))
            outcomes = list(pool.map(attempt, batch))
            kills += sum(outcomes)
            if not all(outcomes):
                return kills
