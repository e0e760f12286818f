"""File content on the client: read, digest, and the cheapest way to the server chosen.

From cheap to dear: the same content under this id (a row), the content of another recorded file (a link), a
small file in the batch, a delta against a basis, the whole file. What changes while it is read is read
again, and at last taken as it is and flagged (DESIGN.md section 4).
"""

import errno
import os
from collections.abc import Callable
from typing import NamedTuple

from ssfs.delta.blocks import BlockSums, block_length
from ssfs.delta.signature import signature_size
from ssfs.engine.attributes import Attributes
from ssfs.engine.coding import KEPT_FROM_BYTES, WHOLE, KnownBasis
from ssfs.engine.moves import Catalogs, Source
from ssfs.engine.outgoing import OpenFile, Outgoing
from ssfs.engine.plan import Verdict, is_only_bookkeeping, is_racy, judge_content
from ssfs.fsio.sparse import find_layout, read_at
from ssfs.model.entry import Entry, Flag, changed
from ssfs.model.layout import Layout, content_digest, data_bytes
from ssfs.model.version import Counts
from ssfs.monitor import Monitor
from ssfs.protocol.messages import INLINE_MAX_BYTES, basis_number
from ssfs.source.reading import (
    ATTEMPTS,
    NotAFileError,
    digest_file,
    is_same,
    open_file,
    open_regular,
    read_stream,
)
from ssfs.store.catalog.writer import CatalogWriter

SHARED_MIN_BYTES = 4096
"""Smaller files are not linked by digest: empty ones would use up the links of an inode."""
DELTA_MIN_BYTES = 16 << 10
"""A smaller basis is not worth a signature."""
CREDIT_BYTES = 16 << 20
"""Expected bytes of signatures under way at a time (PROTOCOL.md, step 5)."""
_MAX_PENDING = 64
_PROBES = 16
_RACY = int(Flag.RACY)
_STREAM_ATTEMPTS = 2
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EINVAL)


class Found(NamedTuple):
    """A file whose content has to be looked at.

    Attributes:
        now: Its row as seen; its id is that of `record` or `moved`, else 0.
        record: What the compared catalog has at this path.
        moved: The record of this file at a path it has left.
        same: A record of the same inode, size and mtime, wherever.
        twin: Another hard link of it in the version being made, of the same ctime.
        path: Its path, for messages.
        read_at_s: When it was looked at.
        status: What was seen then.
    """

    now: Entry
    record: Entry | None
    moved: Entry | None
    same: Entry | None
    twin: Entry | None
    path: bytes
    read_at_s: float
    status: os.stat_result | None = None


class _Pending(NamedTuple):
    """A large file that waits for the signature of its basis, or only for its turn; `fd` is open."""

    found: Found
    fd: int
    basis: KnownBasis

    def signature_bytes(self) -> int:
        """How long the signature is that it waits for."""
        return signature_size(self.basis.size) if self.basis.sums is None else 0


class ContentSender:
    """Sends the content of files, one after the other, some of them a little later.

    Attributes:
        dry_run: Read and send nothing.
    """

    def __init__(
        self,
        source: Source,
        catalogs: Catalogs,
        outgoing: Outgoing,
        counts: Counts,
        monitor: Monitor,
        report: Callable[[bytes, str], None],
    ) -> None:
        self.dry_run = False
        self._kept_sums = catalogs.kept_sums
        self._source = source
        self._compared = catalogs.compared
        self._has_records = catalogs.has_records
        self._outgoing = outgoing
        self._attributes = Attributes(outgoing, report)
        self._counts = counts
        self._monitor = monitor
        self._report = report
        self._pending: list[_Pending] = []

    def take(self, dir_fd: int, found: Found, working: CatalogWriter) -> bool:
        """Read a file and send what is needed; False if it has vanished."""
        if found.now.id == 0:
            found = _as_seen(found, changed(found.now, id=working.take_id()))
        if self.dry_run:
            self._outgoing.keep(found.now)
            self._count(found, found.now, is_linked=False)
            return True
        if found.twin is not None and judge_content(found.twin, found.now) is Verdict.SAME:
            # Read under its other name.
            twin = found.twin
            now = found.now._replace(digest=twin.digest, xattrs=twin.xattrs, holes=twin.holes)
            self._send_known(found, now)
            return True
        try:
            fd, status = open_regular(found.now.name, dir_fd)
            try:
                self._take_open(fd, found, status)
            finally:
                os.close(fd)
        except NotAFileError:
            return False
        except OSError as error:
            return self._unreadable(found, error)
        return True

    def _unreadable(self, found: Found, error: OSError) -> bool:
        if error.errno in _GONE:
            return False
        reason = (error.strerror or "unknown error").lower()
        known = found.record or found.moved
        if known is None:
            self._report(found.path, f"cannot be read: {reason}; not backed up")
            self._outgoing.mark_incomplete(found.now.parent)
            return True
        self._report(found.path, f"cannot be read: {reason}; kept as in the version before")
        entry = known._replace(parent=found.now.parent, name=found.now.name)
        self._outgoing.keep(entry._replace(flags=known.flags | Flag.STALE))
        return True

    def _take_open(self, fd: int, found: Found, status: os.stat_result) -> None:
        layout = find_layout(fd, status)
        if not self._take_small(fd, found, status, layout):
            self._take_large(fd, found, status, layout)

    def _take_large(self, fd: int, found: Found, status: os.stat_result, layout: Layout) -> None:
        found = self._looked_again(found, status)
        known = found.same or found.record or found.moved
        basis = self._basis_of(found.now, known)
        if basis is not None and known is not None:
            basis = self._with_sums(basis, known, fd, layout)
        if found.twin or (self._has_records and self._compared.has_size(status.st_size)):
            is_changed = known and judge_content(known, found.now) is Verdict.CHANGED
            if basis and basis.sums is None and is_changed:
                # Most likely it will be needed: let the server work on it while we read.
                self._ask_for_signature(basis)
            digest, _ = digest_file(fd, layout, self._progress(found.path))
            if is_same(status, os.fstat(fd)):
                now = found.now._replace(digest=digest, holes=layout.holes)
                if self._send_known(found, self._described(found, now, fd)):
                    if basis is not None:
                        self._drop_signature(basis)
                    return
        if basis is None:
            self._stream(fd, found, WHOLE)
        else:
            # The file waits, the walk goes on: also one that could be sent at once, as the server can work on the
            # signatures of those after it meanwhile.
            if basis.sums is None:
                self._ask_for_signature(basis)
            elif len(self._pending) >= _MAX_PENDING:
                self._send_first_pending()
            self._pending.append(_Pending(found, os.dup(fd), basis))

    def _basis_of(self, now: Entry, known: Entry | None) -> KnownBasis | None:
        """What an interrupted run had brought over of this file, then what is recorded of it."""
        partial = self._outgoing.partial_of(now)
        known_bytes = data_bytes(known.size, known.holes) if known is not None else 0
        if known_bytes < DELTA_MIN_BYTES:
            known, known_bytes = None, 0
        if partial is None and known is None:
            return None
        return KnownBasis(
            basis_number(partial.number if partial else 0, known.id if known else 0),
            (partial.size if partial else 0) + known_bytes,
        )

    def _with_sums(self, basis: KnownBasis, known: Entry, fd: int, layout: Layout) -> KnownBasis:
        """The basis with the sums that were kept of it, if most of a few blocks are where they were."""
        is_partial = basis.number != known.id
        if self._kept_sums is None or is_partial or layout.data_bytes < KEPT_FROM_BYTES:
            return basis
        sums = self._kept_sums.find(known)
        if sums is None or sums.size != basis.size or not _is_in_place(sums, fd, layout):
            return basis
        return basis._replace(sums=sums)

    def _take_small(self, fd: int, found: Found, before: os.stat_result, layout: Layout) -> bool:
        """Read a small file and send what is needed; False if it is not small (any more)."""
        content, is_stable, xattrs = b"", False, b""
        for attempt in range(ATTEMPTS):
            if attempt:
                before = os.fstat(fd)
                layout = find_layout(fd, before)
            if layout.data_bytes > INLINE_MAX_BYTES:
                return False
            content = read_stream(fd, layout)
            if len(content) > INLINE_MAX_BYTES:
                return False
            self._counts.bytes_read += len(content)
            xattrs = self._xattrs(fd, found)
            is_stable = is_same(before, os.fstat(fd))
            if is_stable:
                break
        found = self._looked_again(found, before)
        now = _with_content(found.now, layout, content, flags=_flags(found), xattrs=xattrs)
        if not is_stable:
            now = self._unstable(found, now)
        if not self._send_known(found, now):
            self._outgoing.store(now, content)
            self._count(found, now, is_linked=False)
        return True

    def _send_known(self, found: Found, now: Entry) -> bool:
        """Send a row or a link if the server has this content already."""
        known = found.record or found.moved
        content = (now.size, now.digest)
        if known is not None and (known.size, known.digest) == content:
            self._outgoing.keep(now)
            self._count(found, now, is_linked=False)
            return True
        names = (row for row in (found.twin, found.same) if row is not None)
        source = next((row for row in names if row.digest == now.digest), None)
        if source is None and self._has_records and now.size >= SHARED_MIN_BYTES:
            source = self._compared.by_content(*content)
        if source is None or source.size != now.size:
            return False
        self._outgoing.link(now, source.id)
        self._count(found, now, is_linked=True)
        return True

    # -- large files -----------------------------------------------------------------------------

    def _ask_for_signature(self, basis: KnownBasis) -> None:
        """Ask for the signature of a basis, once there is credit for it."""
        wanted = signature_size(basis.size)
        while self._pending and (
            len(self._pending) >= _MAX_PENDING
            or wanted + sum(item.signature_bytes() for item in self._pending) > CREDIT_BYTES
        ):
            self._send_first_pending()
        self._outgoing.want_signature(basis.number, basis.size)

    def _drop_signature(self, basis: KnownBasis) -> None:
        """Free a signature, unless another file waits for it."""
        if all(item.basis.number != basis.number for item in self._pending):
            self._outgoing.drop_signature(basis.number)

    def work_on_deltas(self) -> None:
        """Send the files whose signature has arrived."""
        while self._pending and (
            self._pending[0].basis.sums is not None
            or self._outgoing.has_signature(self._pending[0].basis.number)
        ):
            self._send_first_pending()

    def finish_if_pending(self, now: Entry) -> None:
        """Send what waits, if another hard link of this file is among it."""
        if now.link_group and any(
            item.found.now.link_group == now.link_group for item in self._pending
        ):
            self.finish_deltas()

    def finish_deltas(self) -> None:
        """Send all files that wait."""
        while self._pending:
            self._send_first_pending()

    def close(self) -> None:
        """Close the files that still wait."""
        for item in self._pending:
            os.close(item.fd)
        self._pending.clear()

    def _send_first_pending(self) -> None:
        item = self._pending.pop(0)
        try:
            if item.basis.sums is None:
                self._outgoing.wait_signature(item.basis.number)
            self._stream(item.fd, item.found, item.basis)
        except OSError as error:
            self._unreadable(item.found, error)
        finally:
            os.close(item.fd)
            self._drop_signature(item.basis)

    def _stream(self, fd: int, found: Found, basis: KnownBasis) -> None:
        """Send content in segments; again if it changed meanwhile.

        Raises:
            OSError: It cannot be read; what was sent of it is taken back.
        """
        for attempt in range(_STREAM_ATTEMPTS):
            before = os.fstat(fd)
            found = self._looked_again(found, before)
            # Before the file is begun: its row may name no attributes that the server does not know.
            xattrs = self._xattrs(fd, found)
            try:
                layout = find_layout(fd, before)
                content = self._outgoing.send_content(
                    found.now, OpenFile(fd, layout), basis, self._progress(found.path)
                )
            except OSError:
                self._outgoing.abort_file(found.now.id)
                raise
            is_stable = is_same(before, os.fstat(fd))
            if is_stable or attempt == _STREAM_ATTEMPTS - 1:
                now = found.now._replace(
                    digest=content.digest,
                    size=content.size,
                    holes=layout.holes,
                    flags=_flags(found),
                    xattrs=xattrs,
                )
                if not is_stable:
                    now = self._unstable(found, now)
                self._outgoing.end_file(now)
                if self._kept_sums is not None and content.sums is not None:
                    self._kept_sums.keep(now, content.sums)
                self._count(found, now, is_linked=False)
                return
            self._outgoing.abort_file(found.now.id)

    def send_whole(self, dir_fd: int, entry: Entry, path: bytes) -> bool:
        """Send content that the server has lost; False if it cannot be read any more."""
        try:
            with open_file(entry.name, dir_fd) as fd:
                status = os.fstat(fd)
                layout = find_layout(fd, status)
                now = self._source.seen(entry.id, entry.parent, entry.name, status)
                found = Found(now, None, None, None, None, path, float(now.ctime_s))
                content = b"" if layout.data_bytes > INLINE_MAX_BYTES else read_stream(fd, layout)
                if max(layout.data_bytes, len(content)) > INLINE_MAX_BYTES:
                    self._stream_whole(fd, found)
                else:
                    row = _with_content(now, layout, content)
                    self._outgoing.store(self._described(found, row, fd), content)
        except OSError:
            return False
        return True

    def _stream_whole(self, fd: int, found: Found) -> None:
        """Stream it; as a delta only against what the server had begun to receive again."""
        basis = self._basis_of(found.now, None)
        if basis is None:
            self._stream(fd, found, WHOLE)
            return
        self._outgoing.want_signature(basis.number, basis.size)
        self._outgoing.wait_signature(basis.number)
        try:
            self._stream(fd, found, basis)
        finally:
            self._outgoing.drop_signature(basis.number)

    # -- bookkeeping -----------------------------------------------------------------------------

    def _progress(self, path: bytes) -> Callable[[int], None]:
        def progress(count: int) -> None:
            self._counts.bytes_read += count
            self._monitor.advance(0, count, path)

        return progress

    def _looked_again(self, found: Found, status: os.stat_result) -> Found:
        """The same file with the metadata its open descriptor has."""
        if found.status is not None and _is_alike(found.status, status):
            return found
        now = found.now
        return _as_seen(found, self._source.seen(now.id, now.parent, now.name, status))

    def _xattrs(self, fd: int, found: Found) -> bytes:
        return self._attributes.of_open(fd, found.record or found.moved, found.path)

    def _described(self, found: Found, now: Entry, fd: int) -> Entry:
        """The row with what else there is to say of an open file."""
        return now._replace(flags=_flags(found), xattrs=self._xattrs(fd, found))

    def _unstable(self, found: Found, now: Entry) -> Entry:
        self._report(found.path, "changed while it was read; stored as read")
        return now._replace(flags=now.flags | Flag.UNSTABLE)

    def _count(self, found: Found, now: Entry, *, is_linked: bool) -> None:
        """Count a file under the one heading that fits best."""
        known = found.record or found.moved
        same_content = known is not None and (known.size, known.digest) == (now.size, now.digest)
        if found.moved is not None:
            self._counts.moved += 1
        elif found.record is None:
            self._counts.new += 1
        elif not same_content:
            self._counts.changed += 1
        elif not is_only_bookkeeping(found.record, now):
            self._counts.metadata_only += 1
        self._counts.linked += is_linked


def _with_content(now: Entry, layout: Layout, content: bytes, **more: int | bytes) -> Entry:
    """The row of a file whose whole stream was read, with more fields if they are known."""
    return changed(
        now,
        size=layout.size if layout.is_sparse else len(content),
        digest=content_digest(layout, content),
        holes=layout.holes,
        **more,
    )


def _is_in_place(sums: BlockSums, fd: int, layout: Layout) -> bool:
    """Whether most of a few blocks, spread over a file, are those that the sums are of."""
    if block_length(layout.data_bytes) != sums.block_bytes:
        return False
    blocks = min(layout.data_bytes, sums.size) // sums.block_bytes
    buffer = memoryview(bytearray(sums.block_bytes))
    hits = 0
    for number in range(_PROBES):
        position = blocks * number // _PROBES * sums.block_bytes
        count = read_at(fd, layout, buffer, position)
        hits += sums.has(position, buffer[:count])
    return hits * 4 >= _PROBES * 3


def _as_seen(found: Found, now: Entry) -> Found:
    """The same with another row."""
    return Found(now, *found[1:])


def _flags(found: Found) -> int:
    """RACY as the times demand it; whatever was flagged before is settled."""
    return _RACY if is_racy(found.now, found.read_at_s) else 0


def _is_alike(before: os.stat_result, after: os.stat_result) -> bool:
    """Whether two looks saw one file, with one row to describe it.

    Those before the times are mode, inode, device, links, owner, group and size.
    """
    return before[:7] == after[:7] and is_same(before, after)
