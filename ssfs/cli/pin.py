"""`ssfs pin`: hold a version."""

import click

from ssfs.cli.exit_codes import ExitCode
from ssfs.cli.location import parse_location, point_of
from ssfs.cli.options import (
    examples,
    location_argument,
    quiet_option,
    verbose_option,
    version_argument,
)
from ssfs.cli.output import emit
from ssfs.cli.session import open_session
from ssfs.protocol.requests import SetPin


@click.command(
    epilog=examples(
        "ssfs pin /srv/store::main/nas1-home 2024-05-01",
    )
)
@location_argument
@version_argument
@quiet_option
@verbose_option
def pin(*, location: bytes, version: str, quiet: bool, verbose: bool) -> ExitCode:
    """Hold VERSION: no policy lets it go and it cannot be deleted, until `ssfs unpin`.

    Pinning what is pinned changes nothing. With -v its id is said.

    Exit codes: 0 it is pinned; 2 no such version; 6 no store there, or not yours.
    """
    place = parse_location(location)
    request = SetPin(point_of(place), place.task or "", version, is_pinned=True)
    with open_session(place) as session:
        chosen = session.ask(request).version
    if not quiet:
        emit(f"Pinned {chosen if verbose else version}")
    return ExitCode.DONE
