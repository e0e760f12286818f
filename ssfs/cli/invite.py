"""`ssfs invite`: let a client enrol."""

import datetime
import re
import socket

import click

from ssfs.cli.exit_codes import ExitCode
from ssfs.cli.location import DEFAULT_POINT, parse_store
from ssfs.cli.options import PATH, examples, quiet_option, verbose_option
from ssfs.cli.output import complain, emit
from ssfs.cli.roles import parse_roles
from ssfs.clock import SystemClock
from ssfs.errors import ConfigError, CorruptStore
from ssfs.model.peer import Role
from ssfs.pki.address import DEFAULT_PORT, Address, check_address, parse_address
from ssfs.pki.code import EnrolmentCode
from ssfs.store.clients import Registry
from ssfs.store.store import Store

_LENGTH = re.compile(r"([0-9]{1,6})([mhd])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}
_LONGEST = datetime.timedelta(days=366)
_NO_NAMES = ("localhost", "ip6-")


@click.command(
    epilog=examples(
        "ssfs invite /srv/store nas1",
        "ssfs invite /srv/store nas1 --address backup.example.org:7433 --point main --point photos",
        "ssfs invite /srv/store desk --role restore,admin --point '*' --expires 90m",
    )
)
@click.argument("store", type=PATH)
@click.argument("client")
@click.option(
    "--address",
    metavar="HOST:PORT",
    help="Where the client reaches `ssfs serve`; an IPv6 address in brackets. "
    "Default: this machine's full name, and port 7433.",
)
@click.option(
    "--point",
    "points",
    multiple=True,
    metavar="P",
    help="A sync point the client may use, '*' for all; may be given again. Default: main.",
)
@click.option(
    "--role",
    "roles",
    multiple=True,
    metavar="ROLE,...",
    help="What the client may do, of backup, restore and admin (see above). Default: backup.",
)
@click.option(
    "--expires",
    default="24h",
    metavar="TIME",
    help="How long the code can be used: 90m, 24h, 7d. Default: 24h.",
)
@quiet_option
@verbose_option
def invite(
    *,
    store: bytes,
    client: str,
    address: str | None,
    points: tuple[str, ...],
    roles: tuple[str, ...],
    expires: str,
    quiet: bool,
    verbose: bool,
) -> ExitCode:
    """Print a code, one line, with which a machine can enrol as CLIENT with the store STORE.

    Give the line to that machine, where `ssfs enroll` asks for it. It works once, and whoever has it
    can use it: send it as you would send a password. A client of this name that is enrolled already
    keeps its access until the code is used; then the new one takes its place.

    Roles: backup adds versions to the client's own tasks and reads those; restore reads all tasks
    of the client's sync points; admin also verifies, pins, deletes and expires versions there and sets what is
    kept. No client can delete or change a version without the role admin.

    The code goes to stdout, and nothing else. On stderr it is said until when it can be used and
    what to type; not with -q. With -v also the fingerprint by which the client knows the server.

    Exit codes: 0 done; 2 wrong options; 6 no store there, or not yours.
    """
    place = _own_address() if address is None else parse_address(address)
    length = _parse_length(expires)
    granted = parse_roles(roles or (Role.BACKUP,))
    opened = Store.open(parse_store(store))
    opened.become_owner()
    registry = Registry(opened)
    now = SystemClock().now()
    secret = registry.invite(client, granted, points or (DEFAULT_POINT,), now + length, now)
    fingerprint = registry.authority().fingerprint
    emit(EnrolmentCode(place.host, place.port, fingerprint, secret).spell())
    if quiet:
        return ExitCode.DONE
    if _has_access(registry, client):
        complain(f"Client {client!r} is enrolled already; whoever uses the code takes its place")
    complain(f"On {client!r}: run `ssfs enroll` and paste the line, which leads to {place.spell()}")
    complain(f"It can be used once, until {now + length:%Y-%m-%d %H:%M} UTC")
    if verbose:
        complain(f"Fingerprint of the store's authority (SHA-256): {fingerprint.hex()}")
    return ExitCode.DONE


def _has_access(registry: Registry, client: str) -> bool:
    try:
        known = registry.find(client)
    except CorruptStore:  # which enrolling again mends
        return False
    return known is not None and known.revoked is None


def _own_address() -> Address:
    """This machine by the name it believes others know it by."""
    for name in (socket.getfqdn(), socket.gethostname()):
        # What /etc/hosts says first may be a name that every machine has for itself.
        if not name.startswith(_NO_NAMES) and not name.endswith(".arpa"):
            try:
                return check_address(name, str(DEFAULT_PORT))
            except ConfigError:
                continue
    raise ConfigError("This machine has no name of its own", remedy="use --address HOST:PORT")


def _parse_length(text: str) -> datetime.timedelta:
    match = _LENGTH.fullmatch(text)
    length = (
        datetime.timedelta(**{_UNITS[match[2]]: int(match[1])}) if match else datetime.timedelta(0)
    )
    if not datetime.timedelta(0) < length <= _LONGEST:
        raise ConfigError(
            f"{text!r} is no time that a code can be used", remedy="use 90m, 24h or 7d; up to 366d"
        )
    return length
