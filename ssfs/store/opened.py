"""Versions that somebody reads: locked, so that they cannot be deleted, and open.

A version nobody uses costs nothing: no lock, no descriptor. Its first request takes the shared lock and a
descriptor of its directory, and both stay until nothing is open in it and no request came for `idle_s`.
From then on expiry can do what it likes: the directory may be renamed into trash/ (everything here
goes through the descriptor) but not deleted (the lock; FORMAT.md, "Versions").

Catalogs and the tree's directory descriptors are dearer, so only a few versions have theirs open; they are opened again
when needed. Nothing here waits, and nothing is held over an await: one thread uses this. Mounts do, and servers of
clients that mount.
"""

import abc
import collections
import functools
import os
import stat
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from typing_extensions import override

from ssfs.errors import CorruptStore
from ssfs.fsio.disk import open_directory
from ssfs.fsio.lock import FileLock
from ssfs.model.entry import Entry
from ssfs.store.catalog.reader import CatalogReader
from ssfs.store.checked import CheckedCatalogs
from ssfs.store.damage import NO_DAMAGE, Damage, read_damage
from ssfs.store.tree import Tree

if TYPE_CHECKING:
    from ssfs.store.catalog.links import LinkGroups

_OPEN_CATALOGS = 32
_HELD_VERSIONS = 256
_REMEMBERED_XATTRS = 256
_REMEMBERED_ROWS = 256
_ROWS_AHEAD = 64


class VersionGone(Exception):
    """The version was deleted, or is being deleted."""


class CatalogAbsent(Exception):
    """A catalog that is asked is not on this machine (any more): it must be fetched first."""


class Placed(Protocol):
    """What is known of a version before it is opened."""

    @property
    def path(self) -> bytes:
        """Its directory, as it was when it was found."""
        ...


class RangeReader(abc.ABC):
    """The content of an open file that must be waited for."""

    @property
    def is_doubtful(self) -> bool:
        """Whether it was wrong when it was last read: then nothing that was kept of it is to be believed."""
        return False

    @abc.abstractmethod
    async def read(self, offset: int, size: int) -> list[memoryview]:
        """Exactly these bytes, all of which the file has, in parts one after the other.

        Raises:
            CorruptStore: They are not what was stored.
            OSError: They cannot be had.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Nobody reads any more."""


class OpenVersion(abc.ABC):
    """A version that cannot be deleted as long as this is open.

    Attributes:
        path: Its directory, as it was when it was opened.
        handles: Files and directories open in it.
        last_request_s: Monotonic time of the last request for anything in it.
    """

    def __init__(self, path: bytes) -> None:
        self.path = path
        self.handles = 0
        self.last_request_s = 0.0
        self._xattrs: dict[bytes, dict[bytes, bytes]] = {}
        self._rows: dict[int, Entry] = {}
        self._owner_names: dict[tuple[int, int], str] | None = None

    @property
    @abc.abstractmethod
    def catalog(self) -> CatalogReader:
        """Its catalog; valid until the next request of any version.

        Raises:
            CatalogUnchecked: It must be read in a thread first; ask again then.
            CorruptStore: It is damaged.
        """

    def entry(self, entry_id: int) -> Entry | None:
        """The row of an entry id; questions about one entry come in bunches."""
        found = self._rows.get(entry_id)
        if found is None:
            rows = self._read_rows(entry_id)
            if rows:
                found = rows[0]
                if len(self._rows) >= _REMEMBERED_ROWS:
                    self._rows.clear()
                self._rows.update((row.id, row) for row in rows)
        return found

    def _read_rows(self, entry_id: int) -> list[Entry]:
        """The row of an entry id, then rows that may be asked for next; none if there is no such entry."""
        found = self.catalog.entry(entry_id)
        return [] if found is None else [found]

    def owner_name(self, kind: int, number: int) -> str:
        """What the source called a user or group number; "" if it had no name."""
        if self._owner_names is None:
            self._owner_names = {
                (principal.kind, principal.number): os.fsdecode(principal.name)
                for principal in self.catalog.principals()
            }
        return self._owner_names.get((kind, number), "")

    def xattrs(self, entry: Entry) -> dict[bytes, bytes]:
        """The extended attributes of an entry as the source had them, by name."""
        if not entry.xattrs:
            return {}
        found = self._xattrs.get(entry.xattrs)
        if found is None:
            if len(self._xattrs) >= _REMEMBERED_XATTRS:
                self._xattrs.clear()
            found = self._xattrs[entry.xattrs] = self.catalog.xattrs(entry)
        return found

    @abc.abstractmethod
    def hard_links(self, group: int) -> tuple[int, int] | None:
        """The smallest entry id of a link group, and its number of names; None if that is one."""

    @abc.abstractmethod
    def open_file(self, entry: Entry) -> int:
        """A descriptor of an entry's content; the caller closes it.

        Raises:
            CorruptStore: The tree does not hold what the catalog promises.
            OSError: It cannot be opened.
        """

    def open_content(self, entry: Entry) -> RangeReader | None:  # noqa: ARG002
        """An entry's content where it must be waited for; None: `open_file` is the way."""
        return None

    @abc.abstractmethod
    def is_damaged(self, entry: Entry) -> bool:
        """Whether an entry, or all of the version, is known to be damaged, though it may be `damaged_ok`."""

    def discard(self) -> bool:
        """Lose the rows that are here: they cannot be read. False if they are no copy, which can be fetched again."""
        return False

    def close_catalog(self) -> None:
        """Close all but what keeps it from being deleted; what is needed is opened again."""
        self._owner_names = None
        self._xattrs.clear()
        self._rows.clear()

    @abc.abstractmethod
    def close(self) -> None:
        """Let it go: from now on it can be deleted."""


class LocalVersion(OpenVersion):
    """A version of a store of this machine, locked."""

    def __init__(self, path: bytes, checked: CheckedCatalogs, *, damaged_ok: bool = False) -> None:
        """Lock the version; what is damaged in it is read only if that is `damaged_ok`.

        Raises:
            VersionGone: There is none (any more).
            OSError: It cannot be opened.
        """
        super().__init__(path)
        self._checked = checked
        self._damaged_ok = damaged_ok
        self._damage = NO_DAMAGE
        self._damage_stamp = (0, 0)
        self._damaged_ids: frozenset[int] = frozenset()
        self._catalog: CatalogReader | None = None
        self._tree: Tree | None = None
        self._groups: LinkGroups | None = None
        self._row_before = (0, b"")
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
    @override
    def catalog(self) -> CatalogReader:
        if self._catalog is None:
            if problem := self._known_damage().catalog:
                raise CorruptStore(f"The catalog is known to be damaged: {problem}", path=self.path)
            if not self._damaged_ok:
                self._checked.check(self._fd, self.path)
            try:
                catalog = CatalogReader.open(self.catalog_file)
            except CorruptStore as error:
                # The way through /proc means nothing to whoever reads the log.
                path = os.path.join(self.path, b"catalog.db")
                raise CorruptStore(error.problem, path=path) from error
            catalog.path = os.path.join(self.path, b"catalog.db")
            self._catalog = catalog
        return self._catalog

    @override
    def _read_rows(self, entry_id: int) -> list[Entry]:
        found = super()._read_rows(entry_id)
        if not found:
            return []
        (row,) = found
        before, self._row_before = self._row_before, (row.parent, row.name)
        # Who goes through a directory asks for its files one after the other: twice is enough to see that.
        if before[0] == row.parent and before[1] < row.name:
            found += self.catalog.siblings_after(row, _ROWS_AHEAD)
        return found

    @property
    def catalog_file(self) -> bytes:
        """The way to its catalog that is good for as long as this is open, wherever the version goes."""
        return b"/proc/self/fd/%d/catalog.db" % self._fd

    @override
    def hard_links(self, group: int) -> tuple[int, int] | None:
        if self._groups is None:
            self._groups = self.catalog.link_groups()
        return self._groups.find(group)

    @override
    def open_file(self, entry: Entry) -> int:
        damage = self._known_damage()
        if damage.whole or (damage and entry.id in self._damaged_ids):
            raise self._damage_of(f"Data of entry {entry.id} is known to be damaged")
        if self._tree is None:
            catalog = self.catalog
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

    @override
    def is_damaged(self, entry: Entry) -> bool:
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

    @override
    def close_catalog(self) -> None:
        super().close_catalog()
        if self._tree is not None:
            self._tree.close()
        if self._catalog is not None:
            self._catalog.close()
        self._tree = self._catalog = self._groups = None

    @override
    def close(self) -> None:
        self.close_catalog()
        self._lock.close()
        os.close(self._fd)


class OpenVersions:
    """The versions in use."""

    def __init__(
        self,
        idle_s: float,
        *,
        damaged_ok: bool = False,
        open_version: Callable[[bytes], OpenVersion] | None = None,
    ) -> None:
        """Nothing is open yet.

        Args:
            idle_s: Versions are closed so long after their last request.
            damaged_ok: Let what is known to be damaged be read as it is.
            open_version: Opens a version at a path, as `LocalVersion`, which is used unless this is given.
        """
        self._idle_s = idle_s
        self._open = open_version or functools.partial(
            LocalVersion, checked=CheckedCatalogs(), damaged_ok=damaged_ok
        )
        # Both in the order of their last use.
        self._held: collections.OrderedDict[bytes, OpenVersion] = collections.OrderedDict()
        self._with_catalog: collections.OrderedDict[bytes, OpenVersion] = collections.OrderedDict()

    def __len__(self) -> int:
        """How many versions are held."""
        return len(self._held)

    def is_held(self, version: Placed) -> bool:
        """Whether a version is locked open."""
        return version.path in self._held

    def use(self, version: Placed, now_s: float) -> OpenVersion:
        """The version, locked from now on, ready for a question to its catalog.

        Raises:
            VersionGone: There is no such version (any more).
            OSError: It cannot be opened.
        """
        path = version.path
        opened = self._held.get(path)
        if opened is None:
            opened = self._held[path] = self._open(path)
            self._drop_surplus()
        opened.last_request_s = now_s
        self._held.move_to_end(path)
        self._with_catalog[path] = opened
        self._with_catalog.move_to_end(path)
        if len(self._with_catalog) > _OPEN_CATALOGS:
            _, least_used = self._with_catalog.popitem(last=False)
            least_used.close_catalog()
        return opened

    def touch(self, version: Placed, now_s: float) -> None:
        """Hold the version for longer, if it is held."""
        if (opened := self._held.get(version.path)) is not None:
            opened.last_request_s = now_s
            self._held.move_to_end(version.path)

    def let_go(self, version: Placed) -> None:
        """Close the version, unless something is open in it."""
        opened = self._held.get(version.path)
        if opened is not None and not opened.handles:
            self._close(version.path)

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
