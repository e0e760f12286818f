"""`ssfs delete`: delete versions by hand."""

import click

from ssfs.cli.asking import agrees
from ssfs.cli.exit_codes import ExitCode
from ssfs.cli.location import open_task, parse_location
from ssfs.cli.options import examples, location_argument, quiet_option, verbose_option, yes_option
from ssfs.cli.output import counted, emit
from ssfs.engine.expire import clean_up
from ssfs.engine.expire import delete as move_out
from ssfs.engine.selection import choose_version
from ssfs.errors import ConfigError
from ssfs.fsio.disk import store_errors
from ssfs.store.store import Task
from ssfs.store.version import Version


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
    task = open_task(parse_location(location))
    deletable = [_deletable(task, text) for text in version]
    chosen = {found.id: found for found in deletable}
    task.point.store.become_owner()
    names = ", ".join(str(version_id) for version_id in chosen)
    if not agrees(f"Delete {counted(len(chosen), 'version')} ({names})?", yes=yes):
        return ExitCode.INTERRUPTED
    with store_errors(task.path):
        move_out(task, list(chosen.values()))
        clean_up(task)
    if not quiet:
        emit(f"Deleted {counted(len(chosen), 'version')}" + (f": {names}" if verbose else ""))
    return ExitCode.DONE


def _deletable(task: Task, text: str) -> Version:
    """The version a text means, if it may be deleted by that name."""
    found = choose_version(task, text)
    with store_errors(task.path):
        if found.is_pinned():
            raise ConfigError(f"Version {found.id} is pinned", remedy="`ssfs unpin` lets it go")
        newest = task.versions()[-1]
    if found.id == newest.id and text != str(found.id):
        raise ConfigError(
            f"{text!r} is the newest version",
            remedy=f"to delete it all the same, name it by its id: {found.id}",
        )
    return found
