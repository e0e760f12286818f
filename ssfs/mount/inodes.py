"""From an inode number to what it stands for, and who counts as using it.

Every request that names something in a version counts as use of the binding it came through and of
the version (`ssfs.mount.names`); being listed does not. A version is locked open by the first request that
needs its catalog, and let go of by `close_idle`.
"""

import os
import stat

from ssfs.model.entry import GROUP, USER, Entry
from ssfs.model.xattrs import ACLS
from ssfs.mount.attributes import (
    DIRECTORY_BYTES,
    Attributes,
    entry_attributes,
    top_attributes,
    version_attributes,
)
from ssfs.mount.facts import fact_xattr
from ssfs.mount.listing import ListingEncoder
from ssfs.mount.names import Binding
from ssfs.mount.owners import Owners, local_acl
from ssfs.mount.top import Mounted, Shortcut, TopDirectory, VersionsDirectory
from ssfs.store.opened import OpenVersion, VersionGone

_OWNERS_REMEMBERED_S = 600.0


class NoEntry(Exception):
    """There is nothing of this name."""


class Stale(Exception):
    """The inode number leads nowhere any more."""


class WrongKind(Exception):
    """What is there is not of the kind that the request needs."""


class Inodes:
    """All that the kernel may have a number of.

    Attributes:
        mounted: What the directories above the versions share.
        owners: Whose things are on this machine.
        own_ids: User and group of what is nobody's else.
    """

    def __init__(self, mounted: Mounted, owners: Owners) -> None:
        self.mounted = mounted
        self._clock = mounted.clock
        self.owners = owners
        self._owners_since_s = mounted.clock.monotonic_s()
        self.own_ids = owners.sole or (os.geteuid(), os.getegid())

    # -- what a number stands for ----------------------------------------------------------------

    def node(self, number: int) -> TopDirectory | Shortcut:
        """What has this number above the versions."""
        try:
            return self.mounted.nodes[number]
        except KeyError:
            raise Stale from None

    def top(self, number: int) -> TopDirectory:
        """The directory above the versions with this number."""
        node = self.node(number)
        if isinstance(node, Shortcut):
            raise WrongKind
        return node

    def binding(self, number: int) -> Binding:
        """The binding of this number."""
        return self._bound(number)[0]

    def directory_of(self, number: int) -> VersionsDirectory:
        """The directory that has the name of this binding."""
        return self._bound(number)[1]

    def _bound(self, number: int) -> tuple[Binding, VersionsDirectory]:
        try:
            return self.mounted.bindings[number]
        except KeyError:
            raise Stale from None

    # -- use -------------------------------------------------------------------------------------

    def use(self, binding: Binding) -> OpenVersion:
        """The version behind a binding, locked open.

        Raises:
            Stale: It has been deleted.
            OSError: It cannot be opened.
        """
        now_s = self._clock.monotonic_s()
        try:
            opened = self.mounted.versions.use(binding.version, now_s)
        except VersionGone:
            raise Stale from None
        binding.last_request_s = now_s
        return opened

    def consult(self, binding: Binding) -> OpenVersion:
        """The version behind a binding, for questions to its catalog and no others; raises as `use`.

        Raises:
            CatalogAbsent: It must be fetched first.
        """
        try:
            opened = self.mounted.catalogs.use(binding.version, self._clock.monotonic_s())
        except VersionGone:
            raise Stale from None
        self.touch(binding)
        return opened

    def touch(self, binding: Binding) -> None:
        """Count a request that needs no catalog."""
        binding.last_request_s = self._clock.monotonic_s()
        self.mounted.versions.touch(binding.version, binding.last_request_s)

    def hold(self, binding: Binding, opened: OpenVersion) -> None:
        """Count a handle: as long as it is open, neither the name nor the version goes."""
        binding.handles += 1
        opened.handles += 1

    def release(self, binding: Binding, opened: OpenVersion) -> None:
        """Count a handle that was closed."""
        binding.handles -= 1
        opened.handles -= 1
        self.touch(binding)

    def close_idle(self) -> bool:
        """Let go of what nobody has used for a while; call it every now and then.

        Returns:
            Whether accounts are asked for anew from now on.
        """
        now_s = self._clock.monotonic_s()
        self.mounted.versions.close_idle(now_s)
        self.mounted.catalogs.close_idle(now_s)
        self.mounted.look_again()
        self.mounted.forget_dead_bindings()
        is_over = now_s - self._owners_since_s >= _OWNERS_REMEMBERED_S
        if is_over:
            self.owners.forget()
            self._owners_since_s = now_s
        return is_over

    # -- attributes ------------------------------------------------------------------------------

    def entry_attributes(self, entry: Entry, binding: Binding, opened: OpenVersion) -> Attributes:
        """The attributes of an entry inside a version."""
        return entry_attributes(entry, binding, opened, self.owners)

    def listing_encoder(
        self, binding: Binding, opened: OpenVersion, generation: int
    ) -> ListingEncoder:
        """What lists directories of a version; good for one request."""

        def local(uid: int, gid: int) -> tuple[int, int]:
            find = self.owners.local_number
            return (
                find(USER, uid, opened.owner_name(USER, uid)),
                find(GROUP, gid, opened.owner_name(GROUP, gid)),
            )

        return ListingEncoder(binding.number, generation, opened.hard_links, local)

    def xattr(
        self, entry: Entry, name: bytes, binding: Binding, opened: OpenVersion
    ) -> bytes | None:
        """One extended attribute of an entry; ACLs name this machine's users and groups."""
        if name in ACLS:
            return local_acl(opened, entry, name, self.owners)
        value = opened.xattrs(entry).get(name)
        return fact_xattr(entry, name, binding, opened) if value is None else value

    def target_attributes(self, target: TopDirectory | Shortcut | Binding) -> Attributes:
        """The attributes of what a directory above the versions has under a name."""
        if isinstance(target, Binding):
            return version_attributes(target, self.owners)
        if isinstance(target, Shortcut):
            mode, size = stat.S_IFLNK | 0o777, len(os.fsencode(target.target or ""))
            mtime_ns = target.task.mtime_ns
        else:
            mode, size = stat.S_IFDIR | 0o555, DIRECTORY_BYTES
            mtime_ns = target.mtime_ns
        return top_attributes(target.inode, mode, size, mtime_ns, self.own_ids)


def row(opened: OpenVersion, entry_id: int) -> Entry:
    """The row of an entry id that the kernel got from us."""
    entry = opened.entry(entry_id)
    if entry is None:
        raise Stale
    return entry
