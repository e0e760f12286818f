"""Catalogs that this machine has of its own syncs: by one of them a version is restored without its rows being sent.

What a client has synced last lies in its cache (`ssfs.engine.cache`), whole, under its logical digest, and is never changed
there. It is believed here only after its bytes were found to be those that were written, or where that is not known all of its
rows were digested in the order of the index that a restore goes by: the disk may have changed a bit since. Catalogs are opened before the server is told of
them, since a sync may delete them meanwhile.
"""

import contextlib
import os
from typing import NamedTuple

from ssfs.engine.cache import finished_catalogs, is_as_written
from ssfs.errors import ConfigError, CorruptStore, RemoteProtocolError
from ssfs.store.catalog.reader import CatalogReader

MOST_KEPT = 64


class _Kept(NamedTuple):
    """A catalog, and a descriptor of the same file."""

    catalog: CatalogReader
    fd: int


class KeptCatalogs:
    """The finished catalogs in a cache, open: the newest 64."""

    def __init__(self, root: bytes | None) -> None:
        """Open those of the cache in this directory; None: there is none."""
        self._open: dict[bytes, _Kept] = {}
        for path, digest in finished_catalogs(root, MOST_KEPT) if root is not None else []:
            # Two tasks that saw the same have one digest.
            if digest not in self._open and (kept := _open_both(path)) is not None:
                self._open[digest] = kept

    def digests(self) -> list[bytes]:
        """Their logical digests, as their names say."""
        return list(self._open)

    def find(self, digest: bytes) -> CatalogReader:
        """The one with this digest; open until `close`.

        Raises:
            RemoteProtocolError: There is none: the server names what it was not told of.
            ConfigError: It is not what was written, and is gone now: the next restore fetches the rows.
        """
        kept = self._open.get(digest)
        if kept is None:
            raise RemoteProtocolError("The server says we have a catalog that we do not have")
        catalog = kept.catalog
        problem = "its rows are not those that were written"
        try:
            if is_as_written(catalog.path, kept.fd):
                return catalog
            if catalog.recomputed_digest(by_path=True) == digest:
                return catalog
        except CorruptStore as error:
            problem = error.problem
        with contextlib.suppress(OSError):
            os.unlink(catalog.path)
        raise ConfigError(
            f"The catalog in the cache was damaged, and has been deleted ({problem})",
            path=catalog.path,
            remedy="restore again: the list of files is fetched then",
        )

    def close(self) -> None:
        """Close all."""
        for kept in self._open.values():
            kept.catalog.close()
            os.close(kept.fd)
        self._open.clear()


def _open_both(path: bytes) -> _Kept | None:
    """The catalog at a path and a descriptor of it; None if it cannot be had."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    with contextlib.suppress(CorruptStore, OSError):
        catalog = CatalogReader.open(path)
        # Neither was opened after it had been replaced by another file.
        if os.path.samestat(os.stat(path), os.fstat(fd)):
            return _Kept(catalog, fd)
        catalog.close()
    os.close(fd)
    return None
