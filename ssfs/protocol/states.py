"""Who may say what when: one role-neutral table that both ends obey.

`TRANSITIONS[state][message type]` is (who says it, the state after it). Both ends run the same table over
the messages of both directions, each on what it sent and what it received, in its own order. The two
orders may differ only where the table says the same for both: a server's answers to what the client
asked for (`SignaturePart`, `NoSignature`, `CheckpointDone`) leave the state alone and are allowed wherever
the client can have gone meanwhile; so do, in a restore, a client's requests (`WantContents`, `BasisPart`), and all that is said while a client browses.
PROTOCOL.md's table is written from this one.
"""

import enum

from ssfs.protocol.browsing import (
    Browse,
    Browsed,
    BytesEnd,
    CatalogPart,
    Lacking,
    LetGo,
    Links,
    Listing,
    RowsEnd,
    StoreSpace,
    WantBytes,
    WantCatalog,
    WantListing,
    WantRows,
    WantSpace,
)
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
    Leave,
    Need,
    NoSignature,
    Open,
    Opened,
    Progress,
    Queued,
    Refused,
    SignaturePart,
    WantSignature,
)
from ssfs.protocol.restoring import BasisPart, Contents, Fetch, Fetched, NoContent, WantContents
from ssfs.protocol.seeking import ContentPart, Seek, Sought


class Role(enum.Enum):
    """The end that connects, and the end that answers."""

    CLIENT = "client"
    SERVER = "server"

    @property
    def peer(self) -> "Role":
        """The other one."""
        return Role.SERVER if self is Role.CLIENT else Role.CLIENT


class State(enum.Enum):
    """Where a session is."""

    START = "start"
    GREETED = "greeted"
    READY = "ready"
    OPENING = "opening"
    OPENED = "opened"
    FETCHING = "fetching"
    TRANSFER = "transfer"
    IN_FILE = "in file"
    FINISHING = "finishing"
    COMMITTED = "committed"
    ASKED = "asked"
    SEEKING = "seeking"
    ENROLLING = "enrolling"
    FINDING = "finding"
    ROWS = "rows"
    RESTORING = "restoring"
    RESTORING_FILE = "restoring file"
    ENTERING = "entering"
    BROWSING = "browsing"
    CLOSED = "closed"


_C, _S = Role.CLIENT, Role.SERVER
Rules = dict[type, tuple[Role, State]]

_STREAMING: Rules = {
    Changes: (_C, State.TRANSFER),
    WantSignature: (_C, State.TRANSFER),
    FileBegin: (_C, State.IN_FILE),
    Checkpoint: (_C, State.TRANSFER),
    Finish: (_C, State.FINISHING),
}


def _answers(state: State) -> Rules:
    """A server's answers to earlier requests, which change no state."""
    return dict.fromkeys((SignaturePart, NoSignature, CheckpointDone), (_S, state))


def _requests(state: State) -> Rules:
    """What a restoring client may ask for at any time, which changes no state."""
    return dict.fromkeys((WantContents, BasisPart), (_C, state))


TRANSITIONS: dict[State, Rules] = {
    State.START: {Hello: (_C, State.GREETED)},
    State.GREETED: {Hello: (_S, State.READY), Refused: (_S, State.CLOSED)},
    State.READY: {
        Open: (_C, State.OPENING),
        Ask: (_C, State.ASKED),
        Fetch: (_C, State.FINDING),
        Browse: (_C, State.ENTERING),
        Seek: (_C, State.SEEKING),
        AskAuthority: (_C, State.ENROLLING),
        Enroll: (_C, State.ENROLLING),
        Renew: (_C, State.ENROLLING),
        Leave: (_C, State.CLOSED),
        Refused: (_S, State.CLOSED),
    },
    State.OPENING: {
        Queued: (_S, State.OPENING),
        Opened: (_S, State.OPENED),
        Refused: (_S, State.CLOSED),
    },
    State.OPENED: {
        FetchCatalog: (_C, State.FETCHING),
        Leave: (_C, State.CLOSED),
        **_STREAMING,
        Refused: (_S, State.CLOSED),
    },
    State.FETCHING: {
        CatalogRows: (_S, State.FETCHING),
        CatalogEnd: (_S, State.TRANSFER),
        Refused: (_S, State.CLOSED),
    },
    State.TRANSFER: {
        Leave: (_C, State.CLOSED),
        **_STREAMING,
        **_answers(State.TRANSFER),
        Refused: (_S, State.CLOSED),
    },
    State.IN_FILE: {
        FileRaw: (_C, State.IN_FILE),
        FileDelta: (_C, State.IN_FILE),
        WantSignature: (_C, State.IN_FILE),
        FileEnd: (_C, State.TRANSFER),
        FileAbort: (_C, State.TRANSFER),
        **_answers(State.IN_FILE),
        Refused: (_S, State.CLOSED),
    },
    State.FINISHING: {
        Need: (_S, State.TRANSFER),
        Committed: (_S, State.COMMITTED),
        **_answers(State.FINISHING),
        Refused: (_S, State.CLOSED),
    },
    State.COMMITTED: {Expired: (_S, State.CLOSED), Refused: (_S, State.CLOSED)},
    State.ASKED: {
        Progress: (_S, State.ASKED),
        AnswerPart: (_S, State.ASKED),
        AnswerEnd: (_S, State.READY),
        Refused: (_S, State.CLOSED),
    },
    State.SEEKING: {
        ContentPart: (_S, State.SEEKING),
        Sought: (_S, State.READY),
        Refused: (_S, State.CLOSED),
    },
    State.ENROLLING: {
        Authority: (_S, State.READY),
        Enrolled: (_S, State.READY),
        Refused: (_S, State.CLOSED),
    },
    State.FINDING: {Fetched: (_S, State.ROWS), Refused: (_S, State.CLOSED)},
    State.ROWS: {
        CatalogRows: (_S, State.ROWS),
        CatalogEnd: (_S, State.RESTORING),
        Refused: (_S, State.CLOSED),
    },
    State.RESTORING: {
        **_requests(State.RESTORING),
        Contents: (_S, State.RESTORING),
        NoContent: (_S, State.RESTORING),
        FileBegin: (_S, State.RESTORING_FILE),
        Leave: (_C, State.CLOSED),
        Refused: (_S, State.CLOSED),
    },
    State.RESTORING_FILE: {
        **_requests(State.RESTORING_FILE),
        FileRaw: (_S, State.RESTORING_FILE),
        FileDelta: (_S, State.RESTORING_FILE),
        FileEnd: (_S, State.RESTORING),
        FileAbort: (_S, State.RESTORING),
        Refused: (_S, State.CLOSED),
    },
    State.ENTERING: {Browsed: (_S, State.BROWSING), Refused: (_S, State.CLOSED)},
    State.BROWSING: {
        **dict.fromkeys((WantListing, WantRows, WantBytes, LetGo), (_C, State.BROWSING)),
        **dict.fromkeys((WantCatalog, WantSpace), (_C, State.BROWSING)),
        **dict.fromkeys((Listing, CatalogRows, Links, RowsEnd), (_S, State.BROWSING)),
        **dict.fromkeys((FileRaw, BytesEnd, Lacking), (_S, State.BROWSING)),
        **dict.fromkeys((CatalogPart, StoreSpace), (_S, State.BROWSING)),
        Leave: (_C, State.CLOSED),
        Refused: (_S, State.CLOSED),
    },
    State.CLOSED: {},
}


def next_state(state: State, speaker: Role, message_type: type) -> State | None:
    """The state after `speaker` says a message of this type, or None where the rules forbid it."""
    rule = TRANSITIONS[state].get(message_type)
    if rule is None or rule[0] is not speaker:
        return None
    return rule[1]
