"""Paths of a catalog's entries, from their directories' ids; recently used directories are remembered."""

from ssfs.errors import CorruptStore
from ssfs.model.entry import ROOT_ID
from ssfs.store.catalog.reader import CatalogReader
from ssfs.store.catalog.rows import MAX_DEPTH

_MOST_REMEMBERED = 50_000


class Paths:
    """The paths in one catalog."""

    def __init__(self, catalog: CatalogReader) -> None:
        self._catalog = catalog
        self._directories: dict[int, bytes] = {}
        self._ids: dict[bytes, int] = {}

    def directory(self, entry_id: int) -> bytes:
        """The path of a directory, b"" for the root.

        Raises:
            CorruptStore: It, or one above it, is not there.
        """
        above: list[tuple[int, bytes]] = []
        path = b""
        while entry_id != ROOT_ID:
            known = self._directories.get(entry_id)
            if known is not None:
                path = known
                break
            parent, name = self._catalog.place(entry_id)
            above.append((entry_id, name))
            entry_id = parent
            if len(above) > MAX_DEPTH:
                raise CorruptStore("Catalog has a directory inside itself", path=self._catalog.path)
        for below, name in reversed(above):
            path = path + b"/" + name if path else name
            self._remember(below, path)
        return path

    def _remember(self, entry_id: int, path: bytes) -> None:
        if len(self._directories) >= _MOST_REMEMBERED:
            self._directories.clear()
        self._directories[entry_id] = path

    def path(self, parent: int, name: bytes) -> bytes:
        """The path of the entry of this name in a directory; b"" for the root, which is in none."""
        above = self.directory(parent) if parent else b""
        return above + b"/" + name if above else name

    def id_at(self, path: bytes) -> int:
        """The id of the entry at a path, 0 if there is none; quick where many are in one directory."""
        directory, _, name = path.rpartition(b"/")
        parent = self._directory_id(directory)
        return self._catalog.child_id(parent, name) if parent else 0

    def _directory_id(self, path: bytes) -> int:
        """The id at a directory's path, from the nearest one above it that is remembered."""
        known, names = path, []
        while known and known not in self._ids:
            known, _, name = known.rpartition(b"/")
            names.append(name)
        found = self._ids[known] if known else ROOT_ID
        for name in reversed(names):
            found = self._catalog.child_id(found, name) if found else 0
            known = known + b"/" + name if known else name
            if len(self._ids) >= _MOST_REMEMBERED:
                self._ids.clear()
            self._ids[known] = found
        return found
