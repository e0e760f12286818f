"""Byte streams of trio that misbehave on purpose, and wires that need no network."""

from collections.abc import Callable

import trio
import trio.testing

from ssfs.errors import ConnectionLost
from ssfs.net.traffic import Traffic
from ssfs.net.wire import AnyBytes


class ByteWise(trio.abc.HalfCloseableStream):
    """Hands out one byte for each receive, whatever came."""

    def __init__(self, stream: trio.abc.HalfCloseableStream) -> None:
        self._stream = stream

    async def send_all(self, data: AnyBytes) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._stream.receive_some(1)

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()


class CutShort(ByteWise):
    """Ends after so many received bytes, as if somebody had cut the connection."""

    def __init__(self, stream: trio.abc.HalfCloseableStream, after_bytes: int) -> None:
        super().__init__(stream)
        self._left = after_bytes

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        if self._left == 0:
            await trio.lowlevel.checkpoint()
            return b""
        received = await self._stream.receive_some(min(self._left, max_bytes or self._left))
        self._left -= len(received)
        return received


class MemoryWire:
    """One end of a wire in memory; `memory_wires` makes two that are joined.

    Each receive gives at most `receive_bytes`. A sender waits while the other end has more than
    `room_bytes` unread, as with a real connection. `break_off` loses what is under way.

    Attributes:
        is_closed: Whether this end was closed.
    """

    def __init__(self, *, room_bytes: int = 1 << 16, receive_bytes: int = 1 << 16) -> None:
        self.traffic = Traffic()
        self.is_closed = False
        self.room_bytes = room_bytes
        self.receive_bytes = receive_bytes
        self._peer = self
        self._unread = bytearray()
        self._has_ended = False
        self._is_broken = False
        self._changed = trio.Event()

    def join(self, peer: "MemoryWire") -> None:
        self._peer, peer._peer = peer, self

    def _change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def send_all(self, data: AnyBytes) -> None:
        await trio.lowlevel.checkpoint()
        left = memoryview(bytes(data))
        while left:
            await self._until(lambda: self._peer.is_closed or self._peer.room() > 0)
            if self._peer.is_closed:
                raise ConnectionLost("The connection broke (Broken pipe)")
            now = left[: self._peer.room()]
            self._peer._unread += now
            self.traffic.sent_bytes += len(now)
            self._peer._change()
            left = left[len(now) :]

    def room(self) -> int:
        return self.room_bytes - len(self._unread)

    async def receive_some(self) -> bytes:
        await trio.lowlevel.checkpoint()
        await self._until(lambda: bool(self._unread) or self._has_ended)
        if self._is_broken:
            raise ConnectionLost("The connection was cut")
        received = bytes(self._unread[: self.receive_bytes])
        del self._unread[: self.receive_bytes]
        self.traffic.received_bytes += len(received)
        self._peer._change()
        return received

    async def _until(self, is_so: Callable[[], bool]) -> None:
        while not is_so():
            if self._is_broken:
                raise ConnectionLost("The connection was cut")
            await self._changed.wait()

    async def aclose(self) -> None:
        self.is_closed = True
        self._peer._has_ended = True
        self._peer._change()
        await trio.lowlevel.checkpoint()

    def break_off(self) -> None:
        """Cut it; neither end is told more than that."""
        for end in (self, self._peer):
            end._is_broken = end._has_ended = True
            end._change()


def memory_wires(**options: int) -> tuple[MemoryWire, MemoryWire]:
    """Two joined ends."""
    left, right = MemoryWire(**options), MemoryWire(**options)
    left.join(right)
    return left, right
