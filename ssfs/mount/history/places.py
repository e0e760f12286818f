"""Places in a `.history`: a path, and what the versions have there.

What the newest version that has the path has there decides whether it is a directory, which then unites the
directories that versions have there, or a file, whose history it is.

An inode number says `number of the history << 40 | entry id`; files and directories have different numbers. Ids stay with entries for life, so the number of a
path is the same whatever version comes or goes, and nothing need be remembered for the kernel. A path that its
entry has left (renamed since) has a number of its own, made with the newest version that still has it there: no
directory may be in two places.
"""

import array
import collections
import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

from ssfs.engine.questions.paths import Paths
from ssfs.model.entry import ROOT_ID, Entry, Kind, mtime_ns_of
from ssfs.mount.attributes import inode_number
from ssfs.mount.history.catalogs import Catalogs
from ssfs.mount.history.names import DirectoryNames, NewestEntry
from ssfs.mount.history.rights import Rights, common_rights, rights_of
from ssfs.mount.inodes import Stale
from ssfs.mount.owners import Owners
from ssfs.mount.top import Mounted
from ssfs.store.opened import OpenVersion

_REMEMBERED = 4096
_NUMBERED = 256
_BATCH = 256
_FILE_MODE = 0o555


@dataclasses.dataclass(eq=False, slots=True)
class Place:
    """A path of a history.

    Attributes:
        path: Below the root; b"" for the root.
        inode: Its number.
        mtime_ns: Of what the newest version that has it has there.
        rights: Who may pass.
        ids: Of a directory: its entry id in each version, by sequence; 0 where it is none. Of a file: None.
    """

    path: bytes
    inode: int
    mtime_ns: int
    rights: Rights
    ids: "array.array[int] | None"


class Places:
    """The places of one task's history."""

    def __init__(
        self, mounted: Mounted, catalogs: Catalogs, owners: Owners, own: tuple[int, int]
    ) -> None:
        """Know nothing yet.

        Args:
            mounted: What the mount shares.
            catalogs: The task's versions.
            owners: Whose things are on this machine.
            own: The mount's own user and group.
        """
        self._mounted = mounted
        self._catalogs = catalogs
        self._owners = owners
        self._own = own
        # For directories and for files; and for paths that were left, by version.
        self._numbers = self._new_numbers()
        self._left: dict[bytes, tuple[int, int]] = {}
        self._places: collections.OrderedDict[bytes, Place] = collections.OrderedDict()
        # Questions about what is in a directory come in bunches.
        self._numbered: dict[tuple[int, int], Place] = {}

    @property
    def numbers(self) -> Iterator[int]:
        """What inode numbers begin with."""
        return itertools.chain(self._numbers, *self._left.values())

    @property
    def root_inode(self) -> int:
        """The inode number of the root: every version has it."""
        return inode_number(self._numbers[0], ROOT_ID)

    def is_file(self, number: int) -> bool:
        """Whether an inode number that begins so is a file's."""
        return number == self._numbers[1] or any(number == n for _, n in self._left.values())

    def forget(self) -> None:
        """Ask anew from now on: other versions are there, or other accounts on this machine."""
        self._places.clear()
        self._numbered.clear()
        present = {version.path for version in self._catalogs.versions}
        self._left = {path: pair for path, pair in self._left.items() if path in present}

    # -- by path ---------------------------------------------------------------------------------

    def root(self) -> Place | None:
        """The place of the root; None without any version that can be read."""
        return self._place(b"", lambda _: ROOT_ID)

    def at(self, path: bytes) -> Place | None:
        """The place of a path; None if no version has it."""
        if (known := self._known(path)) is not None:
            return known
        place, parts = self.root(), path.split(b"/") if path else []
        for name in parts:
            place = self.child(place, name) if place else None
        return place

    def child(self, parent: Place, name: bytes) -> Place | None:
        """The place of a name in a directory; None if no version has it, or the parent is a file."""
        if parent.ids is None:
            return None
        path = parent.path + b"/" + name if parent.path else name
        if (known := self._known(path)) is not None:
            return known
        ids = parent.ids
        return self._place(path, lambda index: self._child_id(index, ids[index], name))

    def _known(self, path: bytes) -> Place | None:
        if (known := self._places.get(path)) is not None:
            self._places.move_to_end(path)
        return known

    def _child_id(self, index: int, parent_id: int, name: bytes) -> int:
        if not parent_id:
            return 0
        return self._catalogs.ask(index, lambda v: v.catalog.child_id(parent_id, name)) or 0

    def _place(self, path: bytes, id_in: Callable[[int], int]) -> Place | None:
        """The place of a path, from the ids that the versions have there; older ones are asked if need be."""
        if (known := self._known(path)) is not None:
            return known
        count = len(self._catalogs.versions)
        ids = array.array("q", bytes(8 * count))
        rights: list[Rights] = []
        inode = mtime_ns = 0
        for index in range(count - 1, -1, -1):
            entry, its_rights = self._look(index, id_in(index))
            if entry is None:
                continue
            if not inode:
                inode, mtime_ns = self._inode(index, entry), mtime_ns_of(entry)
                if its_rights is None:
                    return Place(path, inode, mtime_ns, Rights(_FILE_MODE, *self._own), None)
            if its_rights is not None:
                ids[index] = entry.id
                rights.append(its_rights)
        if not inode:
            return None
        if len(self._places) >= _REMEMBERED:
            self._places.popitem(last=False)
        place = Place(path, inode, mtime_ns, common_rights(rights, self._own), ids)
        self._places[path] = place
        return place

    def _look(self, index: int, entry_id: int) -> tuple[Entry | None, Rights | None]:
        """An entry of a version, if it has it, and its rights, if it is a directory."""

        def question(opened: OpenVersion) -> tuple[Entry | None, Rights | None]:
            entry = opened.catalog.entry(entry_id)
            if entry is None:
                return None, None
            if opened.catalog.checked(entry).kind != Kind.DIRECTORY:
                return entry, None
            return entry, rights_of(entry, opened, self._owners)

        answer = self._catalogs.ask(index, question) if entry_id else None
        return answer or (None, None)

    def _inode(self, index: int, entry: Entry) -> int:
        """The number of a path whose newest version has this entry there."""
        newer = range(index + 1, len(self._catalogs.versions))
        is_left = any(self._catalogs.ask(n, lambda v: v.catalog.has(entry.id)) for n in newer)
        return self._number(index, entry.id, is_left=is_left, is_file=entry.kind != Kind.DIRECTORY)

    def _number(self, index: int, entry_id: int, *, is_left: bool, is_file: bool) -> int:
        """The number of a path whose newest version has this entry there; a newer one may have it elsewhere."""
        if not is_left:
            return inode_number(self._numbers[is_file], entry_id)
        path = self._catalogs.versions[index].path
        if path not in self._left:
            self._left[path] = self._new_numbers()
        return inode_number(self._left[path][is_file], entry_id)

    def _new_numbers(self) -> tuple[int, int]:
        return next(self._mounted.binding_numbers), next(self._mounted.binding_numbers)

    # -- by number -------------------------------------------------------------------------------

    def numbered(self, number: int, entry_id: int) -> Place:
        """The place with this inode number.

        Raises:
            Stale: There is none any more.
        """
        known = self._numbered.get((number, entry_id))
        if known is not None:
            return known
        versions = self._catalogs.versions
        anchor = next((path for path, pair in self._left.items() if number in pair), None)
        for index in range(len(versions) - 1, -1, -1):
            if anchor is None or versions[index].path == anchor:
                path = self._catalogs.ask(index, lambda v: _path_of(v, entry_id))
                if path is not None and (place := self.at(path)) is not None:
                    if len(self._numbered) >= _NUMBERED:
                        self._numbered.clear()
                    self._numbered[number, entry_id] = place
                    return place
        raise Stale

    # -- what is in a directory ------------------------------------------------------------------

    def children(self, parent: Place, after: bytes) -> list[Place]:
        """The next places in a directory after a name, by name; [] if no more come."""
        assert parent.ids is not None
        names = DirectoryNames(self._catalogs, parent.ids)
        names.read(after, _BATCH)
        newest = names.newest()
        last = self._last_versions(newest.values())
        rights = Rights(_FILE_MODE, *self._own)
        places = []
        for name, (index, entry_id, kind, mtime_ns) in newest.items():
            path = parent.path + b"/" + name if parent.path else name
            place: Place | None
            if kind == Kind.DIRECTORY:
                place = self._place(path, functools.partial(names.id_in, name))
            else:
                is_left = last.get(entry_id, index) > index
                inode = self._number(index, entry_id, is_left=is_left, is_file=True)
                place = Place(path, inode, mtime_ns, rights, None)
            if place is not None:
                places.append(place)
        return places

    def _last_versions(self, entries: Iterable[NewestEntry]) -> dict[int, int]:
        """The newest version that has an entry, by id, of those whose names newer versions do not have."""
        waiting: dict[int, list[int]] = {}
        for index, entry_id, _, _ in entries:
            waiting.setdefault(index, []).append(entry_id)
        last: dict[int, int] = {}
        ids: list[int] = []
        for newer in range(1, len(self._catalogs.versions)):
            ids += waiting.get(newer - 1, ())
            if ids:
                question = functools.partial(_those_of, tuple(ids))
                last.update(dict.fromkeys(self._catalogs.ask(newer, question) or (), newer))
        return last


def _those_of(ids: Sequence[int], opened: OpenVersion) -> set[int]:
    return opened.catalog.those_of(ids)


def _path_of(opened: OpenVersion, entry_id: int) -> bytes | None:
    entry = opened.catalog.entry(entry_id)
    if entry is None:
        return None
    return Paths(opened.catalog).path(entry.parent, entry.name)
