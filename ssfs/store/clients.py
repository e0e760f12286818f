"""The registry: which clients a store knows, what each may do, who is invited (FORMAT.md, "pki/").

What a client may do is what stands here, and nothing else: its certificate says its name only. Any number of
processes may use one registry at once. Every change is made under one lock (`pki/lock`) and is a replaced
or removed file, so that reading needs no lock. After a change of a client the stamp in `pki/changed` is replaced,
for servers with open sessions (`Registry.change_stamp`).

A crash leaves each file old or new. One between the two steps of `redeem` leaves a code that can be used again: what
it was used for had not been answered. The next redemption or revocation does all steps again.

Whoever changes something here has become the store's owner before. Times come in as arguments, by the server's
clock: no client decides when its certificate ends.
"""

import contextlib
import datetime
import os
from collections.abc import Collection, Iterator
from typing import NamedTuple

import msgspec

from ssfs.errors import ConfigError, CorruptStore, StoreError, TrustError
from ssfs.fsio.disk import open_directory, replace_file, store_errors
from ssfs.fsio.lock import FileLock
from ssfs.model.client import Client, Invitation, KnownCertificate
from ssfs.model.peer import Peer, Role
from ssfs.pki.authority import Authority
from ssfs.pki.certificate import is_issued_by, read_certificate
from ssfs.store.invitations import Invitations, check_client_name, make_invitation
from ssfs.store.keys import ServerFiles, StoreKeys
from ssfs.store.records import Records, open_or_make_directory
from ssfs.store.store import Store
from ssfs.store.textfile import FORMAT

_SEEN_EVERY = datetime.timedelta(hours=1)
_MAX_CERTIFICATES = 100
_AGAIN = "ask the server's administrator for a new code (`ssfs invite`), then run `ssfs enroll`"


class Enrolled(NamedTuple):
    """What a client gets for its code.

    Attributes:
        certificate: PEM.
        name: The client's name.
        roles: What it may do.
        points: In which sync points; `*` is all.
    """

    certificate: bytes
    name: str
    roles: tuple[Role, ...]
    points: tuple[str, ...]


class Registry:
    """The clients of one store.

    Making one touches nothing. Methods raise StoreError when the disk does not do what is asked of it, and
    CorruptStore for a file that is damaged.

    Attributes:
        path: STORE/pki, which exists from the first invitation or the first server on.
    """

    def __init__(self, store: Store) -> None:
        self.path = os.path.join(store.path, b"pki")
        self._store = store
        self._keys = StoreKeys(self.path, store.settings.id)
        self._clients = Records(self.path, b"clients", Client)
        self._invitations = Invitations(self.path)

    # -- the store's own certificates -------------------------------------------------------------

    def authority(self) -> Authority:
        """The store's certificate authority.

        Raises:
            StoreError: There is none before the first invitation and the first server.
        """
        return self._keys.authority()

    def ensure_server_certificate(self, now: datetime.datetime) -> ServerFiles:
        """The files of a server, for `ssl`: made at first use, and renewed when it is time.

        The key stays when the certificate is renewed, so a process that loads both meanwhile gets a pair.
        """
        with self._locked() as fd:
            may_make = not self._clients.names()
            return self._keys.ensure_server_certificate(now, may_make=may_make, fd=fd)

    # -- enrolment --------------------------------------------------------------------------------

    def invite(
        self,
        client: str,
        roles: Collection[Role],
        points: Collection[str],
        expires: datetime.datetime,
        now: datetime.datetime,
    ) -> bytes:
        """Let whoever has the secret that is returned enrol as a client.

        Raises:
            ConfigError: A name is none, there is no role or point, or it would be over at once.
        """
        invitation = make_invitation(client, roles, points, expires, now)
        with self._locked() as fd:
            self._keys.ensure_authority(now, may_make=not self._clients.names(), fd=fd)
            self._invitations.drop(lambda one: now >= one.expires, fd=fd)
            return self._invitations.add(invitation, fd=fd)

    def redeem(self, secret: bytes, request: bytes, now: datetime.datetime) -> Enrolled:
        """Enrol a client for the secret of its code, which is used up by that.

        A client of that name that was enrolled before is replaced by it: its certificates count no
        more, and a revocation of it is over.

        Args:
            secret: From the enrolment code.
            request: The client's signing request (PEM).
            now: The server's time.

        Raises:
            TrustError: The code is not or no longer one, or the request is not what it should be.
        """
        # A flood of wrong codes does not get as far as the lock.
        if self._invitations.find(secret) is None:
            raise _wrong_code()
        with self._locked() as fd:
            invitation = self._invitations.find(secret)
            if invitation is None:
                raise _wrong_code()
            if now >= invitation.expires:
                self._invitations.remove(secret, fd=fd)
                raise _wrong_code()
            issued = self.authority().issue_client(request, invitation.client, now)
            client = Client(
                FORMAT,
                invitation.client,
                invitation.roles,
                invitation.points,
                (KnownCertificate(issued.serial, issued.expires),),
                _whole_second(now),
            )
            self._write(client, fd)
            self._invitations.remove(secret, fd=fd)
        return Enrolled(issued.pem, client.name, client.roles, client.points)

    def renew(self, certificate: bytes, request: bytes, now: datetime.datetime) -> bytes:
        """Another certificate (PEM) for the client that shows a certificate (DER).

        Those it has stay valid: it may never get to keep the new one. It is identified again under
        the lock, so that no session gets anything out of a certificate that counts no more.

        Raises:
            TrustError: See `identify`; or the request is not what it should be, or there were too many.
        """
        with self._locked() as fd:
            name = self.identify(certificate, now).name
            client = self._find_active(name)
            valid = [one for one in client.certificates if now < one.expires]
            if len(valid) >= _MAX_CERTIFICATES:
                raise TrustError(
                    f"Client {name!r} has asked for too many certificates",
                    remedy="see why it cannot keep them; it can go on with the one it has",
                )
            issued = self.authority().issue_client(request, name, now)
            certificates = (*valid, KnownCertificate(issued.serial, issued.expires))
            self._write(msgspec.structs.replace(client, certificates=certificates), fd)
        return issued.pem

    def revoke(self, name: str, now: datetime.datetime) -> int:
        """Take a client's access away, and withdraw its open invitations; how many those were.

        Doing it again changes nothing, but has servers look again.

        Raises:
            ConfigError: There is neither a client nor an invitation of this name.
        """
        check_client_name(name)
        unknown = ConfigError(
            f"No client {name!r} in the store",
            path=self._store.path,
            remedy="`ssfs clients` lists them",
        )
        if not os.path.exists(self.path):
            raise unknown
        with self._locked() as fd:
            withdrawn = self._invitations.drop(lambda one: one.client == name, fd=fd)
            try:
                client = self.find(name)
            except CorruptStore:
                # It has no access as it is, but may have sessions.
                self._clients.remove(name, parent_fd=fd)
                self._stamp(fd)
                return withdrawn
            if client is None and not withdrawn:
                raise unknown
            if client is not None:
                revoked = client.revoked or _whole_second(now)
                self._write(msgspec.structs.replace(client, revoked=revoked), fd)
        return withdrawn

    # -- sessions ---------------------------------------------------------------------------------

    def identify(self, certificate: bytes, now: datetime.datetime) -> Peer:
        """Who shows a certificate (DER), and what it may do.

        TLS has verified the signature before; it is verified here again, so that who a peer is does not
        depend on how a TLS context was set up.

        Raises:
            TrustError: It is nobody any more, or never was; the error says why and what to do.
        """
        shown = read_certificate(certificate)
        if not is_issued_by(certificate, self._keys.authority_certificate()):
            raise TrustError("The certificate is not one of this store", remedy=_AGAIN)
        client = self._find_active(shown.name)
        ends = {known.serial: known.expires for known in client.certificates}
        if shown.serial not in ends:
            raise TrustError(
                f"This is not a certificate of client {client.name!r} any more: "
                "it has enrolled again since",
                remedy="one name is for one machine; " + _AGAIN,
            )
        if now >= ends[shown.serial]:
            raise TrustError(
                f"The certificate of client {client.name!r} expired on "
                f"{ends[shown.serial]:%Y-%m-%d}",
                remedy=_AGAIN,
            )
        return client.peer

    def note_seen(self, name: str, now: datetime.datetime) -> None:
        """Remember that a session of a client began; written once an hour at most.

        It is informative only: a full disk does not matter here.
        """
        if not self._is_to_note(name, now):
            return
        with contextlib.suppress(StoreError), self._locked() as fd:
            if self._is_to_note(name, now):
                client = self._find_active(name)
                seen = msgspec.structs.replace(client, last_seen=_whole_second(now))
                self._clients.write(name, seen, parent_fd=fd)

    def change_stamp(self) -> bytes:
        """A value that is another after each change of what a client may do; one small read.

        A change is on the disk before its stamp. So a server takes the stamp, then identifies a client,
        and identifies it again as soon as the stamp is not the one it took.
        """
        with store_errors(self.path):
            try:
                with open(os.path.join(self.path, b"changed"), "rb") as file:
                    return file.read()
            except FileNotFoundError:
                return b""

    # -- reading ----------------------------------------------------------------------------------

    def find(self, name: str) -> Client | None:
        """The client of this name, if there is one, revoked or not.

        Raises:
            ConfigError: None can have this name.
        """
        client = self._clients.read(check_client_name(name))
        if client is not None and client.name != name:
            raise CorruptStore(
                f"The file of client {name!r} is one of client {client.name!r}",
                path=self._clients.path,
            )
        return client

    def clients(self) -> list[Client]:
        """The clients, by name; those that were revoked too."""
        found = [self.find(name) for name in self._clients.names() if _is_client_name(name)]
        return [client for client in found if client is not None]

    def invitations(self, now: datetime.datetime) -> list[Invitation]:
        """The invitations that can still be used, by client and then the time they were made."""
        return self._invitations.usable(now)

    # -- the files --------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        """The registry's directory, made if need be, while nobody else changes anything in it."""
        with store_errors(self.path), contextlib.ExitStack() as stack:
            parent = open_directory(self._store.path)
            stack.callback(os.close, parent)
            fd = stack.enter_context(open_or_make_directory(b"pki", parent))
            stack.enter_context(FileLock(b"lock", dir_fd=fd)).exclusive()
            yield fd

    def _find_active(self, name: str) -> Client:
        """The client of this name, if it has access."""
        client = self.find(name) if _is_client_name(name) else None
        if client is None:
            raise TrustError(f"The store knows no client {name!r}", remedy=_AGAIN)
        if client.revoked is not None:
            raise TrustError(f"The access of client {name!r} was revoked", remedy=_AGAIN)
        return client

    def _is_to_note(self, name: str, now: datetime.datetime) -> bool:
        client = self.find(name)
        if client is None or client.revoked is not None:
            return False
        # A time after now is of a clock that has been set back since.
        return client.last_seen is None or not (
            client.last_seen <= now < client.last_seen + _SEEN_EVERY
        )

    def _write(self, client: Client, fd: int) -> None:
        """Write a client and, after it, the stamp."""
        self._clients.write(client.name, client, parent_fd=fd)
        self._stamp(fd)

    @staticmethod
    def _stamp(fd: int) -> None:
        replace_file(b"changed", os.urandom(16).hex().encode() + b"\n", dir_fd=fd)


def _is_client_name(name: str) -> bool:
    try:
        check_client_name(name)
    except ConfigError:
        return False
    return True


def _wrong_code() -> TrustError:
    return TrustError("The enrolment code is wrong, used or expired", remedy=_AGAIN)


def _whole_second(time: datetime.datetime) -> datetime.datetime:
    return time.replace(microsecond=0)
