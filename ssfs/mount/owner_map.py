"""Whose files are to be, as `-o owner=USER` and `-o map=FILE` say.

A map file has one owner of the source in each line, and who has its files on this machine:

    user   ann   1005
    user   1000  ann
    group  staff users

Users and groups of the source go by name or by number, those of this machine too. What a name says goes before
what its number says. A line that begins with `#` says nothing.
"""

import grp
import os
import pwd
from collections.abc import Callable

from ssfs.engine.restore.options import OwnerMap
from ssfs.errors import ConfigError
from ssfs.model.entry import MAX_OWNER

_MAX_BYTES = 4 << 20
_FORM = "`user NAME_OR_NUMBER LOCAL` or `group NAME_OR_NUMBER LOCAL`"


def find_owner(text: str) -> tuple[int, int]:
    """The numbers of a user of this machine and of that user's primary group.

    Raises:
        ConfigError: This machine has no such user.
    """
    try:
        account = pwd.getpwuid(int(text)) if _is_number(text) else pwd.getpwnam(text)
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
        except ValueError as error:
            raise ConfigError(
                f"Line {number} of the map of owners: {error}", path=path, remedy=f"write {_FORM}"
            ) from error
    return OwnerMap(users=users, groups=groups)


def _add(words: list[str], users: dict[str, int], groups: dict[str, int]) -> None:
    """Take in a line; raises ValueError, which says what is wrong with it."""
    if words[0] not in ("user", "group"):
        raise ValueError(f"{words[0]!r} is neither 'user' nor 'group'")
    if len(words) != 3:
        raise ValueError(f"{len(words)} words, not 3")
    what, there, here = words
    found = users if what == "user" else groups
    find = _user if what == "user" else _group
    there = str(int(there)) if _is_number(there) else there
    number = _local(what, here, find)
    if found.setdefault(there, number) != number:
        raise ValueError(f"{what} {there!r} is mapped twice")


def _local(what: str, text: str, find: Callable[[str], int]) -> int:
    if _is_number(text):
        if int(text) <= MAX_OWNER:
            return int(text)
        raise ValueError(f"there is no {what} {text}")
    try:
        return find(text)
    except (KeyError, ValueError, OSError) as error:
        raise ValueError(f"this machine has no {what} {text!r}") from error


def _user(name: str) -> int:
    return pwd.getpwnam(name).pw_uid


def _group(name: str) -> int:
    return grp.getgrnam(name).gr_gid


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 10
