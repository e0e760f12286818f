"""A large file on its way in: raw pieces and deltas in, digest out.

It lies in `partials/` (`ssfs.store.partials`) until it is complete and longer, so a half-received file is never in the tree,
and never lost.
"""

import os
from typing import TYPE_CHECKING

from ssfs.delta.patch import apply_delta
from ssfs.errors import RemoteProtocolError
from ssfs.fsio.disk import start_write_back
from ssfs.fsio.sparse import write_at
from ssfs.fsio.uncached import write_uncached
from ssfs.model.entry import Entry
from ssfs.model.layout import ContentHasher, Layout
from ssfs.store.partials import Part

if TYPE_CHECKING:
    from ssfs.delta.basis import Basis

SEGMENT_BYTES = 24 << 20
"""A delta makes at most this much of the new file (PROTOCOL.md, step 5)."""
_MAX_DELTA_BYTES = SEGMENT_BYTES + (1 << 20)
_PLAIN = Layout(0)
_WRITE_BACK_BYTES = 8 << 20
"""Handed to the disk at a time, long before a checkpoint waits for it."""


class IncomingFile:
    """A file being received; `close` (or `with`) releases its descriptors.

    Attributes:
        entry_id: Whose content it is.
        part: The file it is made in.
        fd: Its descriptor.
        size: Bytes of its stream so far.
        layout: Where they belong, if it is sparse.
        basis: What deltas are against; `close` closes it.
    """

    def __init__(self, entry_id: int, part: Part, fd: int, layout: Layout = _PLAIN) -> None:
        """Write to `fd`, which is `part` and is taken over."""
        self.entry_id = entry_id
        self.part = part
        self.fd = fd
        self.size = 0
        self.layout = layout
        self.basis: Basis | None = None
        self._delta = bytearray()
        self._hasher = ContentHasher(layout)
        self._written_back = 0

    def write(self, content: bytes | memoryview) -> None:
        """The next bytes."""
        if self._delta:
            raise RemoteProtocolError("Raw content inside a delta")
        self._write(content)

    def _write(self, content: bytes | memoryview) -> None:
        self._hasher.update(content)
        if self.layout.is_sparse:
            if self.size + len(content) > self.layout.data_bytes:
                raise RemoteProtocolError("More content than the file has extents for")
            write_at(self.fd, self.layout, content, self.size)
            self.size += len(content)
            return
        write_uncached(self.fd, content, self.size)
        self.size += len(content)
        if self.size - self._written_back >= _WRITE_BACK_BYTES:
            start_write_back(self.fd, self._written_back, self.size - self._written_back)
            self._written_back = self.size

    def patch(self, delta: bytes | memoryview, *, last: bool) -> None:
        """The next piece of a segment's delta; the last one applies it."""
        if self.basis is None:
            raise RemoteProtocolError("A delta for a file without a basis")
        self._delta += delta
        if len(self._delta) > _MAX_DELTA_BYTES:
            raise RemoteProtocolError("A delta longer than its segment")
        if last:
            apply_delta(self.basis, self._delta, self._write, limit=SEGMENT_BYTES)
            self._delta.clear()

    def is_of(self, entry: Entry) -> bool:
        """Whether what was received is this entry's content; then the file is as long as it has to be."""
        layout = self.layout
        if (entry.holes, entry.digest) != (layout.holes, self._hasher.digest()):
            return False
        if not layout.is_sparse:
            return self.size == entry.size
        if (layout.size, layout.data_bytes) != (entry.size, self.size):
            return False
        os.ftruncate(self.fd, entry.size)
        return True

    def close(self) -> None:
        """Release the descriptors."""
        if self.fd >= 0:
            os.close(self.fd)
        if self.basis is not None:
            self.basis.close()
        self.fd, self.basis = -1, None

    def __enter__(self) -> "IncomingFile":
        """Use as a context manager."""
        return self

    def __exit__(self, *_: object) -> None:
        """Release the descriptors."""
        self.close()
