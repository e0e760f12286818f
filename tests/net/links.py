"""Pumps joined over wires in memory, with the engines' sockets in the test's own hands."""

import contextlib
import socket
from collections.abc import AsyncIterator

import trio

from ssfs.errors import SsfsError
from ssfs.net.link import pump
from ssfs.net.options import LinkOptions
from ssfs.net.wire import Wire, engine_socketpair

MIB = 1 << 20
DEFAULT = LinkOptions()


class Side:
    """One end: the engine's socket, and the pump behind it.

    Attributes:
        engine: What an engine would hold.
        failure: What the pump raised, once it has ended.
        ended: Set then.
    """

    def __init__(self, wire: Wire, options: LinkOptions = DEFAULT) -> None:
        ours, theirs = engine_socketpair()
        self.engine = trio.socket.from_stdlib_socket(ours)
        self.pump_socket = theirs
        self.wire = wire
        self.failure: SsfsError | None = None
        self.ended = trio.Event()
        self.scope = trio.CancelScope()
        self._options = options

    async def run(self) -> None:
        with self.scope:
            try:
                await pump(self.wire, self.pump_socket, self._options)
            except SsfsError as error:
                self.failure = error
        self.ended.set()

    async def wait_delivered(self, count: int) -> None:
        """Until the engine has so many bytes to read, which it does not."""
        while len(await self.engine.recv(count, socket.MSG_PEEK)) < count:
            await trio.lowlevel.checkpoint()

    async def say(self, content: bytes) -> None:
        left = memoryview(content)
        while left:
            left = left[await self.engine.send(left) :]

    async def hear(self, count: int) -> bytes:
        """Exactly so many bytes."""
        got = bytearray()
        while len(got) < count:
            piece = await self.engine.recv(min(MIB, count - len(got)))
            assert piece, f"the stream ended after {len(got)} bytes"
            got += piece
        return bytes(got)

    async def hear_end(self) -> bytes:
        """What comes until the end."""
        got = bytearray()
        with contextlib.suppress(ConnectionResetError):
            while piece := await self.engine.recv(MIB):
                got += piece
        return bytes(got)


@contextlib.asynccontextmanager
async def running(*sides: Side) -> AsyncIterator[None]:
    """Their pumps, until the block ends; then both must have ended by themselves or are cancelled."""
    async with trio.open_nursery() as nursery:
        for side in sides:
            nursery.start_soon(side.run)
        try:
            yield
        finally:
            nursery.cancel_scope.cancel()
            for side in sides:
                side.engine.close()


async def wait_ended(*sides: Side) -> None:
    for side in sides:
        await side.ended.wait()


async def say_for_ever(side: Side) -> None:
    """Until the stream is closed."""
    with contextlib.suppress(BrokenPipeError):
        while True:
            await side.say(bytes(MIB))
