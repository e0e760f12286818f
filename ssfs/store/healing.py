"""Damaged entries made good again, from wherever their content still is.

Nothing is written into a file of a committed tree: what is good is linked or copied into `healing/` of the task, its
digest taken there, and renamed over what is damaged. Directories and symlinks are made from their rows. Only then is the
entry taken off the list (`ssfs.store.damage`): a crash in between leaves a good file on the list, and the next time
it is healed once more. What a crash leaves in `healing/` is deleted by the next one who heals.
"""

import contextlib
import functools
import os
from collections.abc import Callable, Iterable
from typing import NamedTuple

from ssfs.errors import CorruptStore, SsfsError, StoreError
from ssfs.fsio.disk import (
    fsync,
    make_directory,
    open_directory,
    open_fd,
    rename,
)
from ssfs.fsio.lock import DirectoryLock
from ssfs.fsio.removal import remove_tree
from ssfs.fsio.sparse import write_at
from ssfs.model.entry import ROOT_ID, Entry, Kind
from ssfs.model.layout import ContentHasher, Layout
from ssfs.store.clone import Linker
from ssfs.store.damage import change_damage, without
from ssfs.store.store import Task
from ssfs.store.stored import fault_of, open_stored
from ssfs.store.tree import Tree
from ssfs.store.version import Version

_HEALING = b"healing"
_PLACE = b"place"
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL

Content = tuple[int, bytes]
"""Size and digest."""
Wanted = dict[Content, bytes]
"""What is wanted, and of sparse files the extents, as in their rows."""
Gather = Callable[[Wanted, int], None]
"""Brings content that is wanted to an open workplace, under its digest in hex; only what has been digested there."""


class Healed(NamedTuple):
    """Entries of a version that are whole again.

    Attributes:
        version: Which one.
        ids: Of its entries.
        left: How many are damaged still.
    """

    version: Version
    ids: frozenset[int]
    left: int


def heal(task: Task, sources: Iterable[Version]) -> list[Healed]:
    """Heal what is known to be damaged in a task, as far as the sources have the content.

    Args:
        task: Whose versions; this process owns the store.
        sources: Versions of any store, asked in this order until nothing is wanted any more. Those of this task
            are linked to, of others copies are made. They are not trusted: every file is digested first.

    Returns:
        What has been healed; nothing if somebody else is healing this task just now.

    Raises:
        OSError: The store cannot be written.
    """
    return heal_with(task, lambda wanted, workplace: gather(wanted, sources, workplace, task))


def heal_with(task: Task, bring: Gather) -> list[Healed]:
    """Likewise, with what somebody brings from elsewhere; raises what that raises, too."""
    damaged = [version for version in task.versions() if version.damage().entries]
    if not damaged:
        return []
    task_fd = open_directory(task.path)
    try:
        os.close(make_directory(_HEALING, dir_fd=task_fd))
        with DirectoryLock(_HEALING, dir_fd=task_fd) as workplace:
            if not workplace.exclusive_nowait():
                return []
            _empty(workplace.fd)
            try:
                return _heal(task, damaged, bring, workplace.fd)
            finally:
                _empty(workplace.fd)
                os.rmdir(_HEALING, dir_fd=task_fd)
    finally:
        os.close(task_fd)


def _empty(fd: int) -> None:
    for name in os.listdir(fd):
        remove_tree(os.fsencode(name), dir_fd=fd)


def _heal(task: Task, damaged: list[Version], bring: Gather, workplace: int) -> list[Healed]:
    wanted: Wanted = {}
    for version in damaged:
        with contextlib.suppress(StoreError, OSError), _Patient(version, workplace) as patient:
            wanted |= patient.wanted()
    if wanted:
        bring(wanted, workplace)
    healed = []
    for version in damaged:
        with contextlib.suppress(StoreError, FileNotFoundError):
            with _Patient(version, workplace) as patient:
                ids = frozenset(patient.heal())
            if ids:
                with task.guard():
                    left = change_damage(version.path, functools.partial(without, ids=ids))
                healed.append(Healed(version, ids, len(left.entries)))
    return healed


def gather(
    wanted: Iterable[Content], sources: Iterable[Version], workplace: int, task: Task
) -> None:
    """Bring each content that is wanted to `workplace`, under its digest, if a source has it whole."""
    open_wants = set(wanted)
    for source in sources:
        if not open_wants:
            return
        is_ours = os.path.dirname(os.path.dirname(source.path)) == task.path
        # What is wrong with one source is no reason not to ask the next.
        with contextlib.suppress(SsfsError, FileNotFoundError, NotADirectoryError):
            with source.share(), source.catalog() as catalog:
                tree = Tree(catalog, open_directory(os.path.join(source.path, b"tree")))
                with contextlib.closing(tree):
                    for entry in catalog.files_with(open_wants):
                        content = (entry.size, entry.digest)
                        if content in open_wants and _fetch(
                            entry, tree, workplace, is_ours=is_ours
                        ):
                            open_wants.discard(content)


def _fetch(entry: Entry, tree: Tree, workplace: int, *, is_ours: bool) -> bool:
    """Bring one file to the workplace; whether it is what its row says."""
    name = entry.digest.hex().encode()
    try:
        directory = tree.directory(entry.parent)
        source = open_stored(entry.name, directory)
    except OSError:
        return False
    try:
        if is_ours:
            if fault_of(source, entry):
                return False
            Linker(workplace).link(entry.name, directory, name, workplace)
            return True
        with open_fd(name, _CREATE, dir_fd=workplace, mode=0o400) as copy:
            layout = Layout.of(entry.size, entry.holes)
            is_right = not fault_of(
                source, entry, lambda piece, at: write_at(copy, layout, piece, at)
            )
            os.ftruncate(copy, entry.size)
            fsync(copy)
        if not is_right:
            os.unlink(name, dir_fd=workplace)
        return is_right
    finally:
        os.close(source)


class Arrival:
    """Content that comes to a workplace piece by piece, from where nobody is trusted."""

    def __init__(self, content: Content, holes: bytes, workplace: int) -> None:
        """Begin; `close` when done.

        Raises:
            OSError: Its file cannot be made.
        """
        self._size, self._digest = content
        self._layout = Layout.of(self._size, holes)
        self._hasher = ContentHasher(self._layout)
        self._position = 0
        self._name = self._digest.hex().encode()
        self._workplace = workplace
        self._is_right = False
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._name, dir_fd=workplace)
        self._fd = os.open(self._name, _CREATE | os.O_CLOEXEC, 0o400, dir_fd=workplace)

    def takes(self, count: int) -> bool:
        """Whether so many more bytes can be part of it."""
        return self._position + count <= self._layout.data_bytes

    def write(self, piece: bytes | memoryview) -> None:
        """The next bytes of its stream.

        Raises:
            OSError: They cannot be written.
        """
        self._hasher.update(piece)
        write_at(self._fd, self._layout, piece, self._position)
        self._position += len(piece)

    def finish(self) -> bool:
        """All has come: whether it is what it should be; if so it is on the disk.

        Raises:
            OSError: It cannot be written.
        """
        if self._hasher.digest() == self._digest:
            os.ftruncate(self._fd, self._size)
            fsync(self._fd)
            self._is_right = True
        return self._is_right

    def close(self) -> None:
        """What is not right goes."""
        os.close(self._fd)
        if not self._is_right:
            with contextlib.suppress(OSError):
                os.unlink(self._name, dir_fd=self._workplace)


class _Patient:
    """A version with damaged entries, open and locked."""

    def __init__(self, version: Version, workplace: int) -> None:
        damage = version.damage()
        if damage.catalog:
            raise CorruptStore(f"Catalog is damaged: {damage.catalog}", path=version.path)
        if version.is_intact():
            # Its rows say what is put in the place of what: one flipped bit would be put into the tree.
            version.check_catalog_file()
        self._ids = damage.ids
        self._workplace = workplace
        self._linker = Linker(workplace)
        with contextlib.ExitStack() as stack:
            stack.enter_context(version.share())
            self._catalog = stack.enter_context(version.catalog())
            self._root = open_directory(os.path.join(version.path, b"tree"))
            self._tree = Tree(self._catalog, self._root)
            stack.callback(self._tree.close)
            self._stack = stack.pop_all()

    def __enter__(self) -> "_Patient":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _rows(self) -> list[Entry]:
        return [row for entry_id in self._ids if (row := self._catalog.entry(entry_id)) is not None]

    def wanted(self) -> Wanted:
        """The content that its damaged files should have."""
        return {(row.size, row.digest): row.holes for row in self._rows() if row.kind == Kind.FILE}

    def heal(self) -> list[int]:
        """Put in place what can be; the ids of those entries."""
        return [row.id for row in self._rows() if self._put(row)]

    def _put(self, row: Entry) -> bool:
        # One that could not be put in place may have left it.
        remove_tree(_PLACE, dir_fd=self._workplace)
        match row.kind:
            case Kind.DIRECTORY:
                self._directory(row.id)
            case Kind.SYMLINK:
                os.symlink(row.target, _PLACE, dir_fd=self._workplace)
                self._put_in_place(row)
            case Kind.FILE:
                try:
                    name = row.digest.hex().encode()
                    self._linker.link(name, self._workplace, _PLACE, self._workplace)
                except FileNotFoundError:
                    return False
                # Where no more links are possible it is a copy, which nobody has synced yet.
                self._sync_place()
                self._put_in_place(row)
            case _:
                # Its row is all of it; what lies in its place has no business there.
                directory = self._directory(row.parent)
                remove_tree(row.name, dir_fd=directory)
                fsync(directory)
        return True

    def _sync_place(self) -> None:
        fd = os.open(_PLACE, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._workplace)
        try:
            fsync(fd)
        finally:
            os.close(fd)

    def _put_in_place(self, row: Entry) -> None:
        directory = self._directory(row.parent)
        try:
            rename(_PLACE, self._workplace, row.name, directory)
        except IsADirectoryError:
            remove_tree(row.name, dir_fd=directory)
            rename(_PLACE, self._workplace, row.name, directory)
        # rename() does nothing at all when both names are links of one inode already.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(_PLACE, dir_fd=self._workplace)
        fsync(directory)

    def _directory(self, entry_id: int) -> int:
        """A descriptor of a directory, valid until the next call; made where it is missing."""
        try:
            return self._tree.directory(entry_id)
        except OSError:
            self._tree.forget()
        names = self._catalog.path_names(entry_id) or []
        for depth in range(1, len(names) + 1):
            self._make(names[:depth])
        return self._tree.directory(entry_id)

    def _make(self, names: list[bytes]) -> None:
        """Make the last of these directories; those above are there."""
        parent = os.dup(self._tree.directory(ROOT_ID))
        try:
            for name in names[:-1]:
                below = open_directory(name, dir_fd=parent)
                os.close(parent)
                parent = below
            try:
                os.close(open_directory(names[-1], dir_fd=parent))
            except OSError:
                # Not there, or something else is.
                remove_tree(names[-1], dir_fd=parent)
                os.close(make_directory(names[-1], dir_fd=parent))
                fsync(parent)
        finally:
            os.close(parent)
