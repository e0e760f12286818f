"""One version held against itself: its record, its catalog, and its tree, both ways.

Reads only. What a data file's content is worth is for somebody else to say (`Judge`), because an inode that many versions
link is read once for all of them. Holds the names of one directory at a time.
"""

import contextlib
import itertools
import os
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from ssfs.errors import CorruptStore
from ssfs.fsio.disk import open_directory
from ssfs.model.entry import ROOT_ID, Entry, Kind
from ssfs.store.catalog.reader import CatalogReader
from ssfs.store.tree import Tree
from ssfs.store.version import Version

_BATCH = 2000


class Finding(NamedTuple):
    """Something in tree/ that is not as the catalog says.

    Attributes:
        id: The entry's; 0 for a name that no row has.
        path: Where.
        problem: What is wrong.
        ino: The inode that is there, 0 for none.
    """

    id: int
    path: bytes
    problem: str
    ino: int = 0


class Judge(Protocol):
    """Looks at data files."""

    def judge(self, entry: Entry, dir_fd: int, ino: int) -> str | None:
        """What is wrong with the file at an entry's name: "" for nothing, None if nobody looked."""
        ...

    def advance(self, entries: int, path: bytes) -> None:
        """So many more entries were looked at; now at `path`."""
        ...


def fault_of_record(version: Version) -> str:
    """What is wrong with a version's record; "" if nothing is."""
    try:
        record = version.record()
    except CorruptStore as error:
        return error.problem[:1].lower() + error.problem[1:]
    except OSError as error:
        return f"cannot be read: {(error.strerror or 'unknown error').lower()}"
    name = os.fsdecode(os.path.basename(version.path))
    if (record.id, record.sequence) != (name, version.id.sequence):
        return f"it is that of version {record.id}"
    return ""


def fault_of_catalog(version: Version) -> str:
    """What is wrong with a version's catalog; "" if it is whole and the one that was committed."""
    try:
        with version.catalog() as catalog:
            fault = catalog.fault()
            recorded = catalog.logical_digest().hex()
            if not fault and catalog.root() is None:
                fault = "it is empty"
    except CorruptStore as error:
        return error.problem[:1].lower() + error.problem[1:]
    with contextlib.suppress(CorruptStore):
        if not fault and version.record().catalog_digest != recorded:
            fault = "it is not the one that was committed"
    if not fault and version.is_intact():
        try:
            version.check_catalog_file()
        except (CorruptStore, OSError):
            fault = "some of its bytes are not those that were committed"
    return fault


class TreeInspection:
    """Catalog against tree.

    Attributes:
        unseen: Those of the entries known to be damaged whose content nobody looked at.
    """

    def __init__(
        self, version: Version, catalog: CatalogReader, judge: Judge, known: frozenset[int]
    ) -> None:
        """Look at a version that is locked; `close` when done.

        Args:
            version: Which one.
            catalog: Its catalog, which stays the caller's.
            judge: Looks at its files.
            known: Entries that are known to be damaged.

        Raises:
            OSError: It has no tree.
        """
        self.unseen: set[int] = set()
        self._catalog = catalog
        self._judge = judge
        self._known = known
        self._tree = Tree(catalog, open_directory(os.path.join(version.path, b"tree")))

    def run(self) -> Iterator[Finding]:
        """All that is wrong, in no particular order.

        Raises:
            CorruptStore: The catalog cannot be read.
        """
        pending = [ROOT_ID]
        while pending:
            below: list[int] = []
            entry_id = pending.pop()
            yield from self._directory(entry_id, below)
            pending += below

    def is_still_there(self, finding: Finding) -> bool:
        """Whether what was found is there still, and not healed meanwhile."""
        entry = self._catalog.entry(finding.id)
        if entry is None:
            return True
        try:
            fd = self._tree.directory(entry.parent)
            status = os.stat(entry.name, dir_fd=fd, follow_symlinks=False)
        except OSError:
            return True
        return status.st_ino == finding.ino

    def _directory(self, entry_id: int, below: list[int]) -> Iterator[Finding]:
        """What is wrong with the names of a directory; the directories in it go to `below`."""
        above = b"/".join(self._catalog.path_names(entry_id) or [])
        lost = ""
        present: dict[bytes, os.DirEntry[str]] = {}
        fd = -1
        try:
            fd = os.dup(self._tree.directory(entry_id))
            with os.scandir(fd) as entries:
                present = {os.fsencode(entry.name): entry for entry in entries}
        except OSError as error:
            lost = (error.strerror or "unknown error").lower()
        try:
            after = b""
            while batch := list(itertools.islice(self._catalog.children(entry_id, after), _BATCH)):
                after = batch[-1].name
                below += [entry.id for entry in batch if entry.kind == Kind.DIRECTORY]
                # In the order of inode numbers, which is that of the disk, more or less.
                met = [(entry, present.pop(entry.name, None)) for entry in batch]
                met.sort(key=lambda pair: pair[1].inode() if pair[1] else 0)
                for entry, there in met:
                    path = above + b"/" + entry.name if above else entry.name
                    problem = self._entry(entry, fd, there)
                    if lost and problem:
                        problem = f"missing with its directory ({lost})"
                    if problem:
                        yield Finding(entry.id, path, problem, there.inode() if there else 0)
                self._judge.advance(len(batch), above)
            for name in present:
                path = above + b"/" + name if above else name
                yield Finding(0, path, "not in the catalog")
        finally:
            if fd >= 0:
                os.close(fd)

    def _entry(self, entry: Entry, fd: int, there: os.DirEntry[str] | None) -> str:
        """What is wrong with an entry."""
        if there is None:
            has_data = entry.kind in (Kind.FILE, Kind.DIRECTORY, Kind.SYMLINK)
            return "missing" if has_data else ""
        match entry.kind:
            case Kind.DIRECTORY:
                return "" if there.is_dir(follow_symlinks=False) else "not a directory"
            case Kind.SYMLINK:
                if not there.is_symlink():
                    return "not a symlink"
                is_it = os.readlink(entry.name, dir_fd=fd) == entry.target
                return "" if is_it else "leads elsewhere"
            case Kind.FILE:
                if not there.is_file(follow_symlinks=False):
                    return "not a regular file"
                problem = self._judge.judge(entry, fd, there.inode())
                if problem is None and entry.id in self._known:
                    self.unseen.add(entry.id)
                return problem or ""
            case _:
                return "there, though it has no data"

    def close(self) -> None:
        """Close the tree."""
        self._tree.close()
