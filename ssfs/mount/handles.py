"""Open files and directories of a mount.

The caller closes each handle it got: an open handle keeps a version from being deleted and a name from
being re-bound.
"""

import dataclasses
import itertools
import os
from collections.abc import Iterator
from typing import NamedTuple

from ssfs.model.entry import Entry, Kind
from ssfs.mount.attributes import Attributes, inode_number, split_inode_number
from ssfs.mount.inodes import Inodes, WrongKind, row
from ssfs.mount.names import Binding
from ssfs.mount.top import Line, TopDirectory
from ssfs.store.opened import OpenVersion, RangeReader

_BATCH = 256


class DirectoryItem(NamedTuple):
    """One line of a directory; `cookie` resumes the listing after it."""

    cookie: int
    name: bytes
    attributes: Attributes


@dataclasses.dataclass(eq=False, slots=True)
class TopHandle:
    """A directory above the versions, open; it lists what was there when the listing began."""

    node: TopDirectory
    lines: list[Line]

    @property
    def inode(self) -> int:
        """Its inode number."""
        return self.node.inode


@dataclasses.dataclass(eq=False, slots=True)
class VersionHandle:
    """A directory of a version, open, with the rows that are likely to be asked for next.

    Attributes:
        binding: What it was reached through.
        opened: Its version.
        entry_id: Which directory it is.
        rows: Some consecutive rows of it.
        position: Where in `rows` the listing goes on after a cookie.
        is_last: Whether no rows come after these.
    """

    binding: Binding
    opened: OpenVersion
    entry_id: int
    rows: list[Entry] = dataclasses.field(default_factory=list)
    position: dict[int, int] = dataclasses.field(default_factory=dict)
    is_last: bool = False

    @property
    def inode(self) -> int:
        """Its inode number."""
        return inode_number(self.binding.number, self.entry_id)

    def load(self, after: bytes, cookie: int) -> None:
        """Read on after a name."""
        children = self.opened.catalog.children(self.entry_id, after)
        self.rows = list(itertools.islice(children, _BATCH))
        self.position = {entry.id: index for index, entry in enumerate(self.rows, 1)}
        self.position[cookie] = 0
        self.is_last = len(self.rows) < _BATCH

    def seek(self, cookie: int) -> int:
        """Where in `rows` the line after a cookie is."""
        index = self.position.get(cookie)
        if index is None:
            self.load(self._name_at(cookie), cookie)
            index = 0
        return index

    def _name_at(self, cookie: int) -> bytes:
        if not cookie:
            return b""
        entry = self.opened.catalog.entry(cookie)
        if entry is None or entry.parent != self.entry_id:
            raise WrongKind
        return entry.name


@dataclasses.dataclass(eq=False, slots=True)
class FileHandle:
    """The content of a file, open.

    Attributes:
        binding: What it was reached through.
        opened: Its version.
        fd: Its data file; -1 if it is not on this machine.
        entry: Its row.
        content: How it is read then.
    """

    binding: Binding
    opened: OpenVersion
    fd: int
    entry: Entry
    content: RangeReader | None = None

    @property
    def label(self) -> str:
        """What to call it in the log."""
        return f"{os.fsdecode(self.opened.path)}, entry {self.entry.id}"


DirectoryHandle = TopHandle | VersionHandle


class Handles:
    """Opens, lists and closes."""

    def __init__(self, inodes: Inodes) -> None:
        self._inodes = inodes

    def open_directory(self, inode: int) -> DirectoryHandle:
        """Open a directory; close it with `close_directory`."""
        number, entry_id = split_inode_number(inode)
        if not number:
            node = self._inodes.top(entry_id)
            node.refresh()
            return TopHandle(node, node.lines())
        binding = self._inodes.binding(number)
        handle = VersionHandle(binding, self._inodes.use(binding), entry_id)
        self._inodes.hold(binding, handle.opened)
        return handle

    def list_directory(self, handle: DirectoryHandle, after: int) -> Iterator[DirectoryItem]:
        """The lines after a cookie; 0 begins anew. Take them without awaiting anything.

        Inside a version a cookie is good for ever and through any handle: it is an entry's id, and
        names do not change there. Listings may be left, resumed and repeated as one likes.

        Raises:
            WrongKind: No line of this directory has such a cookie.
        """
        if isinstance(handle, VersionHandle):
            return self._list_version(handle, after)
        return self._list_top(handle, after)

    def _list_top(self, handle: TopHandle, after: int) -> Iterator[DirectoryItem]:
        if not after:
            handle.node.refresh()
            handle.lines = handle.node.lines()
        for line in handle.lines:
            if line.cookie > after:
                attributes = self._inodes.target_attributes(line.target)
                yield DirectoryItem(line.cookie, line.name, attributes)

    def _list_version(self, handle: VersionHandle, after: int) -> Iterator[DirectoryItem]:
        binding = handle.binding
        # The handle keeps the version locked, but its catalog may have been closed meanwhile.
        opened = self._inodes.use(binding)
        index = handle.seek(after)
        while True:
            for entry in itertools.islice(handle.rows, index, None):
                attributes = self._inodes.entry_attributes(entry, binding, opened)
                yield DirectoryItem(entry.id, entry.name, attributes)
            if handle.is_last:
                return
            handle.load(handle.rows[-1].name, handle.rows[-1].id)
            index = 0

    def close_directory(self, handle: DirectoryHandle) -> None:
        """Close a directory."""
        if isinstance(handle, VersionHandle):
            self._inodes.release(handle.binding, handle.opened)

    def open_file(self, inode: int) -> FileHandle:
        """Open a file's content; close it with `close_file`."""
        number, entry_id = split_inode_number(inode)
        if not number:
            raise WrongKind
        binding = self._inodes.binding(number)
        opened = self._inodes.use(binding)
        entry = row(opened, entry_id)
        if entry.kind != Kind.FILE:
            raise WrongKind
        content = opened.open_content(entry)
        fd = opened.open_file(entry) if content is None else -1
        handle = FileHandle(binding, opened, fd, entry, content)
        self._inodes.hold(binding, opened)
        return handle

    def close_file(self, handle: FileHandle) -> None:
        """Close a file."""
        if handle.content is None:
            os.close(handle.fd)
        else:
            handle.content.close()
        self._inodes.release(handle.binding, handle.opened)
