"""Catalogs that this machine has of its own syncs: by one of them a version is restored without its rows being sent.

What a client has synced last lies in its cache (`ssfs.engine.cache`), whole, under its logical digest, and is never changed
there. It is believed here only after all of its rows were digested in the order of the index that a restore goes by:
the disk may have changed a bit since it was written. Catalogs are opened before the server is told of
them, since a sync may delete them meanwhile.
"""

import contextlib
import os

from ssfs.engine.cache import finished_catalogs
from ssfs.errors import ConfigError, CorruptStore, RemoteProtocolError
from ssfs.store.catalog.reader import CatalogReader

MOST_KEPT = 64


class KeptCatalogs:
    """The finished catalogs in a cache, open: the newest 64."""

    def __init__(self, root: bytes | None) -> None:
        """Open those of the cache in this directory; None: there is none."""
        self._open: dict[bytes, CatalogReader] = {}
        for path, digest in finished_catalogs(root, MOST_KEPT) if root is not None else []:
            with contextlib.suppress(CorruptStore):
                self._open[digest] = CatalogReader.open(path)

    def digests(self) -> list[bytes]:
        """Their logical digests, as their names say."""
        return list(self._open)

    def find(self, digest: bytes) -> CatalogReader:
        """The one with this digest; open until `close`.

        Raises:
            RemoteProtocolError: There is none: the server names what it was not told of.
            ConfigError: It is not what was written, and is gone now: the next restore fetches the rows.
        """
        catalog = self._open.get(digest)
        if catalog is None:
            raise RemoteProtocolError("The server says we have a catalog that we do not have")
        problem = "its rows are not those that were written"
        try:
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
        for catalog in self._open.values():
            catalog.close()
        self._open.clear()
