"""From a base tree to a staging tree: cloning one, and putting one right again.

`clone` is the fast way at the start of a sync: link everything, look at nothing. `reconcile` is the careful way after
an interruption or when the clone's counts are not the catalog's: what is not as the catalog says is linked
from the base anew, or reported as missing. Both are idempotent.
"""

import contextlib
import errno
import itertools
import os
import stat
from collections.abc import Iterable
from typing import NamedTuple

from ssfs.fsio.disk import copy_file, link_file, open_directory
from ssfs.fsio.removal import remove_tree
from ssfs.model.entry import ROOT_ID, Entry, Kind
from ssfs.store.catalog.reader import CatalogReader
from ssfs.store.catalog.schema import PARKED
from ssfs.store.staged import StagedFile, StagedRows
from ssfs.store.tree import Tree

_BATCH = 2000


class Linker:
    """Hard links, with a fresh copy where the file system allows no further one.

    Attributes:
        fresh_copies: Paths (directory descriptor's inode, name) are not kept: only how many copies
            had to be made.
        copied_bytes: Their bytes.
    """

    def __init__(self, copies_fd: int) -> None:
        """Keep the copies in the directory `copies_fd`, which stays the caller's."""
        self._copies_fd = copies_fd
        self.fresh_copies = 0
        self.copied_bytes = 0

    def link(self, name: bytes, source_fd: int, target: bytes, target_fd: int) -> None:
        """Link `name` as `target`; at the limit of links, link to a copy instead.

        Later links of the same inode go to the newest copy, and the next version's to what this
        version links to, so that one copy serves for another 65,000 links.
        """
        try:
            link_file(name, source_fd, target, target_fd)
        except OSError as error:
            if error.errno != errno.EMLINK:
                raise
        else:
            return
        inode = os.stat(name, dir_fd=source_fd, follow_symlinks=False).st_ino
        copy = b"copy-%d" % inode
        try:
            link_file(copy, self._copies_fd, target, target_fd)
        except OSError as error:
            if error.errno not in (errno.EMLINK, errno.ENOENT):
                raise
            self.copied_bytes += copy_file(name, source_fd, copy, self._copies_fd)
            self.fresh_copies += 1
            link_file(copy, self._copies_fd, target, target_fd)


class CloneCounts(NamedTuple):
    """What a clone made, the root directory included."""

    files: int
    directories: int
    symlinks: int


def clone(base_fd: int, tree_fd: int, linker: Linker) -> CloneCounts:
    """Hard-link everything below `base_fd` into the empty directory `tree_fd`.

    Holds a pair of descriptors per level of depth.
    """
    files = symlinks = 0
    directories = 1
    stack: list[tuple[int, int, list[str]]] = []
    source, target = os.dup(base_fd), os.dup(tree_fd)
    try:
        while True:
            below: list[str] = []
            with os.scandir(source) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        below.append(entry.name)
                        continue
                    name = os.fsencode(entry.name)
                    linker.link(name, source, name, target)
                    if entry.is_symlink():
                        symlinks += 1
                    else:
                        files += 1
            directories += len(below)
            stack.append((source, target, below))
            source = target = -1
            while stack and not stack[-1][2]:
                for fd in stack.pop()[:2]:
                    os.close(fd)
            if not stack:
                return CloneCounts(files, directories, symlinks)
            parent_source, parent_target, below = stack[-1]
            next_name = os.fsencode(below.pop())
            os.mkdir(next_name, 0o700, dir_fd=parent_target)
            source = open_directory(next_name, dir_fd=parent_source)
            target = open_directory(next_name, dir_fd=parent_target)
    finally:
        for fd in itertools.chain((source, target), *(frame[:2] for frame in stack)):
            if fd >= 0:
                os.close(fd)


class Base(NamedTuple):
    """The version a staging is bound to.

    Attributes:
        catalog: Its rows.
        tree: Its data.
        damaged: Inode numbers of data files in it that are known to be damaged: nothing may come from them.
    """

    catalog: CatalogReader
    tree: Tree
    damaged: frozenset[int] = frozenset()


def damaged_inodes(catalog: CatalogReader, tree: Tree, ids: Iterable[int]) -> frozenset[int]:
    """The inodes behind entries that are known to be damaged, where there are any."""
    found = set()
    for entry_id in ids:
        with contextlib.suppress(OSError):
            entry = catalog.entry(entry_id)
            if entry is not None and entry.kind == Kind.FILE:
                fd = tree.directory(entry.parent)
                found.add(os.stat(entry.name, dir_fd=fd, follow_symlinks=False).st_ino)
    return frozenset(found)


class Reconciler:
    """Makes a staging tree what its catalog says, as far as base and staged files go.

    Attributes:
        missing: Ids of files whose content is nowhere to be had.
    """

    def __init__(
        self,
        catalog: CatalogReader,
        tree: Tree,
        base: Base | None,
        staged: StagedRows,
        linker: Linker,
        *,
        is_complete: bool = False,
    ) -> None:
        """Repair `tree`; everything stays the caller's.

        Args:
            catalog: What the tree is to be.
            tree: What is there.
            base: The version it began as.
            staged: What checkpoints have recorded.
            linker: Makes hard links.
            is_complete: Whether the tree is known to be on the disk as the catalog says: what is not the
                base's is recorded as staged then.
        """
        self._catalog = catalog
        self._tree = tree
        self._base = base
        self._staged = staged
        self._linker = linker
        self._is_complete = is_complete
        self.missing: list[int] = []

    def run(self) -> list[int]:
        """Do it; the ids of files whose content is nowhere to be had."""
        for top in (ROOT_ID, PARKED):
            pending = [top]
            while pending:
                pending += self._directory(pending.pop())
        return self.missing

    def _directory(self, entry_id: int) -> list[int]:
        """Put one directory right; the ids of the directories in it."""
        fd = self._tree.directory(entry_id)
        with os.scandir(fd) as entries:
            present = {os.fsencode(entry.name): entry.inode() for entry in entries}
        below: list[int] = []
        after = b""
        while batch := list(itertools.islice(self._catalog.children(entry_id, after), _BATCH)):
            after = batch[-1].name
            for entry in batch:
                inode = present.pop(entry.name, 0)
                self._entry(entry, fd, inode)
                if entry.kind == Kind.DIRECTORY:
                    below.append(entry.id)
        for name in present:
            remove_tree(name, dir_fd=fd)
        return below

    def _entry(self, entry: Entry, fd: int, inode: int) -> None:
        """Put one name right; `inode` is what is there now, 0 for nothing."""
        status = os.stat(entry.name, dir_fd=fd, follow_symlinks=False) if inode else None
        match entry.kind:
            case Kind.DIRECTORY:
                if status is None or not stat.S_ISDIR(status.st_mode):
                    remove_tree(entry.name, dir_fd=fd)
                    os.mkdir(entry.name, 0o700, dir_fd=fd)
            case Kind.SYMLINK:
                is_link = status is not None and stat.S_ISLNK(status.st_mode)
                if not is_link or os.readlink(entry.name, dir_fd=fd) != entry.target:
                    remove_tree(entry.name, dir_fd=fd)
                    os.symlink(entry.target, entry.name, dir_fd=fd)
            case Kind.FILE:
                self._file(entry, fd, status)
            case _:
                remove_tree(entry.name, dir_fd=fd)

    def _file(self, entry: Entry, fd: int, status: os.stat_result | None) -> None:
        is_file = status is not None and stat.S_ISREG(status.st_mode)
        if self._base is not None and status is not None and status.st_ino in self._base.damaged:
            # However it came here: cloned, or linked before the damage was known.
            is_file = False
        if is_file and status is not None and self._is_staged(entry, status):
            return
        source = self._in_base(entry)
        if source is not None:
            source_fd, source_status = source
            if is_file and status is not None and status.st_ino == source_status.st_ino:
                return
            remove_tree(entry.name, dir_fd=fd)
            base_row = self._base_row(entry)
            if base_row is not None:
                self._linker.link(base_row.name, source_fd, entry.name, fd)
            return
        if self._is_complete and is_file and status is not None and status.st_size == entry.size:
            self._staged.add([_as_staged(entry, status)])
            return
        remove_tree(entry.name, dir_fd=fd)
        self.missing.append(entry.id)

    def _is_staged(self, entry: Entry, status: os.stat_result) -> bool:
        is_it = self._staged.find(entry.id) == _as_staged(entry, status)
        return is_it and status.st_size == entry.size

    def _base_row(self, entry: Entry) -> Entry | None:
        row = self._base.catalog.entry(entry.id) if self._base is not None else None
        same = row is not None and entry_content(row) == entry_content(entry)
        return row if same else None

    def _in_base(self, entry: Entry) -> tuple[int, os.stat_result] | None:
        """The base's file of the same id and content: its directory and status."""
        row = self._base_row(entry)
        if row is None or self._base is None:
            return None
        try:
            fd = self._base.tree.directory(row.parent)
            status = os.stat(row.name, dir_fd=fd, follow_symlinks=False)
        except OSError:
            return None
        is_whole = stat.S_ISREG(status.st_mode) and status.st_size == row.size
        is_whole = is_whole and status.st_ino not in self._base.damaged
        return (fd, status) if is_whole else None


def _as_staged(entry: Entry, status: os.stat_result) -> StagedFile:
    return StagedFile(entry.id, status.st_ino, status.st_mtime_ns, status.st_size)


def entry_content(entry: Entry) -> tuple[int, int, bytes, bytes]:
    """What must be equal for two files to have the same data."""
    return (entry.kind, entry.size, entry.digest, entry.holes)
