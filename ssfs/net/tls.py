"""TLS 1.3 over any byte stream of trio, fast enough for a backup.

`trio.SSLStream` hands out one record (16 KiB) for each call. `TlsStream` drives the same `ssl.SSLObject`, but
takes 256 KiB from the network at a time and decrypts all of it into one buffer. Who a peer is and what it
may do is not decided here: a caller looks at `peer_certificate()`.

Times in certificates are not checked: a machine with a wrong clock must be able to back up, and the
server checks expiry itself, by its own clock. What counts is the certificate authority and, for a client,
the fixed name `SERVER_NAME`, so that a server's address may change.

One task may receive while another one sends. Between two awaits of either, the `SSLObject` is used by that task
alone. What the receiving one makes OpenSSL say (the answer to a key update) waits in the outgoing
buffer for the next send: a receiver that sent could wait for a peer that waits for it.
"""

import contextlib
import os
import ssl
from typing import cast

import trio

from ssfs.errors import ConfigError, ConnectionLost, PeerError, TrustError
from ssfs.net.traffic import Traffic
from ssfs.net.wire import RECEIVE_BYTES, AnyBytes, translated_errors

SERVER_NAME = "ssfs-server"
"""The DNS name in every server's certificate."""

Path = str | bytes | os.PathLike[str]

_NO_CHECK_TIME = ssl.VerifyFlags(0x200000)
_ENCRYPT_BYTES = 256 << 10
_CLOSE_S = 1.0
_CERTIFICATE_ALERTS = frozenset(
    {
        "ACCESS_DENIED",
        "BAD_CERTIFICATE",
        "CERTIFICATE_EXPIRED",
        "CERTIFICATE_REQUIRED",
        "CERTIFICATE_REVOKED",
        "CERTIFICATE_UNKNOWN",
        "UNKNOWN_CA",
        "UNSUPPORTED_CERTIFICATE",
    }
)


def server_context(key: Path, chain: Path, ca: Path) -> ssl.SSLContext:
    """A server's side. Clients are asked for a certificate of `ca`, and may have none.

    Args:
        key: File with the server's private key (PEM).
        chain: File with its certificate.
        ca: File with the certificate authority's certificate.

    Raises:
        ConfigError: One of the files cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _harden(context)
    context.num_tickets = 0
    _load_own(context, key, chain)
    _load_ca(context, ca)
    context.verify_mode = ssl.CERT_OPTIONAL
    return context


def client_context(
    ca: Path, key: Path | None = None, certificate: Path | None = None
) -> ssl.SSLContext:
    """A client's side: trusts servers of `ca` alone, shows its own certificate if it has one.

    Raises:
        ConfigError: One of the files cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _harden(context)
    _load_ca(context, ca)
    if key is not None and certificate is not None:
        _load_own(context, key, certificate)
    return context


def unverified_context() -> ssl.SSLContext:
    """A client's side that believes anyone, to ask once for the CA's certificate.

    Nothing heard over it counts before the fingerprint of that certificate has been compared.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _harden(context)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _harden(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.verify_flags |= _NO_CHECK_TIME


def _load_own(context: ssl.SSLContext, key: Path, certificate: Path) -> None:
    try:
        # A password is never asked for: nobody may be there to type it.
        context.load_cert_chain(certificate, key, password=b"")
    except OSError as error:  # ssl.SSLError too
        raise ConfigError(
            f"The key or certificate is of no use ({_reason(error)})", path=os.fsencode(key)
        ) from error


def _load_ca(context: ssl.SSLContext, ca: Path) -> None:
    try:
        context.load_verify_locations(ca)
    except OSError as error:
        raise ConfigError(
            f"The certificate of the authority is of no use ({_reason(error)})",
            path=os.fsencode(ca),
        ) from error


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).lower().replace("_", " ")
    return error.strerror or str(error)


class TlsStream:
    """One end of a TLS connection; a `ssfs.net.wire.Wire`."""

    def __init__(
        self,
        transport: trio.abc.HalfCloseableStream,
        context: ssl.SSLContext,
        *,
        server_side: bool,
    ) -> None:
        """Take the transport over: `aclose` closes it. `handshake` comes next."""
        self._transport = transport
        self._is_server = server_side
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._ssl = context.wrap_bio(
            self._incoming,
            self._outgoing,
            server_side=server_side,
            server_hostname=None if server_side else SERVER_NAME,
        )
        self._received = memoryview(bytearray(RECEIVE_BYTES))
        self._traffic = Traffic()
        self._is_greeted = False
        self._is_mid_send = False
        self._has_ended = False
        self._is_closed = False
        self._late_failure: PeerError | TrustError | None = None

    @property
    def traffic(self) -> Traffic:
        """What went over the transport, handshake included."""
        return self._traffic

    def peer_certificate(self) -> bytes | None:
        """The peer's certificate (DER), of our authority unless the context is unverified; None if it has none."""
        return self._ssl.getpeercert(binary_form=True)

    async def handshake(self) -> None:
        """Agree on keys and verify certificates. The caller sets a deadline, and closes after an error.

        A server that refuses our certificate says so only after this, on the first receive.

        Raises:
            TrustError: The peer's certificate is not of the authority we trust, or it refused ours.
            ConnectionLost: The peer is gone, or speaks no TLS 1.3.
        """
        while True:
            try:
                self._ssl.do_handshake()
                break
            except ssl.SSLWantReadError:
                await self._flush()
                if not await self._take():
                    raise ConnectionLost("The connection was closed during the handshake") from None
            except ssl.SSLError as error:
                raise self._translated(error) from error
        await self._flush()
        self._is_greeted = True

    async def send_all(self, data: AnyBytes) -> None:
        """As `ssfs.net.wire.Wire.send_all`."""
        left = memoryview(data)
        self._is_mid_send = True
        while True:
            if left:
                try:
                    left = left[self._ssl.write(left[:_ENCRYPT_BYTES]) :]
                except ssl.SSLError as error:
                    raise self._translated(error) from error
            await self._flush()
            if not left:
                break
        self._is_mid_send = False

    async def receive_some(self) -> memoryview:
        """As `ssfs.net.wire.Wire.receive_some`; empty only if the peer said that it ends.

        Raises:
            ConnectionLost: Also when the connection ends without that word: somebody may have cut it.
            TrustError: The peer does not accept our certificate.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        count = self._decrypt()
        if count or self._has_ended:
            await trio.lowlevel.cancel_shielded_checkpoint()
            return self._received[:count]
        while not count and not self._has_ended:
            if not await self._take():
                raise ConnectionLost("The connection was cut")
            count = self._decrypt()
        return self._received[:count]

    async def aclose(self) -> None:
        """Say that we end, as far as that is possible within a second, and close the transport."""
        is_first, self._is_closed = not self._is_closed, True
        try:
            if is_first and not self._is_mid_send:
                with contextlib.suppress(ssl.SSLError):
                    # Puts our last word into the outgoing buffer, then would wait for the peer's.
                    self._ssl.unwrap()
                with trio.move_on_after(_CLOSE_S), contextlib.suppress(ConnectionLost):
                    await self._flush()
                    if not self._is_greeted:
                        await self._linger()
        finally:
            await self._transport.aclose()

    async def _linger(self) -> None:
        """Let the peer read why its handshake failed: closing on unread bytes would reset the connection."""
        with translated_errors():
            await self._transport.send_eof()
        while await self._take():
            self._incoming.read()

    async def _flush(self) -> None:
        while self._outgoing.pending:
            encrypted = self._outgoing.read()
            with translated_errors():
                await self._transport.send_all(encrypted)
            self._traffic.sent_bytes += len(encrypted)
        await trio.lowlevel.checkpoint_if_cancelled()

    async def _take(self) -> bool:
        """Receive once; False at the transport's end."""
        with translated_errors():
            encrypted = await self._transport.receive_some(RECEIVE_BYTES)
        self._traffic.received_bytes += len(encrypted)
        self._incoming.write(encrypted)
        return bool(encrypted)

    def _decrypt(self) -> int:
        """Fill the buffer with every record that is there; how many bytes that gave."""
        if self._late_failure is not None:
            raise self._late_failure
        count = 0
        try:
            while count < RECEIVE_BYTES:
                # With a buffer to read into it gives a number, whatever the type stubs say.
                record = cast("int", self._ssl.read(RECEIVE_BYTES - count, self._received[count:]))
                if record == 0:
                    self._has_ended = True
                    break
                count += record
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self._has_ended = True
        except ssl.SSLError as error:
            failure = self._translated(error)
            failure.__cause__ = error
            if not count:
                raise failure from error
            self._late_failure = failure
        return count

    def _translated(self, error: ssl.SSLError) -> PeerError | TrustError:
        reason = _reason(error)
        _, is_alert, alert = (error.reason or "").partition("ALERT_")
        if isinstance(error, ssl.SSLCertVerificationError):
            return self._not_trusted(error.verify_message or reason)
        if is_alert and alert in _CERTIFICATE_ALERTS:
            return self._not_accepted(alert.lower().replace("_", " "))
        if not self._is_greeted:
            return ConnectionLost(
                f"The TLS handshake failed ({reason})",
                remedy="is that the address of an ssfs server?",
            )
        return ConnectionLost(f"The encrypted connection broke ({reason})")

    def _not_trusted(self, reason: str) -> TrustError:
        if self._is_server:
            return TrustError(f"The client's certificate is not of this store ({reason})")
        return TrustError(
            f"The server's certificate is not of the store this client was enrolled with ({reason})",
            remedy="if the store was made anew, enrol again with a new code; else somebody may be in between",
        )

    def _not_accepted(self, reason: str) -> TrustError:
        if self._is_server:
            return TrustError(f"The client does not accept this server's certificate ({reason})")
        return TrustError(
            f"The server does not accept this client's certificate ({reason})",
            remedy="enrol again with a new code",
        )
