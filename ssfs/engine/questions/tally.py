"""Who holds which content: catalogs are counted one after the other, in the order of their versions.

The first is read whole, of each further one only the rows that differ from those of the one before
(`ssfs.store.catalog.pages`). Some 40 bytes are kept for each inode and each entry that the task ever had.
"""

from array import array
from collections import defaultdict
from collections.abc import Iterator
from itertools import chain
from typing import Union

from ssfs.store.catalog.pages import Pages
from ssfs.store.catalog.reader import CatalogReader

_MOST_CHANGES = 200_000
"""Where more rows may differ, reading the catalog from its beginning to its end is quicker."""

_MOST_NUMBERED = 1 << 26
"""Larger numbers cost more memory each."""

_Row = tuple[int, int, int]
_Numbers = Union["array[int]", "defaultdict[int, int]"]


class Counted:
    """What one version holds.

    Attributes:
        entries: All of them.
        bytes: The sizes of its files.
        content_bytes: The same, each inode once.
        own_bytes: Of that, what no other version that was counted holds.
    """

    def __init__(self, entries: int, total_bytes: int, content_bytes: int) -> None:
        self.entries = entries
        self.bytes = total_bytes
        self.content_bytes = content_bytes
        self.own_bytes = 0


class Tally:
    """The versions so far; close it when done.

    An inode is known by twice its number; one without a number by that of its entry, and odd.

    Attributes:
        counted: What each of them holds.
        content_bytes: What they hold together, each inode once.
    """

    def __init__(self) -> None:
        self.counted: list[Counted] = []
        self.content_bytes = 0
        self._pages: Pages | None = None
        # The last version's: the inode of each entry (0: none), how many entries have each inode.
        self._inodes: _Numbers = array("q")
        self._holders: _Numbers = array("q")
        # Of all versions: each inode's size, and the version that had it first, from 1; negative if another had it too.
        self._sizes: _Numbers = array("q")
        self._first: _Numbers = array("q")

    def close(self) -> None:
        """Let go of the last version."""
        if self._pages is not None:
            self._pages.close()
            self._pages = None

    def add(self, catalog: CatalogReader) -> bool:
        """Count a further version; always true.

        Raises:
            CorruptStore: Its catalog is damaged; nothing of it was counted.
        """
        entries = catalog.number("entries")
        pages = Pages(catalog)
        try:
            changed = self._changed_rows(catalog, pages)
            most = catalog.most_numbered() if changed is None else _most_numbered(changed)
            self._make_room(*most)
            whole = None
            if changed is None:
                whole = self._read_all(chain.from_iterable(catalog.contents()))
        except BaseException:
            pages.close()
            raise
        self.close()
        self._pages = pages
        last = self.counted[-1] if self.counted else Counted(0, 0, 0)
        last.own_bytes = 0  # until something of it is missed here
        self.counted.append(Counted(entries, last.bytes, last.content_bytes))
        if whole is not None:
            self._count_all(*whole)
        else:
            self._count(changed or [])
        return True

    def _changed_rows(self, catalog: CatalogReader, pages: Pages) -> list[_Row] | None:
        """The rows of all ids whose content may be another than in the last version; None: all rows."""
        changes = self._pages and self._pages.changes(pages, _MOST_CHANGES)
        if not changes or (changes.ids and changes.ids[0] < 1):
            return None
        ids = set(changes.ids)
        if changes.may_be_longer:
            # What the last version has of them it has here, or its leaf has changed.
            ids.update(catalog.long_ids())
        rows = list(catalog.contents_of(sorted(ids)))
        ids.difference_update(row[0] for row in rows)
        return rows + [(entry_id, 0, 0) for entry_id in ids]

    def _make_room(self, most_id: int, most_content: int) -> None:
        most = 2 * max(most_id, most_content) + 1
        self._inodes = _grown(self._inodes, most_id)
        self._holders = _grown(self._holders, most)
        self._sizes = _grown(self._sizes, most)
        self._first = _grown(self._first, most)

    def _count(self, rows: list[_Row]) -> None:
        """Count what differs from the last version."""
        inodes, holders, sizes = self._inodes, self._holders, self._sizes
        counted = self.counted[-1]
        before: dict[int, int] = {}
        for entry_id, content, size in rows:
            old = inodes[entry_id]
            new = (2 * content or 2 * entry_id + 1) if size else 0
            if old:
                before.setdefault(old, holders[old])
                holders[old] -= 1
                counted.bytes -= sizes[old]
            if new:
                before.setdefault(new, holders[new])
                holders[new] += 1
                sizes[new] = size
                counted.bytes += size
            inodes[entry_id] = new
        for inode, held in before.items():
            self._compare(inode, held, holders[inode])

    def _read_all(self, rows: Iterator[_Row]) -> tuple[_Numbers, _Numbers, int]:
        """Of all rows of a version: the inode of each entry, how many have each inode, and all sizes together."""
        inodes, holders, sizes = _empty(self._inodes), _empty(self._holders), self._sizes
        total = 0
        for entry_id, content, size in rows:
            inode = 2 * content or 2 * entry_id + 1
            inodes[entry_id] = inode
            holders[inode] += 1
            sizes[inode] = size
            total += size
        return inodes, holders, total

    def _count_all(self, inodes: _Numbers, holders: _Numbers, total: int) -> None:
        """Count what all rows of a version say."""
        sizes = self._sizes
        self.counted[-1].bytes = total
        last, self._inodes, self._holders = self._holders, inodes, holders
        known = range(len(holders)) if isinstance(holders, array) else {*last, *holders}
        first, mine, new = self._first, len(self.counted), 0
        for inode in known:
            if holders[inode] and not first[inode]:
                first[inode] = mine
                new += sizes[inode]
            elif last[inode] or holders[inode]:
                self._compare(inode, last[inode], holders[inode])
        self._add_new(new)

    def _compare(self, inode: int, held: int, holds: int) -> None:
        """Take in that so many entries had an inode in the last version, and so many have it in this one."""
        if bool(held) == bool(holds):
            return
        size, first, mine = self._sizes[inode], self._first[inode], len(self.counted)
        counted = self.counted[-1]
        if holds:
            if not first:
                self._first[inode] = mine
                self._add_new(size)
                return
            counted.content_bytes += size
            if first > 0:
                # It was away, which happens where a version in between was damaged.
                self._first[inode] = -first
                self.counted[first - 1].own_bytes -= size
            return
        counted.content_bytes -= size
        if first == mine - 1:
            self.counted[first - 1].own_bytes += size
        elif first > 0:
            self._first[inode] = -first

    def _add_new(self, size: int) -> None:
        """Count what no version before has."""
        self.content_bytes += size
        self.counted[-1].content_bytes += size
        self.counted[-1].own_bytes += size


def _most_numbered(rows: list[_Row]) -> tuple[int, int]:
    """The largest id and the largest number of an inode."""
    return max((row[0] for row in rows), default=0), max((row[1] for row in rows), default=0)


def _grown(numbers: _Numbers, most: int) -> _Numbers:
    """The same with room for this index."""
    if isinstance(numbers, defaultdict):
        return numbers
    if most >= _MOST_NUMBERED:
        return defaultdict(int, ((index, number) for index, number in enumerate(numbers) if number))
    more = most + 1 - len(numbers)
    if more > 0:
        numbers.frombytes(bytes(more * numbers.itemsize))
    return numbers


def _empty(numbers: _Numbers) -> _Numbers:
    """As much room, and nothing in it."""
    if isinstance(numbers, defaultdict):
        return defaultdict(int)
    return array(numbers.typecode, bytes(len(numbers) * numbers.itemsize))
