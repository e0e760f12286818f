"""Directory descriptors by entry id: how anything in a tree/ is reached.

Every open goes component by component through descriptors with O_NOFOLLOW, so that no name a client chose can
lead outside, and no path is too long. Descriptors follow their directory when it is renamed, so
only names, which the catalog knows, ever go out of date.
"""

import collections
import os

from ssfs.errors import CorruptStore
from ssfs.fsio.disk import open_directory
from ssfs.model.entry import ROOT_ID, Entry
from ssfs.store.catalog.reader import CatalogReader
from ssfs.store.catalog.schema import PARKED

_OPEN_DIRECTORIES = 128


class Tree:
    """The directories of one tree, found by entry id; holds at most 128 descriptors open."""

    def __init__(self, catalog: CatalogReader, root_fd: int, parked_fd: int | None = None) -> None:
        """Take over `root_fd` and `parked_fd`: `close` closes them."""
        self._catalog = catalog
        self._roots = {ROOT_ID: root_fd}
        if parked_fd is not None:
            self._roots[PARKED] = parked_fd
        self._open: collections.OrderedDict[int, int] = collections.OrderedDict()

    def add_root(self, entry_id: int, fd: int) -> None:
        """Find this directory, and what is below it, at a descriptor, which is taken over."""
        if entry_id in self._roots:
            os.close(self._roots[entry_id])
        self._roots[entry_id] = fd

    def directory(self, entry_id: int) -> int:
        """A descriptor of the directory; valid until the next call.

        Raises:
            CorruptStore: The catalog has no such directory.
            OSError: The tree has none.
        """
        fd = self._cached(entry_id)
        if fd is not None:
            return fd
        missing: list[Entry] = []
        while fd is None:
            entry = self._catalog.entry(entry_id)
            if entry is None:
                raise CorruptStore(f"Catalog has no directory {entry_id}", path=self._catalog.path)
            missing.append(entry)
            entry_id = entry.parent
            fd = self._cached(entry_id)
        for entry in reversed(missing):
            fd = open_directory(entry.name, dir_fd=fd)
            self.remember(entry.id, fd)
        return fd

    def _cached(self, entry_id: int) -> int | None:
        fd = self._roots.get(entry_id)
        if fd is None and (fd := self._open.get(entry_id)) is not None:
            self._open.move_to_end(entry_id)
        return fd

    def remember(self, entry_id: int, fd: int) -> None:
        """Take over a descriptor of a directory that was just opened."""
        self._open[entry_id] = fd
        if len(self._open) > _OPEN_DIRECTORIES:
            _, oldest = self._open.popitem(last=False)
            os.close(oldest)

    def forget(self) -> None:
        """Close all but the roots: directories are about to be deleted."""
        for fd in self._open.values():
            os.close(fd)
        self._open.clear()

    def close(self) -> None:
        """Close everything."""
        self.forget()
        for fd in self._roots.values():
            os.close(fd)
        self._roots.clear()
