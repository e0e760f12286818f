"""The names that a directory has had, in all versions of a task at once, some at a time.

Most versions have what the next newer one has. So SQLite makes two values of all names and ids of a version, which are taken apart
only if they differ from those of the version before: 200,000 names by 22 versions are 4.4 million rows.
"""

import functools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ssfs.errors import CorruptStore
from ssfs.mount.history.catalogs import Catalogs
from ssfs.store.catalog.reader import NamedIds, NameRange
from ssfs.store.opened import OpenVersion

_Ids = dict[bytes, int]


class NewestEntry(NamedTuple):
    """What the newest version that has a name has there.

    Attributes:
        version: Which.
        id: The entry.
        kind: Its kind.
        mtime_ns: When it was modified.
    """

    version: int
    id: int
    kind: int
    mtime_ns: int


class DirectoryNames:
    """Some names of a directory."""

    def __init__(self, catalogs: Catalogs, directories: Sequence[int]) -> None:
        """Know of none yet.

        Args:
            catalogs: The task's versions.
            directories: The directory's entry id in each of them, by sequence; 0 where it is none.
        """
        self._catalogs = catalogs
        self._directories = directories
        self._newest: dict[bytes, int] = {}
        # The same object for neighbours that have the same.
        self._ids: list[_Ids] = [{}] * len(directories)

    def read(self, after: bytes, count: int) -> None:
        """Look at the next `count` names after one, or as many as come."""
        names = NameRange(after, b"", count)
        ids: _Ids = {}
        known: NamedIds | None = NamedIds(b"", b"")
        for index in range(len(self._directories) - 1, -1, -1):
            found = self._named(index, names)
            if found is None:
                continue
            if found != known:
                own = self._catalogs.ask(index, functools.partial(_taken_apart, found))
                if own is None:
                    continue
                for name in own.keys() - ids.keys():
                    self._newest.setdefault(name, index)
                known, ids = found, own
                if len(self._newest) > count or (len(self._newest) == count and not names.last):
                    # Others may come in between.
                    names = names._replace(last=self._cut(count))
                    known = self._named(index, names)
            self._ids[index] = ids

    def id_in(self, name: bytes, index: int) -> int:
        """The id that a version has under a name; 0 if it has none."""
        return self._ids[index].get(name, 0)

    def newest(self) -> dict[bytes, NewestEntry]:
        """The newest entry of each name, by name in byte order; those of catalogs that cannot be read are left out."""
        of_version: dict[int, list[int]] = {}
        for name, index in self._newest.items():
            of_version.setdefault(index, []).append(self._ids[index][name])
        looks = {index: self._looks(index, ids) for index, ids in of_version.items()}
        return {
            name: NewestEntry(index, entry_id, *look)
            for name, index in sorted(self._newest.items())
            if (look := looks[index].get(entry_id := self._ids[index][name]))
        }

    def _named(self, index: int, names: NameRange) -> NamedIds | None:
        """What a version has in a range; None if the directory is not there."""
        directory = self._directories[index]
        if not directory:
            return None
        return self._catalogs.ask(index, functools.partial(_named, directory, names))

    def _looks(self, index: int, ids: Iterable[int]) -> dict[int, tuple[int, int]]:
        return self._catalogs.ask(index, functools.partial(_looks, ids)) or {}

    def _cut(self, count: int) -> bytes:
        """Forget what comes behind the first `count` names; the last of them."""
        kept = sorted(self._newest)[:count]
        self._newest = {name: self._newest[name] for name in kept}
        return kept[-1]


def _named(directory: int, names: NameRange, opened: OpenVersion) -> NamedIds:
    return opened.catalog.named(directory, names)


def _taken_apart(found: NamedIds, opened: OpenVersion) -> _Ids:
    try:
        return found.by_name()
    except ValueError as error:
        raise CorruptStore("Catalog holds a name that is none", path=opened.path) from error


def _looks(ids: Iterable[int], opened: OpenVersion) -> dict[int, tuple[int, int]]:
    return {found[0]: found[1:] for found in opened.catalog.looks_of(ids)}
