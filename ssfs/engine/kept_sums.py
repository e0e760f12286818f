"""The sums of the blocks of large files, as this client remembers them between two runs (`ssfs.delta.blocks`).

They lie in the cache of the task, by the digest and the size of the content they are of. Losing them costs a signature; wrong ones
cost the file sent once more, as the server compares its digest. Nothing syncs them: each carries a check of its own.
"""

import contextlib
import os
import re

from ssfs.delta.blocks import BlockSums
from ssfs.fsio.disk import open_fd, rename, write_all
from ssfs.model.entry import Entry
from ssfs.store.catalog.reader import CatalogReader

MOST_BYTES = 256 << 20
"""Of all of a task; those used last stay."""

_NAME = re.compile(rb"([0-9a-f]{64})-([0-9]{1,18})\.sums")
_BESIDE = b"new-sums"


def is_sums(name: bytes) -> bool:
    """Whether a file of a cache is called as they are."""
    return _NAME.fullmatch(name) is not None


class KeptSums:
    """Those of one task."""

    def __init__(self, fd: int) -> None:
        """Use an open directory, which stays the caller's."""
        self._fd = fd

    def find(self, row: Entry) -> BlockSums | None:
        """The sums of the content of a file that has this row; None if there are none."""
        try:
            with open_fd(_name(row), os.O_RDONLY | os.O_NOFOLLOW, dir_fd=self._fd) as fd:
                content = os.pread(fd, os.fstat(fd).st_size, 0)
                os.utime(fd)
            return BlockSums.decode(content)
        except (OSError, ValueError):
            return None

    def keep(self, row: Entry, sums: BlockSums) -> None:
        """Remember them; where there is no room, say, they are forgotten."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        try:
            with open_fd(_BESIDE, flags, dir_fd=self._fd) as fd:
                write_all(fd, sums.encode())
            rename(_BESIDE, self._fd, _name(row), self._fd)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(_BESIDE, dir_fd=self._fd)

    def tidy(self, catalog: CatalogReader) -> None:
        """Forget those of content that this catalog does not have, and what is too much."""
        kept: list[tuple[int, int, bytes]] = []
        for name in map(os.fsencode, os.listdir(self._fd)):
            found = _NAME.fullmatch(name)
            if found is None:
                continue
            digest = bytes.fromhex(found[1].decode())
            if catalog.by_content(int(found[2]), digest) is not None:
                status = os.stat(name, dir_fd=self._fd)
                kept.append((status.st_mtime_ns, status.st_size, name))
            else:
                os.unlink(name, dir_fd=self._fd)
        room = MOST_BYTES
        for _, size, name in sorted(kept, reverse=True):
            room -= size
            if room < 0:
                os.unlink(name, dir_fd=self._fd)


def _name(row: Entry) -> bytes:
    return f"{row.digest.hex()}-{row.size}.sums".encode()
