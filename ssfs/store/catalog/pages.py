"""Which rows of two catalogs can differ, found by comparing the pages of their files.

A catalog begins as a copy of its base's, so most of its pages are those of the base, byte by byte. The rows of `entry`
lie in the leaves of a b-tree, and the pages above say which those are (https://www.sqlite.org/fileformat.html, "B-tree
Pages"). A leaf that both catalogs have under one page number, with the same bytes, has the same rows in both; of the
others the cells are compared. Nothing of a row is decoded but its id, and no row of an equal page is looked at.

The end of a very long row lies on pages of its own. Up to its digest each row is in the leaf, whatever its length; the
columns behind that are the same where the digest is, but for `content`: hence `Changes.may_be_longer`.
"""

import bisect
import itertools
import os
import struct
from array import array
from collections.abc import Iterator
from types import TracebackType
from typing import NamedTuple, Self

from ssfs.errors import CorruptStore
from ssfs.store.catalog.reader import CatalogReader

_MAGIC = b"SQLite format 3\0"
_HEADER = struct.Struct(">16sHBBB")
"""Magic, page size, two versions, bytes reserved at the end of each page."""

_LEAST_PAGE_BYTES = 512
_AT_ONCE = 1 << 20
_INTERIOR, _LEAF = 5, 13
_LEAF_HEADER_BYTES, _INTERIOR_HEADER_BYTES = 8, 12
_NOT_OF_LONG_ROWS = frozenset((b"\x02", b"\x05", b"\x0a", b"\x0d", b""))
"""First bytes of pages of b-trees. Another page begins with the number of a page: up to 128 GiB with 0 or 1."""

_MOST_LEVELS = 20
_VARINT_BYTES = 9


class Changes(NamedTuple):
    """What may differ between two catalogs.

    Attributes:
        ids: Of the rows that one has and the other has not so, and of some more; ascending.
        may_be_longer: Rows of `CatalogReader.long_ids` may differ too, behind their digest.
    """

    ids: "array[int]"
    may_be_longer: bool


class Pages:
    """The file of a catalog that nobody changes any more, as pages.

    It stays readable when the version is deleted. Close it when done.

    Attributes:
        path: The catalog.
        page_bytes: Length of a page.
        leaves: Numbers of the pages that hold the rows of `entry`.
    """

    def __init__(self, catalog: CatalogReader) -> None:
        """Open it.

        Raises:
            CorruptStore: It is no file of SQLite, or cannot be read.
        """
        self.path = catalog.path
        root = catalog.root_page()
        try:
            self._fd = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise self._unreadable(error) from error
        try:
            self.page_bytes = self._read_page_bytes()
            self.leaves = frozenset(self._find_leaves(root))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close it."""
        os.close(self._fd)

    def _corrupt(self) -> CorruptStore:
        return CorruptStore("Catalog's pages are damaged", path=self.path)

    def _read_page_bytes(self) -> int:
        header = self.read(_HEADER.size, 0)
        if len(header) == _HEADER.size:
            magic, size, _, _, reserved = _HEADER.unpack(header)
            page_bytes = 65536 if size == 1 else int(size)
            if magic == _MAGIC and not reserved and page_bytes >= _LEAST_PAGE_BYTES:
                return page_bytes
        raise self._corrupt()

    def _unreadable(self, error: OSError) -> CorruptStore:
        return CorruptStore(f"Catalog cannot be read ({error.strerror})", path=self.path)

    def read(self, count: int, offset: int) -> bytes:
        """Bytes of the file; fewer at its end."""
        try:
            return os.pread(self._fd, count, offset)
        except OSError as error:
            raise self._unreadable(error) from error

    def page(self, number: int) -> bytes:
        """A page of a tree, by number."""
        page = self.read(self.page_bytes, (number - 1) * self.page_bytes) if number > 1 else b""
        if len(page) < self.page_bytes:
            raise self._corrupt()
        return page

    def _find_leaves(self, root: int) -> list[int]:
        """The leaves of the b-tree with this root; all of them are on one level."""
        level = [root]
        for _ in range(_MOST_LEVELS):
            if self.page(level[0])[0] == _LEAF:
                return level
            level = [child for number in level for child in self._children(self.page(number))]
        raise self._corrupt()

    def _children(self, page: bytes) -> Iterator[int]:
        if page[0] != _INTERIOR:
            raise self._corrupt()
        for start in self._starts(page, _INTERIOR_HEADER_BYTES):
            yield int.from_bytes(page[start : start + 4], "big")
        yield int.from_bytes(page[8:12], "big")

    def _starts(self, page: bytes, header_bytes: int) -> tuple[int, ...]:
        """Where the cells of a page begin."""
        count = int.from_bytes(page[3:5], "big")
        try:
            return struct.unpack_from(f">{count}H", page, header_bytes)
        except struct.error:
            raise self._corrupt() from None

    def cells(self, page: bytes) -> set[bytes]:
        """The cells of a leaf, each perhaps with some bytes behind it that are unused."""
        if not page or page[0] != _LEAF:
            raise self._corrupt()
        starts = sorted(self._starts(page, _LEAF_HEADER_BYTES))
        return {page[start:end] for start, end in itertools.pairwise([*starts, len(page)])}

    def _changed_cells(self, page: bytes, newer: "Pages", other: bytes) -> set[bytes]:
        """The cells that only one of two leaves has, and perhaps some more."""
        starts = sorted(self._starts(page, _LEAF_HEADER_BYTES))
        begin = _LEAF_HEADER_BYTES + 2 * len(starts)
        if page[:begin] != other[:begin] or page[:1] != other[:1] or len(page) != len(other):
            return self.cells(page) ^ newer.cells(other)
        # All begin where they did, as when times change: those at the first to the last byte that differs are enough.
        differ = int.from_bytes(page, "little") ^ int.from_bytes(other, "little")
        first = bisect.bisect(starts, ((differ & -differ).bit_length() - 1) // 8)
        last = bisect.bisect(starts, (differ.bit_length() - 1) // 8)
        ends = [*starts[max(0, first - 1) : last + 1], len(page)]
        return {
            cell
            for start, end in itertools.pairwise(ends)
            if page[start:end] != other[start:end]
            for cell in (page[start:end], other[start:end])
        }

    def changes(self, newer: "Pages", limit: int) -> Changes | None:
        """In which rows this catalog and another one can differ.

        Args:
            newer: The other one; the order does not matter.
            limit: Most ids.

        Returns:
            None if there are more, or their pages cannot be compared.

        Raises:
            CorruptStore: Pages of one of them make no sense, or cannot be read.
        """
        if self.page_bytes != newer.page_bytes:
            return None
        ids: set[int] = set()
        may_be_longer = False
        for cells in self._all_changed_cells(newer):
            if cells is None:
                may_be_longer = True
                continue
            ids.update(map(_cell_id, cells))
            if len(ids) > limit:
                return None
        return Changes(array("q", sorted(ids)), may_be_longer)

    def _all_changed_cells(self, newer: "Pages") -> Iterator[set[bytes] | None]:
        """The cells of leaves that differ, page by page; None for a page that may belong to long rows."""
        both = self.leaves & newer.leaves
        for number, own, other in self._differing(newer):
            if number in both:
                yield self._changed_cells(own, newer, other)
            elif number > 1 and not {own[:1], other[:1]} <= _NOT_OF_LONG_ROWS:
                yield None
        # A page may be a leaf of the one only, and yet have the same bytes in both.
        for pages in (self, newer):
            for number in pages.leaves - both:
                yield pages.cells(pages.page(number))

    def _differing(self, other: "Pages") -> Iterator[tuple[int, bytes, bytes]]:
        """The number of each page that differs, and what both have there; b"" where a file has ended."""
        size = self.page_bytes
        for first in itertools.count(1, _AT_ONCE // size):
            here = self.read(_AT_ONCE, (first - 1) * size)
            there = other.read(_AT_ONCE, (first - 1) * size)
            if here == there:
                if not here:
                    return
                continue
            for start in range(0, max(len(here), len(there)), size):
                one, two = here[start : start + size], there[start : start + size]
                if one != two:
                    yield first + start // size, one, two


def _cell_id(cell: bytes) -> int:
    """The id of the row in a leaf's cell: behind the length of the row, as a varint like that."""
    at = 0
    while at < _VARINT_BYTES and cell[at : at + 1] > b"\x7f":
        at += 1
    number = 0
    for more, byte in enumerate(cell[at + 1 : at + 1 + _VARINT_BYTES], 1):
        if more == _VARINT_BYTES:
            number = number << 8 | byte
            break
        number = number << 7 | byte & 0x7F
        if byte < 0x80:
            break
    return number if number < 1 << 63 else number - (1 << 64)
