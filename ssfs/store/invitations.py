"""Open invitations: pki/invitations/HASH.toml, one for each enrolment code that was not used yet.

A file is named after the hash of its code's secret, so that nobody who reads a copy of the store can enrol. The
registry (`ssfs.store.clients`) is the only user, and holds its lock for whatever changes something here. One that
is damaged invites nobody: it is not shown, and goes when others are looked through.
"""

import contextlib
import datetime
from collections.abc import Callable, Collection

from ssfs.errors import ConfigError, CorruptStore
from ssfs.model.client import Invitation
from ssfs.model.peer import ALL_POINTS, Role
from ssfs.pki.authority import MAX_NAME_BYTES
from ssfs.pki.code import make_secret, secret_hash
from ssfs.store.records import Records
from ssfs.store.store import check_name
from ssfs.store.textfile import FORMAT


def check_client_name(name: str) -> str:
    """`name` if it may name a client: as a point or task, but no longer than a certificate's name.

    Raises:
        ConfigError: It may not.
    """
    if len(check_name(name, "client")) > MAX_NAME_BYTES:
        raise ConfigError(
            "The client's name is too long", remedy=f"use at most {MAX_NAME_BYTES} characters"
        )
    return name


def make_invitation(
    client: str,
    roles: Collection[Role],
    points: Collection[str],
    expires: datetime.datetime,
    now: datetime.datetime,
) -> Invitation:
    """An invitation, checked.

    Raises:
        ConfigError: A name is none, there is no role or point, or it would be over at once.
    """
    check_client_name(client)
    for point in points:
        if point != ALL_POINTS:
            check_name(point, "sync point")
    if not roles or not points:
        raise ConfigError("An invitation needs a role and a sync point")
    created, expires = now.replace(microsecond=0), expires.replace(microsecond=0)
    if expires <= created:
        raise ConfigError("The invitation would be over at once")
    in_order = tuple(role for role in Role if role in roles)
    return Invitation(FORMAT, client, in_order, tuple(sorted(set(points))), created, expires)


class Invitations:
    """The open invitations of one registry."""

    def __init__(self, parent: bytes) -> None:
        """Use the directory `invitations` of `parent`, which need not exist yet."""
        self._records = Records(parent, b"invitations", Invitation)

    def add(self, invitation: Invitation, *, fd: int) -> bytes:
        """Keep an invitation; returns the secret of its code, which is nowhere else."""
        secret = make_secret()
        self._records.write(secret_hash(secret), invitation, parent_fd=fd)
        return secret

    def find(self, secret: bytes) -> Invitation | None:
        """The invitation with this secret, expired or not."""
        return self._read(secret_hash(secret))

    def remove(self, secret: bytes, *, fd: int) -> None:
        """It was used, or is over."""
        self._records.remove(secret_hash(secret), parent_fd=fd)

    def drop(self, is_over: Callable[[Invitation], bool], *, fd: int) -> int:
        """Remove those that are over, and damaged ones; how many were over."""
        dropped = 0
        for key in self._records.names():
            invitation = self._read(key)
            if invitation is None or is_over(invitation):
                self._records.remove(key, parent_fd=fd)
                dropped += invitation is not None
        return dropped

    def usable(self, now: datetime.datetime) -> list[Invitation]:
        """Those that have not expired, by client and then the time they were made."""
        found = [self._read(key) for key in self._records.names()]
        return sorted(
            (one for one in found if one is not None and now < one.expires),
            key=lambda one: (one.client, one.created),
        )

    def _read(self, key: str) -> Invitation | None:
        with contextlib.suppress(CorruptStore):
            return self._records.read(key)
        return None
