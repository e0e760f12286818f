"""The version being received: opened or resumed, made durable, committed.

Owns `staging/` of one task (FORMAT.md, "Staging"), whose lock the caller holds. It begins as a clone of the base; the changes a client
sends are `ssfs.store.staged_tree`'s. After a crash the catalog is as of the last checkpoint and the tree may be anything; `prepare`
puts it right.
"""

import contextlib
import os
from typing import NamedTuple

import msgspec

from ssfs.errors import CorruptStore
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
)
from ssfs.fsio.lock import FileLock
from ssfs.model.entry import Kind
from ssfs.model.version import VersionId, VersionRecord
from ssfs.store.catalog.schema import STAGED_TABLE
from ssfs.store.catalog.writer import CatalogWriter
from ssfs.store.clone import Base, Reconciler, StagedFile, clone
from ssfs.store.staged_tree import StagedTree
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


class Staging(StagedTree):
    """An open staging; close it when done, committed or not.

    Attributes:
        is_resumed: Whether an interrupted run left it.
        base: Version id of the base, "" for none.
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
        with contextlib.ExitStack() as stack:
            self._base = _open_base(base, stack)
            task_fd = open_directory(task.path)
            stack.callback(os.close, task_fd)
            # Before the first write: syncfs reports the errors that happened since.
            fsync_each = needs_fsync_per_file(task_fd)
            self.is_resumed = self._can_resume(task_fd)
            if not self.is_resumed:
                self._create(task_fd)
            staging = open_directory(b"staging", dir_fd=task_fd)
            stack.callback(os.close, staging)
            remove_tree(b"incoming", dir_fd=staging)
            incoming = make_directory(b"incoming", dir_fd=staging)
            stack.callback(os.close, incoming)
            self._fds = _Directories(task_fd, staging)
            path = os.path.join(task.path, b"staging", b"catalog.db")
            catalog = CatalogWriter.open_writer(path, durable=True)
            stack.callback(catalog.close)
            catalog.run(STAGED_TABLE, [()])
            tree_fd = make_directory(b"tree", dir_fd=staging)
            tree = Tree(catalog, tree_fd, make_directory(b"parked", dir_fd=staging))
            stack.callback(tree.close)
            super().__init__(catalog, tree, self._base, incoming, fsync_each=fsync_each)
            self._stack = stack.pop_all()

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
        if self._base is not None:
            self._not_in_base = {file.id for file in staged} | self.missing

    # -- durability ------------------------------------------------------------------------------

    def checkpoint(self) -> None:
        """Make all changes so far survive a power cut: data first, then their rows (FORMAT.md)."""
        staged, self._staged = self._staged, []
        if self._fsync_each:
            _fsync_directories(self._tree.directory(1))
        syncfs(self._fds.task)
        self.catalog.run("INSERT OR REPLACE INTO staged VALUES (?, ?, ?, ?)", staged)
        self.catalog.checkpoint()

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


def _open_base(base: Version | None, stack: contextlib.ExitStack) -> Base | None:
    """The base, locked against deletion until the stack unwinds."""
    if base is None:
        return None
    lock = base.share()
    stack.callback(lock.close)
    catalog = base.catalog()
    stack.callback(catalog.close)
    tree = Tree(catalog, open_directory(os.path.join(base.path, b"tree")))
    stack.callback(tree.close)
    return Base(catalog, tree)


def _fsync_directories(tree_fd: int) -> None:
    """Fsync each directory of a tree, where syncfs does nothing."""
    for _, _, _, fd in os.fwalk(b".", dir_fd=tree_fd):
        fsync(fd)
