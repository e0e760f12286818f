"""`ssfs delete`: delete versions by hand."""

import click
import msgspec.structs

from ssfs.cli.asking import agrees
from ssfs.cli.exit_codes import ExitCode
from ssfs.cli.location import parse_location, point_of
from ssfs.cli.options import examples, location_argument, quiet_option, verbose_option, yes_option
from ssfs.cli.output import counted, emit
from ssfs.cli.session import open_session
from ssfs.protocol.requests import DeleteVersions


@click.command(
    epilog=examples(
        "ssfs delete /srv/store::main/nas1-home 2024-05-01 000042-2024-05-02T020000Z",
    )
)
@location_argument
@click.argument("version", nargs=-1, required=True)
@yes_option
@quiet_option
@verbose_option
def delete(
    *, location: bytes, version: tuple[str, ...], yes: bool, quiet: bool, verbose: bool
) -> ExitCode:
    """Delete each VERSION, whatever the policy says. Other versions lose nothing.

    A pinned version is refused, and the newest is deleted only by its full id. If one VERSION is
    refused or unknown, none is deleted. With -v every deleted version is named.

    Exit codes: 0 done; 2 a VERSION is unknown, pinned, or the newest not named by its id; 6 no
    store there, or not yours; 130 you said no.
    """
    place = parse_location(location)
    request = DeleteVersions(point_of(place), place.task or "", version)
    with open_session(place) as session:
        chosen = session.ask(request).versions
        names = ", ".join(chosen)
        if not agrees(f"Delete {counted(len(chosen), 'version')} ({names})?", yes=yes):
            return ExitCode.INTERRUPTED
        session.ask(msgspec.structs.replace(request, agreed=chosen, apply=True))
    if not quiet:
        emit(f"Deleted {counted(len(chosen), 'version')}" + (f": {names}" if verbose else ""))
    return ExitCode.DONE
