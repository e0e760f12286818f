"""The version being received: opened or resumed, made durable, committed.

Owns `staging/` of one task (FORMAT.md, "Staging"), whose lock the caller holds. It begins as a clone of the base; the changes a client
sends are `ssfs.store.staged_tree`'s. After a crash the catalog is as of the last checkpoint and the tree may be anything; `prepare`
puts it right.
"""

import contextlib
import errno
import os
from types import TracebackType
from typing import NamedTuple

import msgspec

from ssfs.errors import CorruptStore, StoreFull
from ssfs.fsio.disk import (
    copy_file,
    digest_content,
    fsync,
    make_directory,
    needs_fsync_per_file,
    open_directory,
    open_fd,
    rename,
    replace_file,
    syncfs,
)
from ssfs.fsio.lock import FileLock
from ssfs.fsio.removal import remove_tree
from ssfs.model.entry import ROOT_ID
from ssfs.model.version import VersionId, VersionRecord
from ssfs.store.catalog.writer import CatalogWriter
from ssfs.store.clone import Base, Reconciler, clone, damaged_inodes
from ssfs.store.partials import Partials
from ssfs.store.staged import StagedRows
from ssfs.store.staged_tree import StagedTree, Workbench
from ssfs.store.store import Task
from ssfs.store.textfile import FORMAT, read_text_file, write_text_file
from ssfs.store.trash import discard
from ssfs.store.tree import Tree
from ssfs.store.version import Version, encode_record, read_record

DOUBTFUL = b"doubtful"
"""A staging with a file of this name holds something that was found damaged: it is dropped."""
_MOST_STAGED = 100_000
"""Rows that wait for a checkpoint: some 20 MB."""


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
        self._is_tree_synced = False
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
            partials = make_directory(b"partials", dir_fd=staging)
            stack.callback(os.close, partials)
            workbench = Workbench(incoming, Partials(partials))
            self._fds = _Directories(task_fd, staging)
            path = os.path.join(task.path, b"staging", b"catalog.db")
            catalog = CatalogWriter.open_writer(path, durable=True)
            stack.callback(catalog.close)
            self._rows = StagedRows(catalog)
            workbench.partials.gather(self._rows)
            tree_fd = make_directory(b"tree", dir_fd=staging)
            tree = Tree(catalog, tree_fd, make_directory(b"parked", dir_fd=staging))
            stack.callback(tree.close)
            super().__init__(catalog, tree, self._base, workbench, fsync_each=fsync_each)
            self._stack = stack.pop_all()

    def _can_resume(self, task_fd: int) -> bool:
        """Whether an interrupted staging of this base is there; a useless one is discarded."""
        path = os.path.join(self._task.path, b"staging")
        if not os.path.lexists(path):
            return False
        wanted = self._settings()
        is_of_use = False
        # Not a StoreError: what a newer ssfs left is not ours to drop.
        with contextlib.suppress(CorruptStore, OSError):
            is_doubtful = os.path.lexists(os.path.join(path, DOUBTFUL))
            if not is_doubtful and self._settings_left(path) == wanted:
                catalog_path = os.path.join(path, b"catalog.db")
                with CatalogWriter.open_writer(catalog_path, durable=True) as catalog:
                    is_of_use = not self.base or catalog.root() is not None
                    # Nothing seals a catalog that changes; to read it all is dear, and rare.
                    is_of_use = is_of_use and catalog.fault() == ""
        if not is_of_use:
            discard(b"staging", task_fd)
        return is_of_use

    def _settings_left(self, path: bytes) -> StagingSettings:
        """The staging.toml of an interrupted staging, put back where a commit had removed it."""
        try:
            return read_text_file(b"staging.toml", StagingSettings, directory=path)
        except (CorruptStore, OSError):
            record = self._broken_commit()
            if record is None or record.base != self.base:
                raise
        fd = open_directory(path)
        try:
            write_text_file(b"staging.toml", self._settings(), dir_fd=fd, is_sealed=True)
        finally:
            os.close(fd)
        return self._settings()

    def _settings(self) -> StagingSettings:
        return StagingSettings(FORMAT, self.base, self._base_digest().hex())

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
            write_text_file(b"staging.toml", self._settings(), dir_fd=staging, is_sealed=True)
        finally:
            os.close(staging)

    def prepare(self) -> None:
        """Bring the tree to what the catalog says: clone the base, or repair what a crash left."""
        if not self.is_resumed:
            if self._base is None:
                return
            # Cloned with the rest, and taken out again below: what is damaged is asked for.
            is_whole = not self._base.damaged
            tree_fd = self._tree.directory(1)
            made = clone(self._base.tree.directory(1), tree_fd, self._linker)
            counters = ("files", "directories", "symlinks")
            if is_whole and made == tuple(self.catalog.counter(key) for key in counters):
                return
        is_complete = self._is_complete()
        self._tree.forget()
        reconciler = Reconciler(
            self.catalog, self._tree, self._base, self._rows, self._linker, is_complete=is_complete
        )
        self.missing.update(reconciler.run())
        if self._base is not None:
            self._not_in_base = self._rows.ids() | self.missing
        if is_complete:
            self.checkpoint()
        # Before anything changes: it spoke of the tree as it was.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(b"version.toml", dir_fd=self._fds.staging)
            fsync(self._fds.staging)

    def _is_complete(self) -> bool:
        """Whether a commit that broke off had everything on the disk, as the catalog says it."""
        record = self._broken_commit()
        return record is not None and record.catalog_digest == self.catalog.logical_digest().hex()

    def _broken_commit(self) -> VersionRecord | None:
        """The version.toml that a commit which broke off has left."""
        try:
            return read_record(os.path.join(self._task.path, b"staging"))
        except (CorruptStore, OSError):
            return None

    # -- durability ------------------------------------------------------------------------------

    def checkpoint(self) -> None:
        """Make all changes so far survive a power cut: data first, then their rows (FORMAT.md)."""
        staged, self._staged = self._staged, []
        if self._fsync_each:
            self._fsync_directories()
        syncfs(self._fds.task)
        self._rows.add(staged)
        self.catalog.checkpoint()
        # Not before: until the rows are there, these names are all that a killed run leaves.
        self._partials.sweep()

    def _fsync_directories(self) -> None:
        """Make names durable where syncfs does nothing: all at first, then of what has changed."""
        touched, self._touched = self._touched, set()
        if not self._is_tree_synced:
            for _, _, _, fd in os.fwalk(b".", dir_fd=self._tree.directory(ROOT_ID)):
                fsync(fd)
            self._is_tree_synced = True
            return
        for directory_id in touched:
            # It may have been removed since, which is for the one above to remember.
            with contextlib.suppress(CorruptStore, FileNotFoundError):
                fsync(self._tree.directory(directory_id))

    def checkpoint_if_full(self) -> None:
        """Make a checkpoint when a client lets too many changes pile up without asking for one."""
        if len(self._staged) + len(self._touched) >= _MOST_STAGED:
            self.checkpoint()

    def commit(self, version_id: VersionId, record: VersionRecord) -> None:
        """Make it a version: after this call it is durable and visible.

        Killed at any point it either is one, or is a staging that has lost nothing.

        Raises:
            CorruptStore: It is not complete.
        """
        if self.missing or self.catalog.has_parked() or self.catalog.root() is None:
            raise CorruptStore("The received version is not complete", path=self._task.path)
        staging = self._fds.staging
        with FileLock(b"lock", dir_fd=staging):
            pass
        self.checkpoint()
        # From here on it says that all is there (`prepare`): what was received need no longer be recorded.
        replace_file(b"version.toml", encode_record(record), dir_fd=staging)
        self._rows.drop()
        self.catalog.checkpoint()
        self.catalog.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(b"catalog.db-journal", dir_fd=staging)
        with open_fd(b"catalog.db", os.O_RDONLY, dir_fd=staging) as fd:
            whole = msgspec.structs.replace(record, catalog_file=digest_content(fd).hex())
        replace_file(b"version.toml", encode_record(whole), dir_fd=staging)
        for name in (b"incoming", b"partials", b"parked"):
            remove_tree(name, dir_fd=staging)
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

    def __exit__(
        self, _1: type[BaseException] | None, error: BaseException | None, _2: TracebackType | None
    ) -> None:
        """Close it."""
        is_full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        if is_full or isinstance(error, StoreFull):
            self._partials.remove_all()
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
    return Base(catalog, tree, damaged_inodes(catalog, tree, base.damage().ids))
