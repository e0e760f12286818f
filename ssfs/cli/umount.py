"""`ssfs umount`: take a mount away."""

import os

import click

from ssfs.cli.exit_codes import ExitCode
from ssfs.cli.options import PATH, examples, quiet_option, verbose_option
from ssfs.cli.output import emit
from ssfs.mount.mountpoint import umount as unmount


@click.command(
    epilog=examples(
        "ssfs umount /mnt",
    )
)
@click.argument("mountpoint", type=PATH)
@quiet_option
@verbose_option
def umount(*, mountpoint: bytes, quiet: bool, verbose: bool) -> ExitCode:
    """Unmount what `ssfs mount` mounted on MOUNTPOINT; also what is left of a mount that died.

    Exit codes: 0 done; 2 nothing of ssfs is mounted there, or somebody uses it.
    """
    unmount(mountpoint)
    if verbose and not quiet:
        emit(f"Unmounted {os.fsdecode(mountpoint)}")
    return ExitCode.DONE
