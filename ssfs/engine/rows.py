"""Rows of a catalog over a channel, in frames that neither end can be hurt by.

The sender closes a frame by count and by size, since names and link targets are a client's choice. The receiver
believes nothing: what a frame unpacks to is bounded before it is unpacked.
"""

from collections.abc import Callable, Iterable, Iterator

import msgspec
import zstandard

from ssfs.errors import CorruptStore, RemoteProtocolError
from ssfs.model.entry import Entry, Principal
from ssfs.net.channel import Channel
from ssfs.protocol.codec import encode_control
from ssfs.protocol.messages import MAX_PAYLOAD_BYTES, CatalogBatch, CatalogEnd, CatalogRows, Message
from ssfs.store.catalog.reader import CatalogReader

_ROWS_PER_FRAME = 2000
_FRAME_BYTES = 512 << 10
_ROW_BYTES = 100
_MAX_BATCH_BYTES = 4 << 20
"""What a frame may unpack to."""

_decoder = msgspec.msgpack.Decoder(CatalogBatch)


def send_catalog(channel: Channel, catalog: CatalogReader) -> None:
    """Send all rows of a catalog, some thousand to a frame, and the end of them.

    All that its logical digest counts, so also sets of extended attributes that no entry has: those of a
    file whose content was under way when a run was cut.
    """
    sender = RowSender(channel)
    sender.add_principals(catalog)
    for key, encoded in catalog.xattr_sets():
        sender.add_xattrs(key, encoded)
    for entry in catalog.entries():
        sender.add_entry(entry)
    sender.end()


def send_rows(channel: Channel, catalog: CatalogReader, entries: Iterable[Entry]) -> None:
    """Send some entries of a catalog, some thousand to a frame, and the end of them.

    With them go all its principals and those sets of extended attributes that the entries have.
    """
    sender = RowSender(channel)
    sender.add_principals(catalog)
    sent_sets: set[bytes] = set()
    for entry in entries:
        if entry.xattrs and entry.xattrs not in sent_sets:
            sent_sets.add(entry.xattrs)
            sender.add_xattrs(entry.xattrs, catalog.xattr_set(entry.xattrs))
        sender.add_entry(entry)
    sender.end()


class RowSender:
    """Collects rows into frames."""

    def __init__(self, channel: Channel) -> None:
        """Send to `channel`, which is not used for anything else meanwhile but after `flush`."""
        self._channel = channel
        self._compressor = zstandard.ZstdCompressor(level=3)
        self._entries: list[Entry] = []
        self._principals: list[Principal] = []
        self._xattr_sets: list[tuple[bytes, bytes]] = []
        self._size = 0

    def add_principals(self, catalog: CatalogReader) -> None:
        """All that the source called its users and groups."""
        for principal in catalog.principals():
            self._add(principal, len(principal.name))

    def add_entry(self, entry: Entry) -> None:
        """A row."""
        size = len(entry.name) + len(entry.target) + len(entry.xattrs) + len(entry.holes)
        self._add(entry, size)

    def _add(self, row: Entry | Principal, size: int) -> None:
        if self._size + size > _FRAME_BYTES:
            self.flush()
        if isinstance(row, Entry):
            self._entries.append(row)
        else:
            self._principals.append(row)
        self._size += size + _ROW_BYTES
        if len(self._entries) + len(self._principals) >= _ROWS_PER_FRAME:
            self.flush()

    def add_xattrs(self, key: bytes, encoded: bytes) -> None:
        """A set of extended attributes, before the first row that names it."""
        if self._size + len(encoded) > _FRAME_BYTES:
            self.flush()
        self._xattr_sets.append((key, encoded))
        self._size += len(key) + len(encoded)

    def end(self) -> None:
        """Send what is left, and that it was all."""
        self.flush()
        self._channel.send(CatalogEnd())

    def flush(self) -> None:
        """Send what has been collected."""
        if not (self._entries or self._principals or self._xattr_sets):
            return
        batch = encode_control(CatalogBatch(self._entries, self._principals, self._xattr_sets))
        compressed = self._compressor.compress(batch)
        if len(compressed) > MAX_PAYLOAD_BYTES - 16:
            first = self._entries[0].id if self._entries else 0
            raise CorruptStore(f"The row of entry {first} is too long to be sent")
        self._channel.send(CatalogRows(compressed))
        self._entries, self._principals, self._xattr_sets, self._size = [], [], [], 0


def received_rows(hear: Callable[[], Message]) -> Iterator[CatalogBatch]:
    """The rows that come, frame by frame, until the end of them.

    Args:
        hear: The next message; raises what the server refuses with.

    Raises:
        RemoteProtocolError: Something else comes, or a frame that is damaged or expands too far.
    """
    while isinstance(message := hear(), CatalogRows):
        yield decode_rows(message)
    if not isinstance(message, CatalogEnd):
        raise RemoteProtocolError(f"The server sent {type(message).__name__} among catalog rows")


def decode_rows(message: CatalogRows) -> CatalogBatch:
    """The rows in a frame.

    Raises:
        RemoteProtocolError: It is damaged, or expands too far.
    """
    try:
        # zstandard's own limit is for frames that do not say their size: one that does is believed.
        size = zstandard.frame_content_size(message.compressed)
        if not 0 <= size <= _MAX_BATCH_BYTES:
            raise RemoteProtocolError(f"The server sent catalog rows that unpack to {size} bytes")
        return _decoder.decode(zstandard.ZstdDecompressor().decompress(message.compressed))
    except (zstandard.ZstdError, msgspec.DecodeError) as error:
        raise RemoteProtocolError("The server sent damaged catalog rows") from error
