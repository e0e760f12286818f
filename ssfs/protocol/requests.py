"""Commands over the wire: what a client can ask of a store, and what it is answered.

A request travels in an `Ask`, its answer in pieces (`AnswerPart`, `AnswerEnd`); both are MessagePack maps. The lines and
reports inside the answers are what `--json` prints, so that a command prints the same bytes wherever
its store is. Those about what is in versions are in `ssfs.protocol.questions`. Who may ask what, and what
it means, is `ssfs.engine.commands`'s.

Where a person is asked between looking and doing, a request comes twice: first with `apply` false, which
changes nothing, then with `apply` true, when everything is judged anew.
"""

import datetime
from collections.abc import Iterator
from typing import Annotated, TypeVar, cast

import msgspec

from ssfs.errors import ConfigError, RemoteProtocolError
from ssfs.model.policy import Policy
from ssfs.model.settings import Bytes, Concurrency
from ssfs.model.version import Shrink
from ssfs.protocol.asking import Report, Request, Text
from ssfs.protocol.messages import MAX_BULK_BYTES, AnswerEnd, AnswerPart
from ssfs.protocol.questions import (
    CompareVersions,
    DiffReport,
    FindPaths,
    FindReport,
    HistoryReport,
    Question,
    QuestionReport,
    ShowHistory,
    ShowUsage,
    UsageReport,
)
from ssfs.protocol.verification import VerifyReport, VerifyVersions

MAX_REQUEST_BYTES = 1 << 20
"""No request is longer: it must fit into one frame."""
MAX_ANSWER_BYTES = 64 << 20
"""No answer is longer, in all its pieces: some 200,000 versions."""

_DAMAGE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes that are not what they should be."""

_Days = Annotated[int, msgspec.Meta(ge=0, le=100_000)]
_Newest = Annotated[int, msgspec.Meta(ge=1, le=100_000)]


# -- answers ---------------------------------------------------------------------------------------


class TaskLine(Report, frozen=True):
    """A task in a list of sync points. The last three are null as long as there is no version."""

    task: str
    owner: str
    source: str
    versions: int
    last_version: str | None
    last_mount_name: str | None
    last_started: datetime.datetime | None


class PointLine(Report, frozen=True):
    """A sync point in a list of them.

    Attributes:
        point: Its name.
        policy: What it keeps.
        tasks: Those that the client may see, by name.
        lost: Names of tasks whose settings or versions are lost; only who is at the store's machine is told.
    """

    point: str
    policy: Policy
    tasks: tuple[TaskLine, ...]
    lost: tuple[str, ...] = ()


class PointsReport(Report, frozen=True):
    """The sync points and tasks that the client may see, by name."""

    points: tuple[PointLine, ...]


class VersionLine(Report, frozen=True):
    """A version in a list of them. What only a damaged record knew is null.

    `damaged` is how many of its entries are known to be damaged; null: its catalog is, or its tree as a whole.
    """

    version: str
    mount_name: str | None
    started: datetime.datetime
    seconds: float | None
    entries: int | None
    bytes: int | None
    new_bytes: int | None
    problems: int | None
    pinned: bool
    keep: tuple[str, ...]
    damaged: int | None
    shrunk: Shrink | None


class VersionsReport(Report, frozen=True):
    """The versions of a task.

    Attributes:
        task: POINT/TASK.
        versions: By sequence.
        held: Why automatic expiry holds; null if it does not.
    """

    task: str
    versions: tuple[VersionLine, ...]
    held: str | None


class Loss(Report, frozen=True):
    """The versions of a task that a policy lets go."""

    task: str
    versions: tuple[str, ...]


class PointReport(Report, frozen=True):
    """The settings of a sync point, as they are or would be.

    Attributes:
        point: Its name.
        policy: What it keeps.
        max_concurrent: Backups at once.
        quota: Bytes from which on it takes no new backup; null: none.
        used: Bytes in use; null where there is no quota.
        created: Whether it is made by this request.
        changed: Whether the request changes its settings.
        expires: What the new policy lets go that the old one keeps.
    """

    point: str
    policy: Policy
    max_concurrent: int
    quota: int | None
    used: int | None
    created: bool
    changed: bool
    expires: tuple[Loss, ...]


class Fate(Report, frozen=True):
    """A version and why it stays; no reason: it goes."""

    version: str
    mount_name: str | None
    keep: tuple[str, ...]


class TaskExpiry(Report, frozen=True):
    """What goes of a task, what stays, and why a sync would hold (null: it would not)."""

    task: str
    expired: tuple[str, ...]
    versions: tuple[Fate, ...]
    held: str | None


class ExpireReport(Report, frozen=True):
    """An expiry, done or proposed; `lost`: names of tasks left out, whose settings or versions are lost."""

    dry_run: bool
    tasks: tuple[TaskExpiry, ...]
    lost: tuple[str, ...] = ()


class DeleteReport(Report, frozen=True):
    """The ids of the versions that are deleted, or would be, each once, in the order asked for."""

    versions: tuple[str, ...]


class PinReport(Report, frozen=True):
    """The id of the version that is pinned now, or is not."""

    version: str


Answer = (
    PointsReport
    | VersionsReport
    | PointReport
    | ExpireReport
    | DeleteReport
    | PinReport
    | QuestionReport
    | VerifyReport
)

A = TypeVar("A")


# -- requests --------------------------------------------------------------------------------------


class ListPoints(Request[PointsReport], frozen=True, tag="points"):
    """What does the store hold?"""


class ListVersions(Request[VersionsReport], frozen=True, tag="versions"):
    """What does a task have? `task` is "" for the only one of the sync point."""

    point: Text
    task: Text


class SetPoint(Request[PointReport], frozen=True, tag="point"):
    """Make a sync point, or change its settings: those that are not null. With none: show them.

    Attributes:
        point: Its name.
        days: As in the policy; so are the next three.
        weeks: Likewise.
        months: Likewise.
        keep_last: Likewise.
        max_concurrent: Backups at once.
        quota_bytes: 0 takes the quota away.
        apply: Do it; otherwise only say what it would do.
    """

    point: Text
    days: _Days | None = None
    weeks: _Days | None = None
    months: _Days | None = None
    keep_last: _Newest | None = None
    max_concurrent: Concurrency | None = None
    quota_bytes: Bytes | None = None
    apply: bool = False


class ExpireVersions(Request[ExpireReport], frozen=True, tag="expire"):
    """Let versions go by the policy.

    Attributes:
        point: Sync point.
        task: Task; "" for all of the sync point.
        dry_run: Nobody means to do it: who may read may ask.
        apply: Do it; otherwise only say what would go.
    """

    point: Text
    task: Text
    dry_run: bool
    apply: bool = False


class DeleteVersions(Request[DeleteReport], frozen=True, tag="delete"):
    """Delete versions, whatever the policy says.

    Attributes:
        point: Sync point.
        task: Task; "" for the only one of the sync point.
        versions: Any spelling of each (README, "Use it").
        agreed: The ids that were answered without `apply`: if the versions mean others by now,
            nothing is done.
        apply: Do it; otherwise only say what would be deleted.
    """

    point: Text
    task: Text
    versions: tuple[Text, ...]
    agreed: tuple[Text, ...] = ()
    apply: bool = False


class SetPin(Request[PinReport], frozen=True, tag="pin"):
    """Hold a version, or let it go by the policy again.

    Attributes:
        point: Sync point.
        task: Task; "" for the only one of the sync point.
        version: Any spelling of it (README, "Use it").
        is_pinned: What it shall be.
    """

    point: Text
    task: Text
    version: Text
    is_pinned: bool


AnyRequest = (
    ListPoints
    | ListVersions
    | SetPoint
    | ExpireVersions
    | DeleteVersions
    | SetPin
    | Question
    | VerifyVersions
)

_encoder = msgspec.msgpack.Encoder()
_request_decoder = msgspec.msgpack.Decoder(AnyRequest)
_answer_decoders: dict[type, msgspec.msgpack.Decoder[Answer]] = {
    ListPoints: msgspec.msgpack.Decoder(PointsReport),
    ListVersions: msgspec.msgpack.Decoder(VersionsReport),
    SetPoint: msgspec.msgpack.Decoder(PointReport),
    ExpireVersions: msgspec.msgpack.Decoder(ExpireReport),
    DeleteVersions: msgspec.msgpack.Decoder(DeleteReport),
    SetPin: msgspec.msgpack.Decoder(PinReport),
    FindPaths: msgspec.msgpack.Decoder(FindReport),
    ShowHistory: msgspec.msgpack.Decoder(HistoryReport),
    CompareVersions: msgspec.msgpack.Decoder(DiffReport),
    ShowUsage: msgspec.msgpack.Decoder(UsageReport),
    VerifyVersions: msgspec.msgpack.Decoder(VerifyReport),
}


# -- encoding --------------------------------------------------------------------------------------


def encode_request(request: Request[object]) -> bytes:
    """The bytes of a request.

    Raises:
        ConfigError: It is too long, or holds what no server can know.
    """
    try:
        content = _encoder.encode(request)
    except UnicodeEncodeError as error:
        raise ConfigError("What is named is not written in UTF-8") from error
    if len(content) > MAX_REQUEST_BYTES:
        raise ConfigError("Too much is named at once", remedy="use several commands")
    return content


def decode_request(content: bytes) -> AnyRequest:
    """The request that a client sent.

    Raises:
        RemoteProtocolError: It is none.
    """
    if len(content) > MAX_REQUEST_BYTES:
        raise RemoteProtocolError(f"The client sent a request of {len(content):,} bytes")
    try:
        request: AnyRequest = _request_decoder.decode(content)
    except _DAMAGE as error:
        raise RemoteProtocolError(f"The client sent a malformed request ({error})") from error
    return request


def encode_answer(answer: Answer) -> bytes:
    """The bytes of an answer.

    Raises:
        ConfigError: It is too long to be sent.
    """
    content = _encoder.encode(answer)
    if len(content) > MAX_ANSWER_BYTES:
        raise ConfigError(
            "The answer is too long to be sent",
            remedy="ask for one task, or ask on the store's machine",
        )
    return content


def decode_answer(request: Request[A], content: bytes) -> A:
    """What a server answered to `request`.

    Raises:
        RemoteProtocolError: It is no answer to that.
    """
    try:
        return cast("A", _answer_decoders[type(request)].decode(content))
    except _DAMAGE as error:
        raise RemoteProtocolError(f"The server sent a malformed answer ({error})") from error


def split_answer(content: bytes) -> Iterator[AnswerPart | AnswerEnd]:
    """The messages that carry an encoded answer, in order."""
    view = memoryview(content)
    while len(view) > MAX_BULK_BYTES:
        yield AnswerPart(bytes(view[:MAX_BULK_BYTES]))
        view = view[MAX_BULK_BYTES:]
    yield AnswerEnd(bytes(view))
