"""kill -9 of either process of a sync, at any moment, while the source goes on changing.

The moments come from a seed, what they hit depends on the machine: a failure names the kill it came
after. `test_every_call` is the same question asked systematically, and `test_resume` has what was found here
by luck.
"""

import os
import random
import signal
import time

import pytest

from tests.crash.support import Rig, checkpointing, fork_of, has_ended
from tests.fakes.trees import build_tree, edit_tree

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

_KILLS = 25
_LARGE_BYTES = 6 << 20
_CHECKPOINT_BYTES = 1 << 20


@pytest.mark.parametrize("victim", ["sender", "receiver"])
def test_killed_syncs_leave_acknowledged_versions_and_the_next_one_succeeds(tmp_path, victim):
    rng = random.Random(victim)
    rig = Rig(tmp_path)
    build_tree(rig.source, 5, large_bytes=_LARGE_BYTES)
    rig.init()
    rig.sync()
    kills = rounds = 0
    while kills < _KILLS:
        rounds += 1
        assert rounds < 10 * _KILLS, "hardly any run is still there when it is to be killed"
        done = edit_tree(rig.source, rounds, large_bytes=_LARGE_BYTES)
        image = rig.look()
        # Every other run makes a checkpoint at each directory that had content.
        before = checkpointing(_CHECKPOINT_BYTES if rng.random() < 0.5 else None)
        process = rig.start(rig.sync_arguments, before=before)
        was_killed = _kill(process.pid, victim, rng)
        ended = rig.finish(process)
        kills += was_killed
        try:
            rig.acknowledge(ended, image)
            rig.check(image, newest=4)
            # A run may also meet what two or more killed ones have left.
            if rng.random() < 0.6:
                rig.sync()
        except AssertionError as error:
            error.add_note(f"after kill {kills}, round {rounds}, edits {done}: {ended}")
            raise
        rig.accept(image)
    rig.sync()
    rig.check()


def _kill(pid: int, victim: str, rng: random.Random) -> bool:
    """Kill a process of the run some time after the fork; False if it was too late."""
    while (child := fork_of(pid)) == 0:
        if has_ended(pid):
            return False
        time.sleep(0.001)
    time.sleep(rng.uniform(0, 0.12))
    chosen = pid if victim == "sender" else child
    if has_ended(chosen):
        return False
    try:
        os.kill(chosen, signal.SIGKILL)
    except ProcessLookupError:
        return False  # the receiver has ended since, and the sender has waited for it
    return True
