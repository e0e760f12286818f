"""Where partial and whole catalogs are kept: a directory in the client's cache for each place that is mounted.

    CACHE/mount_cache/PLACE-N/KEY.BOOT.db     what is here of the catalog with this key
    CACHE/mount_cache/PLACE-N/fetched-M       one that is being fetched whole

A key is a logical digest: a quiet night's version has the rows of the one before. All may be lost at any time, and is fetched
again; what was written before the last boot counts as lost, since nothing is synced. Catalogs nobody uses go, the
longest unused first, as soon as all together are larger than a limit; those in use never do.
"""

import contextlib
import itertools
import os
import re
from collections.abc import Iterator

import blake3

from ssfs.engine.browse.partial import PartialCatalog
from ssfs.engine.cache import boot_id
from ssfs.errors import ConfigError, CorruptStore
from ssfs.fsio.disk import open_fd, rename, store_errors
from ssfs.fsio.lock import FileLock

LIMIT_BYTES = 512 << 20

# No task's own cache may have this name (`ssfs.engine.cache`): hence the underscore.
_PART = b"mount_cache"
_DIGEST = re.compile(r"[0-9a-f]{64}")
_PLACE_BYTES = 16


@contextlib.contextmanager
def open_shelf(root: bytes, location: str, limit_bytes: int = LIMIT_BYTES) -> Iterator["Shelf"]:
    """A shelf of a place, locked: the first that no other process has.

    Args:
        root: The client's cache (`ssfs.engine.cache.cache_root`).
        location: What is mounted.
        limit_bytes: How large it may grow.

    Raises:
        ConfigError: The cache directory cannot be used.
    """
    place = blake3.blake3(os.fsencode(location)).hexdigest(_PLACE_BYTES)
    parent = os.path.join(os.path.abspath(root), _PART)
    path = parent
    with contextlib.ExitStack() as stack:
        try:
            os.makedirs(parent, mode=0o700, exist_ok=True)
            for number in itertools.count():
                path = os.path.join(parent, f"{place}-{number}".encode())
                os.makedirs(path, mode=0o700, exist_ok=True)
                lock = stack.enter_context(FileLock(os.path.join(path, b"lock")))
                if lock.exclusive_nowait():
                    break
        except OSError as error:
            raise ConfigError(
                f"The cache directory cannot be used ({error.strerror})",
                path=path,
                remedy="set SSFS_CACHE_DIR to a directory you may write",
            ) from error
        shelf = Shelf(path, limit_bytes)
        stack.callback(shelf.close)
        yield shelf


def catalog_key(digest: str, path: bytes) -> str:
    """What a version's catalog is called: by its logical digest; where none was recorded, by its path."""
    return digest if is_digest(digest) else blake3.blake3(path).hexdigest() + "-"


def is_digest(digest: str) -> bool:
    """Whether this is a logical digest, in hex."""
    return _DIGEST.fullmatch(digest) is not None


class Shelf:
    """The partial catalogs of a place."""

    def __init__(self, path: bytes, limit_bytes: int) -> None:
        """Use a directory, which stays the caller's; what an earlier boot left there goes."""
        self._path = path
        self._limit_bytes = limit_bytes
        self._suffix = b".%s.db" % boot_id()
        self._leases: dict[bytes, int] = {}
        self._open: dict[bytes, PartialCatalog] = {}
        self._whole: set[bytes] = set()
        self._fetched = itertools.count()
        for name in os.listdir(path):
            if name != b"lock" and not name.removesuffix(b"-journal").endswith(self._suffix):
                self._remove(name)

    def lease(self, key: str) -> "Lease":
        """Use the catalog of a key, until the lease is released."""
        return self.lease_name(key.encode() + self._suffix)

    def lease_name(self, name: bytes) -> "Lease":
        """Use the catalog with this file name, until the lease is released."""
        self._leases[name] = self._leases.get(name, 0) + 1
        with contextlib.suppress(OSError):
            # The time of its last use.
            os.utime(self.path_of(name))
        self.drop_unused(self._limit_bytes)
        return Lease(self, name)

    def catalog(self, name: bytes) -> PartialCatalog:
        """The catalog with this file name, open; one that is damaged begins anew."""
        catalog = self._open.get(name)
        if catalog is None:
            path = self.path_of(name)
            try:
                catalog = PartialCatalog.open_partial(path)
            except CorruptStore:
                self.discard(name)
                catalog = PartialCatalog.open_partial(path)
            self._open[name] = catalog
        return catalog

    def is_whole(self, name: bytes) -> bool:
        """Whether all of the catalog is here."""
        if name not in self._whole and os.path.exists(self.path_of(name)):
            was_open = name in self._open
            if self.catalog(name).is_whole:
                self._whole.add(name)
            if not was_open:
                self.close_catalog(name)
        return name in self._whole

    def path_of(self, name: bytes) -> bytes:
        """Where the file with this name is."""
        return os.path.join(self._path, name)

    def new_path(self) -> bytes:
        """Where a catalog may be fetched whole; what is left there is removed with the next boot, or mount."""
        return self.path_of(b"fetched-%d" % next(self._fetched))

    def replace(self, name: bytes, path: bytes) -> None:
        """Have a catalog that was fetched whole in the place of what is here of it.

        Raises:
            StoreError: That cannot be done.
        """
        self.discard(name)
        with store_errors(path), open_fd(self._path, os.O_RDONLY | os.O_DIRECTORY) as fd:
            rename(os.path.basename(path), fd, name, fd)
        self._whole.add(name)

    def close_catalog(self, name: bytes) -> None:
        """Close it; it is opened again when needed."""
        if (catalog := self._open.pop(name, None)) is not None:
            catalog.close()

    def discard(self, name: bytes) -> None:
        """Lose what is in it."""
        self._whole.discard(name)
        self.close_catalog(name)
        # The journal first: SQLite would play it back into whatever has the name.
        self._remove(name + b"-journal")
        self._remove(name)

    def release(self, name: bytes) -> None:
        """One user less."""
        self._leases[name] -= 1
        if not self._leases[name]:
            del self._leases[name]
            self.close_catalog(name)
            self.drop_unused(self._limit_bytes)

    def drop_unused(self, limit_bytes: int) -> None:
        """Lose what nobody uses, until what is left is not larger than that; what cannot be lost stays."""
        with contextlib.suppress(OSError):
            found = []
            total = 0
            for name in os.listdir(self._path):
                status = os.stat(self.path_of(name))
                total += status.st_size
                if name.endswith(self._suffix) and name not in self._leases:
                    found.append((status.st_mtime_ns, status.st_size, name))
            for _, size, name in sorted(found):
                if total <= limit_bytes:
                    return
                self.discard(name)
                total -= size

    def close(self) -> None:
        """Close all."""
        for name in list(self._open):
            self.close_catalog(name)

    def _remove(self, name: bytes) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path_of(name))


class Lease:
    """One user's right to a catalog of a shelf."""

    def __init__(self, shelf: Shelf, name: bytes) -> None:
        self._shelf = shelf
        self._name = name

    @property
    def catalog(self) -> PartialCatalog:
        """The catalog, open until the next call of anything here."""
        return self._shelf.catalog(self._name)

    def another(self) -> "Lease":
        """One of the same catalog, for another user."""
        return self._shelf.lease_name(self._name)

    @property
    def is_whole(self) -> bool:
        """Whether all of the catalog is here; so it stays, unless it is discarded."""
        return self._shelf.is_whole(self._name)

    @property
    def path(self) -> bytes:
        """Its file."""
        return self._shelf.path_of(self._name)

    def replace(self, path: bytes) -> None:
        """Have a catalog that was fetched whole in its place; raises as `Shelf.replace`."""
        self._shelf.replace(self._name, path)

    def close_catalog(self) -> None:
        """Close it; it is opened again when needed."""
        self._shelf.close_catalog(self._name)

    def discard(self) -> None:
        """Lose what is in it: it is damaged."""
        self._shelf.discard(self._name)

    def release(self) -> None:
        """Do without from now on."""
        self._shelf.release(self._name)
