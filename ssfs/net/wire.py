"""What a pump needs of the byte stream between two machines, and what all such streams have in common.

A wire is a `ssfs.net.tls.TlsStream`, or the two pipes of an ssh (`PipeWire`). It counts what really goes
over it in a `ssfs.net.traffic.Traffic`: bytes after compression and encryption, which pacing and reports are about.
"""

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator
from typing import Protocol

import trio

from ssfs.errors import ConnectionLost
from ssfs.net.traffic import Traffic

AnyBytes = bytes | bytearray | memoryview

RECEIVE_BYTES = 256 << 10
"""Taken at a time. Measured: 64 KiB cost twice the CPU time, 1 MiB no less but four times the memory."""

_ENGINE_BUFFER_BYTES = 4 << 20
_PIPE_BYTES = 1 << 20
_UNSENT_BYTES = 256 << 10


class Wire(Protocol):
    """A byte stream to another machine. One task may send while another one receives."""

    @property
    def traffic(self) -> Traffic:
        """What went over it so far."""
        ...

    async def send_all(self, data: AnyBytes) -> None:
        """Returns when the operating system has taken all of it; cancelled, the wire is of no more use.

        Raises:
            ConnectionLost: The other end is gone.
        """
        ...

    async def receive_some(self) -> AnyBytes:
        """What is there, at least one byte; empty at the end. Good until the next call.

        Raises:
            ConnectionLost: The other end is gone.
            TrustError: It does not accept our certificate.
        """
        ...

    async def aclose(self) -> None:
        """Close it, properly if nothing prevents that; at once when cancelled."""
        ...


class PipeWire:
    """Two pipes, one for each direction."""

    def __init__(self, send: trio.abc.SendStream, receive: trio.abc.ReceiveStream) -> None:
        """Take both over: `aclose` closes them."""
        self._send = send
        self._receive = receive
        self._traffic = Traffic()

    @property
    def traffic(self) -> Traffic:
        """What went over both."""
        return self._traffic

    async def send_all(self, data: AnyBytes) -> None:
        """As `Wire.send_all`."""
        with translated_errors():
            await self._send.send_all(data)
        self._traffic.sent_bytes += len(data)

    async def receive_some(self) -> AnyBytes:
        """As `Wire.receive_some`."""
        with translated_errors():
            received = await self._receive.receive_some(RECEIVE_BYTES)
        self._traffic.received_bytes += len(received)
        return received

    async def aclose(self) -> None:
        """Close both; the other end sees its input end first."""
        try:
            await self._send.aclose()
        finally:
            await self._receive.aclose()


@contextlib.contextmanager
def translated_errors() -> Iterator[None]:
    """Turn what trio's streams raise into `ConnectionLost`."""
    try:
        yield
    except trio.BrokenResourceError as error:
        cause = error.__cause__
        reason = cause.strerror if isinstance(cause, OSError) and cause.strerror else "closed"
        raise ConnectionLost(f"The connection broke ({reason})") from error


async def close_at_once(wire: Wire) -> None:
    """Close it without a word to the other end."""
    with trio.CancelScope() as scope:
        scope.cancel()
        await wire.aclose()


def tune_tcp(stream: trio.SocketStream) -> None:
    """Make a TCP connection fit for a wire.

    TCP_USER_TIMEOUT stays unset: it also ends a connection whose peer is well and only takes no bytes for a
    while (measured: 3.3 s after a window of zero, with 3 s), as a server does during a long `syncfs`.
    A peer that is gone is found by the pump's idle deadline.
    """
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)
    # What waits unsent in the kernel is late for every decision (pacing, compression, keep-alives).
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES)


def engine_socketpair() -> tuple[socket.socket, socket.socket]:
    """A socket for an engine's channel and the one for its pump, with large buffers."""
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _ENGINE_BUFFER_BYTES)
    return ours, theirs


def widen_pipe(descriptor: int) -> None:
    """Give a pipe more room than 64 KiB, where the system allows it."""
    with contextlib.suppress(OSError):
        fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


def open_stdio() -> PipeWire:
    """The wire of a server that was started over ssh: this process's standard input and output.

    From then on the process reads nothing on descriptor 0, and what it prints goes to standard
    error: a stray line in the middle of the wire would end the session. Call it once, inside trio.
    """
    incoming, outgoing = os.dup(0), os.dup(1)
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    for descriptor in (incoming, outgoing):
        widen_pipe(descriptor)
    return PipeWire(trio.lowlevel.FdStream(outgoing), trio.lowlevel.FdStream(incoming))
