"""A server's answers to a client that restores: the content of files, strictly in the order asked.

Between any two frames it sends, the server takes in what the client has asked for meanwhile: a client that
sends is then never kept waiting for a client that should read, itself. What can pile up is bounded (`ssfs.engine.restore.requests`): a
client that asks for more ends its session. Whatever it asks for, only files among the wanted
entries are opened, through directory descriptors with O_NOFOLLOW. What cannot be read is one file's problem.
"""

import os

from ssfs.delta.coded import Delta
from ssfs.delta.described import DescribedBasis, InPlaceCoder
from ssfs.delta.segment import SegmentCoder
from ssfs.engine.restore.contents import (
    DAMAGED,
    cannot_be_found,
    cannot_be_opened,
    cannot_be_read,
    open_content,
)
from ssfs.engine.restore.requests import Request, Requests
from ssfs.errors import CorruptStore, InternalError, RemoteProtocolError
from ssfs.fsio.sparse import read_at
from ssfs.model.entry import ROOT_ID, Entry, Kind
from ssfs.model.layout import Layout, data_bytes
from ssfs.net.channel import Channel
from ssfs.protocol.messages import (
    CHANGES_TARGET_BYTES,
    INLINE_MAX_BYTES,
    MAX_BULK_BYTES,
    FileAbort,
    FileBegin,
    FileDelta,
    FileEnd,
    FileRaw,
    Leave,
    Message,
)
from ssfs.protocol.restoring import BasisPart, Contents, NoContent, WantContents
from ssfs.source.reading import read_stream
from ssfs.store.catalog.reader import CatalogReader
from ssfs.store.damage import NO_DAMAGE, Damage
from ssfs.store.tree import Tree

_READ_BYTES = 512 << 10
_MOST_FILES_PER_FRAME = 1000
_ROWS_AHEAD = 256
_KNOWN_DIRECTORIES = 1024
_MAX_DEPTH = 1 << 20
"""A path of more names than this goes in a circle."""


class _Unreadable(Exception):
    """The content of a file cannot be had.

    Attributes:
        problem: Why, for people.
    """

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem


class Answers:
    """One client's restore after the rows.

    Attributes:
        files: Files whose content was sent.
        size_bytes: How long they are.
    """

    def __init__(
        self,
        channel: Channel,
        catalog: CatalogReader,
        tree: Tree,
        wanted: dict[bytes, Entry],
        damage: Damage | None = NO_DAMAGE,
    ) -> None:
        """Answer for the files that `ssfs.engine.restore.wanted.find_wanted` found, or for all.

        What is known to be damaged is not sent; without that knowledge (None) whatever is there is, as far as it goes.
        """
        self.files = 0
        self.size_bytes = 0
        self._channel = channel
        self._catalog = catalog
        self._tree = tree
        self._sends_all = damage is None
        self._damaged = damage.ids if damage else frozenset()
        self._is_doubtful = bool(damage and damage.whole)
        self._tops = {entry.id for entry in wanted.values()} or {ROOT_ID}
        self._is_below: dict[int, bool] = {}
        self._requests = Requests()
        self._ahead: dict[int, Entry] = {}
        self._has_left = False

    def run(self) -> None:
        """Answer until the client leaves.

        Raises:
            ConnectionLost: It went away without a word.
            RemoteProtocolError: It asked for what it may not ask for, or for too much.
        """
        while not self._has_left:
            self._listen()
            if not self._requests:
                if not self._has_left:
                    self._hear(self._channel.receive())
            elif not self._answer_small_files():
                self._answer(self._requests.first)

    def close(self) -> None:
        """Free what was described."""
        self._requests.close()

    # -- requests --------------------------------------------------------------------------------

    def _listen(self) -> None:
        """Take in what has been asked for meanwhile."""
        while not self._has_left and (message := self._channel.receive_nowait()) is not None:
            self._hear(message)

    def _hear(self, message: Message) -> None:
        match message:
            case WantContents(ids):
                self._requests.want(ids)
            case BasisPart():
                self._requests.hear_basis(message)
            case Leave():
                self._has_left = True
            case _:
                raise InternalError(f"{type(message).__name__} let through by the table of states")

    def _entry(self, request: Request) -> Entry:
        """The file that a request names, if it is one of the wanted entries."""
        entry = self._ahead.pop(request.entry_id, None)
        if entry is None:
            ids = self._requests.next_ids(_ROWS_AHEAD)
            self._ahead = {row.id: row for row in self._catalog.entries_of(ids)}
            entry = self._ahead.pop(request.entry_id, None)
        if entry is None or entry.kind != Kind.FILE or not self._is_wanted(entry):
            raise RemoteProtocolError(
                f"The client asked for {request.entry_id}, no file of its own"
            )
        return entry

    def _is_wanted(self, entry: Entry) -> bool:
        if entry.id in self._tops:
            return True
        if entry.parent not in self._is_below:
            if len(self._is_below) >= _KNOWN_DIRECTORIES:
                self._is_below.clear()
            self._is_below[entry.parent] = self._is_at_or_below(entry.parent)
        return self._is_below[entry.parent]

    def _is_at_or_below(self, directory: int) -> bool:
        """Whether a directory is wanted, or lies in one that is."""
        seen = 0
        while directory not in self._tops:
            entry = self._catalog.entry(directory)
            seen += 1
            if entry is None or seen > _MAX_DEPTH:
                return False
            directory = entry.parent
        return True

    # -- answers ---------------------------------------------------------------------------------

    def _send(self, message: Message) -> None:
        if not self._has_left:
            self._channel.send(message)
            self._listen()

    def _answer_small_files(self) -> bool:
        """Send a frame of small files; False if the first request is for none."""
        files: list[tuple[int, bytes]] = []
        size = 0
        problem: NoContent | None = None
        while self._requests and len(files) < _MOST_FILES_PER_FRAME and size < CHANGES_TARGET_BYTES:
            request = self._requests.first
            entry = self._entry(request)
            is_small = data_bytes(entry.size, entry.holes) <= INLINE_MAX_BYTES
            if request.basis is not None or not is_small:
                break
            self._requests.answered(request)
            try:
                content = self._read_small(entry)
            except _Unreadable as error:
                problem = NoContent(entry.id, error.problem)
                break
            files.append((entry.id, content))
            size += len(content)
        if files:
            self.files += len(files)
            self.size_bytes += size
            self._send(Contents(files))
        if problem is not None:
            self._send(problem)
        return bool(files) or problem is not None

    def _open(self, entry: Entry) -> int:
        if self._is_doubtful or entry.id in self._damaged:
            raise _Unreadable(DAMAGED)
        try:
            return open_content(self._tree, entry)
        except OSError as error:
            raise _Unreadable(cannot_be_opened(error)) from error
        except CorruptStore as error:
            raise _Unreadable(cannot_be_found(error)) from error

    def _read_small(self, entry: Entry) -> bytes:
        fd = self._open(entry)
        size = entry.size
        try:
            if entry.holes:
                layout = Layout.of(entry.size, entry.holes)
                size = layout.data_bytes
                is_whole = self._sends_all or os.fstat(fd).st_size == entry.size
                content = read_stream(fd, layout) if is_whole else b""
            else:
                content = os.read(fd, entry.size + 1)
        except OSError as error:
            raise _Unreadable(cannot_be_read(error)) from error
        finally:
            os.close(fd)
        if len(content) != size and not self._sends_all:
            raise _Unreadable(DAMAGED)
        return content if len(content) == size else content[:size]

    def _answer(self, request: Request) -> None:
        """Send one file by itself."""
        entry = self._entry(request)
        try:
            fd = self._open(entry)
        except _Unreadable as error:
            self._requests.answered(request)
            self._send(NoContent(entry.id, error.problem))
            return
        try:
            if request.basis is not None:
                request.basis.finish()
            self._send_file(entry, fd, request.basis)
        finally:
            os.close(fd)
            self._requests.answered(request)

    def _send_file(self, entry: Entry, fd: int, basis: DescribedBasis | None) -> None:
        self._send(FileBegin(entry.id, entry.id if basis else 0, 0, 0))
        try:
            self._send_segments(entry, fd, basis.coder() if basis else None)
        except _Unreadable as error:
            self._send(FileAbort(entry.id, error.problem))
        else:
            self.files += 1
            self.size_bytes += entry.size
            self._send(FileEnd(entry))

    def _send_segments(
        self, entry: Entry, fd: int, coder: SegmentCoder | InPlaceCoder | None
    ) -> None:
        if os.fstat(fd).st_size != entry.size and not self._sends_all:
            raise _Unreadable(DAMAGED)
        layout = Layout.of(entry.size, entry.holes)
        buffer = bytearray()
        position = 0
        while position < layout.data_bytes:
            wanted = min(coder.wanted_bytes if coder else _READ_BYTES, layout.data_bytes - position)
            if wanted > len(buffer):
                buffer = bytearray(wanted)
            segment = memoryview(buffer)[:wanted]
            count = _read(fd, layout, segment, position)
            is_short = count < wanted
            if is_short and not self._sends_all:
                raise _Unreadable(DAMAGED)
            self._send_segment(segment[:count], coder)
            if is_short:
                break
            position += wanted

    def _send_segment(self, segment: memoryview, coder: SegmentCoder | InPlaceCoder | None) -> None:
        coded = coder.encode(segment) if coder and segment else None
        if isinstance(coded, Delta):
            self._send_delta(coded.payload)
        else:
            for at in range(0, len(segment), MAX_BULK_BYTES):
                self._send(FileRaw(segment[at : at + MAX_BULK_BYTES]))

    def _send_delta(self, payload: bytes) -> None:
        delta = memoryview(payload)
        for at in range(0, len(delta), MAX_BULK_BYTES):
            end = at + MAX_BULK_BYTES
            self._send(FileDelta(end >= len(delta), delta[at:end]))


def _read(fd: int, layout: Layout, view: memoryview, position: int) -> int:
    """Fill the view from a position of the stream; less only where the file ends."""
    try:
        return read_at(fd, layout, view, position, once=True)
    except OSError as error:
        raise _Unreadable(cannot_be_read(error)) from error
