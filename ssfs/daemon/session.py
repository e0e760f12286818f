"""One session of a server: the engine in a worker thread, the pump in the event loop, a log line at each end.

The engine speaks to one end of a socket pair and may block on disks as long as it likes; the pump
(`ssfs.net.link`) moves bytes between the other end and the wire and never touches a disk. When either ends, its
socket is closed, and the other sees the end of the stream: an engine in the middle of a version then makes
what has arrived durable and leaves the rest to the client's next run.

Memory: whatever its client does within the protocol, a session takes no more than `SESSION_BYTES` of the
server's, by the bounds of its parts: most of it one segment's delta (25 MiB), the changes since the last checkpoint (100,000 rows), the catalogs' caches,
the pump (`ssfs.net.link.HELD_BYTES`) and zstandard's tables. More data waits in the kernel's buffers, and so at the client.
"""

import logging
import socket

import trio

from ssfs.clock import Clock
from ssfs.engine.session import Visitor, serve_session
from ssfs.errors import SsfsError
from ssfs.net.channel import Channel
from ssfs.net.link import pump
from ssfs.net.options import LinkOptions
from ssfs.net.wire import Wire, engine_socketpair
from ssfs.protocol.states import Role
from ssfs.store.store import Store

_log = logging.getLogger(__name__)

_MOST_LETTERS = 1000
SESSION_BYTES = 160 << 20
"""The most memory of one session, added up from the bounds of its parts."""


class Session:
    """A session that is running.

    Attributes:
        label: How the log calls it.
        peer: Who it is for; `NOBODY` for a stranger.
    """

    def __init__(self, store: Store, visitor: Visitor, label: str, clock: Clock) -> None:
        """Prepare it.

        Args:
            store: What is served.
            visitor: Who came.
            label: How the log calls it.
            clock: The server's.
        """
        self.label = label
        self.peer = visitor.peer
        self._store = store
        self._visitor = visitor
        self._clock = clock
        self._scope = trio.CancelScope()
        self._wanted = ""
        self._ended_because = ""

    async def run(self, wire: Wire, options: LinkOptions, limiter: trio.CapacityLimiter) -> None:
        """Serve it to its end; raises nothing but Cancelled."""
        started_s = self._clock.monotonic_s()
        ours, theirs = engine_socketpair()
        outcome = ["broke off"]

        async def engine() -> None:
            # Never abandoned: a thread that writes a store must have ended before we say so.
            outcome[0] = await trio.to_thread.run_sync(self._engine, ours, limiter=limiter)

        problem = ""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(engine)
                with self._scope:
                    problem = await _pump(wire, theirs, options)
        finally:
            # The engine's end is closed by now, unless it was broken off before a thread was free for it.
            ours.close()
            seconds = self._clock.monotonic_s() - started_s
            reasons = _one_line("; ".join(filter(None, (outcome[0], problem, self._ended_because))))
            _log.info(
                "%s ended: %s%s, %d bytes in, %d bytes out, %.1f s",
                self.label,
                f"{self._wanted}, " if self._wanted else "",
                reasons,
                wire.traffic.received_bytes,
                wire.traffic.sent_bytes,
                seconds,
            )

    def end(self, reason: str) -> None:
        """Break it off; what has arrived stays for the client's next run."""
        self._ended_because = reason
        self._scope.cancel()

    def _engine(self, stream: socket.socket) -> str:
        """What the worker thread does."""
        try:
            with Channel(stream, Role.SERVER) as channel:
                return serve_session(channel, self._store, self._visitor, self._clock, self._note)
        except Exception:  # noqa: BLE001  # the last frame of a thread: the other sessions must go on
            _log.exception("%s: a bug in ssfs; please report the lines below", self.label)
            return "bug"

    def _note(self, wanted: str) -> None:
        self._wanted = _one_line(wanted)
        _log.info("%s: %s", self.label, self._wanted)


def _one_line(text: str) -> str:
    """A text that may quote what a client said: it must not look like lines of the log, nor fill it."""
    shown = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
    return shown if len(shown) <= _MOST_LETTERS else f"{shown[:_MOST_LETTERS]}..."


async def _pump(wire: Wire, engine: socket.socket, options: LinkOptions) -> str:
    """Move bytes until one side ends; what went wrong, if anything."""
    try:
        await pump(wire, engine, options)
    except SsfsError as error:
        return str(error)
    return ""
