"""Listings of directories inside a version, from the catalog's rows to the kernel's bytes in one go.

It says the same as `ssfs.mount.attributes.entry_attributes` followed by `ssfs.mount.wire.encode_listing`; a test holds them
against each other. A `find` asks for this by the hundred thousand, and one object per entry in between made
it take twice as long.
"""

import struct
from collections.abc import Callable, Iterable

from ssfs.model.entry import FORMAT_OF_KIND, MAX_ENTRY_ID, Kind
from ssfs.model.layout import data_bytes
from ssfs.mount.attributes import DIRECTORY_BYTES, VERSION_TIMEOUT_S
from ssfs.store.catalog.reader import ListedRow

# As wire.encode_listing; "32s" is generation and timeouts, "8s" block size and flags: the same in all lines.
_LINE = struct.Struct("=Q32sQQQqqqIIIIIIII8sQQII")
_SAME = struct.Struct("=QQQII")
_BLOCK = struct.pack("=II", 4096, 0)
_PADDING = tuple(bytes(-length & 7) for length in range(8))
_DIRECTORY, _SYMLINK = int(Kind.DIRECTORY), int(Kind.SYMLINK)
_U32 = 0xFFFF_FFFF


class ListingEncoder:
    """Encodes the rows of one binding's directories."""

    def __init__(
        self,
        binding: int,
        generation: int,
        hard_links: Callable[[int], tuple[int, int] | None],
        local: Callable[[int, int], tuple[int, int]],
    ) -> None:
        """Be ready.

        Args:
            binding: Its number.
            generation: Of all inode numbers of the mount.
            hard_links: The smallest entry id of a link group, and its number of names.
            local: This machine's numbers of a user and a group of the source.
        """
        self._above = binding * MAX_ENTRY_ID
        whole_s = int(VERSION_TIMEOUT_S)
        self._same = _SAME.pack(generation, whole_s, whole_s, 0, 0)
        self._hard_links = hard_links
        self._local = local
        self._owners: dict[tuple[int, int], tuple[int, int]] = {}

    def encode(self, rows: Iterable[ListedRow], size: int) -> tuple[bytes, int]:
        """As many lines as there is room for in `size` bytes.

        Returns:
            The lines, and how much room is left; a negative number if a row was left out.
        """
        pack, fixed, above, same = _LINE.pack, _LINE.size, self._above, self._same
        pieces = []
        for row in rows:
            entry_id, name, kind, mode, uid, gid, seconds, ns, length = row[:9]
            group, rdev, holes, target_length = row[9:]
            name_length = len(name)
            size -= (fixed + name_length + 7) & ~7
            if size < 0:
                break
            inode, nlink = above | entry_id, 1
            if group and (links := self._hard_links(group)) is not None:
                inode, nlink = above | links[0], links[1]
            if kind == _DIRECTORY:
                length = DIRECTORY_BYTES
            elif kind == _SYMLINK:
                length = target_length
            stored = data_bytes(length, holes) if holes else length
            owner = self._owners.get((uid, gid))
            if owner is None:
                owner = self._owners[uid, gid] = self._local(uid, gid)
            mode |= FORMAT_OF_KIND[kind]
            line = pack(
                inode,
                same,
                inode,
                length,
                (stored + 511) >> 9,
                seconds,
                seconds,
                seconds,
                ns,
                ns,
                ns,
                mode,
                nlink,
                owner[0],
                owner[1],
                rdev & _U32,
                _BLOCK,
                inode,
                entry_id,
                name_length,
                mode >> 12,
            )
            pieces.append(line + name + _PADDING[name_length & 7])
        return b"".join(pieces), size
