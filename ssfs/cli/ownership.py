"""Options that say whose restored files are: `--numeric-ids`, `--map-user A:B`, `--map-group A:B`."""

import click

from ssfs.engine.owner_pairs import add_pair
from ssfs.engine.restore.options import OwnerMap
from ssfs.errors import ConfigError

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
    return OwnerMap(numeric, _parse(users, "user"), _parse(groups, "group"))


def _parse(pairs: tuple[str, ...], what: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for pair in pairs:
        there, colon, here = pair.partition(":")
        option = f"--map-{what} {pair}"
        if not (there and colon and here):
            raise ConfigError(f"{option}: not of the form A:B", remedy=f"{what} names or numbers")
        try:
            add_pair(found, what, there, here)
        except LookupError as error:
            raise ConfigError(f"{option}: {error}", remedy="or give a number") from error
        except ValueError as error:
            raise ConfigError(f"{option}: {error}") from error
    return found
