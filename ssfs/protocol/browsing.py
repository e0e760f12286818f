"""Messages of a client that browses: it mounts what a server has (PROTOCOL.md, "Browsing").

Part of the closed set of `ssfs.protocol.messages`. Requests may be sent before earlier ones are answered; the server answers each in
the order asked, or says `Lacking`.
"""

import enum

from ssfs.model.version import RootMetadata
from ssfs.protocol.control import ControlMessage

MAX_RANGE_BYTES = 4 << 20
"""A browsing client asks for at most this much of a file at a time."""


class Lack(enum.IntEnum):
    """Why a browsing client cannot have what it asked for; the session goes on."""

    GONE = 1
    """There is no such thing (any more)."""
    DAMAGED = 2
    """The store has it no more as it was."""
    REFUSED = 3
    """The client may not read it."""
    FAILED = 4
    """It cannot be read now."""


class Browse(ControlMessage, frozen=True):
    """Client: I want to look around, as a mount does."""


class Browsed(ControlMessage, frozen=True):
    """Server: ask; days begin in this time zone here."""

    timezone: str


class WantListing(ControlMessage, frozen=True):
    """Client: what is there? Sync points, the tasks of one, or the versions of a task.

    Attributes:
        point: Sync point name; "": the sync points.
        task: Task name; "": the tasks of the sync point.
        stamp: Of the listing that the client has; b"" for none.
    """

    point: str
    task: str
    stamp: bytes


class ListedVersion(ControlMessage, frozen=True):
    """A version in a listing.

    Attributes:
        version: Its id.
        name: Its timed name.
        root: Metadata of the directory it shows.
        shift_s: What to add to the time in its id for a second that it shares with no other version.
        catalog_digest: Logical digest of its catalog, in hex; "" where none was recorded.
    """

    version: str
    name: str
    root: RootMetadata
    shift_s: int
    catalog_digest: str


class Listing(ControlMessage, frozen=True):
    """Server: some of what there is.

    Attributes:
        stamp: Of the whole listing. If it is the client's, nothing has changed and nothing is listed.
        is_last: Whether that was all of it.
        names: Sync points or tasks, by name.
        versions: By sequence.
    """

    stamp: bytes
    is_last: bool
    names: list[str]
    versions: list[ListedVersion]


class WantRows(ControlMessage, frozen=True):
    """Client: send an entry's row, and, if it is a directory, those of what is in it.

    Attributes:
        point: Sync point name.
        task: Task name.
        version: Its id; the server keeps it from being deleted from now on.
        entry: Entry id.
        ahead: How many rows of what lies further below are welcome too; -1: the entry's row alone.
        walks: The client walks through the tree: what such a walk enters next is welcome instead, beside and above the
            directory too. It has the rows of all directories above.
    """

    point: str
    task: str
    version: str
    entry: int
    ahead: int
    walks: bool = False


class LinkedNames(ControlMessage, frozen=True):
    """The names of one file: number of the group, the smallest entry id, how many they are."""

    group: int
    first_id: int
    count: int


class Links(ControlMessage, frozen=True):
    """Server, among rows: some of the groups of hard links that the entries sent are in."""

    links: list[LinkedNames]


class RowsEnd(ControlMessage, frozen=True):
    """Server: those were the rows.

    Attributes:
        catalog_digest: Logical digest of the version's catalog, in hex; "" where none was recorded.
        directories: All rows of what is in these were sent.
    """

    catalog_digest: str
    directories: list[int]


class WantCatalog(ControlMessage, frozen=True):
    """Client: send a version's catalog, or what makes it of one that I have; some of it at a time.

    Attributes:
        point: Sync point name.
        task: Task name.
        version: Its id; the server keeps it from being deleted from now on.
        base: Id of a version of the task whose catalog the client has: rows that are alike there are left out; "": none.
        after: The `through` of the part before; 0: from the start, with all principals and sets of extended attributes.
    """

    point: str
    task: str
    version: str
    base: str
    after: int


class CatalogPart(ControlMessage, frozen=True):
    """Server: those were the rows of ids above the `after` that was asked with, up to this one.

    Attributes:
        through: Up to which id.
        is_last: Whether no rows come after these.
        gone: Ids among these that the base has, and this version has not.
    """

    through: int
    is_last: bool
    gone: list[int]


class WantSpace(ControlMessage, frozen=True):
    """Client: how full is the store's disk?"""


class StoreSpace(ControlMessage, frozen=True):
    """Server: so full is it, as statvfs(3) says.

    Attributes:
        fragment: Bytes of a block.
        blocks: All there are.
        free: Of them for root.
        available: Of them for others.
        files: Inodes.
        free_files: Of them.
    """

    fragment: int
    blocks: int
    free: int
    available: int
    files: int
    free_files: int


class WantBytes(ControlMessage, frozen=True):
    """Client: send these bytes of a file, all of which it has.

    Attributes:
        point: Sync point name.
        task: Task name.
        version: Its id.
        entry: Entry id of the file.
        offset: Of the first byte.
        count: How many, at most `MAX_RANGE_BYTES`; 0: only say whether it can be read.
    """

    point: str
    task: str
    version: str
    entry: int
    offset: int
    count: int


class BytesEnd(ControlMessage, frozen=True):
    """Server: those were the bytes."""


class Lacking(ControlMessage, frozen=True):
    """Server: what was asked for next cannot be had, or not to its end; why, for people."""

    lack: Lack
    problem: str


class LetGo(ControlMessage, frozen=True):
    """Client: I do not look at this version any more. There is no answer."""

    point: str
    task: str
    version: str
