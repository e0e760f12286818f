"""A store behind a server, all in the test's own process: commands and restores over a real socket."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

from ssfs.clock import Clock, SystemClock
from ssfs.engine.commands import serve_ask
from ssfs.engine.refusal import to_refusal
from ssfs.engine.restore.server import serve_restore
from ssfs.engine.seeking import serve_seek
from ssfs.errors import ConnectionLost, SsfsError
from ssfs.model.peer import Peer
from ssfs.net.channel import Channel
from ssfs.protocol.messages import PROTOCOL_VERSION, Ask, Hello, Leave
from ssfs.protocol.restoring import Fetch
from ssfs.protocol.seeking import Seek
from ssfs.protocol.states import Role
from ssfs.store.store import Store


class RemoteStore:
    """What a server does for each session, in a thread.

    Attributes:
        refusals: What sessions were refused with, in order.
        asked: How many requests were answered or refused.
    """

    def __init__(self, path: Path, peer: Peer, clock: Clock | None = None) -> None:
        self.path = path
        self.peer = peer
        self.refusals: list[SsfsError] = []
        self.errors: list[BaseException] = []
        self.asked = 0
        self._clock = clock or SystemClock()

    @contextlib.contextmanager
    def open_channel(self, _place: object = None) -> Iterator[Channel]:
        """A client's end, greeted; stands in for `ssfs.cli.remote.open_channel`."""
        ours, theirs = socket.socketpair()
        server = threading.Thread(target=self._serve, args=(theirs,))
        server.start()
        try:
            with Channel(ours, Role.CLIENT) as channel:
                channel.send(Hello(PROTOCOL_VERSION, "test"))
                assert isinstance(channel.receive(), Hello)
                yield channel
        finally:
            server.join()
        if self.errors:
            raise self.errors.pop()

    def _serve(self, stream: socket.socket) -> None:
        try:
            with Channel(stream, Role.SERVER) as channel, contextlib.suppress(ConnectionLost):
                self._session(channel)
        except Exception as error:
            self.errors.append(error)

    def _session(self, channel: Channel) -> None:
        store = Store.open(bytes(self.path))
        for message in channel.messages():
            match message:
                case Hello():
                    channel.send(Hello(PROTOCOL_VERSION, "test"))
                case Ask():
                    self.asked += 1
                    refusal = serve_ask(channel, store, self.peer, message, self._clock)
                    if refusal is not None:
                        self.refusals.append(refusal)
                        return
                case Seek():
                    serve_seek(channel, store, self.peer, message)
                case Fetch():
                    try:
                        serve_restore(channel, store, self.peer, message)
                    except SsfsError as error:
                        channel.send(to_refusal(error))
                        self.refusals.append(error)
                    return
                case Leave():
                    return
                case _:
                    raise AssertionError(message)
