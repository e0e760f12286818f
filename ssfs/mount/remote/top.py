"""The directories above the versions of a server: they show what it listed last.

Nothing here asks it: `ssfs.mount.remote.preparing` does, before a question comes here that a listing is too old for.
"""

import abc
import math
import os
from typing import NamedTuple

from typing_extensions import override

from ssfs.engine.browse.requests import ListingQuestion
from ssfs.errors import ConfigError, RemoteProtocolError
from ssfs.model.entry import MAX_OWNER, is_valid_name
from ssfs.model.version import RootMetadata, VersionId, parse_version_id
from ssfs.mount.names import ShownVersion
from ssfs.mount.top import Line, Mounted, TaskDirectory, TopDirectory
from ssfs.protocol.browsing import ListedVersion
from ssfs.store.store import check_name

_MAX_MODE = 0o7777
_NS = 10**9
_MOST_SHIFT_S = 86_400
"""So many versions do not begin in one second."""


class Where(NamedTuple):
    """What a directory lists.

    Attributes:
        store: The server's store, as a user would write it.
        point: Sync point name; "": the sync points.
        task: Task name; "": the tasks of the sync point.
    """

    store: str
    point: str
    task: str

    @property
    def path(self) -> bytes:
        """A name of it that no other has."""
        return os.fsencode("/".join((self.store, self.point, self.task)))


class ListedDirectory(TopDirectory):
    """A directory that shows what a server listed.

    Attributes:
        where: What it lists.
        listed_s: When that was asked for last (monotonic).
        stamp: The server's stamp of it; b"" before the first listing.
    """

    where: Where
    listed_s = -math.inf
    stamp = b""

    @override
    def refresh(self) -> None:
        """It is as it was listed."""

    @override
    def _scan(self) -> bool:
        return True

    def take(self, listing: ListingQuestion, asked_s: float) -> None:
        """Show this from now on.

        Raises:
            RemoteProtocolError: A server cannot have that.
        """
        if listing.stamp != self.stamp:
            self._take(listing)
            self.stamp = listing.stamp
            self.mtime_ns = int(self._mounted.clock.now().timestamp() * _NS)
        self.listed_s = asked_s

    @abc.abstractmethod
    def _take(self, listing: ListingQuestion) -> None: ...


class ListedGroup(ListedDirectory):
    """Sync points, or the tasks of one."""

    def __init__(self, mounted: Mounted, where: Where, parent: TopDirectory | None) -> None:
        super().__init__(mounted, where.path, parent)
        self.where = where
        self._children: dict[str, ListedDirectory] = {}

    @override
    def _take(self, listing: ListingQuestion) -> None:
        found: dict[str, ListedDirectory] = {}
        for name in listing.names:
            try:
                check_name(name, "directory")
            except ConfigError as error:
                raise RemoteProtocolError(f"The server lists {name!r}") from error
            found[name] = self._children.get(name) or self._make_child(name)
        for name in self._children.keys() - found.keys():
            self._children[name].leave()
            self._mounted.vanished.append((self.inode, os.fsencode(name)))
        self._children = found

    @override
    def leave(self) -> None:
        super().leave()
        for child in self._children.values():
            child.leave()

    def _make_child(self, name: str) -> ListedDirectory:
        if self.where.point:
            return ListedTask(self._mounted, self.where._replace(task=name), self)
        return ListedGroup(self._mounted, self.where._replace(point=name), self)

    @override
    def lookup(self, name: str) -> TopDirectory | None:
        return self._children.get(name)

    @override
    def lines(self) -> list[Line]:
        return [
            Line(child.inode, os.fsencode(name), child)
            for name, child in sorted(self._children.items(), key=lambda item: item[1].inode)
        ]


class ListedTask(TaskDirectory, ListedDirectory):
    """The versions of a task, and the symlinks to some of them."""

    def __init__(self, mounted: Mounted, where: Where, parent: TopDirectory | None) -> None:
        super().__init__(mounted, where.path, parent)
        self.where = where

    @override
    def refresh(self) -> None:
        self._update_names()

    @override
    def _scan(self) -> bool:
        return True

    @override
    def _take(self, listing: ListingQuestion) -> None:
        known: dict[VersionId, ShownVersion | None] = {}
        for shown in sorted(map(self._shown_version, listing.versions)):
            known[shown.id] = self._known.get(shown.id) or shown
        self._known = known
        self._shown = [version for version in known.values() if version is not None]

    def _shown_version(self, listed: ListedVersion) -> ShownVersion:
        version_id = parse_version_id(listed.version)
        if version_id is None or not (
            is_valid_name(os.fsencode(listed.name))
            and _is_possible(listed.root)
            and 0 <= listed.shift_s < _MOST_SHIFT_S
        ):
            raise RemoteProtocolError(f"The server lists a version {listed.version!r}")
        path = os.path.join(self.where.path, str(version_id).encode())
        return ShownVersion(
            version_id, listed.name, path, listed.root, listed.shift_s, listed.catalog_digest
        )


def _is_possible(root: RootMetadata) -> bool:
    return (
        0 <= root.mode <= _MAX_MODE
        and 0 <= root.uid <= MAX_OWNER
        and 0 <= root.gid <= MAX_OWNER
        and 0 <= root.mtime_ns < _NS
        and abs(root.mtime_s) < 1 << 33
    )
