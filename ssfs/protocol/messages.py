"""The messages of PROTOCOL.md: a closed set of typed values.

Control messages are MessagePack arrays. Three bulk messages (`FileRaw`, `FileDelta`, `SignaturePart`) have a
fixed binary head and carry their bytes as they are, so that nothing is copied into an encoder; what a
receiver gets of them is a view into its read buffer, good until the next read.
"""

import enum
from collections.abc import Callable

import msgspec

from ssfs.model.entry import Entry, Principal
from ssfs.model.version import Counts

PROTOCOL_VERSION = 1
MAX_PAYLOAD_BYTES = (1 << 20) + (1 << 16)
"""No frame's payload is longer; a longer one ends the session."""
MAX_BULK_BYTES = 1 << 20
"""Content bytes in one bulk frame."""
CHANGES_TARGET_BYTES = 192 << 10
"""A sender closes a Changes frame at about this size."""
INLINE_MAX_BYTES = 128 << 10
"""Files up to this size travel inside a Changes frame; larger ones by FileBegin."""


class Refusal(enum.IntEnum):
    """Why a server says no. Each code has one meaning and one exit code at the client."""

    BAD_REQUEST = 1
    TASK_BUSY = 2
    STORE = 3
    STORE_FULL = 4
    CORRUPT = 5
    CATALOG_DIFFERS = 6


class _Message(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Base of the control messages."""


class Hello(_Message, frozen=True):
    """Both ends, first: protocol version and software version."""

    protocol: int
    software: str


class Open(_Message, frozen=True):
    """Client: I want to back up into this task.

    Attributes:
        point: Sync point name.
        task: Task name.
        client: The client's name for itself (informative; who it is, the connection knows).
        source: Source identity.
        dry_run: Nothing will be sent: only the catalog to compare with is wanted.
    """

    point: str
    task: str
    client: str
    source: str
    dry_run: bool


class Opened(_Message, frozen=True):
    """Server: the task is yours.

    Attributes:
        task_id: Key of the client's cache for this task.
        base: Version id of the base, "" for a first version.
        catalog_digest: Logical digest of the catalog to compare with: the base's, or that of
            an interrupted staging.
        resumed: Whether it is a staging's.
        next_id: Smallest entry id the client may assign.
        expected_entries: Entries of that catalog, for progress.
        expected_bytes: Sum of its file sizes, likewise.
    """

    task_id: str
    base: str
    catalog_digest: bytes
    resumed: bool
    next_id: int
    expected_entries: int
    expected_bytes: int


class Refused(_Message, frozen=True):
    """Server: no. `problem` and `remedy` are for people only; programs go by `code`."""

    code: Refusal
    problem: str
    path: bytes
    remedy: str


class FetchCatalog(_Message, frozen=True):
    """Client: I do not have the catalog to compare with; send its rows."""


class CatalogRows(_Message, frozen=True):
    """Server: rows, as one zstd frame of a MessagePack `CatalogBatch`."""

    compressed: bytes


class CatalogBatch(_Message, frozen=True):
    """What a CatalogRows frame holds."""

    entries: list[Entry]
    principals: list[Principal]


class CatalogEnd(_Message, frozen=True):
    """Server: those were all rows."""


class Keep(_Message, frozen=True, tag=1):
    """The row changes, the content stays where it is (metadata, or another place)."""

    entry: Entry


class Make(_Message, frozen=True, tag=2):
    """A directory or a symlink: all of it is in the row."""

    entry: Entry


class Store(_Message, frozen=True, tag=3):
    """A small file with its content."""

    entry: Entry
    content: bytes


class Link(_Message, frozen=True, tag=4):
    """A file whose content the compared catalog has under another (or this) entry id."""

    entry: Entry
    source: int


class Remove(_Message, frozen=True, tag=5):
    """The entry is gone, and with it whatever is still below it."""

    id: int


class Name(_Message, frozen=True, tag=6):
    """What the source's machine calls a number; an empty name withdraws it."""

    principal: Principal


Change = Keep | Make | Store | Link | Remove | Name


class Changes(_Message, frozen=True):
    """Client: changes to the version being made, applied in order."""

    changes: list[Change]


class WantSignature(_Message, frozen=True):
    """Client: send the signature of the content that the compared catalog has under this id."""

    id: int


class NoSignature(_Message, frozen=True):
    """Server: there is nothing to make a signature of; send the file whole."""

    id: int


class FileBegin(_Message, frozen=True):
    """Client: the content of one large file follows.

    Attributes:
        id: Its entry id.
        basis: Entry id (of the compared catalog) that FileDelta frames are against; 0: none come.
    """

    id: int
    basis: int


class FileEnd(_Message, frozen=True):
    """Client: that was all of it; this is its row, digest included."""

    entry: Entry


class FileAbort(_Message, frozen=True):
    """Client: forget what came since FileBegin (the file vanished under the reader)."""

    id: int


class Checkpoint(_Message, frozen=True):
    """Client: make durable all I sent before this."""

    number: int


class CheckpointDone(_Message, frozen=True):
    """Server: it is."""

    number: int


class Finish(_Message, frozen=True):
    """Client: the version is complete; mine has this logical digest.

    Attributes:
        catalog_digest: Logical digest of the client's catalog after all changes.
        report: What the client counted; the server keeps it with the version.
    """

    catalog_digest: bytes
    report: Counts


class Need(_Message, frozen=True):
    """Server: I do not have the content of these entries (damage, or a digest that did not match)."""

    ids: list[int]


class Committed(_Message, frozen=True):
    """Server: the version is durable and visible."""

    version: str
    mount_name: str
    entries: int
    size_bytes: int
    new_bytes: int


class Expired(_Message, frozen=True):
    """Server: what the retention rule let go after this commit, or why it held ("" if not)."""

    versions: list[str]
    held: str


class Leave(_Message, frozen=True):
    """Client: no version will be made in this session (dry run)."""


class FileRaw(msgspec.Struct, frozen=True):
    """Client: the next bytes of the open file, as they are."""

    content: memoryview | bytes


class FileDelta(msgspec.Struct, frozen=True):
    """Client: a piece of a delta for the next segment of the open file; `last` ends the segment."""

    last: bool
    content: memoryview | bytes


class SignaturePart(msgspec.Struct, frozen=True):
    """Server: a piece of the signature asked for; `last` ends it."""

    id: int
    last: bool
    content: memoryview | bytes


Message = (
    Hello
    | Open
    | Opened
    | Refused
    | FetchCatalog
    | CatalogRows
    | CatalogEnd
    | Changes
    | WantSignature
    | NoSignature
    | SignaturePart
    | FileBegin
    | FileRaw
    | FileDelta
    | FileEnd
    | FileAbort
    | Checkpoint
    | CheckpointDone
    | Finish
    | Need
    | Committed
    | Expired
    | Leave
)

CONTROL_TYPES: dict[int, type[_Message]] = {
    1: Hello,
    2: Open,
    3: Opened,
    4: Refused,
    5: FetchCatalog,
    6: CatalogRows,
    7: CatalogEnd,
    8: Changes,
    9: WantSignature,
    10: NoSignature,
    12: FileBegin,
    15: FileEnd,
    16: FileAbort,
    17: Checkpoint,
    18: CheckpointDone,
    19: Finish,
    20: Need,
    21: Committed,
    22: Expired,
    23: Leave,
}
"""Frame type number of each control message."""

SIGNATURE_PART = 11
FILE_RAW = 13
FILE_DELTA = 14

TYPE_NUMBERS: dict[type, int] = {kind: number for number, kind in CONTROL_TYPES.items()} | {
    SignaturePart: SIGNATURE_PART,
    FileRaw: FILE_RAW,
    FileDelta: FILE_DELTA,
}

_encoder = msgspec.msgpack.Encoder()
encode_control: Callable[[object], bytes] = _encoder.encode
DECODERS: dict[int, msgspec.msgpack.Decoder[_Message]] = {
    number: msgspec.msgpack.Decoder(kind) for number, kind in CONTROL_TYPES.items()
}
