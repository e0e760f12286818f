"""The mounted tree: lookups, attributes and symlinks by inode number; no FUSE in it.

Above the versions are `ssfs.mount.top`'s directories, which change; inside a version is what its
catalog says, which never does. Nothing here awaits, so each call is atomic for the one task loop
that calls.
"""

import os
from types import MappingProxyType

from ssfs.clock import Clock
from ssfs.errors import InternalError
from ssfs.fsio.disk import store_errors
from ssfs.model.entry import ROOT_ID, Kind
from ssfs.model.xattrs import ACL_ACCESS
from ssfs.mount.attributes import (
    ABSENT,
    Attributes,
    inode_number,
    split_inode_number,
)
from ssfs.mount.handles import Handles
from ssfs.mount.history.view import NAME as HISTORY
from ssfs.mount.history.view import Histories
from ssfs.mount.inodes import Inodes, NoEntry, WrongKind, row
from ssfs.mount.names import Binding
from ssfs.mount.owners import Owners
from ssfs.mount.remote.mount import RemoteMount
from ssfs.mount.remote.preparing import Preparer
from ssfs.mount.top import (
    Mounted,
    PointDirectory,
    Shortcut,
    StoreDirectory,
    TaskDirectory,
    TopDirectory,
    Views,
)
from ssfs.store.opened import OpenVersions
from ssfs.store.store import Point, Store, Task

MountTarget = Store | Point | Task
_NO_VIEWS: Views = MappingProxyType({})


class MountTree:
    """Everything below a mountpoint.

    Attributes:
        handles: Open files and directories.
        store_path: The store's directory; None if it is not on this machine.
        location: What is shown, as a user would write it: the table of mounts says that, and mount(8)
            compares it with fstab.
    """

    def __init__(
        self,
        target: MountTarget | RemoteMount,
        clock: Clock,
        *,
        owners: Owners,
        idle_s: float,
        damaged_ok: bool = False,
        views: Views = _NO_VIEWS,
    ) -> None:
        """Open nothing yet.

        Args:
            target: What to show: a store's points, a point's tasks or a task's versions, or a server.
            clock: The time.
            owners: Whose things are on this machine.
            idle_s: For how long after the last request a name or version counts as in use.
            damaged_ok: Let what is known to be damaged be read as it is.
            views: What the directory of each task has beside its versions.
        """
        self._remote = target if isinstance(target, RemoteMount) else None
        self.store_path: bytes | None = None
        if isinstance(target, RemoteMount):
            zone = target.target.zone
            self.location = target.target.location
            versions = OpenVersions(idle_s, open_version=target.open_version)
            catalogs = OpenVersions(idle_s, open_version=target.open_catalog)
        else:
            store = _store_of(target)
            zone = store.zone
            self.store_path = os.path.abspath(store.path)
            self.location = os.fsdecode(self.store_path) + _inside(target)
            versions = catalogs = OpenVersions(idle_s, damaged_ok=damaged_ok)
        mounted = Mounted(clock, zone, versions, catalogs, idle_s, views)
        self._inodes = Inodes(mounted, owners)
        self._histories = Histories(self._inodes)
        self.handles = Handles(self._inodes, self._histories)
        self._root = _root_directory(target, mounted)

    def offer_history(self, *, listed: bool) -> None:
        """Have a `.history` in each task (`ssfs.mount.history.view`), listed there or only reached by name."""
        self._histories.offer(listed=listed)

    def check(self) -> None:
        """Look at the root once, so that what is wrong is said before anything is mounted.

        Raises:
            StoreError: It cannot be read.
        """
        with store_errors(self.store_path or b""):
            self._root.refresh()

    def start(self) -> Preparer | None:
        """Connect to the server, if there is one, inside of trio; what must be awaited before each question then.

        Raises:
            ConfigError: The cache of what it says cannot be used.
        """
        if self._remote is None:
            return None
        return self._remote.start(self._inodes, self._histories)

    def lookup(self, parent: int, name: bytes) -> Attributes:
        """The attributes of what a directory has under a name.

        Raises:
            NoEntry: It has nothing of this name now; inside a version, where that stays so,
                `ABSENT` is returned instead.
            Stale, WrongKind, CorruptStore, OSError: It cannot be said.
        """
        if name in (b".", b".."):
            return self.attributes(parent if name == b"." else self._parent(parent))
        number, entry_id = split_inode_number(parent)
        if self._histories.has(number):
            return self._histories.lookup(parent, name)
        if number:
            binding = self._inodes.binding(number)
            opened = self._inodes.use(binding)
            entry = opened.catalog.child(entry_id, name)
            if entry is None:
                return ABSENT
            return self._inodes.entry_attributes(entry, binding, opened)
        node = self._inodes.top(entry_id)
        node.refresh()
        if name == HISTORY and isinstance(node, TaskDirectory):
            return self._histories.root(node)
        target = node.lookup(os.fsdecode(name))
        if target is None:
            raise NoEntry
        if isinstance(target, Binding):
            self._inodes.touch(target)
        return self._inodes.target_attributes(target)

    def attributes(self, inode: int) -> Attributes:
        """The attributes of an inode number."""
        number, entry_id = split_inode_number(inode)
        if not number:
            return self._inodes.target_attributes(self._refreshed(entry_id))
        if self._histories.has(number):
            return self._histories.attributes(inode)
        binding = self._inodes.binding(number)
        if entry_id == ROOT_ID:
            self._inodes.touch(binding)
            return self._inodes.target_attributes(binding)
        opened = self._inodes.use(binding)
        return self._inodes.entry_attributes(row(opened, entry_id), binding, opened)

    def read_link(self, inode: int) -> bytes:
        """Where a symlink points."""
        number, entry_id = split_inode_number(inode)
        if number:
            entry = row(self._inodes.use(self._inodes.binding(number)), entry_id)
            if entry.kind != Kind.SYMLINK:
                raise WrongKind
            return entry.target
        node = self._refreshed(entry_id)
        if not isinstance(node, Shortcut):
            raise WrongKind
        if (target := node.target) is None:
            raise NoEntry
        return os.fsencode(target)

    def _refreshed(self, number: int) -> TopDirectory | Shortcut:
        """What has this number above the versions, after a look at the store: that may take it away."""
        node = self._inodes.node(number)
        (node.task if isinstance(node, Shortcut) else node).refresh()
        return self._inodes.node(number)

    def xattr_names(self, inode: int) -> list[bytes]:
        """The names of an entry's extended attributes, those of the source."""
        number, entry_id = split_inode_number(inode)
        if not number:
            return []
        if self._histories.has(number):
            return self._histories.xattr_names(inode)
        opened = self._inodes.use(self._inodes.binding(number))
        return sorted(opened.xattrs(row(opened, entry_id)))

    def xattr(self, inode: int, name: bytes) -> bytes | None:
        """The value of an extended attribute, also of one that is not listed; None if there is no such."""
        number, entry_id = split_inode_number(inode)
        if not number:
            return None
        if self._histories.has(number):
            return self._histories.acl(inode) if name == ACL_ACCESS else None
        binding = self._inodes.binding(number)
        opened = self._inodes.use(binding)
        return self._inodes.xattr(row(opened, entry_id), name, binding, opened)

    def _parent(self, inode: int) -> int:
        number, entry_id = split_inode_number(inode)
        if not number:
            return self._inodes.top(entry_id).parent
        if self._histories.has(number):
            return self._histories.parent(inode)
        if entry_id == ROOT_ID:
            return self._inodes.directory_of(number).inode
        opened = self._inodes.use(self._inodes.binding(number))
        return inode_number(number, row(opened, entry_id).parent)

    def close_idle(self) -> None:
        """Let go of what nobody has used for a while; call it every now and then."""
        owners_changed = self._inodes.close_idle()
        self._histories.forget(owners_changed=owners_changed)
        if self._remote is not None:
            self._remote.close_idle()

    def take_vanished(self) -> list[tuple[int, bytes]]:
        """Names that lead nowhere any more since this was last asked, each with its directory's inode number."""
        vanished, self._inodes.mounted.vanished = self._inodes.mounted.vanished, []
        return vanished

    def close(self) -> None:
        """Let go of everything; files still open are closed by the end of the process."""
        self._inodes.mounted.versions.close()
        self._inodes.mounted.catalogs.close()
        if self._remote is not None:
            self._remote.close()


def _store_of(target: MountTarget) -> Store:
    match target:
        case Store():
            return target
        case Point():
            return target.store
        case Task():
            return target.point.store


def _inside(target: MountTarget) -> str:
    match target:
        case Store():
            return ""
        case Point():
            return f"::{target.name}"
        case Task():
            return f"::{target.point.name}/{target.name}"


def _root_directory(target: MountTarget | RemoteMount, mounted: Mounted) -> TopDirectory:
    root = target.root(mounted) if isinstance(target, RemoteMount) else _local_root(target, mounted)
    if root.inode != ROOT_ID:
        raise InternalError("The root must be the first inode")
    return root


def _local_root(target: MountTarget, mounted: Mounted) -> TopDirectory:
    # Absolute: a process in the background leaves the directory it was started in.
    path = os.path.abspath(target.path)
    if isinstance(target, Store):
        return StoreDirectory(mounted, os.path.join(path, b"points"), None)
    if isinstance(target, Point):
        return PointDirectory(mounted, os.path.join(path, b"tasks"), None)
    return TaskDirectory(mounted, os.path.join(path, b"versions"), None)
