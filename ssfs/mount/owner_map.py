"""Whose files are to be, as `-o owner=USER` and `-o map=FILE` say.

A map file has one owner of the source in each line, and who has its files on this machine:

    user   ann   1005
    user   1000  ann
    group  staff users

Users and groups of the source go by name or by number, those of this machine too. What a name says goes before
what its number says. A line that begins with `#` says nothing.
"""

import os
import pwd

from ssfs.engine.owner_pairs import add_pair, is_number
from ssfs.engine.restore.options import OwnerMap
from ssfs.errors import ConfigError

_MAX_BYTES = 4 << 20
_FORM = "`user NAME_OR_NUMBER LOCAL` or `group NAME_OR_NUMBER LOCAL`"


def find_owner(text: str) -> tuple[int, int]:
    """The numbers of a user of this machine and of that user's primary group.

    Raises:
        ConfigError: This machine has no such user.
    """
    try:
        account = pwd.getpwuid(int(text)) if is_number(text) else pwd.getpwnam(text)
    except (KeyError, ValueError, OverflowError, OSError) as error:
        raise ConfigError(
            f"Mount option 'owner={text}': this machine has no such user",
            remedy="give the name or number of a user that it has",
        ) from error
    return account.pw_uid, account.pw_gid


def read_owner_map(path: bytes) -> OwnerMap:
    """What a map file says.

    Raises:
        ConfigError: It cannot be read, or a line of it makes no sense: the error names the line.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        text = (error.strerror or str(error)).lower()
        raise ConfigError(f"The map of owners cannot be read: {text}", path=path) from error
    if len(content) > _MAX_BYTES:
        raise ConfigError("The map of owners is longer than 4 MiB", path=path)
    users: dict[str, int] = {}
    groups: dict[str, int] = {}
    for number, line in enumerate(content.split(b"\n"), 1):
        words = os.fsdecode(line).split()
        if not words or words[0].startswith("#"):
            continue
        try:
            _add(words, users, groups)
        except (ValueError, LookupError) as error:
            raise ConfigError(
                f"Line {number} of the map of owners: {error}", path=path, remedy=f"write {_FORM}"
            ) from error
    return OwnerMap(users=users, groups=groups)


def _add(words: list[str], users: dict[str, int], groups: dict[str, int]) -> None:
    """Take in a line; raises ValueError or LookupError, which say what is wrong with it."""
    if words[0] not in ("user", "group"):
        raise ValueError(f"{words[0]!r} is neither 'user' nor 'group'")
    if len(words) != 3:
        raise ValueError(f"{len(words)} words, not 3")
    what, there, here = words
    add_pair(users if what == "user" else groups, what, there, here)
