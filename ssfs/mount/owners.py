"""Whose a file is on this machine: owners are shown by their names, not by the source's numbers.

uid 1000 of a client must not open its files to whoever is uid 1000 here. So the recorded name decides;
a name this machine lacks keeps its number only if no account here has that number, else the file is
shown as nobody's (DESIGN.md section 5). With `numeric_ids`, for machines that share one directory of
accounts, numbers are shown as recorded. A map (`ssfs.mount.owner_map`) goes before both. With one owner for
everything nobody is asked.

Answers are remembered for a while, because a question may go to a directory service.
"""

import grp
import pwd
from collections.abc import Callable

from ssfs.engine.restore.options import OwnerMap
from ssfs.model.entry import MAX_OWNER, USER, Entry
from ssfs.model.xattrs import translate_acl
from ssfs.store.opened import OpenVersion

NOBODY = 65534
DEFAULT_MAP = OwnerMap()
_REMEMBERED = 10_000


class Owners:
    """Translates users and groups of a source into this machine's numbers.

    Attributes:
        sole: The user and the group that have everything; None if each has what is theirs.
    """

    def __init__(
        self, chosen: OwnerMap = DEFAULT_MAP, *, sole: tuple[int, int] | None = None
    ) -> None:
        self.sole = sole
        self._chosen = (chosen.users, chosen.groups)
        self._numeric_ids = chosen.numeric
        self._known: dict[tuple[int, int, str], int] = {}

    def local_number(self, kind: int, number: int, name: str) -> int:
        """This machine's number.

        Args:
            kind: `USER` or `GROUP`.
            number: What the source's file system said.
            name: What the source's machine called that number; "" if it had no name.
        """
        if self.sole is not None:
            return self.sole[kind]
        if chosen := self._chosen[kind]:
            for called in (name, str(number)):
                if called in chosen:
                    return chosen[called]
        if not 0 <= number <= MAX_OWNER:
            return NOBODY
        if self._numeric_ids:
            return number
        key = (kind, number, name)
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            known = self._known[key] = _find(kind, number, name)
        return known

    def forget(self) -> None:
        """Ask again from now on: accounts come and go."""
        self._known.clear()


def _find(kind: int, number: int, name: str) -> int:
    by_name, has_number = (_user_number, _has_user) if kind == USER else (_group_number, _has_group)
    found = by_name(name) if name else None
    if found is not None:
        return found
    return NOBODY if has_number(number) else number


def _user_number(name: str) -> int | None:
    try:
        return pwd.getpwnam(name).pw_uid
    except (KeyError, ValueError, OSError):
        return None


def _group_number(name: str) -> int | None:
    try:
        return grp.getgrnam(name).gr_gid
    except (KeyError, ValueError, OSError):
        return None


def _has_user(number: int) -> bool:
    return _exists(pwd.getpwuid, number)


def _has_group(number: int) -> bool:
    return _exists(grp.getgrgid, number)


def _exists(ask: Callable[[int], object], number: int) -> bool:
    """Whether an account has the number; when that cannot be found out, better say yes."""
    try:
        ask(number)
    except KeyError:
        return False
    except OSError:
        return True
    return True


def local_acl(opened: OpenVersion, entry: Entry, name: bytes, owners: Owners) -> bytes | None:
    """An ACL of an entry with this machine's users and groups; None if it has none."""
    value = opened.xattrs(entry).get(name)
    if value is None:
        return None

    def local(kind: int, number: int) -> int:
        return owners.local_number(kind, number, opened.owner_name(kind, number))

    return translate_acl(value, local)
