"""A tree and its catalog, changed together.

The tree always is what the catalog says, but for the files in `missing`. Content is never trusted unverified: every file's digest is
computed here before it counts. Names and ids come from a peer: the catalog checks them, and every open goes
through directory descriptors (`ssfs.store.tree`). Nothing here is durable before `ssfs.store.staging` makes it so.
"""

import contextlib
import os
from typing import NamedTuple

from ssfs.delta.basis import Basis
from ssfs.errors import RemoteProtocolError
from ssfs.fsio.disk import fsync, open_directory, rename, write_all
from ssfs.fsio.removal import remove_tree
from ssfs.fsio.sparse import DataFile, find_layout, write_at
from ssfs.fsio.uncached import read_uncached
from ssfs.model.entry import ROOT_ID, Entry, Kind, Principal
from ssfs.model.layout import Layout, content_digest, data_bytes
from ssfs.protocol.messages import Partial, basis_parts
from ssfs.store.catalog.schema import PARKED
from ssfs.store.catalog.writer import CatalogWriter, Placement
from ssfs.store.clone import Base, Linker, entry_content
from ssfs.store.incoming import IncomingFile
from ssfs.store.partials import Origin, Partials
from ssfs.store.staged import StagedFile
from ssfs.store.tree import Tree

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_HAS_DATA = (Kind.FILE, Kind.DIRECTORY, Kind.SYMLINK)
_DIGEST_BYTES = 32
_PLAIN = Layout(0)


class Workbench(NamedTuple):
    """Where data files are made before they have a place in the tree.

    Attributes:
        incoming: Descriptor of the directory from which they are renamed into the tree.
        partials: Where large files are received.
    """

    incoming: int
    partials: Partials


class StagedTree:
    """The changes of a sync, applied in the order the client sends them.

    Attributes:
        catalog: What the version will hold.
        missing: Ids of files whose content the store does not have; the client is asked for them.
        new_bytes: Content bytes stored.
    """

    def __init__(
        self,
        catalog: CatalogWriter,
        tree: Tree,
        base: Base | None,
        workbench: Workbench,
        *,
        fsync_each: bool,
    ) -> None:
        """Change `tree` and `catalog`; everything stays the caller's.

        Args:
            catalog: What the tree is.
            tree: The directories of the version being made.
            base: The version it began as, for link sources and bases.
            workbench: Where files are made.
            fsync_each: Whether each file must be synced by itself.
        """
        self.catalog = catalog
        self.missing: set[int] = set()
        self.new_bytes = 0
        self._tree = tree
        self._base = base
        self._incoming, self._partials = workbench
        self._linker = Linker(self._incoming)
        self._fsync_each = fsync_each
        self._staged: list[StagedFile] = []
        # Ids under which the compared catalog has content that the base has not: an earlier run's.
        self._not_in_base: set[int] = set()
        self._touched: set[int] = set()

    @property
    def fresh_copies(self) -> int:
        """Copies made where no further hard link was possible."""
        return self._linker.fresh_copies

    @property
    def partials(self) -> list[Partial]:
        """What an interrupted run had received of large files: the partials of a basis number."""
        return self._partials.announced()

    def keep(self, entry: Entry) -> None:
        """New metadata or another place for an entry whose content stays."""
        old = self.catalog.entry(entry.id)
        if old is None or entry_content(old) != entry_content(entry) or old.target != entry.target:
            raise RemoteProtocolError(f"Entry {entry.id} cannot be kept: it is not what it was")
        self._place(entry)

    def make(self, entry: Entry) -> None:
        """A directory, symlink or special file: everything about it is in the row."""
        if entry.kind == Kind.FILE or entry.size or entry.digest:
            raise RemoteProtocolError(f"Entry {entry.id} is a file and has no content")
        old = self._place(entry).old
        if entry.kind == Kind.DIRECTORY:
            if old is None and entry.id != 1:
                above = self._changed(entry.parent)
                os.mkdir(entry.name, 0o700, dir_fd=above)
                # Opened here: the catalog, asked for its place, would have to write all rows first.
                self._tree.remember(entry.id, open_directory(entry.name, dir_fd=above))
                self._changed(entry.id)
        elif entry.kind == Kind.SYMLINK:
            name = self._beside(entry)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self._incoming)
            os.symlink(entry.target, name, dir_fd=self._incoming)
            self._put_in_place(entry)

    def store(self, entry: Entry, content: bytes) -> None:
        """A small file with its content; what does not match its digest is asked for again."""
        _check_file(entry)
        layout = Layout.of(entry.size, entry.holes) if entry.holes else None
        is_whole = len(content) == (layout.data_bytes if layout else entry.size)
        if not is_whole or content_digest(layout, content) != entry.digest:
            self.lack(entry)
            return
        is_new = self._place(entry, self.catalog.take_content()).old is None
        if is_new:
            name, fd = entry.name, self._changed(entry.parent)
        else:
            name, fd = self._beside(entry), self._incoming
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=fd)
        file = os.open(name, _CREATE, 0o400, dir_fd=fd)
        try:
            if layout is not None:
                write_at(file, layout, content, 0)
                os.ftruncate(file, entry.size)
            else:
                write_all(file, content)
            self._record_staged(entry, file)
        finally:
            os.close(file)
        if not is_new:
            self._put_in_place(entry)

    def link(self, entry: Entry, source_id: int) -> None:
        """A file whose content another entry of the compared catalog has."""
        _check_file(entry)
        self._place(entry, self._content_number(entry, source_id))
        found = self._find_content(entry, source_id)
        if found is None:
            self._lose_content(entry)
            return
        fd, name = found
        beside = self._beside(entry)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(beside, dir_fd=self._incoming)
        try:
            self._linker.link(name, fd, beside, self._incoming)
        except FileNotFoundError:
            self._lose_content(entry)
            return
        self._put_in_place(entry)
        directory = self._tree.directory(entry.parent)
        self._remember_staged(entry, os.stat(entry.name, dir_fd=directory, follow_symlinks=False))

    def _content_number(self, entry: Entry, source_id: int) -> int:
        """The number of the inode that `_find_content` finds, asked for before the entry is placed.

        Not simply that of the source as it is here: the source may have new content by now.
        """
        for catalog in (self._base.catalog, self.catalog) if self._base else (self.catalog,):
            row = catalog.entry(source_id)
            if row is not None and entry_content(row) == entry_content(entry):
                return catalog.content_of(source_id)
        return 0

    def _find_content(self, entry: Entry, source_id: int) -> tuple[int, bytes] | None:
        """Where the content of a link source is: in the base, else in this staging."""
        trees = [(self._base.catalog, self._base.tree)] if self._base else []
        if source_id not in self.missing:
            trees.append((self.catalog, self._tree))
        for catalog, tree in trees:
            row = catalog.entry(source_id)
            if row is not None and entry_content(row) == entry_content(entry):
                if row.id == entry.id and catalog is self.catalog:
                    return None
                with contextlib.suppress(OSError):
                    fd = tree.directory(row.parent)
                    status = os.stat(row.name, dir_fd=fd, follow_symlinks=False)
                    if status.st_size == row.size and not self._is_damaged(status):
                        return fd, row.name
        return None

    def remove(self, entry_id: int) -> int:
        """An entry is gone, and all below it; how many that were."""
        entry = self.catalog.entry(entry_id)
        if entry is None or entry_id == ROOT_ID:
            raise RemoteProtocolError(f"Entry {entry_id} cannot be removed")
        if entry.kind in _HAS_DATA:
            fd = self._changed(entry.parent)
            if entry.kind == Kind.DIRECTORY:
                fd = os.dup(fd)
                self._tree.forget()
                try:
                    remove_tree(entry.name, dir_fd=fd)
                finally:
                    os.close(fd)
            else:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(entry.name, dir_fd=fd)
        self.missing.discard(entry_id)
        return self.catalog.remove(entry_id)

    def name(self, principal: Principal) -> None:
        """What the source calls a user or group."""
        self.catalog.name(principal)

    def put_xattrs(self, key: bytes, encoded: bytes) -> None:
        """Extended attributes that rows will name, or (empty) that none does any more."""
        self.catalog.put_xattrs(key, encoded)

    # -- large files -----------------------------------------------------------------------------

    def open_basis(self, number: int) -> Basis | None:
        """What a basis number stands for; None if there is no such thing. The caller closes it.

        A partial's parts, if it has one, then the content its entry id has in the compared catalog: that of
        the base, which cannot change between a signature and the patch that goes with it. But not where
        an earlier run has staged other content: the client knows the size of that, and refuses a
        signature that is too long for it.
        """
        partial, entry_id = basis_parts(number)
        with contextlib.ExitStack() as stack:
            found: list[DataFile] = []
            if partial:
                parts = self._partials.open(partial)
                if parts is None:
                    return None
                for fd in parts:
                    stack.callback(os.close, fd)
                found += (DataFile(fd, find_layout(fd, os.fstat(fd))) for fd in parts)
            content = self._open_content(entry_id)
            if content is not None:
                found.append(content)
            stack.pop_all()
        if not found:
            return None
        return Basis([file.plain_or_self() for file in found], read_uncached)

    def _open_content(self, entry_id: int) -> DataFile | None:
        trees = []
        if self._base is not None and entry_id not in self._not_in_base:
            trees.append((self._base.catalog, self._base.tree))
        if entry_id not in self.missing:
            trees.append((self.catalog, self._tree))
        for catalog, tree in trees:
            entry = catalog.entry(entry_id)
            if entry is not None and entry.kind == Kind.FILE:
                with contextlib.suppress(OSError):
                    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
                    fd = os.open(entry.name, flags, dir_fd=tree.directory(entry.parent))
                    if not self._is_damaged(os.fstat(fd)):
                        return DataFile(fd, Layout.of(entry.size, entry.holes))
                    os.close(fd)
        return None

    def _is_damaged(self, status: os.stat_result) -> bool:
        return self._base is not None and status.st_ino in self._base.damaged

    def begin_file(
        self, entry_id: int, basis_number: int, origin: Origin, layout: Layout = _PLAIN
    ) -> IncomingFile:
        """Begin to receive a large file, sparse if its layout is.

        The caller hands it to `finish_file` or `abandon_file`, or closes it: then what has arrived is a partial of
        the next run.
        """
        part, fd = self._partials.create(origin, entry_id)
        file = IncomingFile(entry_id, part, fd, layout)
        with contextlib.ExitStack() as stack:
            stack.callback(file.close)
            if basis_number:
                file.basis = self.open_basis(basis_number)
                if file.basis is None:
                    raise RemoteProtocolError(f"There is no basis {basis_number}")
            stack.pop_all()
        return file

    def finish_file(self, file: IncomingFile, entry: Entry) -> None:
        """Put a received file in place if it is what its row says, else ask for it again."""
        with file:
            _check_file(entry)
            if entry.id != file.entry_id:
                raise RemoteProtocolError(f"Entry {entry.id} ends the file of {file.entry_id}")
            is_whole = file.is_of(entry)
            if is_whole:
                self._record_staged(entry, file.fd)
        if not is_whole:
            self._partials.abandon(file.part)
            self.lack(entry)
            return
        self._place(entry, self.catalog.take_content())
        self._partials.link(file.part, self._beside(entry), self._incoming)
        self._put_in_place(entry)

    def abandon_file(self, file: IncomingFile) -> None:
        """Its sender has given it up."""
        file.close()
        self._partials.abandon(file.part)

    def lack(self, entry: Entry) -> None:
        """Take the row of a file, but not its content: that was wrong."""
        self._place(entry)
        self._lose_content(entry)

    def _lose_content(self, entry: Entry) -> None:
        """Ask for the content of a placed entry; what it had before must not be taken for it."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(entry.name, dir_fd=self._changed(entry.parent))
        self.missing.add(entry.id)

    # -- placing -----------------------------------------------------------------------------

    def _place(self, entry: Entry, content: int = 0) -> Placement:
        """Put the row into the catalog, and move in the tree what that moves."""
        placement = self.catalog.put(entry, content)
        old, parked = placement
        if parked is not None:
            self._move(parked, PARKED, b"%d" % parked.id)
        if old is not None and (old.parent, old.name) != (entry.parent, entry.name):
            self._move(old, entry.parent, entry.name)
        return placement

    def _move(self, entry: Entry, parent: int, name: bytes) -> None:
        if entry.kind not in _HAS_DATA:
            return
        # A duplicate: looking the second directory up may close the first one's descriptor.
        source = os.dup(self._changed(entry.parent))
        try:
            rename(entry.name, source, name, self._changed(parent))
        except FileNotFoundError:
            if entry.id not in self.missing:
                raise
        finally:
            os.close(source)

    def _changed(self, directory_id: int) -> int:
        """The descriptor of a directory that is about to change."""
        if self._fsync_each:
            self._touched.add(directory_id)
        return self._tree.directory(directory_id)

    def _beside(self, entry: Entry) -> bytes:
        return b"%d" % entry.id

    def _put_in_place(self, entry: Entry) -> None:
        """Rename what was made in incoming/ over the entry's place."""
        beside = self._beside(entry)
        rename(beside, self._incoming, entry.name, self._changed(entry.parent))
        # rename() does nothing at all when both names are links of one inode already.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(beside, dir_fd=self._incoming)
        self.missing.discard(entry.id)

    def _record_staged(self, entry: Entry, fd: int) -> None:
        if self._fsync_each:
            fsync(fd)
        self._remember_staged(entry, os.fstat(fd))
        self.new_bytes += data_bytes(entry.size, entry.holes)

    def _remember_staged(self, entry: Entry, status: os.stat_result) -> None:
        self._staged.append(StagedFile(entry.id, status.st_ino, status.st_mtime_ns, status.st_size))

    def wanted(self) -> list[int]:
        """The missing files that are still part of the version, by id."""
        self.missing = {
            entry_id
            for entry_id in self.missing
            if (entry := self.catalog.entry(entry_id)) is not None and entry.kind == Kind.FILE
        }
        return sorted(self.missing)


def _check_file(entry: Entry) -> None:
    if entry.kind != Kind.FILE or entry.size < 0 or len(entry.digest) != _DIGEST_BYTES:
        raise RemoteProtocolError(f"Entry {entry.id} is no file that can have content")
