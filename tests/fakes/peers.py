"""Two ends of a session as pure machines, joined: what one says, the other hears.

    pair = PeerPair()                   bytes arrive as they were sent
    pair = PeerPair(byte_wise)          one by one
    pair = PeerPair(random_split(rng))  in pieces of any size

`conversations()` leads through every transition of the table.
"""

import random
from collections.abc import Callable, Iterator

import msgspec

from ssfs.model.entry import Entry, Kind, Principal
from ssfs.model.layout import Layout
from ssfs.model.version import Counts, RootMetadata, Shrink
from ssfs.model.xattrs import encode_set, set_key
from ssfs.protocol.browsing import (
    Browse,
    Browsed,
    BytesEnd,
    CatalogPart,
    Lack,
    Lacking,
    LetGo,
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
from ssfs.protocol.connection import Connection
from ssfs.protocol.enrolling import AskAuthority, Authority, Enroll, Enrolled, Renew
from ssfs.protocol.messages import (
    AnswerEnd,
    AnswerPart,
    Ask,
    CatalogEnd,
    CatalogRows,
    Changes,
    Checkpoint,
    CheckpointDone,
    Committed,
    Expired,
    FetchCatalog,
    FileAbort,
    FileBegin,
    FileDelta,
    FileEnd,
    FileRaw,
    Finish,
    Hello,
    Keep,
    Leave,
    Link,
    Make,
    Message,
    Name,
    Need,
    NoSignature,
    Open,
    Opened,
    Partial,
    Progress,
    Queued,
    Refusal,
    Refused,
    Remove,
    SignaturePart,
    Store,
    WantSignature,
    Xattrs,
)
from ssfs.protocol.restoring import BasisPart, Contents, Fetch, Fetched, NoContent, WantContents
from ssfs.protocol.seeking import ContentPart, Seek, Sought
from ssfs.protocol.states import TRANSITIONS, Role, State

Split = Callable[[bytes], list[bytes]]

ROW = Entry(
    id=7,
    parent=1,
    name=b"caf\xe9",
    kind=int(Kind.FILE),
    mode=0o640,
    uid=1000,
    gid=100,
    mtime_s=-1,
    mtime_ns=999_999_999,
    size=3,
    digest=bytes(range(32)),
    target=b"",
    dev=0,
    ino=-(1 << 63),
    ctime_s=1 << 33,
    ctime_ns=0,
    flags=4,
)
XATTRS = encode_set([(b"user.x", b"1")])
CHANGES = (
    Make(ROW._replace(id=1, parent=0, name=b"", kind=2, size=0, digest=b"")),
    Keep(ROW),
    Store(ROW, b"abc"),
    Link(ROW, 6),
    Remove(9),
    Name(Principal(0, 1000, b"eva")),
    Xattrs(set_key(XATTRS), XATTRS),
)
VERSION = "000001-2024-05-01T020000Z"
REFUSED = Refused(Refusal.STORE_FULL, "No space", b"/store", "make some")
ONE_OF_EACH: tuple[Message, ...] = (
    Hello(1, "0.1"),
    Open("main", "task", "nas1", "/srv/docs", dry_run=False),
    Opened(
        "0123456789abcdef",
        "000001-2024-05-01T020000Z",
        bytes(32),
        False,
        8,
        7,
        1 << 40,
        [Partial(1, 0, -5, 9)],
    ),
    REFUSED,
    FetchCatalog(),
    CatalogRows(b"rows"),
    CatalogEnd(),
    Changes(list(CHANGES)),
    WantSignature(7),
    NoSignature(7),
    SignaturePart(7, False, b"sums"),
    FileBegin(7, 6, 0, -5, 1 << 43, Layout(1 << 43, [(4096, 9)]).holes),
    FileRaw(b"raw bytes"),
    FileDelta(True, b"delta"),
    FileEnd(ROW),
    FileAbort(7),
    Checkpoint(1),
    CheckpointDone(1),
    Finish(bytes(range(32)), Counts(entries=2, bytes_sent=5)),
    Need([7, 8]),
    Committed("000001-2024-05-01T020000Z", "2024-05-01", 2, 3, 3, Shrink(20, 3)),
    Expired(["000001-2024-05-01T020000Z"], ""),
    Leave(),
    Queued(2),
    Ask(b"request"),
    AnswerPart(b"ans"),
    AnswerEnd(b"wer"),
    Fetch("main", "task", "latest~1", [b"caf\xe9/a"]),
    Fetched("000001-2024-05-01T020000Z", "2024-05-01", 2, 3),
    WantContents([7, 8]),
    BasisPart(7, True, b"sums"),
    Contents([(7, b"abc"), (8, b"")]),
    NoContent(7, "damaged"),
    AskAuthority(),
    Authority(b"certificate"),
    Enroll(b"secret", b"request"),
    Renew(b"request"),
    Enrolled(b"certificate", "nas1", ["main"]),
    Browse(),
    Browsed("Europe/Berlin"),
    WantListing("main", "task", b"stamp"),
    Listing(
        b"stamp",
        True,
        ["main"],
        [
            ListedVersion(
                VERSION, "2024-05-01_040000", RootMetadata(493, 0, 100, "root", "", 1, 2), 1, "00"
            )
        ],
    ),
    WantRows("main", "task", VERSION, 7, 2000),
    Links([LinkedNames(7, 8, 2)]),
    RowsEnd("00", [1, 7]),
    WantBytes("main", "task", VERSION, 7, 1 << 40, 1 << 20),
    BytesEnd(),
    Lacking(Lack.GONE, "gone"),
    LetGo("main", "task", VERSION),
    Progress(7, 1 << 33, 9, "verifying"),
    Seek("main", "", [(3, bytes(range(32)))]),
    Sought(),
    ContentPart(0, False, b"abc"),
    WantCatalog("main", "task", VERSION, VERSION, 7),
    CatalogPart(9, True, [8]),
    WantSpace(),
    StoreSpace(4096, 1 << 33, 9, 8, 7, 6),
)
SAMPLES: dict[type, Message] = {type(message): message for message in ONE_OF_EACH}


def whole(sent: bytes) -> list[bytes]:
    return [sent]


def byte_wise(sent: bytes) -> list[bytes]:
    return [sent[at : at + 1] for at in range(len(sent))]


def random_split(rng: random.Random) -> Split:
    """Cut at any places, empty pieces included."""

    def split(sent: bytes) -> list[bytes]:
        cuts = sorted(rng.randrange(len(sent) + 1) for _ in range(rng.randrange(6)))
        return [sent[a:b] for a, b in zip([0, *cuts], [*cuts, len(sent)], strict=True)]

    return split


def kept(message: Message) -> Message:
    """The message with bytes of its own, to compare it later."""
    if isinstance(message, FileRaw | FileDelta | SignaturePart | BasisPart | ContentPart):
        return msgspec.structs.replace(message, content=bytes(message.content))
    return message


def receive_all(connection: Connection, pieces: list[bytes]) -> list[Message]:
    """What an end makes of these pieces."""
    return [kept(message) for piece in pieces for message in connection.receive(memoryview(piece))]


class PeerPair:
    """Two joined connections; every message is encoded, cut, decoded and compared."""

    def __init__(self, split: Split = whole) -> None:
        self.ends = {role: Connection(role) for role in Role}
        self._split = split

    def say(self, speaker: Role, message: Message) -> bytes:
        """Send it over; the bytes it took."""
        sent = b"".join(self.ends[speaker].send(message))
        heard = receive_all(self.ends[speaker.peer], self._split(sent))
        assert heard == [kept(message)]
        assert self.ends[speaker].state is self.ends[speaker.peer].state
        return sent

    @property
    def state(self) -> State:
        return self.ends[Role.CLIENT].state


def conversations() -> Iterator[list[tuple[Role, Message]]]:
    """For each transition of the table a conversation that ends with it."""
    ways: dict[State, list[tuple[Role, Message]]] = {State.START: []}
    pending = [State.START]
    while pending:
        state = pending.pop(0)
        for kind, (speaker, after) in TRANSITIONS[state].items():
            way = [*ways[state], (speaker, SAMPLES[kind])]
            yield way
            if after not in ways:
                ways[after] = way
                pending.append(after)


def way_to(state: State) -> list[tuple[Role, Message]]:
    """A shortest conversation that ends in this state."""
    if state is State.START:
        return []
    for way in conversations():
        pair = PeerPair()
        for speaker, message in way:
            pair.say(speaker, message)
        if pair.state is state:
            return way
    raise AssertionError(f"No way leads to {state}")
