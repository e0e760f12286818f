"""The traps themselves: a process is killed before the call that was meant, and others go on."""

import os
import signal
from pathlib import Path

import pytest

from tests.crash.traps import Trap, Trapper
from tests.fakes.commands import Running

pytestmark = [pytest.mark.slow, pytest.mark.needs_root]

_MOST_S = 60
_CALLS = 5


class _Victim:
    """Makes and removes directories; a fork of it makes others."""

    def __init__(self, trap: Trap, place: Path) -> None:
        self._trap = trap
        self._place = str(place)

    def __call__(self) -> None:
        self._trap.close_in()
        child = os.fork()
        for number in range(_CALLS):
            os.mkdir(f"{self._place}/{'mine' if child else 'forks'}-{number}")
            # Not of the trap's name.
            os.close(os.open(f"{self._place}/{'file' if child else 'other'}-{number}", os.O_CREAT))
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)


def _run(place: Path, nth: int) -> tuple[bool, int]:
    trapper = Trapper()
    with Running([], program=_Victim(trapper.trap("mkdir"), place)) as process:
        was_killed = trapper.kill_at(nth, _MOST_S)
        return was_killed, process.wait(_MOST_S)


@pytest.mark.parametrize("nth", [1, 3, _CALLS])
def test_process_is_killed_before_that_call_and_its_fork_goes_on(tmp_path, nth):
    assert _run(tmp_path, nth) == (True, -signal.SIGKILL)
    assert sorted(path.name for path in tmp_path.glob("mine-*")) == [
        f"mine-{number}" for number in range(nth - 1)
    ]
    assert len(list(tmp_path.glob("file-*"))) == nth - 1
    assert len(list(tmp_path.glob("forks-*"))) == len(list(tmp_path.glob("other-*"))) == _CALLS


def test_process_that_makes_fewer_calls_ends_by_itself(tmp_path):
    assert _run(tmp_path, _CALLS + 1) == (False, 0)
    assert len(list(tmp_path.glob("mine-*"))) == _CALLS


def test_process_that_ends_before_there_is_a_trap_was_not_killed():
    trapper = Trapper()
    trap = trapper.trap("mkdir")
    with Running([], before=_Holding(trap), program=_nothing) as process:
        assert not trapper.kill_at(1, _MOST_S)
        assert process.wait(_MOST_S) == 0


class _Holding:
    """Takes a trap along and does not close it."""

    def __init__(self, trap: Trap) -> None:
        self._trap = trap

    def __call__(self) -> None:
        pass


def _nothing() -> None:
    pass
