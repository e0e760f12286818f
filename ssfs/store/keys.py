"""The store's own keys and certificates: those of its authority and of its servers (FORMAT.md, "pki/").

The registry (`ssfs.store.clients`) is the only user, and holds its lock for whatever writes here. A key is on the
disk before the certificate for it. Nothing here shows or logs a key; who can read the store can use them.
"""

import contextlib
import datetime
import os
from collections.abc import Iterator
from typing import NamedTuple

from ssfs.errors import ConfigError, CorruptStore, StoreError, TrustError
from ssfs.fsio.disk import open_directory, read_file, replace_file, store_errors
from ssfs.pki.authority import Authority
from ssfs.pki.certificate import (
    SERVER_LIFE,
    check_issued,
    is_due,
    make_key,
    parse_key,
    read_certificate,
    to_der,
)

_AUTHORITY_KEY, _AUTHORITY = b"ca.key", b"ca.pem"
_SERVER_KEY, _SERVER = b"server.key", b"server.pem"


class ServerFiles(NamedTuple):
    """Paths of what a server needs for TLS; all PEM.

    Attributes:
        key: Its private key.
        certificate: Its certificate.
        authority: The certificate of the authority that issues those of clients.
    """

    key: bytes
    certificate: bytes
    authority: bytes


class StoreKeys:
    """The key files in a registry's directory."""

    def __init__(self, path: bytes, store_id: str) -> None:
        """Use the directory `path`, which need not exist yet."""
        self._path = path
        self._store_id = store_id

    def authority(self) -> Authority:
        """The store's authority.

        Raises:
            StoreError: There is none yet.
            CorruptStore: A part of it is missing or damaged.
        """
        with self._open() as fd:
            return self._load_authority(fd)

    def authority_certificate(self) -> bytes:
        """Its certificate alone (PEM); raises as `authority`."""
        with self._open() as fd:
            certificate = self._read(_AUTHORITY, fd)
        if certificate is None:
            raise self._no_authority()
        return certificate

    def ensure_authority(self, now: datetime.datetime, *, may_make: bool, fd: int) -> Authority:
        """The store's authority, made if there is none.

        Args:
            now: The server's time.
            may_make: Whether no client exists yet that would know another one.
            fd: The registry's directory; its lock is held.

        Raises:
            CorruptStore: It is damaged, or it has gone while there are clients.
        """
        if self._read(_AUTHORITY, fd) is not None:
            return self._load_authority(fd)
        key = self._read(_AUTHORITY_KEY, fd)
        if key is None:
            if not may_make:
                raise CorruptStore(
                    "The store has clients, but its authority is missing",
                    path=os.path.join(self._path, _AUTHORITY_KEY),
                    remedy="bring the directory back from a copy; without one, remove it, invite "
                    "the clients again and have each run `ssfs enroll`",
                )
            key = make_key()
            replace_file(_AUTHORITY_KEY, key, dir_fd=fd)
        with self._damage(_AUTHORITY_KEY):
            made = Authority.create(self._store_id, key, now)
        replace_file(_AUTHORITY, made.pem, dir_fd=fd)
        return made

    def ensure_server_certificate(
        self, now: datetime.datetime, *, may_make: bool, fd: int
    ) -> ServerFiles:
        """The server's files: made if they are missing or useless, renewed when it is time."""
        authority = self.ensure_authority(now, may_make=may_make, fd=fd)
        key = self._read(_SERVER_KEY, fd)
        if key is None or not _is_key(key):
            key = make_key()
            replace_file(_SERVER_KEY, key, dir_fd=fd)
        certificate = self._read(_SERVER, fd)
        if certificate is None or not _is_good(certificate, key, authority, now):
            replace_file(_SERVER, authority.issue_server(key, now).pem, dir_fd=fd)
        return ServerFiles(
            *(os.path.join(self._path, name) for name in (_SERVER_KEY, _SERVER, _AUTHORITY))
        )

    def _load_authority(self, fd: int) -> Authority:
        key, certificate = self._read(_AUTHORITY_KEY, fd), self._read(_AUTHORITY, fd)
        if certificate is None:
            raise self._no_authority()
        if key is None:
            raise CorruptStore(
                "The private key of the store's authority is missing",
                path=os.path.join(self._path, _AUTHORITY_KEY),
                remedy="bring it back from a copy",
            )
        with self._damage(_AUTHORITY_KEY):
            return Authority.load(key, certificate)

    def _no_authority(self) -> StoreError:
        return StoreError(
            "The store has no clients yet",
            path=self._path,
            remedy="`ssfs invite` invites the first",
        )

    @contextlib.contextmanager
    def _open(self) -> Iterator[int]:
        with store_errors(self._path):
            try:
                fd = open_directory(self._path)
            except FileNotFoundError:
                raise self._no_authority() from None
            try:
                yield fd
            finally:
                os.close(fd)

    @contextlib.contextmanager
    def _damage(self, name: bytes) -> Iterator[None]:
        """Say of a key or certificate that cannot be used that the store is damaged."""
        try:
            yield
        except ConfigError as error:
            raise CorruptStore(
                error.problem,
                path=os.path.join(self._path, name),
                remedy="bring it back from a copy",
            ) from error

    @staticmethod
    def _read(name: bytes, fd: int) -> bytes | None:
        try:
            return read_file(name, dir_fd=fd)
        except FileNotFoundError:
            return None


def _is_key(key: bytes) -> bool:
    try:
        parse_key(key)
    except ConfigError:
        return False
    return True


def _is_good(certificate: bytes, key: bytes, authority: Authority, now: datetime.datetime) -> bool:
    """Whether it is a certificate for the server's key by the authority, with time left."""
    try:
        issued = check_issued(certificate, key, authority.pem)
        return not is_due(read_certificate(to_der(issued)).not_after, now, SERVER_LIFE)
    except TrustError:
        return False
