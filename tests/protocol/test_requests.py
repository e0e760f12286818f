"""Commands and their answers on the wire: a contract, and nothing a peer sends does harm."""

import contextlib
import datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssfs.errors import ConfigError, RemoteProtocolError
from ssfs.model.policy import Policy
from ssfs.model.version import Shrink
from ssfs.protocol.messages import MAX_BULK_BYTES, AnswerEnd, AnswerPart
from ssfs.protocol.questions import (
    MAX_LIMIT,
    MAX_PATH_BYTES,
    CompareVersions,
    DiffCounts,
    Difference,
    DiffReport,
    FileState,
    Finding,
    FindPaths,
    FindReport,
    HistoryReport,
    PathProblem,
    ShowHistory,
    ShowUsage,
    TaskUsage,
    UsageReport,
    VersionProblem,
    VersionUsage,
)
from ssfs.protocol.requests import (
    MAX_ANSWER_BYTES,
    MAX_REQUEST_BYTES,
    Answer,
    AnyRequest,
    DeleteReport,
    DeleteVersions,
    ExpireReport,
    ExpireVersions,
    Fate,
    ListPoints,
    ListVersions,
    Loss,
    PinReport,
    PointLine,
    PointReport,
    PointsReport,
    SetPin,
    SetPoint,
    TaskExpiry,
    TaskLine,
    VersionLine,
    VersionsReport,
    decode_answer,
    decode_request,
    encode_answer,
    encode_request,
    split_answer,
)
from ssfs.protocol.verification import Damaged, VerifyReport, VerifyVersions

ID = "000042-2024-05-01T020000Z"
TIME = datetime.datetime(2024, 5, 1, 2, tzinfo=datetime.UTC)
VERSION = VersionLine(
    ID, "2024-05-01", TIME, 1.5, 3, 2000, 1000, 0, False, ("newest",), 0, Shrink(20, 3)
)
DAMAGED = VersionLine(ID, None, TIME, None, None, None, None, None, True, ("damaged",), None, None)
TASK = TaskLine("docs", "nas1", "/srv/docs", 1, ID, "2024-05-01", TIME)
PROBLEM = VersionProblem("docs", ID, "Catalog cannot be read")
SPAN = (2, ID, "2024-05-01", ID, "2024-05-01")
FOUND = Finding("docs", "a/\\xff", "file", 5, "2024-05-01T02:00:00.000000001Z", *SPAN, True)
STATE = FileState("a", "symlink", 0, "@-99999999999999.000000000", None, "b", *SPAN)
DIFFERENCE = Difference("moved", "b", "a", "file", "file", 5, 5, ("mode",))

ONE_OF_EACH: list[tuple[AnyRequest, dict[str, object], Answer]] = [
    (
        ListPoints(),
        {"command": "points"},
        PointsReport((PointLine("main", Policy(), (TASK,)),)),
    ),
    (
        ListVersions("main", "docs"),
        {"command": "versions", "point": "main", "task": "docs"},
        VersionsReport("main/docs", (VERSION, DAMAGED), "Expiry holds"),
    ),
    (
        SetPoint("main", days=3, quota_bytes=0),
        {
            "command": "point",
            "point": "main",
            "days": 3,
            "weeks": None,
            "months": None,
            "keep_last": None,
            "max_concurrent": None,
            "quota_bytes": 0,
            "apply": False,
        },
        PointReport("main", Policy(), 8, 10**12, 5, False, True, (Loss("docs", (ID,)),)),
    ),
    (
        ExpireVersions("main", "", dry_run=True),
        {"command": "expire", "point": "main", "task": "", "dry_run": True, "apply": False},
        ExpireReport(True, (TaskExpiry("docs", (ID,), (Fate(ID, None, ()),), None),)),
    ),
    (
        DeleteVersions("main", "docs", ("42", ID), (ID,), apply=True),
        {
            "command": "delete",
            "point": "main",
            "task": "docs",
            "versions": ["42", ID],
            "agreed": [ID],
            "apply": True,
        },
        DeleteReport((ID,)),
    ),
    (
        SetPin("main", "docs", "latest~1", is_pinned=True),
        {
            "command": "pin",
            "point": "main",
            "task": "docs",
            "version": "latest~1",
            "is_pinned": True,
        },
        PinReport(ID),
    ),
    (
        FindPaths("main", "", b"*.\xff", ignore_case=True, limit=5),
        {
            "command": "find",
            "point": "main",
            "task": "",
            "pattern": b"*.\xff",
            "since": "",
            "deleted": False,
            "ignore_case": True,
            "limit": 5,
        },
        FindReport((FOUND,), True, (PROBLEM,)),
    ),
    (
        ShowHistory("main", "docs", b"a/\xff"),
        {"command": "history", "point": "main", "task": "docs", "path": b"a/\xff"},
        HistoryReport("main/docs", (STATE,), True, (PROBLEM,)),
    ),
    (
        CompareVersions("main", "docs", "1", "latest", b"a"),
        {
            "command": "diff",
            "point": "main",
            "task": "docs",
            "old": "1",
            "new": "latest",
            "path": b"a",
            "limit": 10_000,
        },
        DiffReport(
            "main/docs", ID, ID, (DIFFERENCE,), DiffCounts(moved=1), False, (PathProblem("a", "b"),)
        ),
    ),
    (
        ShowUsage("main", ""),
        {"command": "du", "point": "main", "task": ""},
        UsageReport(
            "main",
            7,
            (TaskUsage("docs", 7, (VersionUsage(ID, "2024-05-01", 3, 9, 7, None),)),),
            (PROBLEM,),
        ),
    ),
    (
        VerifyVersions("main", "docs", ("latest",), 0.5, 3600),
        {
            "command": "verify",
            "point": "main",
            "task": "docs",
            "versions": ["latest"],
            "sample": 0.5,
            "older_than_s": 3600,
        },
        VerifyReport(1, 2, 3, 0.5, False, True, [Damaged("main/docs", "a", "missing", [ID], 1)]),
    ),
]
each = pytest.mark.parametrize(
    ("request_", "fields", "answer"), ONE_OF_EACH, ids=lambda value: type(value).__name__
)


@each
def test_request_is_what_it_was_in_protocol_1(request_, fields, answer):
    content = encode_request(request_)
    decoded = msgspec.msgpack.decode(content)
    assert decoded == fields
    assert list(decoded) == list(fields)
    assert decode_request(content) == request_


@each
def test_answer_comes_over_whole_and_prints_the_same(request_, fields, answer):
    arrived = decode_answer(request_, encode_answer(answer))
    assert arrived == answer
    assert msgspec.json.encode(arrived) == msgspec.json.encode(answer)


@each
def test_answer_to_something_else_is_refused(request_, fields, answer):
    for other, _, _ in ONE_OF_EACH:
        if type(other) is not type(request_):
            with pytest.raises(RemoteProtocolError, match="malformed answer"):
                decode_answer(other, encode_answer(answer))


def encoded(**fields: object) -> bytes:
    return msgspec.msgpack.encode(fields)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xc1",
        encoded(),
        encoded(command="format"),
        encoded(command="points", more=1),
        encoded(command="versions", point="main"),
        encoded(command="versions", point="main", task=None),
        encoded(command="versions", point="main", task="x" * 1001),
        encoded(command="point", point="main", days=-1),
        encoded(command="point", point="main", days="3"),
        encoded(command="point", point="main", keep_last=0),
        encoded(command="point", point="main", max_concurrent=0),
        encoded(command="point", point="main", max_concurrent=1001),
        encoded(command="point", point="main", quota_bytes=-1),
        encoded(command="point", point="main", apply=1),
        encoded(command="delete", point="main", task="", versions=["x" * 1001]),
        encoded(command="find", point="main", task="", pattern="text"),
        encoded(command="find", point="main", task="", pattern=b"x" * 5001),
        encoded(command="find", point="main", task="", pattern=b"x", limit=0),
        encoded(command="find", point="main", task="", pattern=b"x", limit=MAX_LIMIT + 1),
        encoded(command="history", point="main", task="", path=b"x" * 65_537),
        encoded(command="diff", point="main", task="", old="1"),
        encoded(command="du", point="main"),
        encoded(command="points") + b"\x00",
        encoded(command="points")[:-1],
        b"\x91" * 100_000,
        b"\x81\xa7command\xa6\xff\xff\xff\xff\xff\xff",
    ],
)
def test_malformed_request_is_refused(content: bytes):
    with pytest.raises(RemoteProtocolError, match="malformed request"):
        decode_request(content)


@given(st.data())
def test_mutated_bytes_are_a_request_or_refused(data: st.DataObject):
    request = data.draw(st.sampled_from([request for request, _, _ in ONE_OF_EACH]))
    content = bytearray(encode_request(request))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(RemoteProtocolError):
        assert encode_request(decode_request(bytes(content)))


@given(st.data())
def test_mutated_bytes_are_an_answer_or_refused(data: st.DataObject):
    request, _, answer = data.draw(st.sampled_from(ONE_OF_EACH))
    content = bytearray(encode_answer(answer))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(RemoteProtocolError):
        assert msgspec.json.encode(decode_answer(request, bytes(content)))


def test_too_long_requests_are_neither_sent_nor_read():
    request = DeleteVersions("main", "", ("x" * 1000,) * 1100)
    with pytest.raises(ConfigError, match="Too much"):
        encode_request(request)
    with pytest.raises(RemoteProtocolError, match="1,048,577 bytes"):
        decode_request(bytes(MAX_REQUEST_BYTES + 1))


def test_request_that_is_no_text_is_not_sent():
    with pytest.raises(ConfigError, match="UTF-8"):
        encode_request(SetPin("main", "", "caf\udce9", is_pinned=True))


def test_too_long_answers_are_not_sent():
    with pytest.raises(ConfigError, match="too long"):
        encode_answer(DeleteReport(("x" * (MAX_ANSWER_BYTES // 2),) * 2))


@pytest.mark.parametrize("length", [0, 1, MAX_BULK_BYTES, MAX_BULK_BYTES + 1, 5 * MAX_BULK_BYTES])
def test_answer_travels_in_pieces_that_fit_into_frames(length: int):
    content = bytes(range(256)) * (length // 256) + bytes(length % 256)
    *parts, end = split_answer(content)
    assert isinstance(end, AnswerEnd)
    assert all(type(part) is AnswerPart and len(part.content) == MAX_BULK_BYTES for part in parts)
    assert b"".join(piece.content for piece in (*parts, end)) == content
    assert len(end.content) <= MAX_BULK_BYTES


def test_longest_answer_about_paths_can_be_sent():
    path = "x" * (MAX_PATH_BYTES // MAX_LIMIT)
    longest = msgspec.structs.replace(FOUND, task="t" * 200, path=path, kind="character device")
    encode_answer(FindReport((longest,) * MAX_LIMIT, True, ()))
