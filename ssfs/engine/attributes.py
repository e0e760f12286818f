"""The extended attributes of what a walk finds: read, sent once for each distinct set, named in the row."""

import os
from collections.abc import Callable

from ssfs.engine.outgoing import Outgoing
from ssfs.model.entry import Entry
from ssfs.model.xattrs import MAX_SET_BYTES
from ssfs.source.xattrs import path_of, read_xattrs


class Attributes:
    """Reads the attributes of one entry at a time."""

    def __init__(self, outgoing: Outgoing, report: Callable[[bytes, str], None]) -> None:
        self._outgoing = outgoing
        self._report = report

    def of_open(self, fd: int, known: Entry | None, path: bytes) -> bytes:
        """The key of an open file's or directory's attributes, which the server knows from now on.

        Args:
            fd: What it is.
            known: What is recorded of it: its attributes stay where they cannot be read now.
            path: Its path, for messages.
        """
        return self._read(fd, known, path)

    def of_name(self, name: bytes, dir_fd: int, known: Entry | None, path: bytes) -> bytes:
        """Likewise, of what has a name in an open directory; a symlink's are its own."""
        return self._read(path_of(name, dir_fd), known, path)

    def _read(self, target: int | bytes, known: Entry | None, path: bytes) -> bytes:
        try:
            encoded = read_xattrs(target)
        except FileNotFoundError:
            return b""  # it has vanished, which is found out elsewhere
        except OSError as error:
            reason = (error.strerror or os.strerror(error.errno or 0)).lower()
            self._report(path, f"its extended attributes cannot be read: {reason}")
            return known.xattrs if known is not None else b""
        if len(encoded) > MAX_SET_BYTES:
            self._report(path, f"its extended attributes are not kept: {len(encoded):,} bytes")
            return b""
        return self._outgoing.xattrs(encoded) if encoded else b""
