"""Pairs that say whose files are whose: A of the version is B of this machine, each by name or by number.

`--map-user A:B` of a restore and the lines of a mount's map file are such pairs.
"""

import grp
import pwd

from ssfs.model.entry import MAX_OWNER

_MOST_DIGITS = len(str(MAX_OWNER))


def add_pair(found: dict[str, int], what: str, there: str, here: str) -> None:
    """Take in a pair.

    Args:
        found: The pairs so far: what an owner is called in the version, and its number here.
        what: "user" or "group".
        there: A; a number counts without leading zeros.
        here: B.

    Raises:
        LookupError: This machine has no such name; the error says so.
        ValueError: The pair makes no sense; the error says why.
    """
    there = there.lstrip("0") or "0" if is_number(there) else there
    number = _number_here(what, here)
    if found.setdefault(there, number) != number:
        raise ValueError(f"{what} {there!r} is mapped twice")


def is_number(text: str) -> bool:
    """Whether a text is a number, however long."""
    return text.isascii() and text.isdigit()


def _number_here(what: str, text: str) -> int:
    if is_number(text):
        if len(text.lstrip("0")) <= _MOST_DIGITS and int(text) <= MAX_OWNER:
            return int(text)
        raise ValueError(f"there is no {what} {text}")
    try:
        return pwd.getpwnam(text).pw_uid if what == "user" else grp.getgrnam(text).gr_gid
    except (KeyError, ValueError, OSError) as error:
        raise LookupError(f"this machine has no {what} {text!r}") from error
