"""`ssfs clients`: who may use a store."""

import datetime

import click
import msgspec

from ssfs.cli.exit_codes import ExitCode
from ssfs.cli.location import parse_store
from ssfs.cli.options import PATH, examples, json_option, quiet_option, verbose_option
from ssfs.cli.output import emit, emit_json
from ssfs.cli.tables import emit_table
from ssfs.clock import SystemClock
from ssfs.model.client import Client, Invitation
from ssfs.model.peer import Role
from ssfs.store.clients import Registry
from ssfs.store.store import Store


class ClientLine(msgspec.Struct, frozen=True):
    """The JSON form of a client."""

    client: str
    roles: tuple[Role, ...]
    points: tuple[str, ...]
    enrolled: datetime.datetime
    expires: datetime.datetime
    last_seen: datetime.datetime | None
    revoked: datetime.datetime | None


class InvitationLine(msgspec.Struct, frozen=True):
    """The JSON form of an open invitation."""

    client: str
    roles: tuple[Role, ...]
    points: tuple[str, ...]
    created: datetime.datetime
    expires: datetime.datetime


class Listing(msgspec.Struct, frozen=True):
    """The JSON form of it all."""

    clients: list[ClientLine]
    invitations: list[InvitationLine]


@click.command(
    epilog=examples(
        "ssfs clients /srv/store",
    )
)
@click.argument("store", type=PATH)
@json_option
@quiet_option
@verbose_option
def clients(*, store: bytes, as_json: bool, quiet: bool, verbose: bool) -> ExitCode:
    """List the clients of STORE, what they may do and where, and who is invited but not enrolled.

    A client's certificate is renewed by itself, in the last third of its 90 days; a client that was
    away for longer than that needs a new invitation. Last seen is when a session began, to the hour.

    With -q: the names of the clients with access only. With -v: when each enrolled, too.

    With --json: one object {clients, invitations}. clients is a list of {client, roles, points,
    enrolled, expires (its certificate), last_seen (null: never), revoked (null, or since when)};
    invitations is a list of {client, roles, points, created, expires}. Times are UTC. In points "*"
    is all. Codes cannot be shown again.

    Exit codes: 0 done; 6 no store there, not yours, or it cannot be read.
    """
    opened = Store.open(parse_store(store))
    opened.become_owner()
    registry = Registry(opened)
    now = SystemClock().now()
    known, invited = registry.clients(), registry.invitations(now)
    if as_json:
        emit_json(Listing([_client_line(one) for one in known], [_invited(one) for one in invited]))
    elif quiet:
        for one in known:
            if one.revoked is None and now < one.expires:
                emit(one.name)
    else:
        _show(known, invited, now, verbose=verbose)
    return ExitCode.DONE


def _client_line(one: Client) -> ClientLine:
    return ClientLine(
        client=one.name,
        roles=one.roles,
        points=one.points,
        enrolled=one.enrolled,
        expires=one.expires,
        last_seen=one.last_seen,
        revoked=one.revoked,
    )


def _invited(one: Invitation) -> InvitationLine:
    return InvitationLine(one.client, one.roles, one.points, one.created, one.expires)


def _show(
    known: list[Client], invited: list[Invitation], now: datetime.datetime, *, verbose: bool
) -> None:
    if not known and not invited:
        emit("No client yet: `ssfs invite` invites the first")
    if known:
        columns = ["CLIENT", "ROLES", "POINTS", "ACCESS", "LAST SEEN"]
        emit_table(
            [*columns, "ENROLLED"] if verbose else columns,
            (_row(one, now, verbose=verbose) for one in known),
        )
    if invited:
        emit_table(
            ["INVITED", "ROLES", "POINTS", "CODE EXPIRES"],
            ([one.client, *_grant(one), _minute(one.expires)] for one in invited),
        )


def _row(one: Client, now: datetime.datetime, *, verbose: bool) -> list[str]:
    if one.revoked is not None:
        access = f"revoked {_minute(one.revoked)}"
    elif now >= one.expires:
        access = f"expired {one.expires:%Y-%m-%d}"
    else:
        access = f"until {one.expires:%Y-%m-%d}"
    seen = _minute(one.last_seen) if one.last_seen else "never"
    row = [one.name, *_grant(one), access, seen]
    return [*row, _minute(one.enrolled)] if verbose else row


def _grant(one: Client | Invitation) -> tuple[str, str]:
    return ",".join(one.roles), ",".join(one.points)


def _minute(time: datetime.datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M} UTC"
