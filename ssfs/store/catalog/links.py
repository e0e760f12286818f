"""Which entries of a version are hard links of one file."""

import array
import bisect
from collections.abc import Iterable

_SHARED = ("size", "digest", "mode", "uid", "gid", "mtime_s", "mtime_ns", "xattrs")
"""What is the same of all names of one file."""
LINK_GROUPS = (
    "SELECT link_group, min(id), count(*) FROM entry WHERE link_group > 0 "  # noqa: S608
    "GROUP BY link_group HAVING count(*) > 1"
    + "".join(f" AND min({name}) = max({name})" for name in _SHARED)
    + " ORDER BY link_group"
)
"""The groups of more than one entry, as `LinkGroups` takes them.

A group whose entries differ is none: one of them was read before the file changed, or could not be seen and is as the
version before has it (stale). To link them would give all of them the content of one.
"""


class LinkGroups:
    """The hard links of a version: for each group its smallest entry id and how many names it has."""

    def __init__(self, rows: Iterable[tuple[int, int, int]]) -> None:
        """Take the rows of `LINK_GROUPS`."""
        # 24 bytes a group: a tree of hard links only may have hundreds of thousands of groups.
        self._groups, self._first_ids, self._counts = (array.array("q") for _ in range(3))
        for group, first_id, count in rows:
            self._groups.append(group)
            self._first_ids.append(first_id)
            self._counts.append(count)

    def __len__(self) -> int:
        """How many groups there are."""
        return len(self._groups)

    def index(self, group: int) -> int | None:
        """The place of a group among all of them; None for one that has a single entry."""
        place = bisect.bisect_left(self._groups, group)
        is_there = place < len(self._groups) and self._groups[place] == group
        return place if is_there else None

    def find(self, group: int) -> tuple[int, int] | None:
        """The smallest entry id of a group, and its number of names; None if that is one."""
        place = self.index(group)
        return None if place is None else (self._first_ids[place], self._counts[place])
