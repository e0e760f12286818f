"""What a store writes down about clients: those it knows, and those it has invited (FORMAT.md, "pki/")."""

import datetime
from typing import Annotated

import msgspec

from ssfs.model.peer import Peer, Role

UtcTime = Annotated[datetime.datetime, msgspec.Meta(tz=True)]
"""Aware, in UTC, whole seconds, by the server's clock."""


class KnownCertificate(msgspec.Struct, frozen=True):
    """A certificate that a client may show.

    Attributes:
        serial: Its serial number, in hex without leading zeros.
        expires: When it ends.
    """

    serial: str
    expires: UtcTime


class Client(msgspec.Struct, frozen=True, omit_defaults=True):
    """The content of clients/NAME.toml.

    Attributes:
        format: As in all text files.
        name: The client's name, as the file has it.
        roles: What it may do.
        points: In which sync points; `*` is all.
        certificates: Those that count, oldest first.
        enrolled: When it enrolled last.
        last_seen: When a session of it began, to the hour; None: not since it enrolled.
        revoked: When its access was taken away; None: it was not.
    """

    format: int
    name: str
    roles: tuple[Role, ...]
    points: tuple[str, ...]
    certificates: tuple[KnownCertificate, ...]
    enrolled: UtcTime
    last_seen: UtcTime | None = None
    revoked: UtcTime | None = None

    @property
    def expires(self) -> datetime.datetime:
        """When its last certificate ends."""
        return max((one.expires for one in self.certificates), default=self.enrolled)

    @property
    def peer(self) -> Peer:
        """The client as a peer; whether it was revoked is not its to say."""
        return Peer(self.name, frozenset(self.roles), frozenset(self.points))


class Invitation(msgspec.Struct, frozen=True):
    """The content of invitations/HASH.toml: what a client will be that has the secret.

    Attributes:
        format: As in all text files.
        client: The name it will have.
        roles: What it will be able to do.
        points: In which sync points; `*` is all.
        created: When it was invited.
        expires: When the code stops being one.
    """

    format: int
    client: str
    roles: tuple[Role, ...]
    points: tuple[str, ...]
    created: UtcTime
    expires: UtcTime
