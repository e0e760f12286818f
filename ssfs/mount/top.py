"""The directories above the versions: points of a store, tasks of a point, versions of a task.

They change while they are mounted, and nobody tells: syncs and expiries are other processes. So every
question looks at the modification time of the directory in the store and scans it again when
that has changed. A time is coarse (kernels before 6.13 tick in 4 ms, some file systems in 2 s), so
a scan made within 2 s of it proves nothing and is made again.

A version whose version.toml is damaged is not shown, and said so once in the log: without it nothing
is known about it, its date least of all.
"""

import abc
import contextlib
import dataclasses
import datetime
import itertools
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence

from typing_extensions import override

from ssfs.clock import Clock
from ssfs.errors import CorruptStore, SsfsError
from ssfs.model.entry import is_valid_name
from ssfs.model.version import VersionId
from ssfs.mount.names import Binding, NameTable, ShownVersion
from ssfs.store.opened import OpenVersions
from ssfs.store.store import check_name
from ssfs.store.version import Version, list_versions

LATEST = "latest"
YESTERDAY = "yesterday"
_SHORTCUT_COOKIES = 1 << 62
_COARSE_NS = 2_000_000_000

_log = logging.getLogger(__name__)


@dataclasses.dataclass(eq=False, slots=True)
class Shortcut:
    """A symlink to a version of a task: `latest` to the newest, `yesterday` to the newest before today.

    The kernel keeps where a symlink leads for as long as it knows its number. So it gets another number whenever it
    leads elsewhere, and a number leads to the same name for ever.
    """

    inode: int
    name: str
    task: "TaskDirectory"
    shown: str | None = None

    @property
    def target(self) -> str | None:
        """The name it leads to as of the last `refresh` of the task; None: there is none, nor the symlink."""
        return self.task.latest_name if self.name == LATEST else self.task.yesterday_name


@dataclasses.dataclass(eq=False, slots=True)
class Mounted:
    """What all directories of a mount share.

    Attributes:
        clock: Wall time for scans and for what is yesterday, monotonic time for names.
        zone: The store's time zone, in which days begin.
        versions: Which versions are locked open.
        catalogs: Versions of which the catalogs alone are asked; those of a store on this machine are locked open for that.
        idle_s: For how long after the last request something counts as in use.
        nodes: Everything above the versions, by inode number.
        views: What every task's directory has beside its versions, by name: reached by it, not listed.
        bindings: Every binding the kernel may know, and the directory it is in, by number.
        vanished: Names that lead nowhere any more, with the number of their directory: what the kernel keeps
            for what was below them is of no use.
    """

    clock: Clock
    zone: datetime.tzinfo
    versions: OpenVersions
    catalogs: OpenVersions
    idle_s: float
    views: "Views"
    nodes: dict[int, "TopDirectory | Shortcut"] = dataclasses.field(default_factory=dict)
    bindings: dict[int, "tuple[Binding, VersionsDirectory]"] = dataclasses.field(
        default_factory=dict
    )
    vanished: list[tuple[int, bytes]] = dataclasses.field(default_factory=list)
    inodes: Iterator[int] = dataclasses.field(default_factory=lambda: itertools.count(1))
    binding_numbers: Iterator[int] = dataclasses.field(default_factory=lambda: itertools.count(1))

    def look_again(self) -> None:
        """See what has gone where the kernel knows something, though nobody asks."""
        for task in {task.inode: task for _, task in self.bindings.values()}.values():
            try:
                task.refresh()
            except OSError:
                above = self.nodes.get(task.parent)
                if isinstance(above, TopDirectory):
                    with contextlib.suppress(OSError):
                        above.refresh()

    def forget_dead_bindings(self) -> None:
        """Drop the bindings of versions that are gone and that nobody reads."""
        dead = [
            number
            for number, (binding, directory) in self.bindings.items()
            if not binding.handles
            and not directory.has(binding.version.id)
            and not self.versions.is_held(binding.version)
        ]
        for number in dead:
            binding, task = self.bindings.pop(number)
            if task.lookup(binding.name) in (None, binding):
                self.vanished.append((task.inode, os.fsencode(binding.name)))


@dataclasses.dataclass(slots=True)
class Line:
    """One line of a listing; `cookie` grows from line to line and stays with what the line shows."""

    cookie: int
    name: bytes
    target: "TopDirectory | Shortcut | Binding"


class TopDirectory(abc.ABC):
    """A directory above the versions.

    Attributes:
        inode: Its number.
        parent: The number of the directory above; the root's own for the root.
        mtime_ns: When it last changed, as of the last look.
    """

    def __init__(self, mounted: Mounted, path: bytes, parent: "TopDirectory | None") -> None:
        """Nothing is read yet.

        Args:
            mounted: What the mount shares.
            path: The directory of the store that is watched.
            parent: The directory above, if any.
        """
        self.inode = next(mounted.inodes)
        self.parent = parent.inode if parent else self.inode
        self.mtime_ns = 0
        self._mounted = mounted
        self._path = path
        self._is_scan_final = False
        mounted.nodes[self.inode] = self

    def refresh(self) -> None:
        """Scan again if anything may have changed.

        Raises:
            OSError: The directory is gone or cannot be read.
        """
        mtime_ns = os.stat(self._path).st_mtime_ns
        if self._is_scan_final and mtime_ns == self.mtime_ns:
            return
        begun_ns = int(self._mounted.clock.now().timestamp() * 1e9)
        is_complete = self._scan()
        self.mtime_ns = mtime_ns
        self._is_scan_final = is_complete and begun_ns - mtime_ns >= _COARSE_NS

    @property
    def looked_at(self) -> "TopDirectory":
        """The directory in which a look shows what is in this one: itself, unless it is another view of that."""
        return self

    def leave(self) -> None:
        """Take it and all below it out of the mount's table: it was deleted."""
        self._mounted.nodes.pop(self.inode, None)

    @abc.abstractmethod
    def _scan(self) -> bool:
        """Read the directory; False if something in it is not ready or could not be read."""

    @abc.abstractmethod
    def lookup(self, name: str) -> "TopDirectory | Shortcut | Binding | None":
        """What has this name, listed or not; call `refresh` before."""

    @abc.abstractmethod
    def lines(self) -> list[Line]:
        """The listing, by cookie; call `refresh` before."""


class GroupDirectory(TopDirectory):
    """Points of a store, or tasks of a point: every directory that has its text file."""

    marker: bytes

    def __init__(self, mounted: Mounted, path: bytes, parent: TopDirectory | None) -> None:
        super().__init__(mounted, path, parent)
        self._children: dict[str, TopDirectory] = {}

    @override
    def _scan(self) -> bool:
        is_complete = True
        found: dict[str, TopDirectory] = {}
        for name in sorted(os.fsdecode(name) for name in os.listdir(self._path)):
            if not _is_group_name(name):
                continue
            path = os.path.join(self._path, os.fsencode(name))
            if name in self._children:
                found[name] = self._children[name]
            elif os.path.exists(os.path.join(path, self.marker)):
                found[name] = self._make_child(path)
            else:
                # Just being made: its text file comes last, and leaves our own time as it is.
                is_complete = False
        for name in self._children.keys() - found.keys():
            self._children[name].leave()
            self._mounted.vanished.append((self.inode, os.fsencode(name)))
        self._children = found
        return is_complete

    @override
    def leave(self) -> None:
        super().leave()
        for child in self._children.values():
            child.leave()

    @abc.abstractmethod
    def _make_child(self, path: bytes) -> TopDirectory: ...

    @override
    def lookup(self, name: str) -> TopDirectory | None:
        return self._children.get(name)

    @override
    def lines(self) -> list[Line]:
        return sorted(
            (Line(child.inode, os.fsencode(name), child) for name, child in self._children.items()),
            key=lambda line: line.cookie,
        )


class StoreDirectory(GroupDirectory):
    """The sync points of a store."""

    marker = b"point.toml"

    @override
    def _make_child(self, path: bytes) -> TopDirectory:
        return PointDirectory(self._mounted, os.path.join(path, b"tasks"), self)


class PointDirectory(GroupDirectory):
    """The tasks of a sync point."""

    marker = b"task.toml"

    @override
    def _make_child(self, path: bytes) -> TopDirectory:
        return TaskDirectory(self._mounted, os.path.join(path, b"versions"), self)


class VersionsDirectory(TopDirectory):
    """A directory with names of a task's versions."""

    @abc.abstractmethod
    def has(self, version_id: VersionId) -> bool:
        """Whether the version was there when the task's directory was last scanned."""


class TaskDirectory(VersionsDirectory):
    """The versions of a task, and the symlinks to some of them."""

    def __init__(self, mounted: Mounted, path: bytes, parent: TopDirectory | None) -> None:
        super().__init__(mounted, path, parent)
        self._shortcuts = {
            name: Shortcut(next(mounted.inodes), name, self) for name in (LATEST, YESTERDAY)
        }
        mounted.nodes.update({link.inode: link for link in self._shortcuts.values()})
        self._names = NameTable(mounted.binding_numbers, mounted.idle_s)
        self._known: dict[VersionId, ShownVersion | None] = {}
        self._shown: Sequence[ShownVersion] = ()
        self._complained: set[VersionId] = set()
        self._views = {name: make(mounted, path, self) for name, make in mounted.views.items()}

    @override
    def leave(self) -> None:
        super().leave()
        for shortcut in self._shortcuts.values():
            self._mounted.nodes.pop(shortcut.inode, None)
        for view in self._views.values():
            view.leave()
        # From here on its bindings are those of versions that are gone.
        self._known, self._shown = {}, ()

    @property
    def shown(self) -> Sequence[ShownVersion]:
        """The versions, by sequence; the same object as long as they are the same."""
        return self._shown

    def timed_name(self, version: ShownVersion) -> str:
        """The name that is a shown version's for life."""
        return self._names.timed[version.id]

    def binding_of(self, version: ShownVersion) -> Binding | None:
        """What the timed name of a shown version leads to; None if it cannot be reached by it."""
        binding = self._names.resolve(self.timed_name(version))
        return binding if binding and binding.version.id == version.id else None

    @override
    def has(self, version_id: VersionId) -> bool:
        return version_id in self._known

    @property
    def latest_name(self) -> str | None:
        """Where `latest` leads; None without any version."""
        return self._names.latest

    @property
    def yesterday_name(self) -> str | None:
        """Where `yesterday` leads: to the newest version that is not of today; None without any."""
        zone = self._mounted.zone
        today = self._mounted.clock.now().astimezone(zone).date()
        for name, binding in reversed(self._names.listing):
            if binding.version.id.time.astimezone(zone).date() < today:
                return name
        return None

    @override
    def refresh(self) -> None:
        super().refresh()
        self._update_names()

    def _update_names(self) -> None:
        made = self._names.update(
            self._shown, self._mounted.clock.monotonic_s(), self._mounted.versions.is_held
        )
        for binding in made:
            self._mounted.bindings[binding.number] = (binding, self)
        for shortcut in self._shortcuts.values():
            if shortcut.target != shortcut.shown:
                self._renumber(shortcut)

    def _renumber(self, shortcut: Shortcut) -> None:
        self._mounted.nodes.pop(shortcut.inode, None)
        shortcut.inode = next(self._mounted.inodes)
        shortcut.shown = shortcut.target
        self._mounted.nodes[shortcut.inode] = shortcut

    @override
    def _scan(self) -> bool:
        is_complete = True
        known: dict[VersionId, ShownVersion | None] = {}
        for version in list_versions(os.path.dirname(self._path)):
            if version.id in self._known:
                known[version.id] = self._known[version.id]
                continue
            try:
                known[version.id] = self._read(version)
            except FileNotFoundError:
                is_complete = False
            except OSError as error:
                self._complain(version, error)
                is_complete = False
        if known.keys() != self._known.keys():
            self._known = known
            self._shown = [version for version in known.values() if version is not None]
        return is_complete

    def _read(self, version: Version) -> ShownVersion | None:
        """What is shown of a version; None if it is damaged.

        Raises:
            FileNotFoundError: It has expired since it was listed.
            OSError: It cannot be read now.
        """
        try:
            record = version.record()
            if not is_valid_name(os.fsencode(record.name)):
                raise CorruptStore(f"Bad name {record.name!r}", path=version.path)
        except SsfsError as error:
            os.stat(version.path)
            self._complain(version, error)
            return None
        return ShownVersion(version.id, record.name, version.path, record.root, record.shift_s)

    def _complain(self, version: Version, error: Exception) -> None:
        if version.id not in self._complained:
            self._complained.add(version.id)
            _log.error("Version %s of %r is not shown: %s", version.id, version.path, error)

    @override
    def lookup(self, name: str) -> "TopDirectory | Shortcut | Binding | None":
        if (view := self._views.get(name)) is not None:
            return view
        if (shortcut := self._shortcuts.get(name)) is not None:
            return shortcut if shortcut.target is not None else None
        return self._names.resolve(name)

    @override
    def lines(self) -> list[Line]:
        lines = [
            Line(binding.version.id.sequence, os.fsencode(name), binding)
            for name, binding in self._names.listing
        ]
        for cookie, (name, shortcut) in enumerate(self._shortcuts.items(), _SHORTCUT_COOKIES):
            if shortcut.target is not None:
                lines.append(Line(cookie, name.encode(), shortcut))
        return lines


Views = Mapping[str, Callable[[Mounted, bytes, TaskDirectory], TopDirectory]]
"""How to make the views of a task, by name."""


def _is_group_name(name: str) -> bool:
    try:
        check_name(name, "directory")
    except SsfsError:
        return False
    return True
