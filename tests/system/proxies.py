"""A TCP proxy that stands for the line between a client and a server: it delays, counts, or shows how often one waits for the other.

It always takes what is sent, however much is under way, as a long line does that is not narrow: what is sent
while nothing has come back costs nothing extra, each answer that is waited for costs the delay twice.
"""

import bisect
import collections
import contextlib
import os
import selectors
import socket
import threading
import time
from collections.abc import Iterator

_TAKEN_BYTES = 1 << 18
_QUIET_S = 0.15
_MOST_URGENT = -20

TO_SERVER, TO_CLIENT = 0, 1


class Proxy:
    """Connections from a port of its own to a server's, on 127.0.0.1.

    Attributes:
        port: Its own.
        passed: For each direction when how many bytes arrived here: (monotonic seconds, bytes so far).
        rounds: How often it delivered, if it goes by rounds: all that both ends have said is held back until
            neither says more; so what could be said at once, whatever the order, is one round, and each answer that
            somebody waits for is another one.
    """

    def __init__(self, server_port: int, *, delay_s: float = 0.0, by_rounds: bool = False) -> None:
        """Listen.

        Args:
            server_port: Where to.
            delay_s: How long each byte is under way.
            by_rounds: Deliver by rounds, not by time.
        """
        self.passed: tuple[list[tuple[float, int]], ...] = ([], [])
        self.rounds = 0
        self._server_port = server_port
        self._delay_s = delay_s
        self._by_rounds = by_rounds
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._is_closing = threading.Event()
        self._threads[0].start()

    @property
    def address(self) -> str:
        """For an invitation."""
        return f"127.0.0.1:{self.port}"

    def bytes_passed(self, direction: int) -> int:
        """Bytes so far."""
        return self.passed[direction][-1][1] if self.passed[direction] else 0

    def forget(self) -> None:
        """Count from zero."""
        for counted in self.passed:
            counted.clear()
        self.rounds = 0

    def averages(self, direction: int, window_s: float, until_bytes: int) -> list[float]:
        """Bytes per second in every window of this length, as long as no more than so many bytes have passed."""
        counted = self.passed[direction]
        times = [when for when, _ in counted]
        rates = []
        for when, total in counted:
            if when - window_s >= times[0] and total <= until_bytes:
                before = bisect.bisect_right(times, when - window_s) - 1
                rates.append((total - counted[before][1]) / window_s)
        return rates

    def close(self) -> None:
        """End it, with all connections."""
        self._is_closing.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while not self._is_closing.is_set():
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._server_port))
                self._threads.append(threading.Thread(target=self._carry, args=(client, server)))
                self._threads[-1].start()

    def _carry(self, client: socket.socket, server: socket.socket) -> None:
        # So that a busy machine does not shift what is measured, where we may.
        with contextlib.suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _MOST_URGENT)
        with client, server, contextlib.suppress(ConnectionError):
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                end.setblocking(False)
            lanes = (_Lane(client, server), _Lane(server, client))
            while not self._is_closing.is_set() and not all(lane.has_ended for lane in lanes):
                self._turn(lanes)

    def _turn(self, lanes: tuple["_Lane", "_Lane"]) -> None:
        now = time.monotonic()
        due = [lane for lane in lanes if lane.is_due(now)]
        waits = [lane.next_due - now for lane in lanes if lane.held and lane.next_due > now]
        wait_s = min([_QUIET_S, *waits])
        readable, writable = _wait(
            [lane.source for lane in lanes if lane.is_open], [lane.sink for lane in due], wait_s
        )
        for direction, lane in enumerate(lanes):
            if lane.source in readable:
                self._take(direction, lane)
            if lane in due and lane.sink in writable:
                lane.deliver(time.monotonic())
        is_quiet = not readable and not writable and not due
        if self._by_rounds and is_quiet and any(lane.held for lane in lanes):
            self.rounds += 1
            for lane in lanes:
                lane.release()

    def _take(self, direction: int, lane: "_Lane") -> None:
        content = lane.source.recv(_TAKEN_BYTES)
        now = time.monotonic()
        lane.is_open = bool(content)
        lane.held.append((float("inf") if self._by_rounds else now + self._delay_s, content))
        if content:
            counted = self.passed[direction]
            counted.append((now, (counted[-1][1] if counted else 0) + len(content)))


def _wait(
    sources: list[socket.socket], sinks: list[socket.socket], wait_s: float
) -> tuple[list[socket.socket], list[socket.socket]]:
    """What `select.select` says, which cannot be asked about descriptors above 1023."""
    wanted = dict.fromkeys(sources, selectors.EVENT_READ)
    for sink in sinks:
        wanted[sink] = wanted.get(sink, 0) | selectors.EVENT_WRITE
    with selectors.PollSelector() as selector:
        for end, events in wanted.items():
            selector.register(end, events)
        ready = {key.fileobj: events for key, events in selector.select(wait_s)}
    return (
        [end for end in sources if ready.get(end, 0) & selectors.EVENT_READ],
        [end for end in sinks if ready.get(end, 0) & selectors.EVENT_WRITE],
    )


class _Lane:
    """One direction of a connection. An empty content is its end."""

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        self.source = source
        self.sink = sink
        self.held: collections.deque[tuple[float, bytes]] = collections.deque()
        self.is_open = True

    @property
    def next_due(self) -> float:
        return self.held[0][0]

    @property
    def has_ended(self) -> bool:
        return not self.is_open and not self.held

    def is_due(self, now: float) -> bool:
        return bool(self.held) and self.next_due <= now

    def release(self) -> None:
        self.held = collections.deque((0.0, content) for _, content in self.held)

    def deliver(self, now: float) -> None:
        """As much as the other end takes."""
        with contextlib.suppress(BlockingIOError):
            while self.is_due(now):
                due, content = self.held[0]
                if not content:
                    with contextlib.suppress(OSError):
                        self.sink.shutdown(socket.SHUT_WR)
                count = self.sink.send(content) if content else 0
                if count < len(content):
                    self.held[0] = (due, content[count:])
                    return
                self.held.popleft()


@contextlib.contextmanager
def proxied(server_port: int, **options: float) -> Iterator[Proxy]:
    """A proxy that lasts as long as the block."""
    proxy = Proxy(server_port, **options)
    try:
        yield proxy
    finally:
        proxy.close()
