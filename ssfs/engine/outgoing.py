"""What a sender says: changes by the batch, files, checkpoints; and the signatures it waits for.

Every change goes through here twice: into the client's own working catalog and onto the wire, so that
both ends apply the same changes in the same order. A dry run has no channel: everything but the
saying happens.
"""

import grp
import pwd
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ssfs.clock import Clock
from ssfs.delta.blocks import BlockSums
from ssfs.delta.coded import Delta, Raw
from ssfs.delta.signature import LoadedSignature
from ssfs.engine.coding import FileCoder, KnownBasis
from ssfs.engine.refusal import raise_refused
from ssfs.errors import InternalError, RemoteProtocolError
from ssfs.fsio.sparse import read_at
from ssfs.model.entry import GROUP, USER, Entry, Flag, Principal
from ssfs.model.layout import ContentHasher, Layout
from ssfs.model.xattrs import ACLS, acl_owners, decode_set, set_key
from ssfs.net.channel import Channel
from ssfs.protocol.messages import (
    CHANGES_TARGET_BYTES,
    MAX_BULK_BYTES,
    Change,
    Changes,
    Checkpoint,
    CheckpointDone,
    FileAbort,
    FileBegin,
    FileDelta,
    FileEnd,
    FileRaw,
    Keep,
    Link,
    Make,
    Message,
    Name,
    NoSignature,
    Partial,
    Refused,
    Remove,
    SignaturePart,
    Store,
    WantSignature,
    Xattrs,
    basis_parts,
)
from ssfs.store.catalog.writer import CatalogWriter

CHECKPOINT_BYTES = 48 << 20
"""A checkpoint is made when so much has been sent since the last one; later in a session, when it is
a twenty-fifth of all that has been sent: a run that is cut loses 4% at most, and there are few."""
_CHECKPOINT_PART = 25
CHECKPOINT_S = 30.0
CHECKPOINT_CHANGES = 50_000
_MAX_PARTIAL = 1 << 23
"""Its number and an entry id make a number of 63 bits."""
_ROW_BYTES = 150
_MAX_CHANGES = 2000
_MOST_KNOWN_SETS = 10_000
_DIGEST_BYTES = 32


class OpenFile(NamedTuple):
    """A file that is open, and where it has data."""

    fd: int
    layout: Layout


class Content(NamedTuple):
    """What a streamed file turned out to be; with the sums of its blocks, if they are worth keeping."""

    digest: bytes
    size: int
    sums: BlockSums | None = None


class Outgoing:
    """The sending half of a client's session."""

    def __init__(
        self,
        channel: Channel | None,
        working: CatalogWriter,
        clock: Clock,
        partials: Sequence[Partial] = (),
    ) -> None:
        self._channel = channel
        self._working = working
        self._clock = clock
        self._changes: list[Change] = []
        self._changes_bytes = 0
        self._signatures: dict[int, LoadedSignature | None] = {}
        self._open_signatures: dict[int, LoadedSignature] = {}
        self._unwanted: set[int] = set()
        self._partials = {(p.dev, p.ino): p for p in partials}
        if not all(0 < p.number < _MAX_PARTIAL and p.size >= 0 for p in partials):
            raise RemoteProtocolError("The server announced a partial that cannot be")
        self._checkpoints = 0
        self._sent_bytes = 0
        self._sent_at_checkpoint = 0
        self._changes_since = 0
        self._checkpoint_at = clock.monotonic_s()
        self._known_sets: set[bytes] = set()
        self._named = {(USER, -1)}
        for principal in working.principals():
            self._name_number(principal.kind, principal.number, principal.name)

    # -- changes ---------------------------------------------------------------------------------

    def keep(self, entry: Entry) -> None:
        """New metadata or a new place; the content stays."""
        self._put(entry)
        self._change(Keep(entry), _ROW_BYTES + len(entry.holes))

    def make(self, entry: Entry) -> None:
        """A directory, symlink or special file."""
        self._put(entry)
        self._change(Make(entry), _ROW_BYTES + len(entry.target))

    def store(self, entry: Entry, content: bytes) -> None:
        """A small file with its content."""
        self._put(entry)
        self._change(Store(entry, content), _ROW_BYTES + len(content) + len(entry.holes))

    def link(self, entry: Entry, source: int) -> None:
        """A file whose content the compared catalog has under the id `source`."""
        self._put(entry)
        self._change(Link(entry, source), _ROW_BYTES + len(entry.holes))

    def mark_incomplete(self, directory: int) -> None:
        """Something in a directory is there, as far as is known, and gets no row."""
        row = self._working.entry(directory)
        if row is not None and not row.flags & Flag.INCOMPLETE:
            self.keep(row._replace(flags=row.flags | Flag.INCOMPLETE))

    def remove(self, entry_id: int) -> int:
        """An entry is gone, with all below it; how many that were."""
        removed = self._working.remove(entry_id)
        self._change(Remove(entry_id), _ROW_BYTES)
        return removed

    def xattrs(self, encoded: bytes) -> bytes:
        """The key of a set of extended attributes that rows may name from now on."""
        key = set_key(encoded)
        if key not in self._known_sets:
            if len(self._known_sets) >= _MOST_KNOWN_SETS:
                self._known_sets.clear()
            self._known_sets.add(key)
            attributes = decode_set(encoded)
            for acl in ACLS:
                for owner in acl_owners(attributes.get(acl, b"")):
                    if owner not in self._named:
                        self._name_number(*owner, b"")
            if not self._working.has_xattr_set(key):
                self._working.put_xattrs(key, encoded)
                self._change(Xattrs(key, encoded), _ROW_BYTES + len(encoded))
        return key

    def withdraw_unused_xattrs(self) -> None:
        """Let both catalogs forget the extended attributes that no row names any more."""
        for key in self._working.unused_xattr_sets():
            self._known_sets.discard(key)
            self._working.put_xattrs(key, b"")
            self._change(Xattrs(key, b""), _ROW_BYTES)

    def _change(self, change: Change, size: int) -> None:
        """Say what the working catalog has already; look up after each full frame."""
        self._say(change, size)
        if not self._changes:
            self.listen()

    def _put(self, entry: Entry) -> None:
        self._working.put(entry)
        if (USER, entry.uid) not in self._named:
            self._name_number(USER, entry.uid, b"")
        if (GROUP, entry.gid) not in self._named:
            self._name_number(GROUP, entry.gid, b"")

    def _name_number(self, kind: int, number: int, recorded: bytes) -> None:
        """Tell what this machine calls a number, if that is not what is recorded."""
        self._named.add((kind, number))
        try:
            name = (
                pwd.getpwuid(number).pw_name if kind == USER else grp.getgrgid(number).gr_name
            ).encode(errors="surrogateescape")
        except (KeyError, OverflowError):
            name = b""
        if name != recorded:
            principal = Principal(kind, number, name)
            self._working.name(principal)
            self._say(Name(principal), _ROW_BYTES)

    def _say(self, change: Change, size: int) -> None:
        self._changes.append(change)
        self._changes_bytes += size
        self._changes_since += 1
        self._sent_bytes += size
        if self._changes_bytes >= CHANGES_TARGET_BYTES or len(self._changes) >= _MAX_CHANGES:
            self.flush()

    def flush(self) -> None:
        """Send the changes so far."""
        if self._changes and self._channel is not None:
            self._channel.send(Changes(self._changes))
        self._changes = []
        self._changes_bytes = 0

    # -- large files -----------------------------------------------------------------------------

    def send_content(
        self, now: Entry, file: OpenFile, basis: KnownBasis, progress: Callable[[int], None]
    ) -> Content:
        """Send a file's content; `end_file` or `abort_file` must follow.

        Args:
            now: Whose content it is.
            file: The open file; its stream is read from the start.
            basis: What deltas are against: its sums are known, or its signature has arrived.
            progress: Hears of each piece's bytes.
        """
        if self._channel is None:
            raise InternalError(f"Content of entry {now.id} sent in a dry run")
        self.flush()
        layout = file.layout
        coder = FileCoder(basis, layout.data_bytes, self)
        self._channel.send(
            FileBegin(
                now.id,
                basis.number if coder.has_basis else 0,
                now.dev,
                now.ino,
                layout.size if layout.is_sparse else 0,
                layout.holes,
            )
        )
        hasher = ContentHasher(layout)
        buffer = bytearray()
        position = 0
        while True:
            wanted = coder.wanted_bytes
            if wanted > len(buffer):
                buffer = bytearray(wanted)
            segment = memoryview(buffer)[:wanted]
            count = read_at(file.fd, layout, segment, position, once=True)
            if not count:
                if not layout.is_sparse or position >= layout.data_bytes:
                    break
                # It was cut off meanwhile, but its extents are told: zeros it is.
                count = min(wanted, layout.data_bytes - position)
                segment[:count] = bytes(count)
            hasher.update(segment[:count])
            self._send_segment(coder.encode(segment[:count]))
            position += count
            progress(count)
        size = layout.size if layout.is_sparse else position
        return Content(hasher.digest(), size, coder.sums())

    def signature(self, number: int) -> LoadedSignature | None:
        """The signature that has come of a basis, if the server has that still."""
        return self._signatures.get(number) if self._is_usable(number) else None

    def _send_segment(self, coded: Delta | Raw) -> None:
        if self._channel is None:
            return
        if isinstance(coded, Delta):
            delta = memoryview(coded.payload)
            for at in range(0, len(delta), MAX_BULK_BYTES):
                end = at + MAX_BULK_BYTES
                self._channel.send(FileDelta(end >= len(delta), delta[at:end]))
            self._sent_bytes += len(delta)
            return
        segment = coded.payload
        self._sent_bytes += len(segment)
        for at in range(0, len(segment), MAX_BULK_BYTES):
            self._channel.send(FileRaw(segment[at : at + MAX_BULK_BYTES]))

    def end_file(self, entry: Entry) -> None:
        """The content sent last is this entry's."""
        self._put(entry)
        if self._channel is not None:
            self._channel.send(FileEnd(entry))
        # The server forgets what it knew of this file (PROTOCOL.md, step 5).
        self._partials.pop((entry.dev, entry.ino), None)
        self._changes_since += 1
        # Names of owners seen first with this entry wait until the file is closed.
        self.flush()
        self.listen()

    def abort_file(self, entry_id: int) -> None:
        """Forget the content sent last."""
        if self._channel is not None:
            self._channel.send(FileAbort(entry_id))

    def partial_of(self, now: Entry) -> Partial | None:
        """What an interrupted run had brought over of this file."""
        return self._partials.get((now.dev, now.ino))

    def _is_usable(self, basis: int) -> bool:
        """Whether the server has this basis still: a partial serves for one file."""
        partial, _ = basis_parts(basis)
        return not partial or any(partial == known.number for known in self._partials.values())

    def want_signature(self, basis: int, basis_bytes: int) -> None:
        """Ask for the signature of a basis of this size; see `wait_signature`."""
        self._unwanted.discard(basis)
        is_known = basis in self._open_signatures or basis in self._signatures
        if self._channel is not None and not is_known:
            self.flush()
            self._open_signatures[basis] = LoadedSignature(basis_bytes)
            self._channel.send(WantSignature(basis))

    def has_signature(self, basis: int) -> bool:
        """Whether what was asked for has arrived (or was refused)."""
        return basis in self._signatures

    def wait_signature(self, basis: int) -> None:
        """Wait until it has."""
        while basis not in self._signatures and self._channel is not None:
            self._hear(self._channel.receive())

    def wait_signatures(self) -> None:
        """Wait for all that was asked for, wanted or not by now."""
        for basis in list(self._open_signatures):
            while basis in self._open_signatures and self._channel is not None:
                self._hear(self._channel.receive())

    def drop_signature(self, basis: int) -> None:
        """Free its memory, now or when it arrives."""
        signature = self._signatures.pop(basis, None)
        if signature is not None:
            signature.close()
        if basis in self._open_signatures:
            self._unwanted.add(basis)

    # -- hearing ---------------------------------------------------------------------------------

    def listen(self) -> None:
        """Hear what has been said meanwhile, without waiting; make a checkpoint if one is due."""
        if self._channel is None:
            return
        while (message := self._channel.receive_nowait()) is not None:
            self._hear(message)
        if self._is_checkpoint_due():
            self.flush()
            # The working catalog as of here is what a resumed run is compared with.
            self._working.checkpoint()
            self._checkpoints += 1
            self._channel.send(Checkpoint(self._checkpoints))
            self._sent_at_checkpoint = self._sent_bytes
            self._changes_since = 0
            self._checkpoint_at = self._clock.monotonic_s()

    def _is_checkpoint_due(self) -> bool:
        if not self._changes_since:
            return False
        # What would travel again, not what was read: a delta of much may be little.
        unsaved = self._sent_bytes - self._sent_at_checkpoint
        return (
            unsaved >= max(CHECKPOINT_BYTES, self._sent_bytes // _CHECKPOINT_PART)
            or self._changes_since >= CHECKPOINT_CHANGES
            or self._clock.monotonic_s() - self._checkpoint_at >= CHECKPOINT_S
        )

    def _hear(self, message: Message) -> None:
        match message:
            case SignaturePart(basis, last, content):
                signature = self._open_signatures.get(basis)
                if signature is None:
                    raise _unasked(basis)
                signature.feed(content)
                if last:
                    signature.finish()
                    self._signatures[basis] = self._open_signatures.pop(basis)
                    self._free_unwanted(basis)
            case NoSignature(basis):
                signature = self._open_signatures.pop(basis, None)
                if signature is None:
                    raise _unasked(basis)
                signature.close()
                self._signatures[basis] = None
                self._free_unwanted(basis)
            case CheckpointDone():
                pass
            case Refused():
                raise_refused(message)
            case _:
                raise InternalError(f"{type(message).__name__} let through by the table of states")

    def _free_unwanted(self, basis: int) -> None:
        if basis in self._unwanted:
            self._unwanted.discard(basis)
            self.drop_signature(basis)

    def close(self) -> None:
        """Free all signatures."""
        for signature in [*self._signatures.values(), *self._open_signatures.values()]:
            if signature is not None:
                signature.close()


def _unasked(basis: int) -> RemoteProtocolError:
    return RemoteProtocolError(f"The server sent a signature that was not asked for, of {basis}")
