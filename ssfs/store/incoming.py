"""A large file on its way in: raw pieces and deltas in, digest out.

It lies in `incoming/` until it is complete, so a half-received file is never in the tree.
"""

import contextlib
import os

import blake3

from ssfs.delta.patch import apply_delta
from ssfs.errors import RemoteProtocolError
from ssfs.fsio.disk import write_all

SEGMENT_BYTES = 24 << 20
"""A delta makes at most this much of the new file (PROTOCOL.md, step 5)."""
_MAX_DELTA_BYTES = SEGMENT_BYTES + (1 << 20)


class IncomingFile:
    """A file being received; `close` (or `with`) releases its descriptors.

    Attributes:
        entry_id: Whose content it is.
        fd: Its descriptor.
        size: Bytes so far.
    """

    def __init__(self, entry_id: int, directory: int, basis: int | None) -> None:
        """Make the file in `directory`; takes over `basis`."""
        self.entry_id = entry_id
        self._basis = basis
        self._delta = bytearray()
        self._hasher = blake3.blake3()
        self.size = 0
        name = b"%d" % entry_id
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=directory)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self.fd = os.open(name, flags, 0o400, dir_fd=directory)

    def write(self, content: bytes | memoryview) -> None:
        """The next bytes."""
        if self._delta:
            raise RemoteProtocolError("Raw content inside a delta")
        self._write(content)

    def _write(self, content: bytes | memoryview) -> None:
        self._hasher.update(content)
        write_all(self.fd, content)
        self.size += len(content)

    def patch(self, delta: bytes | memoryview, *, last: bool) -> None:
        """The next piece of a segment's delta; the last one applies it."""
        if self._basis is None:
            raise RemoteProtocolError("A delta for a file without a basis")
        self._delta += delta
        if len(self._delta) > _MAX_DELTA_BYTES:
            raise RemoteProtocolError("A delta longer than its segment")
        if last:
            apply_delta(self._basis, bytes(self._delta), self._write, limit=SEGMENT_BYTES)
            self._delta.clear()

    def digest(self) -> bytes:
        """BLAKE3 of what was received."""
        return self._hasher.digest()

    def close(self) -> None:
        """Release the descriptors."""
        for fd in (self.fd, self._basis):
            if fd is not None and fd >= 0:
                os.close(fd)
        self.fd, self._basis = -1, None

    def __enter__(self) -> "IncomingFile":
        """Use as a context manager."""
        return self

    def __exit__(self, *_: object) -> None:
        """Release the descriptors."""
        self.close()
