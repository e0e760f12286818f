"""The backup server: one trio process that serves one store over TLS.

Tasks of the event loop: one per listener, one per connection, one that watches for revoked clients, one that
renews the server's certificate, one that hears signals. None of them touches a disk but through a worker
thread. Nothing a second server on the same store would have to know is kept in memory: locks, slots, clients
and invitations are files (DESIGN.md section 3.6).

SIGTERM and SIGINT: no new connections; running sessions are broken off in a resumable state; the process ends
within ten seconds whatever they do, as a store survives a killed server. SIGHUP: settings and certificate
are read again.
"""

import itertools
import logging
import os
import signal
import ssl
import threading
from collections.abc import AsyncIterator
from typing import NamedTuple

import trio

from ssfs.clock import Clock
from ssfs.daemon.admission import Door
from ssfs.daemon.session import Session
from ssfs.engine.enrolment import EnrolmentDesk
from ssfs.engine.session import Visitor
from ssfs.errors import PeerBusy, SsfsError
from ssfs.model.peer import NOBODY, Peer
from ssfs.net.options import LinkOptions
from ssfs.net.tls import TlsStream, server_context
from ssfs.net.wire import tune_tcp
from ssfs.pki.certificate import is_due, read_certificate
from ssfs.store.clients import Registry
from ssfs.store.store import Store

_log = logging.getLogger(__name__)

_LOOK_FOR_REVOKED_S = 0.25
_ENROLMENT_S = 60.0
_RENEW_EVERY_S = 3600.0
_EXIT_WITHIN_S = 9.0


class _Known(NamedTuple):
    """By what a session was let in.

    Attributes:
        certificate: What its client has shown (DER); b"" for nothing.
        stamp: The registry's stamp from before that was looked up.
    """

    certificate: bytes
    stamp: bytes


class Server:
    """Serves one store."""

    def __init__(self, store: Store, clock: Clock) -> None:
        """Prepare to serve a store that this process owns; makes its certificates if need be.

        Raises:
            StoreError: Its certificates cannot be read or made.
        """
        self._store = store
        self._clock = clock
        self._registry = Registry(store)
        self._desk = EnrolmentDesk(self._registry, clock)
        self._context = self._load_context()
        settings = store.settings.server
        self._door = Door(settings.max_half_open)
        self._threads = trio.CapacityLimiter(settings.max_sessions)
        # Theirs alone: a wrong code is answered late, and its thread waits.
        self._stranger_threads = trio.CapacityLimiter(settings.max_half_open)
        self._numbers = itertools.count(1)
        self._sessions: dict[Session, _Known] = {}

    def _load_context(self) -> ssl.SSLContext:
        files = self._registry.ensure_server_certificate(self._clock.now())
        return server_context(files.key, files.certificate, files.authority)

    async def run(self, listeners: list[trio.SocketListener]) -> None:
        """Serve until a signal ends it."""
        async with trio.open_nursery() as nursery:
            with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
                # Not earlier: who reads this line may send a signal at once.
                for listener in listeners:
                    _log.info("listening on %s", _address_text(listener.socket.getsockname()))
                nursery.start_soon(self._watch_clients)
                nursery.start_soon(self._keep_certificate)
                nursery.start_soon(trio.serve_listeners, self._connection, listeners)
                await self._hear_signals(signals)
            count = len(self._sessions)
            _log.info("going down, %d sessions are broken off", count)
            # A thread may be in the middle of a long system call, which nothing can interrupt.
            exit_timer = threading.Timer(_EXIT_WITHIN_S, os._exit, (0,))
            exit_timer.daemon = True
            exit_timer.start()
            nursery.cancel_scope.cancel()
        _log.info("ended")

    async def _hear_signals(self, signals: AsyncIterator[int]) -> None:
        async for number in signals:
            if number != signal.SIGHUP:
                return
            await self._reload()

    async def _reload(self) -> None:
        try:
            store = await trio.to_thread.run_sync(Store.open, self._store.path)
            self._context = await trio.to_thread.run_sync(self._load_context)
        except SsfsError as error:
            _log.error("the settings are kept as they were: %s", error)
            return
        self._store = store
        settings = store.settings.server
        self._door.most = settings.max_half_open
        self._threads.total_tokens = settings.max_sessions
        self._stranger_threads.total_tokens = settings.max_half_open
        _log.info("settings read again")

    async def _keep_certificate(self) -> None:
        while True:
            await trio.sleep(_RENEW_EVERY_S)
            try:
                self._context = await trio.to_thread.run_sync(self._load_context)
            except SsfsError as error:
                _log.error("the certificate is kept as it was: %s", error)

    # -- connections -----------------------------------------------------------------------------

    async def _connection(self, stream: trio.SocketStream) -> None:
        """One connection from its first byte to its last."""
        label = f"session {next(self._numbers)}"
        address = "an address that is gone"
        try:
            address = _address_text(stream.socket.getpeername())
            tune_tcp(stream)
            wire = TlsStream(stream, self._context, server_side=True)
            with self._door.half_open(self._store.settings.server.handshake_s) as scope:
                await wire.handshake()
                await self._serve(wire, label, address, scope)
            if scope.cancelled_caught:
                _log.info("%s from %s: refused, no certificate shown in time", label, address)
        except SsfsError as error:
            _log.info("%s from %s: refused, %s", label, address, error)
        except OSError as error:
            _log.info("%s from %s: %s", label, address, error)
        except Exception:  # noqa: BLE001  # one connection must not end the others
            _log.exception(
                "%s from %s: a bug in ssfs; please report the lines below", label, address
            )
        finally:
            with trio.move_on_after(1, shield=True):
                await trio.aclose_forcefully(stream)

    async def _serve(
        self, wire: TlsStream, label: str, address: str, scope: trio.CancelScope
    ) -> None:
        certificate = wire.peer_certificate()
        stamp = await trio.to_thread.run_sync(self._registry.change_stamp)
        visitor = await self._identify(certificate)
        if visitor.peer.is_known:
            self._door.known(scope)
            threads = self._threads
        else:
            # Who has been revoked is a stranger too: neither may keep a place that a client needs.
            scope.deadline = trio.current_time() + _ENROLMENT_S
            threads = self._stranger_threads
        name = visitor.peer.name or "a stranger"
        session = Session(self._store, visitor, f"{label} {name}", self._clock)
        _log.info("%s from %s begins", session.label, address)
        self._sessions[session] = _Known(certificate or b"", stamp)
        try:
            options = LinkOptions(idle_s=self._store.settings.server.idle_s)
            await session.run(wire, options, threads)
        finally:
            del self._sessions[session]

    async def _identify(self, certificate: bytes | None) -> Visitor:
        if certificate is None:
            return Visitor(NOBODY, desk=self._desk)
        try:
            peer, renew = await trio.to_thread.run_sync(self._look_up, certificate)
        except SsfsError as error:
            _log.info("refused: %s", error)
            return Visitor(NOBODY, refusal=error)
        # Last, as nothing may come between it and the session being counted.
        busy = self._too_many(peer)
        if busy:
            return Visitor(NOBODY, refusal=PeerBusy(busy, remedy="try again later"))
        return Visitor(peer, certificate, renew=renew, desk=self._desk)

    def _too_many(self, peer: Peer) -> str:
        """Why there is no room for one more session of a client; "" if there is."""
        most = self._store.settings.server.max_sessions
        names = [session.peer.name for session in self._sessions if session.peer.is_known]
        if len(names) >= most:
            return "The server has as many sessions as it may"
        if names.count(peer.name) >= (most + 1) // 2:
            return f"Client {peer.name!r} has half of all sessions the server may have"
        return ""

    def _look_up(self, certificate: bytes) -> tuple[Peer, bool]:
        now = self._clock.now()
        peer = self._registry.identify(certificate, now)
        self._registry.note_seen(peer.name, now)
        return peer, is_due(read_certificate(certificate).not_after, now)

    # -- revocation ------------------------------------------------------------------------------

    async def _watch_clients(self) -> None:
        """End the sessions of clients that are revoked, or whose rights have changed."""
        while True:
            await trio.sleep(_LOOK_FOR_REVOKED_S)
            try:
                stamp = await trio.to_thread.run_sync(self._registry.change_stamp)
            except SsfsError:
                # A disk that does not answer for once is no reason to go down, nor to trust: whoever
                # is still there is looked up.
                stamp = b"unknown"
            for session, known in list(self._sessions.items()):
                # Sessions end while others are looked up.
                if session in self._sessions and known.certificate and known.stamp != stamp:
                    self._sessions[session] = known._replace(stamp=stamp)
                    await self._check_again(session, known.certificate)

    async def _check_again(self, session: Session, certificate: bytes) -> None:
        now = self._clock.now()
        try:
            peer = await trio.to_thread.run_sync(self._registry.identify, certificate, now)
        except SsfsError as error:
            session.end(error.problem)
        else:
            if peer != session.peer:
                session.end("the client's rights have changed")


def _address_text(address: tuple[object, ...]) -> str:
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"
