"""Messages of a restore (PROTOCOL.md, "A restore"); part of the closed set of `ssfs.protocol.messages`."""

import msgspec

from ssfs.protocol.control import ControlMessage


class Fetch(ControlMessage, frozen=True):
    """Client: I want to restore from this version.

    Attributes:
        point: Sync point name.
        task: Task name; "" for the only one of the sync point.
        version: Any spelling of a version (README, "Use it").
        paths: Entries below the version's root; none: all of it.
        damaged_ok: Send what is damaged as it is, too.
        known: Logical digests of catalogs that I have: their rows need not be sent.
    """

    point: str
    task: str
    version: str
    paths: list[bytes]
    damaged_ok: bool = False
    known: list[bytes] = msgspec.field(default_factory=list)


class Fetched(ControlMessage, frozen=True):
    """Server: this version it is; the rows of what was asked for follow, directories above included.

    Attributes:
        version: Its id.
        mount_name: The name a mount lists it under, "" if none.
        entries: Entries wanted, for progress.
        size_bytes: Their content likewise.
        problem: What is wrong with the catalog that the rows are from; "" for nothing.
        known: The logical digest of its catalog, if the client has named it: then no row follows. Else b"".
    """

    version: str
    mount_name: str
    entries: int
    size_bytes: int
    problem: str = ""
    known: bytes = b""


class WantContents(ControlMessage, frozen=True):
    """Client: send the content of these files, in this order."""

    ids: list[int]


class Contents(ControlMessage, frozen=True):
    """Server: the content of small files, each under its id, in the order asked for."""

    files: list[tuple[int, bytes]]


class NoContent(ControlMessage, frozen=True):
    """Server: the content of the file asked for next cannot be had; why, for people."""

    id: int
    problem: str


class BasisPart(msgspec.Struct, frozen=True):
    """Client that restores: a piece of the description of its own file (`ssfs.delta.described`); `last` ends it.

    After the last one the server sends the content of entry `id` as a delta against that file; it
    counts as asked for with the last piece.
    """

    id: int
    last: bool
    content: memoryview | bytes
