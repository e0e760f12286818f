"""Options that say whose restored files are: `--numeric-ids`, `--map-user A:B`, `--map-group A:B`."""

import grp
import pwd
from collections.abc import Callable

import click

from ssfs.engine.restore.options import OwnerMap
from ssfs.errors import ConfigError
from ssfs.model.entry import MAX_OWNER

numeric_ids_option = click.option(
    "--numeric-ids", is_flag=True, help="Owners by their recorded numbers, not by names."
)
map_user_option = click.option(
    "--map-user",
    "users",
    multiple=True,
    metavar="A:B",
    help="Give the files of user A of the version to user B of this machine; each is a name or a "
    "number. Can be repeated.",
)
map_group_option = click.option(
    "--map-group", "groups", multiple=True, metavar="A:B", help="The same for groups."
)


def parse_owner_map(*, numeric: bool, users: tuple[str, ...], groups: tuple[str, ...]) -> OwnerMap:
    """What the three options spell.

    Raises:
        ConfigError: One spells nothing, or a user or group that this machine does not have.
    """
    return OwnerMap(
        numeric,
        _parse(users, "user", lambda name: pwd.getpwnam(name).pw_uid),
        _parse(groups, "group", lambda name: grp.getgrnam(name).gr_gid),
    )


def _parse(pairs: tuple[str, ...], what: str, find: Callable[[str], int]) -> dict[str, int]:
    found: dict[str, int] = {}
    for pair in pairs:
        there, colon, here = pair.partition(":")
        option = f"--map-{what} {pair}"
        if not (there and colon and here):
            raise ConfigError(f"{option}: not of the form A:B", remedy=f"{what} names or numbers")
        there = str(int(there)) if _is_number(there) else there
        number = _number(option, what, here, find)
        if found.setdefault(there, number) != number:
            raise ConfigError(f"{option}: {what} {there!r} is mapped twice")
    return found


def _number(option: str, what: str, text: str, find: Callable[[str], int]) -> int:
    if _is_number(text):
        if int(text) <= MAX_OWNER:
            return int(text)
        raise ConfigError(f"{option}: there is no {what} {text}")
    try:
        return find(text)
    except (KeyError, ValueError, OSError) as error:
        raise ConfigError(
            f"{option}: this machine has no {what} {text!r}", remedy="or give a number"
        ) from error


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()
