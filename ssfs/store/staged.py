"""Which data files a staging has received, as its checkpoints recorded them (the table `staged`)."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ssfs.store.catalog.reader import CatalogReader
from ssfs.store.catalog.schema import STAGED_TABLE
from ssfs.store.catalog.writer import CatalogWriter

_LEAST_BASIS_BYTES = 4096
"""Nobody asks for the signature of less; a million small files are not worth remembering."""


class StagedFile(NamedTuple):
    """A data file received or linked in this staging, as the store's file system knows it."""

    id: int
    ino: int
    mtime_ns: int
    size: int


def staged_files(catalog: CatalogReader) -> Iterator[StagedFile]:
    """What a staging's catalog says was received; nothing where it has no such table.

    Raises:
        CorruptStore: It cannot be read.
    """
    has_table = "SELECT 1, 0, 0, 0 FROM sqlite_master WHERE name = 'staged'"
    if next(catalog.numbers(has_table), None) is not None:
        query = "SELECT id, ino, mtime_ns, size FROM staged"
        yield from map(StagedFile._make, catalog.numbers(query))


class StagedRows:
    """The table `staged` of a staging's catalog; part of its transactions."""

    def __init__(self, catalog: CatalogWriter) -> None:
        """Make the table unless it is there."""
        self._catalog = catalog
        catalog.run(STAGED_TABLE, [()])

    def find(self, entry_id: int) -> StagedFile | None:
        """What was recorded of an entry's file."""
        query = "SELECT id, ino, mtime_ns, size FROM staged WHERE id = ?"
        rows = self._catalog.query(query, (entry_id,))
        return StagedFile._make(rows[0]) if rows else None

    def ids(self) -> set[int]:
        """The entries whose file is large enough to be a basis for a delta."""
        query = "SELECT id FROM staged WHERE size >= ?"
        return {row[0] for row in self._catalog.query(query, (_LEAST_BASIS_BYTES,))}

    def add(self, files: Iterable[StagedFile]) -> None:
        """Record files, in place of what was recorded of the same entries."""
        self._catalog.run("INSERT OR REPLACE INTO staged VALUES (?, ?, ?, ?)", list(files))

    def drop(self) -> None:
        """Remove the table: the catalog is to be a version's."""
        self._catalog.run("DROP TABLE IF EXISTS staged", [()])
