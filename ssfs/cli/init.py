"""`ssfs init`: make a store."""

import os
import shlex

import click

from ssfs.cli.location import parse_store
from ssfs.cli.options import (
    PATH,
    days_option,
    examples,
    keep_last_option,
    months_option,
    quiet_option,
    verbose_option,
    weeks_option,
)
from ssfs.cli.output import emit
from ssfs.cli.policies import policy_text
from ssfs.clock import SystemClock
from ssfs.errors import ConfigError
from ssfs.model.policy import Policy
from ssfs.store.store import Store, check_time_zone

_ZONES = "/zoneinfo/"
_LOCALTIME = "/etc/localtime"
_TIMEZONE_FILE = "/etc/timezone"
_DEFAULT = Policy()


@click.command(
    epilog=examples(
        "ssfs init /srv/store --days 14 --timezone Europe/Berlin",
    )
)
@click.argument("store", type=PATH)
@days_option
@weeks_option
@months_option
@keep_last_option
@click.option(
    "--timezone",
    metavar="TZ",
    help="Time zone of the dates, such as Europe/Berlin. Default: the machine's.",
)
@quiet_option
@verbose_option
def init(
    *,
    store: bytes,
    days: int | None,
    weeks: int | None,
    months: int | None,
    keep_last: int | None,
    timezone: str | None,
    quiet: bool,
    verbose: bool,
) -> None:
    """Make a store in the directory STORE, which is new or empty.

    The numbers are the policy of new sync points; unless given, 10 days, 7 weeks, 5 months and the
    newest version. `ssfs point` changes the policy of a sync point later. The store belongs to who
    makes it; its file system must make hard links (ext4, xfs, btrfs, zfs).

    Exit codes: 0 done; 2 the directory is in use, or an option wrong; 6 the file system is full,
    read-only or makes no hard links.
    """
    path = parse_store(store)
    if os.path.lexists(path) and not os.path.isdir(path):
        raise ConfigError("Not a directory", path=path, remedy="name a new or empty directory")
    if not os.path.isdir(os.path.dirname(path)):
        raise ConfigError(
            "The directory that would hold the store does not exist",
            path=os.path.dirname(path),
            remedy="make it first",
        )
    policy = Policy(
        days=_DEFAULT.days if days is None else days,
        weeks=_DEFAULT.weeks if weeks is None else weeks,
        months=_DEFAULT.months if months is None else months,
        keep_last=_DEFAULT.keep_last if keep_last is None else keep_last,
    )
    made = Store.create(
        path, policy, machine_time_zone() if timezone is None else timezone, SystemClock()
    )
    if quiet:
        return
    emit(f"Made a store; its sync points keep {policy_text(policy)}.")
    emit(f"Its dates are those of {made.settings.timezone}.")
    if verbose:
        emit(f"Store id: {made.settings.id}")
    emit(f"Next: ssfs sync DIRECTORY {shlex.quote(os.fsdecode(path))}")


def machine_time_zone() -> str:
    """The IANA name of this machine's time zone; UTC if it says none that is known."""
    for candidate in _candidates():
        name = candidate.partition(_ZONES)[2] if _ZONES in candidate else candidate
        name = name.removeprefix("posix/").removeprefix("right/")
        try:
            check_time_zone(name)
        except ConfigError:
            continue
        return name
    return "UTC"


def _candidates() -> list[str]:
    candidates = []
    if set_by_user := os.environ.get("TZ"):
        candidates.append(set_by_user.removeprefix(":"))
    if os.path.islink(_LOCALTIME):
        candidates.append(os.path.realpath(_LOCALTIME))
        candidates.append(os.readlink(_LOCALTIME))
    try:
        with open(_TIMEZONE_FILE, encoding="utf-8", errors="replace") as lines:
            candidates.append(lines.readline().strip())
    except OSError:
        pass
    return candidates
