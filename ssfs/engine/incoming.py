"""What a receiver hears: each message of a transfer becomes calls of `ssfs.store.staging`.

The counterpart of `ssfs.engine.outgoing`. The order of messages is checked already (`ssfs.protocol.states`); what they may name is checked by staging
and its catalog.
"""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ssfs.delta.signature import signature
from ssfs.engine.rows import send_catalog
from ssfs.errors import ConnectionLost, RemoteProtocolError
from ssfs.model.layout import Layout
from ssfs.net.channel import Channel
from ssfs.protocol.messages import (
    Change,
    Changes,
    Checkpoint,
    CheckpointDone,
    FetchCatalog,
    FileAbort,
    FileBegin,
    FileDelta,
    FileEnd,
    FileRaw,
    Finish,
    Keep,
    Link,
    Make,
    Message,
    Name,
    Need,
    NoSignature,
    Refusal,
    Refused,
    Remove,
    SignaturePart,
    Store,
    WantSignature,
    Xattrs,
)
from ssfs.store.partials import Origin
from ssfs.store.staging import Staging

if TYPE_CHECKING:
    from ssfs.store.incoming import IncomingFile

_MAX_NEED_IDS = 50_000


class Incoming:
    """The receiving half of a server's session."""

    def __init__(self, channel: Channel, staging: Staging) -> None:
        self._channel = channel
        self._staging = staging
        self._file: IncomingFile | None = None

    def receive(self, messages: Iterator[Message]) -> Finish:
        """Apply what the client sends until both ends agree that the version is complete.

        Raises:
            ConnectionLost: The client went away.
            RemoteProtocolError: It broke the rules, or its catalog is another one.
        """
        try:
            for message in messages:
                if isinstance(message, Finish):
                    if self._is_complete(message):
                        return message
                elif isinstance(message, FileBegin | FileRaw | FileDelta | FileEnd | FileAbort):
                    self._hear_file(message)
                else:
                    self._hear(message)
                self._staging.checkpoint_if_full()
        finally:
            if self._file is not None:
                self._file.close()
        raise ConnectionLost("The client left")

    def _hear(self, message: Message) -> None:
        match message:
            case Changes(changes):
                for change in changes:
                    self._apply(change)
            case WantSignature(basis):
                self._send_signature(basis)
            case Checkpoint(number):
                self._staging.checkpoint()
                self._channel.send(CheckpointDone(number))
            case FetchCatalog():
                send_catalog(self._channel, self._staging.catalog)
            case _:
                raise RemoteProtocolError(f"The client sent a stray {type(message).__name__}")

    def _apply(self, change: Change) -> None:
        match change:
            case Keep(entry):
                self._staging.keep(entry)
            case Make(entry):
                self._staging.make(entry)
            case Store(entry, content):
                self._staging.store(entry, content)
            case Link(entry, source):
                self._staging.link(entry, source)
            case Remove(entry_id):
                self._staging.remove(entry_id)
            case Name(principal):
                self._staging.name(principal)
            case Xattrs(key, encoded):
                self._staging.put_xattrs(key, encoded)

    def _hear_file(self, message: FileBegin | FileRaw | FileDelta | FileEnd | FileAbort) -> None:
        if isinstance(message, FileBegin):
            origin = Origin(message.dev, message.ino)
            layout = Layout(0)
            if message.holes:
                try:
                    layout = Layout.of(message.size, message.holes)
                except ValueError as error:
                    raise RemoteProtocolError(f"A file with impossible holes ({error})") from error
            self._file = self._staging.begin_file(message.id, message.basis, origin, layout)
            return
        file = self._file
        if file is None:
            raise RemoteProtocolError("Content of no file")
        match message:
            case FileRaw(content):
                file.write(content)
            case FileDelta(last, content):
                file.patch(content, last=last)
            case FileEnd(entry):
                self._file = None
                self._staging.finish_file(file, entry)
            case FileAbort():
                self._file = None
                self._staging.abandon_file(file)

    def _send_signature(self, number: int) -> None:
        basis = self._staging.open_basis(number)
        if basis is None:
            self._channel.send(NoSignature(number))
            return
        with (
            basis,
            contextlib.closing(signature(basis.for_signature(), basis.size_bytes)) as pieces,
        ):
            try:
                # One behind, as only the last piece is marked.
                held = next(pieces, b"")
                for piece in pieces:
                    self._channel.send(SignaturePart(number, last=False, content=held))
                    held = piece
                self._channel.send(SignaturePart(number, last=True, content=held))
            except OSError:
                # A bad spot of the disk: without the basis the file is sent whole, and so healed.
                self._channel.send(NoSignature(number))

    def _is_complete(self, finish: Finish) -> bool:
        """Whether nothing is missing; else the client has been told what."""
        if wanted := self._staging.wanted():
            self._channel.send(Need(wanted[:_MAX_NEED_IDS]))
            return False
        if finish.catalog_digest != self._staging.catalog.logical_digest():
            problem = "Client and server disagree about the version"
            self._channel.send(Refused(Refusal.CATALOG_DIFFERS, problem, b"", ""))
            raise RemoteProtocolError("The client's catalog is another one")
        return True
