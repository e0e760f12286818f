"""Paths of a catalog's entries, from their directories' ids; recently used directories are remembered."""

from ssfs.errors import CorruptStore
from ssfs.model.entry import ROOT_ID
from ssfs.store.catalog.reader import CatalogReader

_MOST_REMEMBERED = 50_000


class Paths:
    """The paths in one catalog."""

    def __init__(self, catalog: CatalogReader) -> None:
        self._catalog = catalog
        self._directories: dict[int, bytes] = {}

    def directory(self, entry_id: int) -> bytes:
        """The path of a directory, b"" for the root.

        Raises:
            CorruptStore: It, or one above it, is not there.
        """
        path = self._directories.get(entry_id)
        if path is None:
            path = self._looked_up(entry_id)
            if len(self._directories) >= _MOST_REMEMBERED:
                self._directories.clear()
            self._directories[entry_id] = path
        return path

    def _looked_up(self, entry_id: int) -> bytes:
        if entry_id == ROOT_ID:
            return b""
        names = self._catalog.path_names(entry_id)
        if names is None or not all(isinstance(name, bytes) for name in names):
            raise CorruptStore(f"Catalog has no directory {entry_id}", path=self._catalog.path)
        return b"/".join(names)

    def path(self, parent: int, name: bytes) -> bytes:
        """The path of the entry of this name in a directory; b"" for the root, which is in none."""
        above = self.directory(parent) if parent else b""
        return above + b"/" + name if above else name
