"""Following one file over the versions of a task.

A file is followed by its entry id, which it keeps when it moves. From the newest version that has the path the search
goes to older ones by that id. Where an older version does not have it, the file that was at the same path there goes
on: it was deleted and made anew, or replaced by something else. Versions that lack the path but have the id that was found
before them, under another name, belong to it too.
"""

from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar

from ssfs.engine.questions.paths import Paths
from ssfs.model.entry import Entry
from ssfs.store.catalog.reader import CatalogReader

V = TypeVar("V")
_V = TypeVar("_V", contravariant=True)
A = TypeVar("A")


class Ask(Protocol[_V]):
    """How a version's catalog is asked."""

    def __call__(self, version: _V, question: Callable[[CatalogReader], A], /) -> A | None:
        """The answer; None if the catalog cannot be read."""


class Seen(NamedTuple, Generic[V]):
    """What a version has of the file.

    Attributes:
        version: The version.
        path: Where the file is in it.
        entry: Its row, checked.
    """

    version: V
    path: bytes
    entry: Entry


def content_of(entry: Entry) -> tuple[object, ...]:
    """What makes it another state of the file, wherever that is."""
    times = (entry.mtime_s, entry.mtime_ns)
    return (entry.kind, entry.size, times, entry.digest, entry.target)


class Trace(Generic[V]):
    """The search for one file.

    Attributes:
        newest: The newest version that can be read, once the search was run.
    """

    def __init__(
        self,
        versions: Sequence[V],
        ask: Ask[V],
        path: bytes,
        is_wanted: Callable[[Entry], bool] = lambda _: True,
    ) -> None:
        """Ask nothing yet.

        Args:
            versions: Where to search, by sequence.
            ask: How to ask one of them.
            path: Below the root, as catalogs spell it.
            is_wanted: Whether an entry counts; others are as if they were not there.
        """
        self.newest: V | None = None
        self._versions = versions
        self._ask = ask
        self._path = path
        self._is_wanted = is_wanted

    def run(self) -> list[Seen[V]]:
        """What each version has, oldest first; versions that do not have it are left out."""
        seen: list[Seen[V]] = []
        gap: list[V] = []
        for version in reversed(self._versions):
            found = self._in_version(version, seen[-1] if seen else None)
            if found is None:
                gap.append(version)
                continue
            # Versions in between do not have the path, but perhaps the file.
            seen += reversed(self._newer_by_id(found, gap))
            seen.append(found)
            gap = []
        seen.reverse()
        return seen

    def _newer_by_id(self, found: Seen[V], gap: list[V]) -> list[Seen[V]]:
        """What has become of a file in the versions after one, oldest first, as long as they have it."""
        seen: list[Seen[V]] = []
        for version in reversed(gap):
            newer = self._in_version(version, found, only_by_id=True)
            if newer is None:
                break
            seen.append(newer)
        return seen

    def _in_version(
        self, version: V, known: Seen[V] | None, *, only_by_id: bool = False
    ) -> Seen[V] | None:
        def look(catalog: CatalogReader) -> tuple[bytes, Entry] | None:
            if self.newest is None:
                self.newest = version
            if known is not None:
                entry = catalog.entry(known.entry.id)
                if entry is not None and self._is_wanted(catalog.checked(entry)):
                    return Paths(catalog).path(entry.parent, entry.name), entry
            if only_by_id:
                return None
            for path in (known.path if known else self._path, self._path):
                entry = catalog.resolve(path)
                if entry is not None and self._is_wanted(catalog.checked(entry)):
                    return path, entry
            return None

        found = self._ask(version, look)
        return Seen(version, *found) if found else None
