"""Verify at a client's request: who may ask, and how it hears of progress.

It runs in a thread of its own: a thread that has stepped aside (`lower_priority`) cannot step back, and that of a session
goes on to serve others.
"""

import concurrent.futures

from ssfs.clock import Clock
from ssfs.engine.rights import check_administration
from ssfs.engine.selection import choose_task, choose_version
from ssfs.engine.verify import Verification, VerifyOptions
from ssfs.errors import TrustError
from ssfs.fsio.priority import lower_priority
from ssfs.model.peer import LOCAL, Peer
from ssfs.model.problem import EntryProblem
from ssfs.monitor import Monitor
from ssfs.net.channel import Channel
from ssfs.protocol.messages import Progress
from ssfs.protocol.verification import VerifyReport, VerifyVersions
from ssfs.store.store import Store, Task

_TELL_EVERY_S = 0.5
_MOST_LETTERS = 300


def verify_for(
    store: Store, peer: Peer, request: VerifyVersions, monitor: Monitor, clock: Clock
) -> VerifyReport:
    """Verify what is asked for, at low priority.

    Args:
        store: This process owns it, or the peer is this process.
        peer: Who asks: an administrator of each sync point that is verified.
        request: What it wants.
        monitor: Hears of progress; what it raises breaks the run off, and the next goes on from there.
        clock: For dates of damage, and for durations.

    Raises:
        TrustError: The peer may not.
        ConfigError: There is no such sync point, task or version.
        StoreError: The store cannot be read, or another verify is running.
    """
    points = _points(store, peer, request.point)
    if peer == LOCAL:
        store.become_owner()
    options = VerifyOptions(request.sample, request.older_than_s)
    run = Verification(store, options, monitor, clock, records=True)
    with concurrent.futures.ThreadPoolExecutor(1, "ssfs verify", lower_priority) as thread:
        thread.submit(run_request, run, store, request, points).result()
    return run.report


def _points(store: Store, peer: Peer, point: str) -> tuple[str, ...] | None:
    """The sync points that are meant; None for the store as a whole."""
    if point:
        check_administration(peer, point, f"verify sync point {point!r}")
        return (point,)
    if peer == LOCAL:
        return None
    names = tuple(one.name for one in store.points() if peer.may_administer(one.name))
    if not names:
        raise TrustError(
            f"Client {peer.name!r} may not verify any sync point of this store",
            remedy=f"an administrator of the store can allow it: `ssfs invite STORE {peer.name} --role admin`",
        )
    return names


def run_request(
    run: Verification, store: Store, request: VerifyVersions, points: tuple[str, ...] | None
) -> list[Task]:
    """Verify what is meant, and count the time; the tasks that it was about.

    Args:
        run: Does it.
        store: Where.
        request: What.
        points: The sync points among which that is; None: the store as a whole.
    """
    with run.timed():
        if not (request.versions or request.task):
            return run.run_store(points)
        task = choose_task(store, LOCAL, request.point, request.task)
        chosen = {one.id: one for one in (choose_version(task, text) for text in request.versions)}
        versions = sorted(chosen.values(), key=lambda one: one.id) if request.versions else None
        run.run_task(task, versions)
        return [task]


class ProgressSender:
    """Tells a client that waits for an answer how far it is, at most twice a second.

    Its methods raise ConnectionLost when the client is gone: nobody wants the answer any more.
    """

    def __init__(self, channel: Channel, clock: Clock) -> None:
        """Tell it through a channel whose session is in the state `ASKED`."""
        self._channel = channel
        self._clock = clock
        self._entries = self._bytes = self._expected = 0
        self._phase = ""
        self._told_s = clock.monotonic_s()

    def expect(self, entries: int, _size_bytes: int) -> None:
        """So many entries there are."""
        self._expected = entries
        self._tell()

    def advance(self, entries: int, size_bytes: int, _path: bytes) -> None:
        """So much was gone through since the last call."""
        self._entries += entries
        self._bytes += size_bytes
        self._tell()

    def phase(self, text: str) -> None:
        """Something else begins."""
        self._phase = text[:_MOST_LETTERS]
        self._tell()

    def problem(self, _problem: EntryProblem) -> None:
        """Those are in the answer."""

    def note(self, _text: str) -> None:
        """There are none."""

    def _tell(self) -> None:
        now_s = self._clock.monotonic_s()
        if now_s - self._told_s < _TELL_EVERY_S:
            return
        self._told_s = now_s
        self._channel.send(Progress(self._entries, self._bytes, self._expected, self._phase))
        self._entries = self._bytes = 0


class ProgressHeard:
    """What a server tells of its progress, told on."""

    def __init__(self, monitor: Monitor) -> None:
        """Tell it to this monitor."""
        self._monitor = monitor
        self._expected = 0
        self._phase = ""

    def hear(self, message: Progress) -> None:
        """The next message."""
        if message.expected != self._expected:
            self._expected = message.expected
            self._monitor.expect(message.expected, 0)
        if message.phase != self._phase:
            self._phase = message.phase
            self._monitor.phase(message.phase[:_MOST_LETTERS])
        self._monitor.advance(message.entries, message.size_bytes, b"")
