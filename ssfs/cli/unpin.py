"""`ssfs unpin`: let a pinned version go by the policy again."""

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
from ssfs.engine.selection import choose_version
from ssfs.fsio.disk import store_errors


@click.command(
    epilog=examples(
        "ssfs unpin /srv/store::main/nas1-home 2024-05-01",
    )
)
@location_argument
@version_argument
@quiet_option
@verbose_option
def unpin(*, location: bytes, version: str, quiet: bool, verbose: bool) -> ExitCode:
    """Undo a pin: VERSION goes by the policy again, at the earliest with the next sync.

    Unpinning what is not pinned changes nothing. With -v its id is said.

    Exit codes: 0 it is not pinned; 2 no such version; 6 no store there, or not yours.
    """
    task = open_task(parse_location(location))
    choose_version(task, version)
    task.point.store.become_owner()
    with task.guard(), store_errors(task.path):
        chosen = choose_version(task, version)
        chosen.unpin()
    if not quiet:
        emit(f"Unpinned {chosen.id if verbose else version}")
    return ExitCode.DONE
