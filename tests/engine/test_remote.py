"""Trying again: after what, how often, how long between."""

import contextlib

import pytest

from ssfs.clock import SystemClock
from ssfs.engine import remote
from ssfs.engine.remote import sync_remote
from ssfs.engine.sender import SyncRequest, SyncResult
from ssfs.errors import (
    ConfigError,
    ConnectionLost,
    PeerBusy,
    RemoteProtocolError,
    StoreFull,
    StoreLocked,
    TrustError,
)
from ssfs.model.version import Counts
from ssfs.monitor import NullMonitor
from ssfs.source.exclude import ExcludeOptions

LOST = ConnectionLost("gone")
REQUEST = SyncRequest(
    b"/source", "main", "task", "nas1", "/source", ExcludeOptions((), False, False)
)


class FakeChannel:
    """A connection that has carried some bytes."""

    sent_bytes = 100
    received_bytes = 10


class Listener(NullMonitor):
    def __init__(self) -> None:
        self.notes: list[str] = []
        self.phases: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def phase(self, text: str) -> None:
        self.phases.append(text)


class Attempts:
    """What happens at each attempt; `sync` runs them.

    Attributes:
        waits: Seconds between attempts, as they were asked for.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.waits: list[float] = []
        self.opened = 0
        self.listener = Listener()
        self._outcomes: list[Exception | None] = []
        monkeypatch.setattr(remote.time, "sleep", self.waits.append)
        monkeypatch.setattr(remote, "send_version", self._send)
        self._fails_to_open = False

    def sync(self, *outcomes: Exception | None, retries: int, opening: bool = False) -> SyncResult:
        """One run; None is a success. With `opening` nothing is ever connected that fails."""
        self._outcomes = list(outcomes)
        self._fails_to_open = opening
        return sync_remote(self._open, REQUEST, self.listener, SystemClock(), retries)

    @contextlib.contextmanager
    def _open(self):
        self.opened += 1
        if self._fails_to_open and self._outcomes[0] is not None:
            raise self._outcomes.pop(0)
        yield FakeChannel()

    def _send(self, *_: object) -> SyncResult:
        outcome = self._outcomes.pop(0)
        if outcome is not None:
            raise outcome
        counts = Counts(bytes_sent=5, bytes_received=3)
        return SyncResult("000001", "name", counts, 1.0, [], [], "")


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> Attempts:
    return Attempts(monkeypatch)


@pytest.mark.parametrize("opening", [False, True])
def test_a_lost_connection_is_made_again_and_each_wait_is_longer(attempts, opening):
    result = attempts.sync(LOST, LOST, LOST, None, retries=3, opening=opening)
    assert result.version == "000001"
    assert attempts.opened == 4
    assert [round(wait / 2**n) for n, wait in enumerate(attempts.waits)] == [1, 1, 1]
    assert len(attempts.listener.notes) == 3
    assert attempts.listener.phases[-1] == ""


def test_waits_are_bounded_and_differ_between_clients(attempts):
    with pytest.raises(ConnectionLost):
        attempts.sync(*[LOST] * 31, retries=30)
    assert max(attempts.waits) <= 75
    late = attempts.waits[10:]
    assert min(late) >= 45
    assert len(set(late)) > 10


def test_the_last_attempts_error_is_the_one_told(attempts):
    with pytest.raises(ConnectionLost, match="the third"):
        attempts.sync(LOST, LOST, ConnectionLost("the third"), retries=2)
    assert attempts.opened == 3


def test_without_retries_there_is_one_attempt_and_no_wait(attempts):
    with pytest.raises(ConnectionLost):
        attempts.sync(LOST, retries=0)
    assert (attempts.opened, attempts.waits) == (1, [])


@pytest.mark.parametrize(
    "error",
    [
        TrustError("another server"),
        ConfigError("not enrolled"),
        RemoteProtocolError("nonsense"),
        PeerBusy("all slots are taken"),
        StoreFull("over its quota"),
        OSError("the disk"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("before", [(), (LOST,)], ids=["at once", "after a lost connection"])
@pytest.mark.parametrize("opening", [False, True])
def test_nothing_else_is_tried_again(attempts, error, before, opening):
    with pytest.raises(type(error)) as caught:
        attempts.sync(*before, error, retries=9, opening=opening)
    assert caught.value is error
    assert attempts.opened == 1 + len(before)


def test_a_locked_task_is_somebody_elses_at_first_and_our_own_old_session_later(attempts):
    locked = StoreLocked("Another sync of the task is running")
    with pytest.raises(StoreLocked):
        attempts.sync(locked, retries=9)
    assert attempts.opened == 1
    assert attempts.sync(LOST, locked, locked, None, retries=9).version == "000001"


def test_bytes_of_all_attempts_are_counted(attempts):
    counts = attempts.sync(LOST, LOST, None, retries=2).counts
    # The last attempt's own count is its result's.
    assert (counts.bytes_sent, counts.bytes_received) == (205, 23)


def test_an_interrupt_is_no_lost_connection(attempts):
    with pytest.raises(KeyboardInterrupt):
        attempts.sync(KeyboardInterrupt(), retries=9)
    assert attempts.opened == 1
