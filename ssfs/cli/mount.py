"""`ssfs mount`: show versions as directories."""

import os
import shlex

import click

from ssfs.cli.exit_codes import ExitCode
from ssfs.cli.location import parse_location, spell
from ssfs.cli.mounting import find_target
from ssfs.cli.options import PATH, examples, location_argument, quiet_option, verbose_option
from ssfs.cli.output import emit
from ssfs.mount.process import mount as mount_target
from ssfs.mount.process import parse_options
from ssfs.store.store import Task


@click.command(
    epilog=examples(
        "ssfs mount /srv/store::main/nas1-home /mnt",
        "ls /mnt/latest/",
        "ssfs mount ssfs://nas2/main/nas1-home /mnt",
    )
)
@location_argument
@click.argument("mountpoint", type=PATH)
@click.option("--foreground", is_flag=True, help="Serve from here until unmounted, or Ctrl-C.")
@click.option(
    "-o",
    "options",
    metavar="OPTIONS",
    default="",
    help="Comma-separated: allow_other (let other users in, as far as the modes of files allow), "
    "numeric_ids (show owners by number, not by name), owner=USER (show everything as one user's and "
    "that user's primary group's), map=FILE (show owners as lines `user NAME_OR_NUMBER LOCAL` and "
    "`group NAME_OR_NUMBER LOCAL` say), damaged_ok (let damaged files be read as they are; not a server's), "
    "samba (add what Windows' Previous Versions need: see `ssfs samba-config`), "
    "show_history (list .history), plain (have none), "
    "idle=SECONDS, timeout=SECONDS (how long to wait for a server that says nothing), and such as noexec.",
)
@quiet_option
@verbose_option
def mount(
    *,
    location: bytes,
    mountpoint: bytes,
    foreground: bool,
    options: str,
    quiet: bool,
    verbose: bool,
) -> ExitCode:
    """Show LOCATION at MOUNTPOINT, an empty directory, read-only.

    A whole store shows POINT/TASK/DATE, a sync point (`::POINT`) TASK/DATE, a task (`::POINT/TASK`)
    DATE. Beside the dates, `latest` leads to the newest version, `yesterday` to the newest from
    before today. `.history/PATH/FILE/`, reached by name, has the states of one file, by date,
    wherever it was. New versions appear by themselves. What is left there of a mount that died is
    cleared. It serves from the background until `ssfs umount`; what is wrong is said before it goes
    there. A server's is fetched as it is looked into, for `.history` the lists of files of all versions at the first look; while the server
    is away, reading fails after a time, and goes on when it is back.

    Exit codes: 0 it serves; 2 MOUNTPOINT is absent, not empty or in use, an option is wrong, there is no
    such sync point or task, or this machine has no FUSE; 4 the server is not trusted, or does not let us;
    5 it cannot be reached; 6 no store there, or it cannot be read.
    """
    chosen = parse_options(options)
    place = parse_location(location)
    target = find_target(place)
    if verbose:
        is_task = isinstance(target, Task)
        emit(f"Mounting {spell(place) if is_task else os.fsdecode(location)}")
    mount_target(target, mountpoint, chosen, foreground=foreground)
    if not quiet and not foreground:
        where = shlex.quote(os.fsdecode(mountpoint))
        emit(f"Mounted on {where}; unmount it with: ssfs umount {where}")
    return ExitCode.DONE
