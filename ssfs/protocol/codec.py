"""How each message is encoded in its frame: type numbers, MessagePack, and the heads of bulk messages."""

import struct
from collections.abc import Callable

import msgspec

from ssfs.errors import RemoteProtocolError
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
    Message,
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

_DELTA_HEAD = struct.Struct("<B")
_SIGNATURE_HEAD = struct.Struct("<QB")

CONTROL_TYPES: dict[int, type[ControlMessage]] = {
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
    24: Queued,
    25: Ask,
    26: AnswerPart,
    27: AnswerEnd,
    28: Fetch,
    29: Fetched,
    30: WantContents,
    32: Contents,
    33: NoContent,
    34: AskAuthority,
    35: Authority,
    36: Enroll,
    37: Renew,
    38: Enrolled,
    39: Browse,
    40: Browsed,
    41: WantListing,
    42: Listing,
    43: WantRows,
    44: RowsEnd,
    45: WantBytes,
    46: BytesEnd,
    47: Lacking,
    48: LetGo,
    49: Links,
    50: Progress,
    51: Seek,
    52: Sought,
    54: WantCatalog,
    55: CatalogPart,
    56: WantSpace,
    57: StoreSpace,
}
"""Frame type number of each control message."""

SIGNATURE_PART = 11
FILE_RAW = 13
FILE_DELTA = 14
BASIS_PART = 31
CONTENT_PART = 53

BULK_TYPES: dict[int, type] = {
    SIGNATURE_PART: SignaturePart,
    FILE_RAW: FileRaw,
    FILE_DELTA: FileDelta,
    BASIS_PART: BasisPart,
    CONTENT_PART: ContentPart,
}
"""Frame type number of each bulk message."""

_NUMBERED_PARTS: dict[int, type[SignaturePart | BasisPart | ContentPart]] = {
    SIGNATURE_PART: SignaturePart,
    BASIS_PART: BasisPart,
    CONTENT_PART: ContentPart,
}

TYPE_NUMBERS: dict[type, int] = {
    kind: number for number, kind in (CONTROL_TYPES | BULK_TYPES).items()
}

_encoder = msgspec.msgpack.Encoder()
encode_control: Callable[[object], bytes] = _encoder.encode
DECODERS: dict[int, msgspec.msgpack.Decoder[ControlMessage]] = {
    number: msgspec.msgpack.Decoder(kind) for number, kind in CONTROL_TYPES.items()
}


def encode(message: Message) -> list[bytes | memoryview]:
    """The payload of a message's frame, as buffers one after the other."""
    match message:
        case FileRaw(content):
            return [content]
        case FileDelta(last, content):
            return [_DELTA_HEAD.pack(last), content]
        case (
            SignaturePart(id_, last, content)
            | BasisPart(id_, last, content)
            | ContentPart(id_, last, content)
        ):
            return [_SIGNATURE_HEAD.pack(id_, last), content]
        case _:
            return [encode_control(message)]


def decode(number: int, payload: memoryview) -> Message:
    """The message in a frame; a bulk message is a view into the payload.

    Raises:
        RemoteProtocolError: There is none.
    """
    try:
        if number == FILE_RAW:
            return FileRaw(payload)
        if number == FILE_DELTA:
            (last,) = _DELTA_HEAD.unpack_from(payload)
            return FileDelta(bool(last), payload[_DELTA_HEAD.size :])
        numbered = _NUMBERED_PARTS.get(number)
        if numbered is not None:
            id_, last = _SIGNATURE_HEAD.unpack_from(payload)
            return numbered(id_, bool(last), payload[_SIGNATURE_HEAD.size :])
        decoder = DECODERS.get(number)
        if decoder is None:
            raise RemoteProtocolError(f"The peer sent a frame of unknown type {number}")
        return decoder.decode(payload)  # type: ignore[return-value]  # the table holds only messages
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, struct.error) as error:
        # The middle two are what msgspec raises for text that is no UTF-8, and for deep nesting.
        name = CONTROL_TYPES[number].__name__ if number in CONTROL_TYPES else f"type {number}"
        raise RemoteProtocolError(f"The peer sent a malformed frame ({name}: {error})") from error
