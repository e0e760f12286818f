"""Versions that somebody reads: locked, so that they cannot be deleted, and open.

A version nobody uses costs nothing: no lock, no descriptor. Its first request takes the shared lock and a
descriptor of its directory, and both stay until nothing is open in it and no request came for `idle_s`.
From then on expiry can do what it likes: the directory may be renamed into trash/ (everything here
goes through the descriptor) but not deleted (the lock; FORMAT.md, "Versions").

Catalogs and the tree's directory descriptors are dearer, so only a few versions have theirs open; they are opened again
when needed. Nothing here waits, and nothing is held over an await: one thread uses this.
"""

import collections
import os
import stat
from typing import TYPE_CHECKING

from ssfs.errors import CorruptStore
from ssfs.fsio.disk import open_directory
from ssfs.fsio.lock import FileLock
from ssfs.model.entry import Entry
from ssfs.model.xattrs import translate_acl
from ssfs.mount.checked import CheckedCatalogs
from ssfs.mount.names import ShownVersion
from ssfs.mount.owners import Owners
from ssfs.store.catalog.reader import CatalogReader
from ssfs.store.damage import NO_DAMAGE, Damage, read_damage
from ssfs.store.tree import Tree

if TYPE_CHECKING:
    from ssfs.store.catalog.links import LinkGroups

_OPEN_CATALOGS = 32
_HELD_VERSIONS = 256
_REMEMBERED_XATTRS = 256
_REMEMBERED_ROWS = 256


class VersionGone(Exception):
    """The version was deleted, or is being deleted."""


class _Catalog(CatalogReader):
    """A catalog with the questions that only a mount asks."""

    def names_of_principals(self) -> dict[tuple[int, int], str]:
        return {
            (principal.kind, principal.number): os.fsdecode(principal.name)
            for principal in self.principals()
        }


class OpenVersion:
    """A version that cannot be deleted as long as this is open.

    Attributes:
        path: Its directory, as it was when it was opened.
        handles: Files and directories open in it.
        last_request_s: Monotonic time of the last request for anything in it.
    """

    def __init__(self, path: bytes, checked: CheckedCatalogs, *, damaged_ok: bool = False) -> None:
        """Lock the version; what is damaged in it is read only if that is `damaged_ok`.

        Raises:
            VersionGone: There is none (any more).
            OSError: It cannot be opened.
        """
        self.path = path
        self._checked = checked
        self.handles = 0
        self.last_request_s = 0.0
        self._damaged_ok = damaged_ok
        self._damage = NO_DAMAGE
        self._damage_stamp = (0, 0)
        self._damaged_ids: frozenset[int] = frozenset()
        self._catalog: _Catalog | None = None
        self._tree: Tree | None = None
        self._groups: LinkGroups | None = None
        self._xattrs: dict[bytes, dict[bytes, bytes]] = {}
        self._rows: dict[int, Entry] = {}
        self._owner_names: dict[tuple[int, int], str] | None = None
        try:
            self._fd = open_directory(path)
        except FileNotFoundError as error:
            raise VersionGone from error
        try:
            # Through the descriptor, not by path: the directory may be on its way to trash/.
            self._lock = FileLock(b"lock", dir_fd=self._fd, create=False)
        except OSError as error:
            os.close(self._fd)
            if isinstance(error, FileNotFoundError):
                raise VersionGone from error
            raise
        if not (self._lock.shared_nowait() and self._lock.is_linked()):
            self.close()
            raise VersionGone

    @property
    def catalog(self) -> CatalogReader:
        """Its catalog; valid until the next request of any version.

        Raises:
            CatalogUnchecked: It must be read in a thread first; ask again then.
            CorruptStore: It is damaged.
        """
        return self._open_catalog()

    def _open_catalog(self) -> _Catalog:
        if self._catalog is None:
            if problem := self._known_damage().catalog:
                raise CorruptStore(f"The catalog is known to be damaged: {problem}", path=self.path)
            if not self._damaged_ok:
                self._checked.check(self._fd, self.path)
            path = b"/proc/self/fd/%d/catalog.db" % self._fd
            try:
                catalog = _Catalog.open(path)
            except CorruptStore as error:
                # The way through /proc means nothing to whoever reads the log.
                path = os.path.join(self.path, b"catalog.db")
                raise CorruptStore(error.problem, path=path) from error
            assert isinstance(catalog, _Catalog)
            catalog.path = os.path.join(self.path, b"catalog.db")
            self._catalog = catalog
        return self._catalog

    def entry(self, entry_id: int) -> Entry | None:
        """The row of an entry id; questions about one entry come in bunches."""
        found = self._rows.get(entry_id)
        if found is None:
            found = self._open_catalog().entry(entry_id)
            if found is not None:
                if len(self._rows) >= _REMEMBERED_ROWS:
                    self._rows.clear()
                self._rows[entry_id] = found
        return found

    def owner_name(self, kind: int, number: int) -> str:
        """What the source called a user or group number; "" if it had no name."""
        if self._owner_names is None:
            self._owner_names = self._open_catalog().names_of_principals()
        return self._owner_names.get((kind, number), "")

    def xattrs(self, entry: Entry) -> dict[bytes, bytes]:
        """The extended attributes of an entry as the source had them, by name."""
        if not entry.xattrs:
            return {}
        found = self._xattrs.get(entry.xattrs)
        if found is None:
            if len(self._xattrs) >= _REMEMBERED_XATTRS:
                self._xattrs.clear()
            found = self._xattrs[entry.xattrs] = self._open_catalog().xattrs(entry)
        return found

    def local_acl(self, entry: Entry, name: bytes, owners: Owners) -> bytes | None:
        """An ACL of an entry with this machine's users and groups; None if it has none."""
        value = self.xattrs(entry).get(name)
        if value is None:
            return None

        def local(kind: int, number: int) -> int:
            return owners.local_number(kind, number, self.owner_name(kind, number))

        return translate_acl(value, local)

    def hard_links(self, group: int) -> tuple[int, int] | None:
        """The smallest entry id of a link group, and its number of names; None if that is one."""
        if self._groups is None:
            self._groups = self._open_catalog().link_groups()
        return self._groups.find(group)

    def open_file(self, entry: Entry) -> int:
        """A descriptor of an entry's content; the caller closes it.

        Raises:
            CorruptStore: The tree does not hold what the catalog promises.
            OSError: It cannot be opened.
        """
        damage = self._known_damage()
        if damage.whole or (damage and entry.id in self._damaged_ids):
            raise self._damage_of(f"Data of entry {entry.id} is known to be damaged")
        if self._tree is None:
            catalog = self._open_catalog()
            self._tree = Tree(catalog, open_directory(b"tree", dir_fd=self._fd))
        try:
            fd = _open_data(entry.name, self._tree.directory(entry.parent))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise self._damage_of(f"Data of entry {entry.id} is missing") from error
        status = os.fstat(fd)
        is_whole = status.st_size == entry.size or self._damaged_ok
        if not stat.S_ISREG(status.st_mode) or not is_whole:
            os.close(fd)
            raise self._damage_of(f"Data of entry {entry.id} is not what the catalog says")
        return fd

    def _damage_of(self, problem: str) -> CorruptStore:
        return CorruptStore(problem, path=self.path)

    def is_damaged(self, entry: Entry) -> bool:
        """Whether an entry, or all of the version, is known to be damaged, though it may be `damaged_ok`."""
        damage = self._read_damage()
        return bool(damage.whole) or (bool(damage) and entry.id in self._damaged_ids)

    def _known_damage(self) -> Damage:
        """What is known to be damaged, as far as that matters."""
        return NO_DAMAGE if self._damaged_ok else self._read_damage()

    def _read_damage(self) -> Damage:
        """What is known to be damaged; read again when it has changed."""
        try:
            status = os.stat(b"damage.toml", dir_fd=self._fd, follow_symlinks=False)
        except FileNotFoundError:
            return NO_DAMAGE
        stamp = (status.st_ino, status.st_mtime_ns)
        if stamp != self._damage_stamp:
            self._damage = read_damage(self.path, dir_fd=self._fd)
            self._damaged_ids = self._damage.ids
            self._damage_stamp = stamp
        return self._damage

    def close_catalog(self) -> None:
        """Close all but the lock; what is needed is opened again."""
        if self._tree is not None:
            self._tree.close()
        if self._catalog is not None:
            self._catalog.close()
        self._tree = self._catalog = self._groups = self._owner_names = None
        self._xattrs.clear()
        self._rows.clear()

    def close(self) -> None:
        """Let it go: from now on it can be deleted."""
        self.close_catalog()
        self._lock.close()
        os.close(self._fd)


class OpenVersions:
    """The versions in use."""

    def __init__(self, idle_s: float, *, damaged_ok: bool = False) -> None:
        """Nothing is open yet; versions are closed `idle_s` after their last request."""
        self._idle_s = idle_s
        self._damaged_ok = damaged_ok
        self._checked = CheckedCatalogs()
        # Both in the order of their last use.
        self._held: collections.OrderedDict[bytes, OpenVersion] = collections.OrderedDict()
        self._with_catalog: collections.OrderedDict[bytes, OpenVersion] = collections.OrderedDict()

    def __len__(self) -> int:
        """How many versions are held."""
        return len(self._held)

    def is_held(self, version: ShownVersion) -> bool:
        """Whether a version is locked open."""
        return version.path in self._held

    def use(self, version: ShownVersion, now_s: float) -> OpenVersion:
        """The version, locked from now on, ready for a question to its catalog.

        Raises:
            VersionGone: There is no such version (any more).
            OSError: It cannot be opened.
        """
        path = version.path
        opened = self._held.get(path)
        if opened is None:
            opened = self._held[path] = OpenVersion(
                path, self._checked, damaged_ok=self._damaged_ok
            )
            self._drop_surplus()
        opened.last_request_s = now_s
        self._held.move_to_end(path)
        self._with_catalog[path] = opened
        self._with_catalog.move_to_end(path)
        if len(self._with_catalog) > _OPEN_CATALOGS:
            _, least_used = self._with_catalog.popitem(last=False)
            least_used.close_catalog()
        return opened

    def touch(self, version: ShownVersion, now_s: float) -> None:
        """Hold the version for longer, if it is held."""
        if (opened := self._held.get(version.path)) is not None:
            opened.last_request_s = now_s
            self._held.move_to_end(version.path)

    def close_idle(self, now_s: float) -> None:
        """Close what nobody has used for a while."""
        for path, opened in list(self._held.items()):
            if now_s - opened.last_request_s < self._idle_s:
                break
            if not opened.handles:
                self._close(path)

    def _drop_surplus(self) -> None:
        """Bound the descriptors held: let go of the version that was used least recently."""
        if len(self._held) > _HELD_VERSIONS:
            unused = (path for path, opened in self._held.items() if not opened.handles)
            path = next(unused, None)
            if path is not None and path != next(reversed(self._held)):
                self._close(path)

    def _close(self, path: bytes) -> None:
        self._with_catalog.pop(path, None)
        self._held.pop(path).close()

    def close(self) -> None:
        """Close everything, open files aside."""
        for path in list(self._held):
            self._close(path)


def _open_data(name: bytes, dir_fd: int) -> int:
    # Not blocking: should the tree hold a FIFO in a file's place, opening it must not hang.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        # Reading a whole version must not write the access time of every file of the store.
        return os.open(name, flags | os.O_NOATIME, dir_fd=dir_fd)
    except PermissionError:
        return os.open(name, flags, dir_fd=dir_fd)
