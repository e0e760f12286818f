"""`ssfs pin`: hold a version."""

import click

from ssfs.cli.exit_codes import ExitCode
from ssfs.cli.location import open_task, parse_location
from ssfs.cli.options import (
    examples,
    location_argument,
    quiet_option,
    verbose_option,
    version_argument,
)
from ssfs.cli.output import emit
from ssfs.clock import SystemClock
from ssfs.engine.selection import choose_version
from ssfs.fsio.disk import store_errors


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
    task = open_task(parse_location(location))
    choose_version(task, version)
    task.point.store.become_owner()
    with task.guard(), store_errors(task.path):
        # Chosen again under the guard: nothing can expire it between the choice and the pin.
        chosen = choose_version(task, version)
        if not chosen.is_pinned():
            chosen.pin(SystemClock().now().replace(microsecond=0))
    if not quiet:
        emit(f"Pinned {chosen.id if verbose else version}")
    return ExitCode.DONE
