"""A large file on its way from a server: raw pieces and deltas in, a copy out."""

import contextlib
from collections.abc import Iterator

from ssfs.delta.basis import Basis
from ssfs.delta.errors import DeltaError
from ssfs.delta.patch import apply_delta
from ssfs.engine.restore.contents import Copy
from ssfs.errors import RemoteProtocolError
from ssfs.model.entry import Entry
from ssfs.protocol.messages import FileDelta, FileRaw, Message
from ssfs.store.incoming import SEGMENT_BYTES

_MAX_DELTA_BYTES = SEGMENT_BYTES + (1 << 20)


class Stream:
    """A large file on its way in.

    Once it cannot become right any more the rest passes by.

    Attributes:
        had_deltas: Whether any of it was made from the basis.
    """

    def __init__(self, entry: Entry, copy: Copy, basis: Basis | None) -> None:
        self.had_deltas = False
        self._entry = entry
        self._copy = copy
        self._basis = basis
        self._delta = bytearray()
        self._is_spoilt = False

    def hear(self, message: Message) -> None:
        """The next piece.

        Raises:
            RemoteProtocolError: It cannot be one of this file.
        """
        match message:
            case FileRaw(content) if not self._delta:
                self._write(content)
            case FileDelta(last, content) if self._basis is not None:
                self.had_deltas = True
                self._delta += content
                if len(self._delta) > _MAX_DELTA_BYTES:
                    raise RemoteProtocolError("A delta longer than its segment")
                if last:
                    self._patch(self._basis, bytes(self._delta))
                    self._delta.clear()
            case _:
                raise stray(self._entry.id)

    def _write(self, content: bytes | memoryview) -> None:
        if self._is_spoilt:
            return
        if self._copy.size + len(content) > self._copy.layout.data_bytes:
            raise too_much(self._entry.id)
        with self._noting_failures():
            self._copy.write(content)

    def _patch(self, basis: Basis, delta: bytes) -> None:
        if self._is_spoilt:
            return
        limit = min(SEGMENT_BYTES, self._copy.layout.data_bytes - self._copy.size)
        with self._noting_failures():
            apply_delta(basis, delta, self._copy.write, limit=limit)

    @contextlib.contextmanager
    def _noting_failures(self) -> Iterator[None]:
        """Whatever fails ends this file, not the restore."""
        try:
            yield
        except (DeltaError, OSError):
            # Without a failure of the copy it is the basis: unreadable, or another than was signed.
            self._is_spoilt = True

    def is_right(self) -> bool:
        """Whether what came is the file."""
        return not (self._is_spoilt or self._delta) and self._copy.is_of(self._entry)


def stray(entry_id: int) -> RemoteProtocolError:
    """The error of a server that answers another request, or none."""
    return RemoteProtocolError(f"The server sent what was not asked for, at entry {entry_id}")


def too_much(entry_id: int) -> RemoteProtocolError:
    """The error of a server that sends more than a row says."""
    return RemoteProtocolError(f"The server sent more of entry {entry_id} than there is")
