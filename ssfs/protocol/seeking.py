"""Messages of a client that seeks content by its digest; part of the closed set of `ssfs.protocol.messages`."""

import msgspec

from ssfs.protocol.control import ControlMessage


class Seek(ControlMessage, frozen=True):
    """Client: send what you have of these contents, wherever in your versions it is.

    Attributes:
        point: Sync point name; "" for all that this client may read.
        task: Task name; "" for all of the sync point likewise.
        contents: Size and digest of each; their places in this list, from 0, are their numbers.
    """

    point: str
    task: str
    contents: list[tuple[int, bytes]]


class Sought(ControlMessage, frozen=True):
    """Server: that was all there is of them."""


class ContentPart(msgspec.Struct, frozen=True):
    """Server: the next bytes of the content with this number; `last` ends it."""

    id: int
    last: bool
    content: memoryview | bytes
