"""What a browsing client asks for, each with what has come of its answer so far.

Nothing that a server says is believed: what is too long, too short or not what was asked for is refused.
"""

import abc
from collections.abc import Callable
from typing import NamedTuple

import msgspec
from typing_extensions import override

from ssfs.engine.rows import decode_rows
from ssfs.errors import RemoteProtocolError, SsfsError
from ssfs.model.entry import MAX_ENTRY_ID
from ssfs.protocol.browsing import (
    BytesEnd,
    CatalogPart,
    Lack,
    Lacking,
    LinkedNames,
    Links,
    ListedVersion,
    Listing,
    RowsEnd,
    StoreSpace,
    WantBytes,
    WantCatalog,
    WantListing,
    WantRows,
    WantSpace,
)
from ssfs.protocol.messages import CatalogBatch, CatalogRows, FileRaw, Message

AHEAD_ROWS = 2000
"""So many rows of what lies below a directory that is entered are welcome: few round trips for who walks a tree."""

WALK_ROWS = 6000
"""For who is seen to walk: a frame or two are on the way while the first is kept."""

_MOST_LISTED = 1_000_000

Request = WantListing | WantRows | WantCatalog | WantBytes | WantSpace


class Lacked(SsfsError):
    """The server does not have what was asked for.

    Attributes:
        lack: Why.
    """

    def __init__(self, answer: Lacking) -> None:
        super().__init__(answer.problem)
        self.lack: Lack = answer.lack


class VersionRef(NamedTuple):
    """A version of a server."""

    point: str
    task: str
    version: str


class Question(abc.ABC):
    """Something to be asked, and its answer.

    Attributes:
        request: What is sent.
        asked_s: When it was asked first (monotonic).
        attempts: How often it was sent.
        on_done: Called by the link's thread when the answer is complete, or there will be none.
        failure: Why there is none.
        is_done: Whether either is so.
        is_dropped: Nobody waits any more.
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        self.asked_s = 0.0
        self.attempts = 0
        self.on_done: Callable[[], None] = _nothing
        self.failure: Exception | None = None
        self.is_done = False
        self.is_dropped = False

    @abc.abstractmethod
    def begin(self) -> None:
        """Forget what has come: it is asked once more."""

    @abc.abstractmethod
    def hear(self, message: Message) -> None:
        """Take a part of the answer.

        Raises:
            RemoteProtocolError: It is no part of such an answer.
        """

    def finish(self, failure: Exception | None) -> None:
        """There is nothing more to come."""
        self.failure = failure
        self.is_done = True
        self.on_done()


def _nothing() -> None:
    """Nobody waits."""


def ends_answer(message: Message) -> bool:
    """Whether a message is the last one of an answer."""
    if isinstance(message, Listing):
        return message.is_last
    return isinstance(message, RowsEnd | CatalogPart | BytesEnd | StoreSpace | Lacking)


def _unfit(message: Message) -> RemoteProtocolError:
    return RemoteProtocolError(f"The server answered with {type(message).__name__}")


class ListingQuestion(Question):
    """What is there?

    Attributes:
        stamp: Of the listing that came; if it is the one asked with, nothing has changed.
        names: Sync points or tasks.
        versions: Versions.
    """

    def __init__(self, point: str, task: str, stamp: bytes) -> None:
        super().__init__(WantListing(point, task, stamp))
        self.stamp = stamp
        self.names: list[str] = []
        self.versions: list[ListedVersion] = []

    @override
    def begin(self) -> None:
        self.names, self.versions = [], []

    @override
    def hear(self, message: Message) -> None:
        if not isinstance(message, Listing):
            raise _unfit(message)
        self.stamp = message.stamp
        self.names += message.names
        self.versions += message.versions
        if len(self.names) + len(self.versions) > _MOST_LISTED:
            raise RemoteProtocolError("The server sent a listing without an end")


class RowsQuestion(Question):
    """The row of an entry, and those of what is in it.

    Attributes:
        end: How the answer ended.
    """

    def __init__(
        self,
        ref: VersionRef,
        entry: int,
        ahead: int,
        take: Callable[[CatalogBatch | list[LinkedNames]], None],
        *,
        walks: bool = False,
    ) -> None:
        """Ask for entry `entry`; `take` hears in the link's thread of what comes, in order.

        Args:
            ref: The version.
            entry: The entry.
            ahead: How many rows more are welcome; -1: the entry's alone.
            take: Hears of what comes.
            walks: What is welcome is what a walk enters next.
        """
        super().__init__(WantRows(*ref, entry, ahead, walks))
        self.end: RowsEnd | None = None
        self._take = take
        self._most_directories = 1 + max(ahead, 0)

    @override
    def begin(self) -> None:
        """Rows that come twice are one."""

    @override
    def hear(self, message: Message) -> None:
        match message:
            case CatalogRows():
                self._take(decode_rows(message))
            case Links(links):
                self._take(links)
            case RowsEnd():
                if len(message.directories) > self._most_directories:
                    raise RemoteProtocolError("The server sent more directories than were wanted")
                self.end = message
            case _:
                raise _unfit(message)


class CatalogQuestion(Question):
    """Some rows of a version's whole catalog.

    Attributes:
        part: Which these were.
    """

    def __init__(
        self, ref: VersionRef, base: str, after: int, take: Callable[[CatalogBatch], None]
    ) -> None:
        """Ask for those after an id; `take` hears in the link's thread of what comes, in order, after a lost connection once more."""
        super().__init__(WantCatalog(*ref, base, after))
        self.part: CatalogPart | None = None
        self._after = after
        self._take = take

    @override
    def begin(self) -> None:
        """Rows that come twice are one."""

    @override
    def hear(self, message: Message) -> None:
        match message:
            case CatalogRows():
                self._take(decode_rows(message))
            case CatalogPart(through, is_last):
                if not is_last and not self._after < through < MAX_ENTRY_ID:
                    raise RemoteProtocolError("The server sent a catalog without an end")
                self.part = message
            case _:
                raise _unfit(message)


class SpaceQuestion(Question):
    """How full is the disk?

    Attributes:
        space: So full.
    """

    def __init__(self) -> None:
        super().__init__(WantSpace())
        self.space: StoreSpace | None = None

    @override
    def begin(self) -> None:
        """Nothing has come of it."""

    @override
    def hear(self, message: Message) -> None:
        if not isinstance(message, StoreSpace):
            raise _unfit(message)
        if any(not 0 <= number < 1 << 64 for number in msgspec.structs.astuple(message)):
            raise RemoteProtocolError("The server's disk has a size that is none")
        self.space = message


class BytesQuestion(Question):
    """A range of a file.

    Attributes:
        content: Its bytes, once it is done.
    """

    def __init__(self, ref: VersionRef, entry: int, offset: int, count: int) -> None:
        super().__init__(WantBytes(*ref, entry, offset, count))
        self.content: bytes | bytearray | memoryview = b""
        self._count = count

    @override
    def begin(self) -> None:
        self.content = b""

    @override
    def hear(self, message: Message) -> None:
        match message:
            case FileRaw(content):
                self._add(content)
            case BytesEnd():
                pass
            case _:
                raise _unfit(message)
        is_short = isinstance(message, BytesEnd) and len(self.content) < self._count
        if is_short or len(self.content) > self._count:
            raise RemoteProtocolError("The server sent more or less of a file than was asked for")

    def _add(self, part: bytes | memoryview) -> None:
        """Take what comes next; all of it in one part, which is usual, is not copied."""
        if not self.content:
            self.content = part
            return
        if not isinstance(self.content, bytearray):
            self.content = bytearray(self.content)
        self.content += part
