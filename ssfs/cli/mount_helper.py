"""`mount.fuse.ssfs`: what mount(8) calls for `mount -t fuse.ssfs LOCATION MOUNTPOINT -o OPTIONS`.

mount(8) looks for it in /sbin and calls it as `mount.fuse.ssfs LOCATION MOUNTPOINT [-sfnv] [-o OPTIONS] [-t TYPE]`; the
options are those of `ssfs mount`, and what else fstab has in the same place: words for mount(8), for systemd and for
whoever may mount. It ends once the mount serves.
"""

import logging
import os
import sys
import traceback

import click

from ssfs.cli.location import parse_location
from ssfs.cli.mounting import find_target
from ssfs.cli.options import PATH, examples
from ssfs.cli.output import safe_text
from ssfs.errors import ConfigError, SsfsError
from ssfs.mount.mountpoint import check_mountpoint
from ssfs.mount.options import is_known
from ssfs.mount.process import mount as mount_target
from ssfs.mount.process import parse_options

NAME = "mount.fuse.ssfs"

# Of mount(8)'s own exit codes: https://man7.org/linux/man-pages/man8/mount.8.html
USAGE = 1
SYSTEM_ERROR = 2
FAILED = 32

# `rw` is what mount(8) says when nobody has said anything; the others are for mount(8) itself and for systemd,
# or have no meaning where access times do not exist.
_IGNORED = frozenset(
    {"rw", "defaults", "suid", "dev", "auto", "noauto", "nofail", "_netdev", "silent", "loud"}
    | {"user", "nouser", "users", "owner", "group", "mand", "nomand", "iversion", "noiversion"}
    | {"atime", "relatime", "norelatime", "strictatime", "nostrictatime", "diratime", "nodiratime"}
    | {"lazytime", "nolazytime"}
)
_IGNORED_STARTS = ("x-", "X-", "user=", "comment=", "uhelper=", "helper=")


@click.command(
    name=NAME,
    epilog=examples(
        "mount -t fuse.ssfs /srv/store::main/nas1-home /mnt -o allow_other",
        "ln -s /opt/ssfs/bin/mount.fuse.ssfs /sbin/",
    ),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.argument("location", type=PATH)
@click.argument("mountpoint", type=PATH)
@click.option("-o", "options", metavar="OPTIONS", multiple=True, help="As those of `ssfs mount`.")
@click.option("-s", "sloppy", is_flag=True, help="Pass over options that are not known.")
@click.option("-f", "fake", is_flag=True, help="Check everything, mount nothing.")
@click.option("-n", "no_table", is_flag=True, help="Nothing: there is no mtab to be written.")
@click.option("-v", "verbose", is_flag=True, help="Say what is mounted.")
@click.option("-t", "kind", metavar="TYPE", default="", help="Nothing: there is but one.")
def helper(
    *,
    location: bytes,
    mountpoint: bytes,
    options: tuple[str, ...],
    sloppy: bool,
    fake: bool,
    no_table: bool,
    verbose: bool,
    kind: str,
) -> None:
    """Mount LOCATION on MOUNTPOINT, for mount(8) and fstab; by hand, `ssfs mount` is simpler.

    mount(8) finds it in /sbin: make a link there.

    Exit codes: 0 it serves; 1 wrong arguments or options; 32 it cannot be mounted.
    """
    del no_table, kind
    try:
        chosen = parse_options(own_options(",".join(options), sloppy=sloppy))
        place = parse_location(location)
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    target = find_target(place)
    if fake:
        check_mountpoint(mountpoint)
    else:
        mount_target(target, mountpoint, chosen, foreground=False)
    if verbose:
        what, where = os.fsdecode(location), os.fsdecode(mountpoint)
        click.echo(safe_text(f"{NAME}: {'checked' if fake else 'mounted'} {what} on {where}"))


def own_options(text: str, *, sloppy: bool) -> str:
    """The options that are a mount's own, of those in a line of fstab.

    Args:
        text: Comma-separated, as mount(8) passes them.
        sloppy: Leave out too what is not known.

    Raises:
        ConfigError: They ask for what cannot be.
    """
    own = []
    for option in text.split(","):
        if option == "remount":
            raise ConfigError(
                "A mount of ssfs cannot be remounted", remedy="unmount it, and mount it again"
            )
        if option in _IGNORED or option.startswith(_IGNORED_STARTS):
            continue
        if not sloppy or is_known(option):
            own.append(option)
    return ",".join(own)


def main() -> int:
    """Run it; the exit code, one of mount(8)'s."""
    logging.basicConfig(format=f"{NAME}: %(message)s", level=logging.WARNING)
    try:
        helper.main(prog_name=NAME, standalone_mode=False)
    except click.ClickException as error:
        return _complain(" ".join(error.format_message().split()), USAGE)
    except SsfsError as error:
        return _complain(str(error), FAILED)
    except (KeyboardInterrupt, click.Abort):
        return _complain("Interrupted", FAILED)
    except Exception:  # noqa: BLE001  # the last frame: whatever it is, it is our bug
        traceback.print_exc()
        return _complain("This is a bug in ssfs; please report the lines above", SYSTEM_ERROR)
    return 0


def _complain(text: str, code: int) -> int:
    click.echo(f"{NAME}: {safe_text(text)}", err=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
