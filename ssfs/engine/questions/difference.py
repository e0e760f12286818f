"""What differs between two catalogs of one task, as a person sees it: by path, with moves followed.

Entries go together by their id. One that has only the older id is compared with what has come to its place in
its directory, if that is new too: it was deleted and made anew. What is in a directory that has moved has not moved itself.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING

import msgspec

from ssfs.engine.questions.paths import Paths
from ssfs.model.entry import KIND_NAMES, ROOT_ID, Entry, Kind
from ssfs.model.spelling import path_text
from ssfs.protocol.questions import MAX_PATH_BYTES, DiffCounts, Difference
from ssfs.store.catalog.difference import Differences
from ssfs.store.catalog.reader import CatalogReader

if TYPE_CHECKING:
    from ssfs.store.catalog.links import LinkGroups

_MOST_REMEMBERED = 50_000
_FIELDS = {
    "mode": ("mode",),
    "owner": ("uid",),
    "group": ("gid",),
    "mtime": ("mtime_s", "mtime_ns"),
    "device": ("rdev",),
    "xattrs": ("xattrs",),
    "holes": ("holes",),
    "hard links": ("link_group",),
}
"""The metadata of an answer, and the columns that they are."""


class DifferenceList:
    """The differences found so far, as many as the limit allows, and the counts of all.

    Attributes:
        is_truncated: There were more than the limit.
    """

    def __init__(self, limit: int) -> None:
        self.is_truncated = False
        self._limit = limit
        self._path_bytes = MAX_PATH_BYTES
        self._listed: list[tuple[bytes, Difference]] = []
        self._counts = dict.fromkeys(DiffCounts.__struct_fields__, 0)

    def add(self, path: bytes, difference: Difference) -> None:
        """List one, by its path, and count it."""
        self._counts[difference.change] += 1
        if f"{difference.change}_bytes" in self._counts:
            size = difference.old_size if difference.size is None else difference.size
            self._counts[f"{difference.change}_bytes"] += size or 0
        size = len(difference.path) + len(difference.origin or "")
        if len(self._listed) >= self._limit or size > self._path_bytes:
            self.is_truncated = True
            return
        self._path_bytes -= size
        self._listed.append((path, difference))

    def listed(self) -> tuple[Difference, ...]:
        """By path."""
        return tuple(difference for _, difference in sorted(self._listed, key=lambda item: item[0]))

    def counts(self) -> DiffCounts:
        """Of all."""
        return msgspec.convert(self._counts, DiffCounts)


class Comparer:
    """Compares two catalogs."""

    def __init__(
        self,
        differences: Differences,
        found: DifferenceList,
        *,
        below: bytes,
        prefix: bytes = b"",
        is_live: bool = False,
    ) -> None:
        """Prepare it.

        Args:
            differences: Of which catalogs.
            found: Where the differences go.
            below: Only entries that are or were at this path or below it; b"": all.
            prefix: Where the root of both catalogs is, for the answer.
            is_live: The fields `NOT_OF_A_LIVE_TREE` are left out.
        """
        self._rows = differences
        self._older, self._newer = differences.older, differences.newer
        self._old_paths, self._new_paths = Paths(self._older), Paths(self._newer)
        self._found = found
        self._below = below
        self._prefix = prefix
        self._fields = dict(_FIELDS)
        if is_live:
            for name in ("xattrs", "holes", "hard links"):
                del self._fields[name]
        self._groups: tuple[LinkGroups, LinkGroups] | None = None
        # What a directory of the one catalog is in the other, 0 if nothing.
        remember = lru_cache(maxsize=_MOST_REMEMBERED)
        self._newer_of = remember(
            lambda entry_id: self._id_across(entry_id, self._older, self._newer)
        )
        self._older_of = remember(
            lambda entry_id: self._id_across(entry_id, self._newer, self._older)
        )

    def run(self) -> None:
        """Find all differences."""
        for old, new in self._rows.changed():
            self._compare(old, new)
        for old in self._rows.removed():
            twin = self._twin(old, self._older, self._newer)
            if twin is None:
                self._one("removed", old)
            else:
                self._compare(old, twin)
        for new in self._rows.added():
            if self._twin(new, self._newer, self._older) is None:
                self._one("added", new)

    # -- what goes together ----------------------------------------------------------------------

    def _twin(self, entry: Entry, mine: CatalogReader, other: CatalogReader) -> Entry | None:
        """What the other catalog has new at the same place, for an id that it does not have."""
        place = (self._newer_of if mine is self._older else self._older_of)(entry.parent)
        found = other.child(place, entry.name) if place else None
        if found is None or mine.entry(found.id) is not None:
            return None
        return other.checked(found)

    def _id_across(self, directory: int, mine: CatalogReader, other: CatalogReader) -> int:
        """The id that a directory of `mine` has in the other catalog; 0: it is not there."""
        # From the directory up to the first that both have, and down again.
        chain: list[Entry] = []
        found = 0
        while not found:
            if other.entry(directory) is not None:
                found = directory
                break
            entry = mine.entry(directory)
            if entry is None or directory == ROOT_ID or len(chain) > _MOST_REMEMBERED:
                return 0
            chain.append(entry)
            directory = entry.parent
        for entry in reversed(chain):
            child = other.child(found, entry.name)
            if child is None or child.kind != Kind.DIRECTORY or mine.entry(child.id) is not None:
                return 0
            found = child.id
        return found

    # -- what is said of it ----------------------------------------------------------------------

    def _paths(self, old: Entry | None, new: Entry | None) -> Iterator[bytes]:
        if old is not None:
            yield self._old_paths.path(old.parent, old.name)
        if new is not None:
            yield self._new_paths.path(new.parent, new.name)

    def _is_wanted(self, path: bytes) -> bool:
        below = self._below
        return not below or path == below or path.startswith(below + b"/")

    def _compare(self, old: Entry, new: Entry) -> None:
        old_path, new_path = self._paths(old, new)
        if not (self._is_wanted(old_path) or self._is_wanted(new_path)):
            return
        if old.kind != new.kind:
            self._say("type", new_path, old, new)
            return
        is_moved = old.name != new.name or self._newer_of(old.parent) != new.parent
        if is_moved and new.id != ROOT_ID:
            self._say("moved", new_path, old, new, origin=old_path)
        fields = tuple(name for name in self._fields if self._differ(name, old, new))
        if (old.size, old.digest, old.target) != (new.size, new.digest, new.target):
            self._say("modified", new_path, old, new, fields=fields)
        elif fields:
            self._say("metadata", new_path, old, new, fields=fields)

    def _differ(self, name: str, old: Entry, new: Entry) -> bool:
        if name == "mtime" and new.kind == Kind.DIRECTORY:
            return False  # follows from what is in it, which is told by itself
        if name == "hard links":
            return old.link_group != new.link_group and self._are_other_links(old, new)
        return any(getattr(old, column) != getattr(new, column) for column in self._fields[name])

    def _are_other_links(self, old: Entry, new: Entry) -> bool:
        """Whether a file has other names: the number of a group alone changes with the inode."""
        if self._groups is None:
            self._groups = (self._older.link_groups(), self._newer.link_groups())
        older, newer = self._groups
        return older.find(old.link_group) != newer.find(new.link_group)

    def _one(self, change: str, entry: Entry) -> None:
        """An entry that only one of the two has."""
        is_old = change == "removed"
        (path,) = self._paths(entry, None) if is_old else self._paths(None, entry)
        if self._is_wanted(path):
            self._say(change, path, entry if is_old else None, None if is_old else entry)

    def _say(
        self,
        change: str,
        path: bytes,
        old: Entry | None,
        new: Entry | None,
        *,
        origin: bytes | None = None,
        fields: tuple[str, ...] = (),
    ) -> None:
        entry = new or old
        assert entry is not None
        self._found.add(
            path,
            Difference(
                change=change,
                path=self._text(path),
                origin=None if origin is None else self._text(origin),
                kind=KIND_NAMES[Kind(entry.kind)],
                old_kind=None if old is None else KIND_NAMES[Kind(old.kind)],
                size=None if new is None else new.size,
                old_size=None if old is None else old.size,
                fields=fields,
            ),
        )

    def _text(self, path: bytes) -> str:
        return path_text(b"/".join(part for part in (self._prefix, path) if part))
