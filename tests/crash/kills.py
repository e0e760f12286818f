"""kill -9 of one process of a run, just before the Nth disk call of one name.

All N up to 10 are tried, then some; SSFS_EXHAUSTIVE=1 tries them all.
"""

import itertools
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

from ssfs.engine import local, outgoing
from tests.crash.support import HANG_S, Rig
from tests.crash.traps import Trap, Trapper

if TYPE_CHECKING:
    import subprocess

IS_EXHAUSTIVE = os.environ.get("SSFS_EXHAUSTIVE") == "1"
_ALL_UP_TO = 10
_STEP = 9

CALLS = (
    "link",
    "rename",
    "fsync",
    "fdatasync",
    "syncfs",
    "mkdir",
    "unlink",
    "pwrite",
    "write",
    "ftruncate",
)


class Kill(NamedTuple):
    """Which process is killed, before which call.

    Attributes:
        victim: "sender" (or whatever process was started), or "receiver", its fork.
        call: Which calls count, as `tests.crash.traps` names them.
        nth: The how manieth of them, of the process's main thread.
        checkpoint_bytes: What a receiver's sync makes a checkpoint after.
    """

    victim: str
    call: str
    nth: int
    checkpoint_bytes: int = 1 << 28


class _Baiting:
    """What the process does before the command: it takes the trap along to where it is to close."""

    def __init__(self, kill: Kill, trap: Trap) -> None:
        self._kill = kill
        self._trap = trap

    def __call__(self) -> None:
        if self._kill.victim != "receiver":
            self._trap.close_in()
            return
        outgoing.CHECKPOINT_BYTES = self._kill.checkpoint_bytes
        receive = local._receive

        def trapped(*arguments):
            self._trap.close_in()
            return receive(*arguments)

        local._receive = trapped


def run_killed(
    rig: Rig, arguments: list[str], kill: Kill
) -> tuple["subprocess.CompletedProcess[str]", bool]:
    """Run it and kill one of its processes; how it ended, and whether there was such a call."""
    trapper = Trapper()
    process = rig.start(arguments, before=_Baiting(kill, trapper.trap(kill.call)))
    try:
        was_killed = trapper.kill_at(kill.nth, HANG_S)
    finally:
        ended = rig.finish(process)
    return ended, was_killed


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
