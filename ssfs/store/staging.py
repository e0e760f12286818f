"""The version being received: a clone of the base, plus the changes a client sends.

Owns `staging/` of one task (FORMAT.md, "Staging"), whose lock the caller holds. The tree always is what the catalog says, but for
the files in `missing`. After a crash the catalog is as of the last checkpoint and the tree may be anything; `prepare`
puts it right. Content is never trusted unverified: every file's digest is computed here before it counts.
"""

import contextlib
import os
from typing import NamedTuple

import blake3
import msgspec

from ssfs.errors import CorruptStore, RemoteProtocolError
from ssfs.fsio.disk import (
    copy_file,
    fsync,
    make_directory,
    needs_fsync_per_file,
    open_directory,
    open_fd,
    remove_tree,
    rename,
    replace_file,
    syncfs,
    write_all,
)
from ssfs.fsio.lock import FileLock
from ssfs.model.entry import ROOT_ID, Entry, Kind, Principal
from ssfs.model.version import VersionId, VersionRecord
from ssfs.store.catalog.schema import PARKED, STAGED_TABLE
from ssfs.store.catalog.writer import CatalogWriter, Placement
from ssfs.store.clone import Base, Linker, Reconciler, StagedFile, clone, entry_content
from ssfs.store.incoming import IncomingFile
from ssfs.store.store import Task
from ssfs.store.textfile import FORMAT, read_text_file, write_text_file
from ssfs.store.trash import discard
from ssfs.store.tree import Tree
from ssfs.store.version import Version, encode_record

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_HAS_DATA = (Kind.FILE, Kind.DIRECTORY, Kind.SYMLINK)


class StagingSettings(msgspec.Struct, frozen=True):
    """The content of staging.toml."""

    format: int
    base: str
    base_digest: str


class _Directories(NamedTuple):
    """Descriptors held as long as the staging is open."""

    task: int
    staging: int
    incoming: int


class Staging:
    """An open staging; close it when done, committed or not.

    Attributes:
        catalog: What the version will hold.
        is_resumed: Whether an interrupted run left it.
        base: Version id of the base, "" for none.
        missing: Ids of files whose content the store does not have; the client is asked for them.
        new_bytes: Content bytes stored.
        fresh_copies: Copies made where no further hard link was possible.
    """

    def __init__(self, task: Task, base: Version | None) -> None:
        """Open the interrupted staging of the task, or make one from `base`.

        Raises:
            CorruptStore: The base cannot be used.
            OSError: The store cannot be written.
        """
        self._task = task
        self._base_version = base
        self.base = str(base.id) if base else ""
        self.missing: set[int] = set()
        self.new_bytes = 0
        self._staged: list[StagedFile] = []
        with contextlib.ExitStack() as stack:
            self._base, self._base_lock = _open_base(base, stack)
            task_fd = open_directory(task.path)
            stack.callback(os.close, task_fd)
            # Before the first write: syncfs reports the errors that happened since.
            self._fsync_each = needs_fsync_per_file(task_fd)
            self.is_resumed = self._can_resume(task_fd)
            if not self.is_resumed:
                self._create(task_fd)
            staging = open_directory(b"staging", dir_fd=task_fd)
            stack.callback(os.close, staging)
            remove_tree(b"incoming", dir_fd=staging)
            incoming = make_directory(b"incoming", dir_fd=staging)
            stack.callback(os.close, incoming)
            self._fds = _Directories(task_fd, staging, incoming)
            path = os.path.join(task.path, b"staging", b"catalog.db")
            self.catalog = CatalogWriter.open_writer(path, durable=True)
            stack.callback(self.catalog.close)
            self.catalog.run(STAGED_TABLE, [()])
            self._tree = Tree(
                self.catalog,
                make_directory(b"tree", dir_fd=staging),
                make_directory(b"parked", dir_fd=staging),
            )
            stack.callback(self._tree.close)
            self._linker = Linker(incoming)
            self._stack = stack.pop_all()

    @property
    def fresh_copies(self) -> int:
        """Copies made where no further hard link was possible."""
        return self._linker.fresh_copies

    def _can_resume(self, task_fd: int) -> bool:
        """Whether an interrupted staging of this base is there; a useless one is discarded."""
        if not os.path.lexists(os.path.join(self._task.path, b"staging")):
            return False
        settings: StagingSettings | None = None
        try:
            directory = os.path.join(self._task.path, b"staging")
            settings = read_text_file(b"staging.toml", StagingSettings, directory=directory)
            path = os.path.join(directory, b"catalog.db")
            with CatalogWriter.open_writer(path, durable=True) as catalog:
                if settings.base and catalog.root() is None:
                    settings = None
        except (CorruptStore, OSError):
            # Not a StoreError: what a newer ssfs left is not ours to drop.
            settings = None
        digest = self._base_digest().hex()
        if settings is not None and (settings.base, settings.base_digest) == (self.base, digest):
            return True
        discard(b"staging", task_fd)
        return False

    def _base_digest(self) -> bytes:
        return self._base.catalog.logical_digest() if self._base else bytes(32)

    def _create(self, task_fd: int) -> None:
        os.mkdir(b"staging", 0o700, dir_fd=task_fd)
        staging = open_directory(b"staging", dir_fd=task_fd)
        try:
            if self._base_version is not None:
                source = open_directory(self._base_version.path)
                try:
                    copy_file(b"catalog.db", source, b"catalog.db", staging, mode=0o600)
                finally:
                    os.close(source)
                with open_fd(b"catalog.db", os.O_RDONLY, dir_fd=staging) as copy:
                    fsync(copy)
            # Last: a staging with a staging.toml has a whole catalog.
            settings = StagingSettings(FORMAT, self.base, self._base_digest().hex())
            write_text_file(b"staging.toml", settings, dir_fd=staging)
        finally:
            os.close(staging)

    def prepare(self) -> None:
        """Bring the tree to what the catalog says: clone the base, or repair what a crash left."""
        if not self.is_resumed:
            if self._base is None:
                return
            tree_fd = self._tree.directory(1)
            made = clone(self._base.tree.directory(1), tree_fd, self._linker)
            counters = ("files", "directories", "symlinks")
            if made == tuple(self.catalog.counter(key) for key in counters):
                return
        rows = self.catalog.query("SELECT id, ino, mtime_ns, size FROM staged")
        staged = [StagedFile._make(row) for row in rows]
        reconciler = Reconciler(self.catalog, self._tree, self._base, staged, self._linker)
        self._tree.forget()
        self.missing.update(reconciler.run())

    # -- changes, in the order the client sends them ---------------------------------------------

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
                os.mkdir(entry.name, 0o700, dir_fd=self._tree.directory(entry.parent))
        elif entry.kind == Kind.SYMLINK:
            name = self._beside(entry)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self._fds.incoming)
            os.symlink(entry.target, name, dir_fd=self._fds.incoming)
            self._put_in_place(entry)

    def store(self, entry: Entry, content: bytes) -> None:
        """A small file with its content; what does not match its digest is asked for again."""
        _check_file(entry)
        if len(content) != entry.size or blake3.blake3(content).digest() != entry.digest:
            self.lack(entry)
            return
        is_new = self._place(entry, self.catalog.take_content()).old is None
        if is_new:
            name, fd = entry.name, self._tree.directory(entry.parent)
        else:
            name, fd = self._beside(entry), self._fds.incoming
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=fd)
        file = os.open(name, _CREATE, 0o400, dir_fd=fd)
        try:
            write_all(file, content)
            self._record_staged(entry, file)
        finally:
            os.close(file)
        if not is_new:
            self._put_in_place(entry)

    def link(self, entry: Entry, source_id: int) -> None:
        """A file whose content another entry of the compared catalog has."""
        _check_file(entry)
        content = self.catalog.content_of(source_id)
        self._place(entry, content)
        found = self._find_content(entry, source_id)
        if found is None:
            self._lose_content(entry)
            return
        fd, name = found
        beside = self._beside(entry)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(beside, dir_fd=self._fds.incoming)
        try:
            self._linker.link(name, fd, beside, self._fds.incoming)
        except FileNotFoundError:
            self._lose_content(entry)
            return
        self._put_in_place(entry)
        directory = self._tree.directory(entry.parent)
        self._remember_staged(entry, os.stat(entry.name, dir_fd=directory, follow_symlinks=False))

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
                    if status.st_size == row.size:
                        return fd, row.name
        return None

    def remove(self, entry_id: int) -> int:
        """An entry is gone, and all below it; how many that were."""
        entry = self.catalog.entry(entry_id)
        if entry is None or entry_id == ROOT_ID:
            raise RemoteProtocolError(f"Entry {entry_id} cannot be removed")
        if entry.kind in _HAS_DATA:
            fd = self._tree.directory(entry.parent)
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

    # -- large files -----------------------------------------------------------------------------

    def open_basis(self, entry_id: int) -> int | None:
        """A descriptor of the content an id has in the base, else here; None if there is none.

        The base first: it cannot change between a signature and the patch that goes with it.
        """
        trees = [(self._base.catalog, self._base.tree)] if self._base else []
        if entry_id not in self.missing:
            trees.append((self.catalog, self._tree))
        for catalog, tree in trees:
            entry = catalog.entry(entry_id)
            if entry is not None and entry.kind == Kind.FILE:
                with contextlib.suppress(OSError):
                    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
                    return os.open(entry.name, flags, dir_fd=tree.directory(entry.parent))
        return None

    def begin_file(self, entry_id: int, basis_id: int) -> IncomingFile:
        """Begin to receive a large file; the caller finishes or closes it."""
        basis = self.open_basis(basis_id) if basis_id else None
        if basis_id and basis is None:
            raise RemoteProtocolError(f"Entry {basis_id} is no basis")
        return IncomingFile(entry_id, self._fds.incoming, basis)

    def finish_file(self, file: IncomingFile, entry: Entry) -> None:
        """Put a received file in place if it is what its row says, else ask for it again."""
        _check_file(entry)
        with file:
            if entry.id != file.entry_id:
                raise RemoteProtocolError(f"Entry {entry.id} ends the file of {file.entry_id}")
            is_whole = (file.size, file.digest()) == (entry.size, entry.digest)
            if is_whole:
                self._record_staged(entry, file.fd)
        if not is_whole:
            self.lack(entry)
            return
        self._place(entry, self.catalog.take_content())
        self._put_in_place(entry)

    def lack(self, entry: Entry) -> None:
        """Take the row of a file, but not its content: that was wrong."""
        self._place(entry)
        self._lose_content(entry)

    def _lose_content(self, entry: Entry) -> None:
        """Ask for the content of a placed entry; what it had before must not be taken for it."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(entry.name, dir_fd=self._tree.directory(entry.parent))
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
        source = os.dup(self._tree.directory(entry.parent))
        try:
            rename(entry.name, source, name, self._tree.directory(parent))
        except FileNotFoundError:
            if entry.id not in self.missing:
                raise
        finally:
            os.close(source)

    def _beside(self, entry: Entry) -> bytes:
        return b"%d" % entry.id

    def _put_in_place(self, entry: Entry) -> None:
        """Rename what was made in incoming/ over the entry's place."""
        beside = self._beside(entry)
        rename(beside, self._fds.incoming, entry.name, self._tree.directory(entry.parent))
        # rename() does nothing at all when both names are links of one inode already.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(beside, dir_fd=self._fds.incoming)
        self.missing.discard(entry.id)

    def _record_staged(self, entry: Entry, fd: int) -> None:
        if self._fsync_each:
            fsync(fd)
        self._remember_staged(entry, os.fstat(fd))
        self.new_bytes += entry.size

    def _remember_staged(self, entry: Entry, status: os.stat_result) -> None:
        self._staged.append(StagedFile(entry.id, status.st_ino, status.st_mtime_ns, status.st_size))

    # -- durability ------------------------------------------------------------------------------

    def checkpoint(self) -> None:
        """Make all changes so far survive a power cut: data first, then their rows (FORMAT.md)."""
        staged, self._staged = self._staged, []
        if self._fsync_each:
            _fsync_directories(self._tree.directory(1))
        syncfs(self._fds.task)
        self.catalog.run("INSERT OR REPLACE INTO staged VALUES (?, ?, ?, ?)", staged)
        self.catalog.checkpoint()

    def wanted(self) -> list[int]:
        """The missing files that are still part of the version, by id."""
        self.missing = {
            entry_id
            for entry_id in self.missing
            if (entry := self.catalog.entry(entry_id)) is not None and entry.kind == Kind.FILE
        }
        return sorted(self.missing)

    def commit(self, version_id: VersionId, record: VersionRecord) -> None:
        """Make it a version: after this call it is durable and visible.

        Raises:
            CorruptStore: It is not complete.
        """
        if self.missing or self.catalog.has_parked() or self.catalog.root() is None:
            raise CorruptStore("The received version is not complete", path=self._task.path)
        self.catalog.run("DROP TABLE staged", [()])
        self._staged.clear()
        staging = self._fds.staging
        remove_tree(b"incoming", dir_fd=staging)
        remove_tree(b"parked", dir_fd=staging)
        with FileLock(b"lock", dir_fd=staging):
            pass
        if self._fsync_each:
            _fsync_directories(self._tree.directory(1))
        syncfs(self._fds.task)
        self.catalog.checkpoint()
        self.catalog.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(b"catalog.db-journal", dir_fd=staging)
        replace_file(b"version.toml", encode_record(record), dir_fd=staging)
        os.unlink(b"staging.toml", dir_fd=staging)
        fsync(staging)
        versions = open_directory(b"versions", dir_fd=self._fds.task)
        try:
            rename(b"staging", self._fds.task, str(version_id).encode(), versions)
            fsync(versions)
        finally:
            os.close(versions)
        fsync(self._fds.task)

    def close(self) -> None:
        """Close everything; a staging that was not committed stays for the next run."""
        self._stack.close()

    def __enter__(self) -> "Staging":
        """Use as a context manager."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()


def _open_base(
    base: Version | None, stack: contextlib.ExitStack
) -> tuple[Base | None, FileLock | None]:
    if base is None:
        return None, None
    lock = base.share()
    stack.callback(lock.close)
    catalog = base.catalog()
    stack.callback(catalog.close)
    tree = Tree(catalog, open_directory(os.path.join(base.path, b"tree")))
    stack.callback(tree.close)
    return Base(catalog, tree), lock


def _check_file(entry: Entry) -> None:
    if entry.kind != Kind.FILE or entry.size < 0 or len(entry.digest) != 32:
        raise RemoteProtocolError(f"Entry {entry.id} is no file that can have content")


def _fsync_directories(tree_fd: int) -> None:
    """Fsync each directory of a tree, where syncfs does nothing."""
    for _, _, _, fd in os.fwalk(b".", dir_fd=tree_fd):
        fsync(fd)
