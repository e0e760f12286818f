"""Rows of a catalog over a channel, in frames that neither end can be hurt by.

The sender closes a frame by count and by size, since names and link targets are a client's choice. The receiver
believes nothing: what a frame unpacks to is bounded before it is unpacked, and rows must come depth first, so
that each one's directory is among those seen last; a row without a directory or a directory inside itself
cannot be said that way.
"""

from collections.abc import Callable, Iterable

import msgspec
import zstandard

from ssfs.errors import CorruptStore, RemoteProtocolError
from ssfs.model.entry import ROOT_ID, Entry, Kind, Principal
from ssfs.net.channel import Channel
from ssfs.protocol.codec import encode_control
from ssfs.protocol.messages import (
    MAX_PAYLOAD_BYTES,
    CatalogBatch,
    CatalogEnd,
    CatalogRows,
    Message,
)
from ssfs.store.catalog.writer import CatalogWriter

_ROWS_PER_FRAME = 2000
_FRAME_BYTES = 512 << 10
_ROW_BYTES = 100
_MAX_BATCH_BYTES = 4 << 20
"""What a frame may unpack to."""


def send_rows(channel: Channel, principals: list[Principal], entries: Iterable[Entry]) -> None:
    """Send rows, some thousand to a frame, and the end of them."""
    sender = _RowSender(channel)
    for principal in principals:
        sender.add(principal, len(principal.name))
    for entry in entries:
        sender.add(
            entry, len(entry.name) + len(entry.target) + len(entry.xattrs) + len(entry.holes)
        )
    sender.flush()
    channel.send(CatalogEnd())


class _RowSender:
    """Collects rows into frames."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._compressor = zstandard.ZstdCompressor(level=3)
        self._entries: list[Entry] = []
        self._principals: list[Principal] = []
        self._size = 0

    def add(self, row: Entry | Principal, size: int) -> None:
        if self._size + size > _FRAME_BYTES:
            self.flush()
        if isinstance(row, Entry):
            self._entries.append(row)
        else:
            self._principals.append(row)
        self._size += size + _ROW_BYTES
        if len(self._entries) + len(self._principals) >= _ROWS_PER_FRAME:
            self.flush()

    def flush(self) -> None:
        if not self._entries and not self._principals:
            return
        batch = encode_control(CatalogBatch(self._entries, self._principals))
        compressed = self._compressor.compress(batch)
        if len(compressed) > MAX_PAYLOAD_BYTES - 16:
            raise CorruptStore(f"The row of entry {self._entries[0].id} is too long to be sent")
        self._channel.send(CatalogRows(compressed))
        self._entries, self._principals, self._size = [], [], 0


def receive_rows(hear: Callable[[], Message], catalog: CatalogWriter) -> None:
    """Put the rows that come into an empty catalog, until the end of them.

    Args:
        hear: The next message; raises what the server refuses with.
        catalog: Gets them.

    Raises:
        RemoteProtocolError: They are none of one version, or do not come depth first.
    """
    decoder = msgspec.msgpack.Decoder(CatalogBatch)
    order = _DepthFirst()
    while isinstance(message := hear(), CatalogRows):
        try:
            batch = decoder.decode(_unpack(message.compressed))
        except (zstandard.ZstdError, msgspec.DecodeError) as error:
            raise RemoteProtocolError("The server sent damaged catalog rows") from error
        for entry in batch.entries:
            order.check(entry)
        catalog.load(batch.entries, batch.principals)
    if not isinstance(message, CatalogEnd):
        raise RemoteProtocolError(f"The server sent {type(message).__name__} among catalog rows")
    if order.is_empty:
        raise RemoteProtocolError("The server sent no row")


def _unpack(compressed: bytes) -> bytes:
    # zstandard's own limit is for frames that do not say their size: one that does is believed.
    size = zstandard.frame_content_size(compressed)
    if not 0 <= size <= _MAX_BATCH_BYTES:
        raise RemoteProtocolError(f"The server sent catalog rows that unpack to {size} bytes")
    return zstandard.ZstdDecompressor().decompress(compressed)


class _DepthFirst:
    """The order of rows: each is in the directory before it, or in one of those above that."""

    def __init__(self) -> None:
        self._above: list[int] = []
        self.is_empty = True

    def check(self, entry: Entry) -> None:
        if self.is_empty != (entry.id == ROOT_ID):
            raise RemoteProtocolError("The first row must be the root's, and no other")
        while not self.is_empty and (not self._above or self._above[-1] != entry.parent):
            if not self._above:
                raise RemoteProtocolError(f"Entry {entry.id} does not follow its directory")
            self._above.pop()
        self.is_empty = False
        if entry.kind == Kind.DIRECTORY:
            self._above.append(entry.id)
