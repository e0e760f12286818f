"""A pump: carries one engine's byte stream over a wire and back, in two tasks.

`_send` takes from the engine's socket what is there, compresses, paces and sends it as blocks; `_receive` does
the reverse. Each holds one piece at a time and takes no more before that is delivered, so back-pressure
goes from disk to disk. A pump holds at most `HELD_BYTES`, and zstandard's tables (2.5 MiB at level 3, 19 at most)
once it compresses; the rest waits in the kernel's buffers.

How it ends. An end that says the end block has delivered everything before. Whoever hears it delivers what came,
closes its engine's socket, says its own end block and closes the wire; whoever said it first reads on until
then (up to `linger_s`), because closing on unread bytes would make the kernel drop what is still under way. An
engine that closes its socket is such an end; its peer's engine then sees its own socket close.

When sending fails, receiving goes on for that long too: the reason (a refusal, a TLS alert) may still be unread.

State is shared between the two tasks in plain attributes; each is set between two awaits of one task.
"""

import socket

import trio

from ssfs.errors import ConnectionLost, SsfsError
from ssfs.net.blocks import (
    END,
    HEADER,
    KEEP_ALIVE,
    BlockReader,
    Compressor,
    Kind,
    Preamble,
    encode_preamble,
)
from ssfs.net.compression import Judge, settle
from ssfs.net.options import LinkOptions
from ssfs.net.pace import Pacer
from ssfs.net.wire import AnyBytes, Wire, close_at_once

HELD_BYTES = 4 << 20
"""Bound of a pump's own memory: a block before and after compression, before and after encryption; received
bytes before and after decryption, and one block expanded to 1 MiB with the window before it."""

_TAKEN_BYTES = (256 << 10) - HEADER.size
"""A block of it is a whole number of TLS records, encrypted and sent at once (5 bytes more cost a third of the speed)."""
_MIN_TAKEN_BYTES = 4096
_COMPRESSED_FROM_BYTES = 64
_THREAD_FROM_BYTES = 16 << 10
_PIECES_PER_BLOCK = 5


async def pump(wire: Wire, engine: socket.socket, options: LinkOptions) -> None:
    """Carry bytes until one end has ended and all it said is delivered. Closes both, whatever happens.

    The engine's socket is read and written without waiting, and waited for only when that is not possible: a turn of the
    event loop costs more than a block does.

    Cancelled, it closes at once: the engine meets the end of its stream, the other end a cut.

    Raises:
        ConnectionLost: The wire was cut, broke, or nothing came over it for too long.
        RemoteProtocolError: The other end speaks something else.
        TrustError: The other end does not accept our certificate.
    """
    try:
        await _Pump(wire, engine, options).run()
        await wire.aclose()
    finally:
        engine.close()
        await close_at_once(wire)


class _Pump:
    def __init__(self, wire: Wire, engine: socket.socket, options: LinkOptions) -> None:
        self._wire = wire
        engine.settimeout(0)
        self._engine = engine
        self._options = options
        self._reader = BlockReader()
        self._is_agreed = False
        self._pacer = Pacer(options.limit_bytes_s)
        self._judge = Judge(settle(options.compression, None, options.max_asked_level))
        self._compressor: Compressor | None = None
        self._limiter = trio.CapacityLimiter(1)
        self._buffer = memoryview(bytearray(HEADER.size + _TAKEN_BYTES))
        self._waiting = trio.CancelScope()
        self._sending = trio.CancelScope()
        self._receiving = trio.CancelScope()
        self._has_said_end = False
        self._is_engine_deaf = False
        self._send_failure: SsfsError | None = None
        self._receive_failure: SsfsError | None = None

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._send)
            nursery.start_soon(self._receive)
        # What happens after both ends have had their say matters to nobody.
        is_over = self._has_said_end and isinstance(self._receive_failure, ConnectionLost)
        failure = self._receive_failure or self._send_failure
        if failure is not None and not self._reader.has_ended and not is_over:
            raise failure

    # --- from the engine to the wire ---

    async def _send(self) -> None:
        await trio.lowlevel.checkpoint()
        try:
            with self._sending:
                await self._say_all()
                self._has_said_end = True
        except SsfsError as error:
            self._send_failure = error
        self._receiving.deadline = trio.current_time() + self._options.linger_s

    async def _say_all(self) -> None:
        self._pacer.spend(self._wire.traffic.sent_bytes)  # the handshake
        wish = Preamble(self._options.compression, self._options.limit_bytes_s)
        await self._put(encode_preamble(wish))
        while not self._reader.has_ended:
            count = await self._take()
            if count == 0:
                break
            if count is None:
                await self._put(KEEP_ALIVE)
            else:
                await self._put_block(count)
        await self._put(END)

    async def _take(self) -> int | None:
        """What the engine has to say, into the buffer; 0 at its end, None if it says nothing for long."""
        most = self._judge.most_bytes() or _TAKEN_BYTES
        if self._pacer.rate_bytes_s:
            most = min(most, max(_MIN_TAKEN_BYTES, _PIECES_PER_BLOCK * self._pacer.piece_bytes))
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            count = self._take_nowait(most)
            if count is None:
                keep_alive_s = trio.current_time() + self._options.keep_alive_s
                with trio.CancelScope(deadline=keep_alive_s) as self._waiting:
                    while count is None:
                        await trio.lowlevel.wait_readable(self._engine)
                        count = self._take_nowait(most)
        except ConnectionError:
            # The engine closed without reading all that it was told.
            count = 0
        return count

    def _take_nowait(self, most: int) -> int | None:
        """Read at most so much from the engine into the buffer; None if it says nothing just now."""
        view = self._buffer[HEADER.size : HEADER.size + most]
        try:
            return self._engine.recv_into(view)
        except BlockingIOError:
            return None

    async def _put_block(self, count: int) -> None:
        content = self._buffer[HEADER.size : HEADER.size + count]
        started = trio.current_time()
        if count < _COMPRESSED_FROM_BYTES or not self._judge.wants_compression():
            HEADER.pack_into(self._buffer, 0, count, Kind.PLAIN)
            await self._put(self._buffer[: HEADER.size + count])
            self._judge.note_plain(count, trio.current_time() - started)
            return
        block = await self._compress(content)
        compressed = trio.current_time()
        await self._put(block)
        sent = trio.current_time()
        self._judge.note_compressed(count, len(block), compressed - started, sent - compressed)

    async def _compress(self, content: memoryview) -> bytes:
        if self._compressor is None:
            self._compressor = Compressor(self._judge.compression.level)
        if len(content) < _THREAD_FROM_BYTES:
            await trio.lowlevel.checkpoint()
            return self._compressor.block(content)
        return await trio.to_thread.run_sync(self._compressor.block, content, limiter=self._limiter)

    async def _put(self, block: AnyBytes) -> None:
        """Send it, at the pace that was agreed on."""
        if not self._pacer.rate_bytes_s:
            await self._wire.send_all(block)
            return
        left = memoryview(block)
        while True:
            await self._pacer.wait()
            before = self._wire.traffic.sent_bytes
            piece = left[: self._pacer.piece_bytes]
            await self._wire.send_all(piece)
            self._pacer.spend(self._wire.traffic.sent_bytes - before)
            left = left[len(piece) :]
            if not left:
                return

    # --- from the wire to the engine ---

    async def _receive(self) -> None:
        await trio.lowlevel.checkpoint()
        try:
            with self._receiving:
                await self._hear_all()
        except SsfsError as error:
            self._receive_failure = error
        self._hang_up_on_engine()
        if self._reader.has_ended:
            # Let the sending task finish its block and say the end.
            self._waiting.cancel()
            self._sending.deadline = trio.current_time() + self._options.linger_s
        else:
            self._sending.cancel()

    async def _hear_all(self) -> None:
        while True:
            received = await self._take_in()
            for content in self._reader.receive(received):
                self._agree()
                await self._deliver(content)
            self._agree()
            if self._reader.has_ended:
                return

    async def _take_in(self) -> AnyBytes:
        received: AnyBytes | None = None
        with trio.CancelScope(deadline=trio.current_time() + self._options.idle_s):
            received = await self._wire.receive_some()
        if received is None:
            raise ConnectionLost(
                f"The connection timed out: nothing came for {self._options.idle_s:.0f} s"
            )
        if not received:
            when = "" if self._is_agreed else " before the other end said anything"
            raise ConnectionLost(f"The connection was closed{when}")
        return received

    def _agree(self) -> None:
        """Do as the other end wishes, once its preamble is here."""
        wish = self._reader.preamble
        if wish is None or self._is_agreed:
            return
        self._is_agreed = True
        options = self._options
        settled = settle(options.compression, wish.compression, options.max_asked_level)
        if settled != self._judge.compression:
            self._judge = Judge(settled)
        limits = [rate for rate in (options.limit_bytes_s, wish.rate_bytes_s) if rate]
        self._pacer.rate_bytes_s = min(limits, default=0)

    async def _deliver(self, content: AnyBytes) -> None:
        """Hand it to the engine; what one that has closed did not want is dropped."""
        left = memoryview(content)
        while left and not self._is_engine_deaf:
            try:
                left = left[self._engine.send(left) :]
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self._engine)
            except OSError:
                self._is_engine_deaf = True
        await trio.lowlevel.checkpoint_if_cancelled()

    def _hang_up_on_engine(self) -> None:
        """The engine reads what was delivered, then the end; what it says from now on fails."""
        try:
            self._engine.shutdown(socket.SHUT_RDWR)
        except OSError:
            self._is_engine_deaf = True
