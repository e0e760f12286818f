"""The messages of PROTOCOL.md: a closed set of typed values.

Control messages are MessagePack arrays. Bulk messages (`BULK_TYPES` in `ssfs.protocol.codec`) have a
fixed binary head and carry their bytes as they are, so that nothing is copied into an encoder; what a
receiver gets of them is a view into its read buffer, good until the next read.
"""

import enum

import msgspec

from ssfs.model.entry import MAX_ENTRY_ID, Entry, Principal
from ssfs.model.version import Counts, Shrink
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
from ssfs.protocol.control import ControlMessage
from ssfs.protocol.enrolling import AskAuthority, Authority, Enroll, Enrolled, Renew
from ssfs.protocol.restoring import BasisPart, Contents, Fetch, Fetched, NoContent, WantContents
from ssfs.protocol.seeking import ContentPart, Seek, Sought

PROTOCOL_VERSION = 1
MAX_PAYLOAD_BYTES = (1 << 20) + (1 << 16)
"""No frame's payload is longer; a longer one ends the session."""
MAX_BULK_BYTES = 1 << 20
"""Content bytes in one bulk frame."""
CHANGES_TARGET_BYTES = 192 << 10
"""A sender closes a Changes frame at about this size."""
INLINE_MAX_BYTES = 128 << 10
"""Files up to this size travel inside a Changes frame; larger ones by FileBegin."""


def basis_number(partial: int, entry_id: int) -> int:
    """The number of the basis that is a partial's bytes followed by an entry's content.

    Args:
        partial: Number of a `Partial`; 0 for none.
        entry_id: Entry id of the compared catalog; 0 for none.
    """
    return partial * MAX_ENTRY_ID + entry_id


def basis_parts(number: int) -> tuple[int, int]:
    """The partial's number and the entry id in a basis number; 0 for what it lacks."""
    return divmod(number, MAX_ENTRY_ID)


class Refusal(enum.IntEnum):
    """Why a server says no. Each code has one meaning and one exit code at the client."""

    BAD_REQUEST = 1
    TASK_BUSY = 2
    STORE = 3
    STORE_FULL = 4
    CORRUPT = 5
    CATALOG_DIFFERS = 6
    NOT_TRUSTED = 7
    NO_SLOT = 8
    GOING_DOWN = 9


class Hello(ControlMessage, frozen=True):
    """Both ends, first.

    Attributes:
        protocol: Protocol version.
        software: Software version, for people.
        renew: Server: your certificate should be renewed now.
    """

    protocol: int
    software: str
    renew: bool = False


class Open(ControlMessage, frozen=True):
    """Client: I want to back up into this task.

    Attributes:
        point: Sync point name.
        task: Task name.
        client: The client's name for itself (counts only where the connection knows no better).
        source: Source identity.
        dry_run: Nothing will be sent: only the catalog to compare with is wanted.
        waits: Whether to wait when all slots of the sync point are taken.
        allow_shrink: A source that has lost most of its files is meant to be so.
    """

    point: str
    task: str
    client: str
    source: str
    dry_run: bool
    waits: bool = True
    allow_shrink: bool = False


class Queued(ControlMessage, frozen=True):
    """Server: all slots are taken; `place` others, you included, go before the next free one is yours."""

    place: int


class Partial(ControlMessage, frozen=True):
    """A large file of which an interrupted run had received a part.

    Attributes:
        number: From 1; half of a basis number.
        dev: Device number of the file at the source, as in its row.
        ino: Its inode number likewise.
        size: Bytes that are here.
    """

    number: int
    dev: int
    ino: int
    size: int


class Opened(ControlMessage, frozen=True):
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
        partials: Parts of large files that an interrupted run had received: bases for deltas.
    """

    task_id: str
    base: str
    catalog_digest: bytes
    resumed: bool
    next_id: int
    expected_entries: int
    expected_bytes: int
    partials: list[Partial]


class Refused(ControlMessage, frozen=True):
    """Server: no. `problem` and `remedy` are for people only; programs go by `code`."""

    code: Refusal
    problem: str
    path: bytes
    remedy: str


class FetchCatalog(ControlMessage, frozen=True):
    """Client: I do not have the catalog to compare with; send its rows."""


class CatalogRows(ControlMessage, frozen=True):
    """Server: rows, as one zstd frame of a MessagePack `CatalogBatch`."""

    compressed: bytes


class CatalogBatch(ControlMessage, frozen=True):
    """What a CatalogRows frame holds."""

    entries: list[Entry]
    principals: list[Principal]
    xattr_sets: list[tuple[bytes, bytes]] = msgspec.field(default_factory=list)


class CatalogEnd(ControlMessage, frozen=True):
    """Server: those were all rows."""


class Keep(ControlMessage, frozen=True, tag=1):
    """The row changes, the content stays where it is (metadata, or another place)."""

    entry: Entry


class Make(ControlMessage, frozen=True, tag=2):
    """A directory or a symlink: all of it is in the row."""

    entry: Entry


class Store(ControlMessage, frozen=True, tag=3):
    """A small file with its content."""

    entry: Entry
    content: bytes


class Link(ControlMessage, frozen=True, tag=4):
    """A file whose content another (or this) entry id has: in the compared catalog, or by now."""

    entry: Entry
    source: int


class Remove(ControlMessage, frozen=True, tag=5):
    """The entry is gone, and with it whatever is still below it."""

    id: int


class Name(ControlMessage, frozen=True, tag=6):
    """What the source's machine calls a number; an empty name withdraws it."""

    principal: Principal


class Xattrs(ControlMessage, frozen=True, tag=7):
    """A set of extended attributes that rows may name from now on.

    Attributes:
        key: What rows call it: its BLAKE3.
        encoded: The set (`ssfs.model.xattrs`); b"" withdraws it, no row names it any more.
    """

    key: bytes
    encoded: bytes


Change = Keep | Make | Store | Link | Remove | Name | Xattrs


class Changes(ControlMessage, frozen=True):
    """Client: changes to the version being made, applied in order."""

    changes: list[Change]


class WantSignature(ControlMessage, frozen=True):
    """Client: send the signature of the basis with this number (`basis_number`)."""

    id: int


class NoSignature(ControlMessage, frozen=True):
    """Server: there is nothing to make a signature of; send the file whole."""

    id: int


class FileBegin(ControlMessage, frozen=True):
    """The end that sends content: that of one large file follows.

    Attributes:
        id: Its entry id.
        basis: Number of the basis that FileDelta frames are against; 0: none come.
        dev: Device number of the file at the source; in a restore 0.
        ino: Its inode number likewise: what a later `Partial` is known by.
        size: Of a sparse file, holes included; else 0.
        holes: The extents of a sparse file, as in its row: its content is what is in them.
    """

    id: int
    basis: int
    dev: int
    ino: int
    size: int = 0
    holes: bytes = b""


class FileEnd(ControlMessage, frozen=True):
    """The end that sends content: that was all of it; this is its row, digest included."""

    entry: Entry


class FileAbort(ControlMessage, frozen=True):
    """The end that sends content: forget what came since FileBegin.

    Attributes:
        id: The file's entry id.
        problem: What is wrong with it, for people; "" when it merely changed or vanished.
    """

    id: int
    problem: str = ""


class Checkpoint(ControlMessage, frozen=True):
    """Client: make durable all I sent before this."""

    number: int


class CheckpointDone(ControlMessage, frozen=True):
    """Server: it is."""

    number: int


class Finish(ControlMessage, frozen=True):
    """Client: the version is complete; mine has this logical digest.

    Attributes:
        catalog_digest: Logical digest of the client's catalog after all changes.
        report: What the client counted; the server keeps it with the version.
    """

    catalog_digest: bytes
    report: Counts


class Need(ControlMessage, frozen=True):
    """Server: I do not have the content of these entries (damage, or a digest that did not match)."""

    ids: list[int]


class Committed(ControlMessage, frozen=True):
    """Server: the version is durable and visible.

    Attributes:
        version: Its id.
        mount_name: The name a mount shows it by.
        entries: All its entries.
        size_bytes: Sum of the sizes of its files.
        new_bytes: File content newly stored.
        shrunk: It is flagged: the source has lost most of its files.
    """

    version: str
    mount_name: str
    entries: int
    size_bytes: int
    new_bytes: int
    shrunk: Shrink | None = None


class Expired(ControlMessage, frozen=True):
    """Server: what the retention rule let go after this commit, or why it held ("" if not)."""

    versions: list[str]
    held: str


class Leave(ControlMessage, frozen=True):
    """Client: no version will be made in this session (dry run)."""


class Ask(ControlMessage, frozen=True):
    """Client: a command (`ssfs.protocol.requests`), encoded."""

    request: bytes


class AnswerPart(ControlMessage, frozen=True):
    """Server: a piece of the encoded answer to a command; more follow."""

    content: bytes


class AnswerEnd(ControlMessage, frozen=True):
    """Server: the last piece of it."""

    content: bytes


class Progress(ControlMessage, frozen=True):
    """Server: how far a command that takes long has come since the last of these.

    Attributes:
        entries: Entries that were gone through.
        size_bytes: Bytes that were read.
        expected: Entries there are in all; 0 while that is not known.
        phase: What is being done, in a few words.
    """

    entries: int
    size_bytes: int
    expected: int
    phase: str


class FileRaw(msgspec.Struct, frozen=True):
    """The end that sends content: the next bytes of the open file, as they are."""

    content: memoryview | bytes


class FileDelta(msgspec.Struct, frozen=True):
    """The end that sends content: a piece of a delta for the next segment of the open file; `last` ends the segment."""

    last: bool
    content: memoryview | bytes


class SignaturePart(msgspec.Struct, frozen=True):
    """Server: a piece of the signature of the basis with this number; `last` ends it."""

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
    | Queued
    | Ask
    | AnswerPart
    | AnswerEnd
    | Fetch
    | Fetched
    | WantContents
    | BasisPart
    | Contents
    | NoContent
    | AskAuthority
    | Authority
    | Enroll
    | Renew
    | Enrolled
    | Browse
    | Browsed
    | WantListing
    | Listing
    | WantRows
    | RowsEnd
    | WantBytes
    | BytesEnd
    | Lacking
    | LetGo
    | Links
    | Progress
    | Seek
    | Sought
    | ContentPart
    | WantCatalog
    | CatalogPart
    | WantSpace
    | StoreSpace
)
