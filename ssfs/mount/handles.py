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
from ssfs.mount.attributes import DirectoryItem, split_inode_number
from ssfs.mount.history.view import NAME as HISTORY
from ssfs.mount.history.view import Histories, HistoryHandle
from ssfs.mount.inodes import Inodes, WrongKind, row
from ssfs.mount.names import Binding
from ssfs.mount.top import Line, TopDirectory
from ssfs.mount.wire import encode_listing
from ssfs.store.catalog.reader import ListedRow
from ssfs.store.checked import CatalogUnchecked
from ssfs.store.opened import LocalVersion, OpenVersion, RangeReader

_BATCH = 256
_HISTORY_COOKIE = (1 << 62) + (1 << 61)


_NEAR = 64
"""How far the next directory is looked for among files."""


@dataclasses.dataclass(eq=False, slots=True)
class TopHandle:
    """A directory above the versions, open; it lists what was there when the listing began."""

    node: TopDirectory
    lines: list[Line]


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
    rows: list[ListedRow] = dataclasses.field(default_factory=list)
    position: dict[int, int] = dataclasses.field(default_factory=dict)
    is_last: bool = False

    def load(self, after: bytes, cookie: int) -> None:
        """Read on after a name."""
        self.rows = self.opened.catalog.listing(self.entry_id, after, _BATCH)
        self.position = {listed[0]: index for index, listed in enumerate(self.rows, 1)}
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


DirectoryHandle = TopHandle | VersionHandle | HistoryHandle


class Prepared(NamedTuple):
    """The first lines of a directory that nobody has asked for yet.

    Attributes:
        handle: What was read.
        size: How much room there was.
        lines: The lines.
    """

    handle: VersionHandle
    size: int
    lines: bytes


class Handles:
    """Opens, lists and closes."""

    def __init__(self, inodes: Inodes, histories: Histories) -> None:
        self._inodes = inodes
        self._histories = histories
        self._walked: tuple[VersionHandle, int, int] | None = None
        self._prepared: Prepared | None = None

    def open_directory(self, inode: int) -> DirectoryHandle:
        """Open a directory; close it with `close_directory`."""
        number, entry_id = split_inode_number(inode)
        if not number:
            node = self._inodes.top(entry_id)
            node.refresh()
            return TopHandle(node, node.lines())
        if self._histories.has(number):
            return self._histories.open(inode)
        binding = self._inodes.binding(number)
        handle = VersionHandle(binding, self._inodes.use(binding), entry_id)
        self._inodes.hold(binding, handle.opened)
        return handle

    def list_directory(
        self, handle: DirectoryHandle, after: int, size: int, generation: int
    ) -> bytes:
        """The lines after a cookie, in the kernel's form: as many as there is room for.

        Inside a version a cookie is good for ever and through any handle: it is an entry's id, and
        names do not change there. Listings may be left, resumed and repeated as one likes.

        Args:
            handle: Of what.
            after: The cookie; 0 begins anew.
            size: How many bytes there is room for.
            generation: Of all inode numbers of the mount.

        Raises:
            WrongKind: No line of this directory has such a cookie.
        """
        if isinstance(handle, VersionHandle):
            if after:
                return self._list_version(handle, after, size, generation)
            if isinstance(handle.opened, LocalVersion):
                # Of a server's version the rows of that directory may not be here.
                self._walked = (handle, size, generation)
            return self._take_prepared(handle, size) or self._list_version(
                handle, 0, size, generation
            )
        lines: Iterator[DirectoryItem]
        if isinstance(handle, HistoryHandle):
            lines = itertools.starmap(DirectoryItem, self._histories.list(handle, after))
        else:
            lines = self._list_top(handle, after)
        return encode_listing(lines, size, generation)

    def _list_top(self, handle: TopHandle, after: int) -> Iterator[DirectoryItem]:
        if not after:
            handle.node.refresh()
            handle.lines = handle.node.lines()
        for line in handle.lines:
            if line.cookie > after:
                attributes = self._inodes.target_attributes(line.target)
                yield DirectoryItem(line.cookie, line.name, attributes)
        if after < _HISTORY_COOKIE and (history := self._histories.listed_in(handle.node)):
            yield DirectoryItem(_HISTORY_COOKIE, HISTORY, history)

    def _list_version(self, handle: VersionHandle, after: int, size: int, generation: int) -> bytes:
        # The handle keeps the version locked, but its catalog may have been closed meanwhile.
        opened = self._inodes.use(handle.binding)
        encoder = self._inodes.listing_encoder(handle.binding, opened, generation)
        index = handle.seek(after)
        pieces = []
        while True:
            lines, size = encoder.encode(handle.rows[index:], size)
            pieces.append(lines)
            if size < 0 or handle.is_last:
                return b"".join(pieces)
            handle.load(handle.rows[-1][1], handle.rows[-1][0])
            index = 0

    # -- listings ahead ----------------------------------------------------------------------------

    def prepare(self) -> None:
        """List the directory that is likely to be asked for next, while nobody asks for anything.

        Who walks through a tree enters the first directory of the one just listed, or the next one beside it. The walk and this
        run on two processors then.
        """
        if self._walked is None:
            return
        (walked, size, generation), self._walked = self._walked, None
        try:
            if self._inodes.use(walked.binding) is not walked.opened:
                return
            entry_id = _next_in_walk(walked)
            if entry_id:
                handle = VersionHandle(walked.binding, walked.opened, entry_id)
                lines = self._list_version(handle, 0, size, generation)
                self._prepared = Prepared(handle, size, lines)
        except CatalogUnchecked as unchecked:
            unchecked.check.close()
        except Exception:  # noqa: BLE001 - nobody has asked; who does will be told
            self._prepared = None

    def _take_prepared(self, handle: VersionHandle, size: int) -> bytes | None:
        prepared = self._prepared
        if prepared is None:
            return None
        of = prepared.handle
        same = (of.binding, of.opened, of.entry_id) == (
            handle.binding,
            handle.opened,
            handle.entry_id,
        )
        if not same or size != prepared.size:
            return None
        self._prepared = None
        self._inodes.use(handle.binding)
        handle.rows, handle.position, handle.is_last = of.rows, of.position, of.is_last
        return prepared.lines

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
        try:
            if handle.content is None:
                os.close(handle.fd)
            else:
                handle.content.close()
        finally:
            self._inodes.release(handle.binding, handle.opened)


def _next_in_walk(walked: VersionHandle) -> int:
    """The directory that a walk is likely to enter after one; 0 if there is none near."""
    if not walked.is_last:
        return 0
    for listed in walked.rows:
        if listed[2] == Kind.DIRECTORY:
            return listed[0]
    here = row(walked.opened, walked.entry_id)
    return walked.opened.catalog.next_directory(here.parent, here.name, _NEAR)
