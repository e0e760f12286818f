"""Servers for a client to dial: one function, run for each session in a thread behind a pump.

with Server(context, serve) as server: ...   TLS on the loopback
python tests/net/servers.py WHAT             on standard input and output, as ssh starts it
"""

import contextlib
import sys
import threading
from collections.abc import Callable
from typing import Self

import trio

from ssfs.errors import ConnectionLost, SsfsError
from ssfs.net.channel import Channel
from ssfs.net.link import pump
from ssfs.net.options import LinkOptions
from ssfs.net.tls import TlsStream
from ssfs.net.wire import Wire, engine_socketpair, open_stdio, tune_tcp
from ssfs.protocol.messages import Checkpoint, CheckpointDone, FileEnd, FileRaw, Message
from ssfs.protocol.states import Role, State
from tests.fakes.peers import REFUSED, SAMPLES, way_to

MIB = 1 << 20
Serve = Callable[[Channel], None]


async def run_session(wire: Wire, serve: Serve, options: LinkOptions, failures: list) -> None:
    """Serve one client; what went wrong is kept."""
    ours, theirs = engine_socketpair()

    def engine() -> None:
        with Channel(ours, Role.SERVER, wire.traffic) as channel:
            try:
                serve(channel)
            except SsfsError as error:
                failures.append(error)

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, engine)
            await pump(wire, theirs, options)
    except* SsfsError as group:
        failures.extend(group.exceptions)


class Server:
    """A TLS server in a thread.

    Attributes:
        port: On 127.0.0.1.
        failures: What sessions died of, at both their ends.
        sessions: How many handshakes were begun.
    """

    def __init__(self, context, serve: Serve, options: LinkOptions | None = None) -> None:
        self._context = context
        self._serve = serve
        self._options = options or LinkOptions()
        self._ready = threading.Event()
        self._scope = trio.CancelScope()
        self.port = 0
        self.failures: list[SsfsError] = []
        self.sessions = 0
        self._thread = threading.Thread(target=trio.run, args=(self._run,), name="test server")

    async def _run(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listener.socket.getsockname()[1]
        self._ready.set()
        with self._scope:
            await trio.serve_listeners(self._accept, [listener])

    async def _accept(self, stream: trio.SocketStream) -> None:
        self.sessions += 1
        tune_tcp(stream)
        wire = TlsStream(stream, self._context, server_side=True)
        try:
            await wire.handshake()
        except SsfsError as error:
            self.failures.append(error)
            await wire.aclose()
            return
        await run_session(wire, self._serve, self._options, self.failures)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(20)
        return self

    def stop(self) -> None:
        """Cut every session and end."""
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._scope.cancel)
        self._thread.join()

    def __exit__(self, *_: object) -> None:
        self.stop()


def go_to(channel: Channel, role: Role, state: State = State.IN_FILE) -> None:
    """Lead both ends into a state; each end calls it."""
    for speaker, message in way_to(state):
        if speaker is role:
            channel.send(message)
        else:
            heard: Message = channel.receive()
            assert heard == message, heard


def take_a_file(channel: Channel) -> None:
    """Hear content until the checkpoint after it, and confirm that."""
    go_to(channel, Role.SERVER)
    for message in channel.messages():
        if isinstance(message, Checkpoint):
            channel.send(CheckpointDone(message.number))
            return


def take_a_file_and_stay(channel: Channel) -> None:
    """The same, but hear on until the client ends."""
    go_to(channel, Role.SERVER)
    for message in channel.messages():
        if isinstance(message, Checkpoint):
            channel.send(CheckpointDone(message.number))


def refuse(channel: Channel) -> None:
    """Refuse in the middle of a file."""
    go_to(channel, Role.SERVER)
    channel.receive()
    channel.send(REFUSED)


def send_a_file(channel: Channel, mebibytes: int) -> None:
    """The client's part."""
    go_to(channel, Role.CLIENT)
    for number in range(mebibytes):
        channel.send(FileRaw(bytes([number % 256]) * MIB))
    channel.send(SAMPLES[FileEnd])
    channel.send(Checkpoint(9))
    assert channel.receive() == CheckpointDone(9)


async def _serve_stdio(serve: Serve) -> None:
    failures: list[SsfsError] = []
    await run_session(open_stdio(), serve, LinkOptions(), failures)
    for failure in failures:
        lost = isinstance(failure, ConnectionLost)
        print("server:", "lost" if lost else type(failure).__name__, failure, file=sys.stderr)


if __name__ == "__main__":
    trio.run(
        _serve_stdio,
        {"take": take_a_file, "stay": take_a_file_and_stay, "refuse": refuse}[sys.argv[1]],
    )
