"""What the target has already in an entry's place: is it right, and if only its metadata is not, it gets that.

A file of the right size is read and digested, however right its times look: a bit that flipped on a disk changes
neither. Reading it costs no more than its sums and nothing of the line. Only with `quick_check` is a file of the
recorded size and modification time taken for right as it is.

Metadata is set where a file is only if it has no other name and nobody else's hands on it (`Target.is_ours`).
Else it is made anew, from itself. What is right in every respect stays, whatever its names.
"""

import contextlib
import os
import stat

from ssfs.delta.basis import Basis
from ssfs.delta.described import description_size
from ssfs.engine.restore.contents import Copy, is_content_of
from ssfs.engine.restore.credit import CREDIT_BASIS_BYTES
from ssfs.engine.restore.options import Action
from ssfs.engine.restore.run import Run
from ssfs.engine.restore.walk import Item
from ssfs.fsio.disk import COPY_BYTES, fsync
from ssfs.fsio.sparse import DataFile, fills_holes, find_layout, is_empty_in_holes, read_at
from ssfs.model.entry import Entry, Kind, kind_of_mode, mtime_ns_of
from ssfs.model.layout import Layout
from ssfs.source.reading import digest_file, open_file, open_quietly
from ssfs.source.xattrs import list_xattrs, path_of

_READ_AT_ONCE_BYTES = 1 << 20
_BASIS_MIN_BYTES = 16 << 10
"""A smaller file is not worth a description."""


class Existing:
    """Judges the entries of a target."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._target = run.target
        self._is_quick = run.options.quick_check

    def is_right(self, item: Item) -> bool:
        """Whether a file is there and right in every respect, as most are; counted then.

        The short way: False for some that are right, too. Nothing is changed, and what has other metadata is not read.
        """
        entry, above = item.entry, item.level.fd
        if entry.xattrs or entry.holes or entry.size > _READ_AT_ONCE_BYTES:
            return False
        try:
            status = os.stat(entry.name, dir_fd=above, follow_symlinks=False)
            if status.st_size != entry.size or not self._target.is_like(entry, status):
                return False
            if self._is_quick:
                if list_xattrs(path_of(entry.name, above)):
                    return False
            elif not self._is_right_inside(entry, above):
                return False
        except OSError:
            return False
        self._run.actions.add(None, item.path)
        return True

    def _is_right_inside(self, entry: Entry, above: int) -> bool:
        """Likewise, for what is opened in its place."""
        fd = open_quietly(entry.name, above)
        try:
            return (
                self._target.is_like(entry, os.fstat(fd))
                and not os.listxattr(fd)
                and is_content_of(entry, os.read(fd, entry.size + 1))
            )
        finally:
            os.close(fd)

    def is_settled(self, item: Item, status: os.stat_result) -> bool:
        """Whether an entry need not be written; what it has in its place looks like `status`.

        Counted then, with its metadata set.
        """
        entry = item.entry
        if kind_of_mode(status.st_mode) != entry.kind:
            return False
        if entry.kind == Kind.FILE:
            return status.st_size == entry.size and self._is_file_settled(item, status)
        if not _is_same(entry, status, item.level.fd):
            return False
        there = path_of(entry.name, item.level.fd)
        if self._run.target.lacks(entry, status, there):
            # Its name may be another's by the time its metadata is set: it is made anew beside.
            item.action = Action.METADATA
            return False
        self._unchanged(item, status, there)
        return True

    def _is_file_settled(self, item: Item, status: os.stat_result) -> bool:
        entry, target = item.entry, self._run.target
        if self._is_quick and status.st_mtime_ns == mtime_ns_of(entry):
            there = path_of(entry.name, item.level.fd)
            if not target.lacks(entry, status, there):
                self._unchanged(item, status, there)
                return True
        try:
            fd = open_quietly(entry.name, item.level.fd)
            try:
                return self._is_open_settled(item, fd)
            finally:
                os.close(fd)
        except OSError:
            return False

    def _is_open_settled(self, item: Item, fd: int) -> bool:
        """Likewise for what was opened in its place.

        Raises:
            OSError: It cannot be read, or not be made anew.
        """
        entry, target = item.entry, self._run.target
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_size != entry.size:
            return False
        is_trusted = self._is_quick and status.st_mtime_ns == mtime_ns_of(entry)
        if not is_trusted:
            if not self._has_content(item, fd):
                return False
            if entry.holes and self._is_thinned(item, fd):
                return True
        if not target.lacks(entry, status, fd):
            self._unchanged(item, status, fd)
        elif not self._is_mended(item, fd, status):
            return False
        return True

    def _has_content(self, item: Item, fd: int) -> bool:
        """Whether an open file of the right size has an entry's content."""
        entry = item.entry
        if not entry.holes and entry.size <= _READ_AT_ONCE_BYTES:
            return is_content_of(entry, os.read(fd, entry.size + 1))
        layout = Layout.of(entry.size, entry.holes)
        monitor, path = self._run.monitor, item.path
        # Most files are right, and not looked at again.
        digest, _ = digest_file(fd, layout, lambda _: monitor.advance(0, 0, path), once=True)
        return digest == entry.digest and is_empty_in_holes(fd, layout)

    def _is_mended(self, item: Item, fd: int, status: os.stat_result) -> bool:
        """Give a file with the right content the right metadata; False if it is not right any more."""
        run = self._run
        if not run.options.dry_run:
            if run.target.is_ours(item.entry, status):
                if not run.set_metadata(item.entry, fd, item.path):
                    return True
            elif not self._is_made_anew(item, fd):
                return False
            run.report_incomplete(item.path)
        run.actions.add(Action.METADATA, item.path)
        return True

    def _is_thinned(self, item: Item, fd: int) -> bool:
        """Give a right file its holes back, if it has room for zeros there; False if it has not, or the file system cannot.

        Made anew from itself, not punched: who writes to it meanwhile would lose what he wrote.
        """
        if not fills_holes(fd, Layout.of(item.entry.size, item.entry.holes)):
            return False
        if not self._run.options.dry_run:
            try:
                if not self._is_made_anew(item, fd, must_thin=True):
                    return False
            except OSError:
                return False  # no room for two of it, say: its content is right as it is
            self._run.report_incomplete(item.path)
        self._run.actions.add(Action.REPLACE, item.path)
        return True

    def _unchanged(self, item: Item, status: os.stat_result, there: int | bytes) -> None:
        self._run.target.count_unset(item.entry, status, there)
        self._run.actions.add(None, item.path)

    def _is_made_anew(self, item: Item, source_fd: int, *, must_thin: bool = False) -> bool:
        """Put a copy of a right file in its place; False if it is not right any more, or has to get holes and cannot."""
        layout = Layout.of(item.entry.size, item.entry.holes)

        def fill(fd: int) -> bool:
            if must_thin:
                os.ftruncate(fd, layout.size)
                if fills_holes(fd, layout):
                    return False
            copy = Copy(fd, layout, lambda _: self._run.monitor.advance(0, 0, item.path))
            buffer = memoryview(bytearray(min(COPY_BYTES, layout.data_bytes)))
            while buffer and (count := read_at(source_fd, layout, buffer, copy.size)):
                copy.write(buffer[:count])
            if must_thin:
                # A right file is replaced: its copy must be no less safe from a power cut.
                fsync(fd)
            return copy.is_of(item.entry) and not (must_thin and fills_holes(fd, layout))

        return self._run.target.put(item.entry, item.level.fd, fill, lambda: False)


def find_basis(item: Item) -> Basis | None:
    """What the target has of a file, if it is worth a delta: the largest of all there is.

    That is what is in its place, or what a killed restore has left of it.
    """
    names = [name for number, name in item.level.leftovers if number == item.entry.id]
    if item.action is not Action.CREATE:
        names.append(item.entry.name)
    best: Basis | None = None
    for name in names:
        with contextlib.suppress(OSError), open_file(name, item.level.fd) as fd:
            layout = find_layout(fd, os.fstat(fd))
            size = layout.data_bytes
            is_worth_it = size >= _BASIS_MIN_BYTES and description_size(size) <= CREDIT_BASIS_BYTES
            if is_worth_it and (best is None or size > best.size_bytes):
                if best is not None:
                    best.close()
                best = Basis([DataFile(os.dup(fd), layout).plain_or_self()])
    return best


def _is_same(entry: Entry, status: os.stat_result, parent_fd: int) -> bool:
    """Whether what is no file and has an entry's kind is it, but for its metadata."""
    if entry.kind != Kind.SYMLINK:
        return entry.kind == Kind.FIFO or status.st_rdev == entry.rdev
    try:
        return os.readlink(entry.name, dir_fd=parent_fd) == entry.target
    except OSError:
        return False
