"""A TCP proxy on the loopback that is a bad network: far away, cut off, or silent.

    with DelayProxy(server_port, delay_s=0.05) as proxy:
        ...                     connect to 127.0.0.1, proxy.port
        proxy.cut_after(Direction.UP, 1_000_000)
        proxy.cut()             now
        proxy.black_hole()      nothing gets through, nothing is closed
        proxy.sent_bytes(Direction.DOWN), proxy.window_rates(Direction.UP, 10)

The delay is that of each byte; any number of them are under way at once, so bandwidth is not limited. It runs in a
thread of its own; all methods may be called from any other.
"""

import contextlib
import enum
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import Self

import trio

_PIECE_BYTES = 64 << 10
_PIECES_UNDER_WAY = 4096


class Direction(enum.Enum):
    """Where bytes go."""

    UP = "from the client to the server"
    DOWN = "from the server to the client"


class DelayProxy:
    """One listening port in front of one server.

    Attributes:
        port: On 127.0.0.1.
        connections: How many were accepted so far.
        cuts: How many were cut by `cut` or `cut_after`.
    """

    def __init__(self, server_port: int, *, delay_s: float = 0) -> None:
        """Delay each byte so long, in each direction."""
        self._server_port = server_port
        self._delay_s = delay_s
        self._limits: dict[Direction, tuple[int, bool]] = {}
        self._records: dict[Direction, list[tuple[float, int]]] = {each: [] for each in Direction}
        self._live: set[_Connection] = set()
        self._gate = trio.Event()
        self._gate.set()
        self._ready = threading.Event()
        self._scope = trio.CancelScope()
        self._thread = threading.Thread(target=trio.run, args=(self._run,), name="delay proxy")
        self.port = 0
        self.connections = 0
        self.cuts = 0

    def __enter__(self) -> Self:
        """Start it."""
        self._thread.start()
        assert self._ready.wait(20)
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it, and cut what is still connected."""
        self._in_loop(self._scope.cancel)
        self._thread.join()

    # --- for the test ---

    def cut(self, *, reset: bool = True) -> None:
        """Cut every connection now: by a reset, or by closing as if both ends had."""

        def cut_all() -> None:
            for connection in list(self._live):
                connection.cut(reset=reset)

        self._in_loop(cut_all)

    def cut_after(self, direction: Direction, count: int, *, once: bool = True) -> None:
        """Cut a connection when it has passed on so many bytes in that direction, and no more.

        Counted from each connection's start, so it may be long past that. `once`: only one connection.
        """
        self._limits[direction] = (count, once)

    def never_cut(self) -> None:
        """Forget what `cut_after` was told."""
        self._limits.clear()

    def black_hole(self) -> None:
        """Pass nothing on and read nothing, in no direction, until `resume`."""
        self._in_loop(lambda: setattr(self, "_gate", trio.Event()))

    def resume(self) -> None:
        """Pass on again, beginning with what was held."""
        self._in_loop(self._resume)

    def _resume(self) -> None:
        # Not bound to the event of now: `black_hole` may come in between.
        self._gate.set()

    def sent_bytes(self, direction: Direction) -> int:
        """Bytes passed on so far, over all connections."""
        return sum(count for _, count in self._records[direction])

    def record(self, direction: Direction) -> list[tuple[float, int]]:
        """(seconds on the monotonic clock, bytes) of each piece passed on, in order."""
        return list(self._records[direction])

    def window_rates(self, direction: Direction, window_s: float) -> list[float]:
        """Bytes per second in each window of that length that begins with a piece and is over."""
        pieces = self.record(direction)
        rates = []
        total, end = 0, 0
        for index, (start_s, count) in enumerate(pieces):
            if start_s + window_s > pieces[-1][0]:
                break
            while pieces[end][0] < start_s + window_s:
                total += pieces[end][1]
                end += 1
            rates.append(total / window_s)
            total -= count
            assert end > index
        return rates

    # --- in the loop ---

    def _in_loop(self, action: Callable[[], object]) -> None:
        """Run it there and wait for that."""
        done = threading.Event()

        def run() -> None:
            try:
                action()
            finally:
                done.set()

        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(run)
            assert done.wait(20)

    async def _run(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1", backlog=512)
        self.port = listener.socket.getsockname()[1]
        self._ready.set()
        with self._scope:
            await trio.serve_listeners(self._accept, [listener])

    async def _accept(self, client: trio.SocketStream) -> None:
        self.connections += 1
        try:
            server = await trio.open_tcp_stream("127.0.0.1", self._server_port)
        except OSError:
            _abort(client)
            return
        connection = _Connection(self, client, server)
        self._live.add(connection)
        try:
            await connection.run()
        finally:
            self._live.discard(connection)
            client.socket.close()
            server.socket.close()


class _Connection:
    def __init__(
        self, proxy: DelayProxy, client: trio.SocketStream, server: trio.SocketStream
    ) -> None:
        self._proxy = proxy
        self._streams = (client, server)
        self._scope = trio.CancelScope()

    async def run(self) -> None:
        client, server = self._streams
        with self._scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._carry, Direction.UP, client, server)
                nursery.start_soon(self._carry, Direction.DOWN, server, client)

    def cut(self, *, reset: bool) -> None:
        self._proxy.cuts += 1
        for stream in self._streams:
            if reset:
                _abort(stream)
            else:
                with contextlib.suppress(OSError):
                    stream.socket.shutdown(socket.SHUT_RDWR)
        self._scope.cancel()

    async def _carry(
        self, direction: Direction, source: trio.SocketStream, target: trio.SocketStream
    ) -> None:
        to_send, pieces = trio.open_memory_channel[tuple[float, bytes]](_PIECES_UNDER_WAY)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read, source, to_send)
            try:
                await self._write(direction, pieces, target)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                # That end is gone; the other one learns it as from a router.
                _abort(source)
                self._scope.cancel()

    async def _read(
        self, source: trio.SocketStream, to_send: trio.MemorySendChannel[tuple[float, bytes]]
    ) -> None:
        async with to_send:
            with contextlib.suppress(trio.ClosedResourceError):
                while True:
                    try:
                        piece = await source.receive_some(_PIECE_BYTES)
                    except trio.BrokenResourceError:
                        self.cut(reset=True)
                        return
                    await self._proxy._gate.wait()
                    await to_send.send((trio.current_time() + self._proxy._delay_s, bytes(piece)))
                    if not piece:
                        return

    async def _write(
        self,
        direction: Direction,
        pieces: trio.MemoryReceiveChannel[tuple[float, bytes]],
        target: trio.SocketStream,
    ) -> None:
        passed = 0
        async for due_s, piece in pieces:
            await trio.sleep_until(due_s)
            await self._proxy._gate.wait()
            if not piece:
                await target.send_eof()
                return
            limit, once = self._proxy._limits.get(direction, (None, False))
            now = piece if limit is None else piece[: max(0, limit - passed)]
            if now:
                await target.send_all(now)
                passed += len(now)
                self._proxy._records[direction].append((time.monotonic(), len(now)))
            if limit is not None and passed >= limit:
                if once:
                    del self._proxy._limits[direction]
                self.cut(reset=True)


def _abort(stream: trio.SocketStream) -> None:
    """Close it with a reset."""
    with contextlib.suppress(OSError):
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.socket.close()
