"""A client's session over the network, for synchronous code: `with open_session(target) as session`.

The engine stays in the caller's thread with a `Channel` over a socket pair. Trio, the pump and the connection run in
one thread of their own until the block is left. When the connection fails, the engine sees no more than its
socket closing; on the way out the session raises what really happened instead.

That thread keeps SIGINT blocked; an ssh that is started from it inherits that (`ssfs.net.ssh`).
"""

import concurrent.futures
import contextlib
import os
import signal
import socket
import threading
from collections.abc import AsyncIterator, Iterator

import msgspec
import trio

from ssfs.errors import ConnectionLost
from ssfs.net.channel import Channel
from ssfs.net.link import pump
from ssfs.net.options import LinkOptions
from ssfs.net.ssh import open_command
from ssfs.net.tls import Path, TlsStream, client_context, unverified_context
from ssfs.net.traffic import Traffic
from ssfs.net.wire import Wire, engine_socketpair, tune_tcp
from ssfs.protocol.states import Role

_CONNECT_S = 10
_HANDSHAKE_S = 10
_GOODBYE_S = 10
"""For a clean end: lingering, TLS's last word, ssh's own end."""


class TlsTarget(msgspec.Struct, frozen=True):
    """A server that listens for TLS.

    Attributes:
        host: Name or address.
        ca_path: The certificate authority to trust; unused without `verify`.
        key_path, certificate_path: Our own, if we have them.
        verify: False only to fetch the authority's certificate, whose fingerprint is compared then.
    """

    host: str
    port: int
    ca_path: Path
    key_path: Path | None = None
    certificate_path: Path | None = None
    verify: bool = True

    @property
    def address(self) -> str:
        """For messages."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class SshTarget(msgspec.Struct, frozen=True):
    """A server that a command starts, whose standard input and output are the wire."""

    command: list[str]


Target = TlsTarget | SshTarget


class Session(msgspec.Struct, frozen=True):
    """A connection that stands.

    Attributes:
        channel: For the engine; closed by `open_session`.
        traffic: What went over the wire so far.
    """

    channel: Channel
    traffic: Traffic


@contextlib.contextmanager
def open_session(target: Target, options: LinkOptions) -> Iterator[Session]:
    """Connect; disconnect when the block is left.

    Left normally, all that was sent is delivered first, and the other end given some seconds to
    end too. Left by an exception, the connection is cut at once. A `ConnectionLost` is replaced by
    what the connection died of, where that is known.

    Raises:
        ConnectionLost: There is no server, or it went away.
        TrustError: It is not ours, or does not accept us.
        RemoteProtocolError: It is no ssfs server.
        ConfigError: A key or certificate cannot be used, or the command not be run.
    """
    ours, theirs = engine_socketpair()
    carrier = _Carrier(target, options, theirs)
    try:
        traffic = carrier.wait_connected()
        with Channel(ours, Role.CLIENT, traffic) as channel:
            yield Session(channel, traffic)
        carrier.wait_ended()
    except ConnectionLost as error:
        ours.close()
        carrier.wait_ended()
        if carrier.failure is None or carrier.failure is error:
            raise
        raise carrier.failure from error
    finally:
        ours.close()
        carrier.stop()
    if carrier.failure is not None and not isinstance(carrier.failure, ConnectionLost):
        raise carrier.failure


class _Carrier:
    """The thread that connects and carries bytes.

    Attributes:
        failure: What it ended with, once it has ended; None after a clean end, or when stopped.
    """

    def __init__(self, target: Target, options: LinkOptions, engine: socket.socket) -> None:
        """Take over the socket and start."""
        self.failure: BaseException | None = None
        self._target = target
        self._options = options
        self._engine = engine
        self._connected: concurrent.futures.Future[Traffic] = concurrent.futures.Future()
        self._scope = trio.CancelScope()
        self._token: trio.lowlevel.TrioToken | None = None
        self._is_stopped = False
        self._thread = threading.Thread(target=self._run, name="ssfs link", daemon=True)
        self._thread.start()

    def wait_connected(self) -> Traffic:
        """Wait for the connection; raises why there is none."""
        return self._connected.result()

    def wait_ended(self) -> None:
        """Wait for the end that the engine's closing brings about, but not for long."""
        self._thread.join(self._options.linger_s + _GOODBYE_S)

    def stop(self) -> None:
        """End it now, unless it has ended."""
        self._is_stopped = True
        if self._token is not None:
            with contextlib.suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._scope.cancel)
        self._thread.join(_GOODBYE_S)

    def _run(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            trio.run(self._carry)
        except BaseException as error:  # noqa: BLE001  # raised again in the caller's thread
            self.failure = error
        finally:
            self._engine.close()
            if not self._connected.done():
                self._connected.set_exception(self.failure or ConnectionLost("Stopped"))

    async def _carry(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        with self._scope:
            if self._is_stopped:
                self._scope.cancel()
            async with _wire_to(self._target) as wire:
                self._connected.set_result(wire.traffic)
                await pump(wire, self._engine, self._options)
        await trio.lowlevel.checkpoint()


def _wire_to(target: Target) -> contextlib.AbstractAsyncContextManager[Wire]:
    match target:
        case TlsTarget():
            return _tls_wire(target)
        case SshTarget():
            return open_command(target.command)


@contextlib.asynccontextmanager
async def _tls_wire(target: TlsTarget) -> AsyncIterator[Wire]:
    if target.verify:
        context = client_context(target.ca_path, target.key_path, target.certificate_path)
    else:
        context = unverified_context()
    wire = TlsStream(await _connect(target), context, server_side=False)
    try:
        with trio.move_on_after(_HANDSHAKE_S) as limit:
            try:
                await wire.handshake()
            except ConnectionLost as error:
                raise _no_connection(target, error.problem, error.remedy) from error
        if limit.cancelled_caught:
            raise _no_connection(target, f"no TLS handshake within {_HANDSHAKE_S} s")
        yield wire
    finally:
        await wire.aclose()


async def _connect(target: TlsTarget) -> trio.SocketStream:
    stream = None
    try:
        with trio.move_on_after(_CONNECT_S):
            stream = await trio.open_tcp_stream(target.host, target.port)
    except OSError as error:
        raise _no_connection(target, _reason(error)) from error
    if stream is None:
        raise _no_connection(target, f"no answer within {_CONNECT_S} s")
    tune_tcp(stream)
    return stream


def _reason(error: BaseException) -> str:
    """Why connecting failed, each reason once: trio tries every address and wraps what it met."""
    if isinstance(error, BaseExceptionGroup):
        return ", ".join(dict.fromkeys(map(_reason, error.exceptions)))
    if isinstance(error, socket.gaierror):
        return error.strerror or "unknown name"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)  # trio puts words of its own into `strerror`
    return _reason(error.__cause__) if error.__cause__ is not None else str(error)


def _no_connection(target: TlsTarget, reason: str, remedy: str = "") -> ConnectionLost:
    return ConnectionLost(
        f"Cannot connect to {target.address}: {reason}",
        remedy=remedy or "is the server running, and is that its address?",
    )
