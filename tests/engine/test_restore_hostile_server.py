"""A server that lies to a restoring client: nothing is believed, nothing is written outside of the target."""

import contextlib
import os
import select
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import blake3
import pytest
import zstandard

from ssfs.clock import SystemClock
from ssfs.engine.restore.client import fetch_version
from ssfs.engine.restore.options import DEFAULT_OPTIONS, RestoreOptions
from ssfs.engine.restore.restorer import Destination, RestoreResult, restore_into
from ssfs.engine.restore.window import ChannelContents
from ssfs.errors import ConfigError, ConnectionLost, PeerError, RemoteProtocolError, StoreFull
from ssfs.model.entry import Entry, Kind, Principal
from ssfs.model.problem import EntryProblem
from ssfs.monitor import NullMonitor
from ssfs.net.channel import Channel
from ssfs.protocol.codec import encode_control
from ssfs.protocol.messages import (
    CatalogBatch,
    CatalogEnd,
    CatalogRows,
    FileAbort,
    FileBegin,
    FileDelta,
    FileEnd,
    FileRaw,
    Hello,
    Refusal,
    Refused,
)
from ssfs.protocol.restoring import Contents, Fetch, Fetched, NoContent, WantContents
from ssfs.protocol.states import Role
from ssfs.store.catalog.writer import CatalogWriter
from tests.fakes.restores import JOIN_S

Script = Callable[[Channel], None]
PATIENCE_S = 10
"""How long a server waits for a client that should have gone, before it fails the test by going itself."""
LARGE = 200_000
CONTENT = os.urandom(LARGE)


def entry(number: int, parent: int, name: bytes, kind: Kind = Kind.FILE, **values) -> Entry:
    content = values.pop("content", b"")
    digest = blake3.blake3(content).digest() if kind == Kind.FILE else b""
    size = len(content)
    blank = Entry(number, parent, name, kind, 0o700, 0, 0, 0, 0, size, digest, b"", *([0] * 5))
    return blank._replace(**values)


ROOT = entry(1, 0, b"", Kind.DIRECTORY)
FILE = entry(2, 1, b"file", content=b"small")
LARGE_FILE = entry(3, 1, b"large", content=CONTENT)


def rows(*entries: Entry, principals: tuple[Principal, ...] = ()) -> CatalogRows:
    batch = encode_control(CatalogBatch(list(entries), list(principals)))
    return CatalogRows(zstandard.ZstdCompressor().compress(batch))


def say(*messages: object) -> Script:
    def script(channel: Channel) -> None:
        for message in messages:
            channel.send(message)

    return script


def restore_from(
    script: Script, target: Path, *paths: bytes, options: RestoreOptions = DEFAULT_OPTIONS
) -> RestoreResult:
    """Restore from a server that follows a script once it has been asked; raises what the client does."""
    ours, theirs = socket.socketpair()
    thread = threading.Thread(target=_follow, args=(theirs, script))
    thread.start()
    try:
        with Channel(ours, Role.CLIENT) as channel:
            channel.send(Hello(1, "test"))
            channel.receive()
            request = Fetch("main", "task", "latest", list(paths))
            clock = SystemClock()
            where = os.fsencode(target)
            return fetch_version(channel, request, where, NullMonitor(), clock, options)[1]
    finally:
        thread.join(JOIN_S)
        assert not thread.is_alive()


def _follow(stream: socket.socket, script: Script) -> None:
    with Channel(stream, Role.SERVER) as channel, contextlib.suppress(PeerError):
        channel.receive()
        channel.send(Hello(1, "test"))
        channel.receive()
        script(channel)
        while select.select([stream], [], [], PATIENCE_S)[0]:
            channel.receive()  # until the client has gone


def serve(*entries: Entry, answer: Script) -> Script:
    """A server with these rows that answers what the client asks for first."""

    def script(channel: Channel) -> None:
        say(Fetched("000001-2024-05-01T020000Z", "", 0, 0), rows(*entries), CatalogEnd())(channel)
        if any(row.kind == Kind.FILE for row in entries):
            channel.receive()
        answer(channel)

    return script


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A target inside a directory in which nothing else may appear."""
    (tmp_path / "fence" / "out").mkdir(parents=True)
    return tmp_path / "fence" / "out"


# -- rows ------------------------------------------------------------------------------------------------


DIRECTORY = entry(5, 1, b"dir", Kind.DIRECTORY)


@pytest.mark.parametrize(
    "entries",
    [
        (),
        (FILE,),
        (ROOT, ROOT),
        (ROOT, FILE, ROOT),
        (ROOT._replace(kind=int(Kind.FILE)),),
        (ROOT._replace(name=b"x"),),
        (ROOT._replace(parent=1),),
        *[
            (ROOT, FILE._replace(name=name))
            for name in (b"", b".", b"..", b"../x", b"a/b", b"/etc", b"a\0b", b"x" * 256)
        ],
        (ROOT, FILE._replace(id=0)),
        (ROOT, FILE._replace(id=-2)),
        (ROOT, FILE._replace(id=1 << 40)),
        (ROOT, FILE._replace(kind=0)),
        (ROOT, FILE._replace(kind=7)),
        (ROOT, FILE._replace(mode=0o10000)),
        (ROOT, FILE._replace(size=-1)),
        (ROOT, FILE._replace(mtime_ns=10**9)),
        (ROOT, FILE._replace(uid=-1)),
        (ROOT, FILE._replace(uid=2**32 - 1)),
        (ROOT, FILE._replace(gid=2**40)),
        (ROOT, FILE._replace(kind=Kind.BLOCK_DEVICE, size=0, digest=b"", rdev=-1)),
        (ROOT, FILE._replace(uid=1 << 63)),
        (ROOT, entry(2, 1, b"link", Kind.SYMLINK, target=b"a\0b")),
        # Two of one id, two of one name.
        (ROOT, FILE, FILE._replace(name=b"other")),
        (ROOT, FILE, FILE._replace(id=3)),
        # A link, and a directory of its name with something in it.
        (
            ROOT,
            entry(4, 1, b"dir", Kind.SYMLINK, target=b"/etc"),
            DIRECTORY,
            FILE._replace(parent=5),
        ),
        # Directories that are not there, not yet there, not any more, or none.
        (ROOT, FILE._replace(parent=0)),
        (ROOT, FILE._replace(parent=9)),
        (ROOT, FILE._replace(parent=-1)),
        (ROOT, FILE._replace(parent=5), DIRECTORY),
        (ROOT, DIRECTORY, FILE, entry(6, 5, b"late")),
        (ROOT, FILE, entry(6, 2, b"below a file")),
        # Directories inside themselves and each other.
        (ROOT, DIRECTORY._replace(parent=5)),
        (ROOT, DIRECTORY._replace(parent=6), entry(6, 5, b"x", Kind.DIRECTORY)),
        (ROOT, DIRECTORY, entry(6, 5, b"x", Kind.DIRECTORY), DIRECTORY._replace(parent=6)),
    ],
)
def test_rows_that_no_version_has_are_refused(out: Path, entries: tuple[Entry, ...]):
    messages = (Fetched("1", "", 0, 0), rows(*entries), CatalogEnd())
    if not entries:
        messages = (messages[0], messages[2])
    with pytest.raises(RemoteProtocolError):
        restore_from(say(*messages), out)
    assert os.listdir(out.parent) == ["out"]
    assert os.listdir(out) == []


def test_rows_split_anywhere_keep_their_order(out: Path):
    below = entry(6, 5, b"x", Kind.DIRECTORY)
    messages = [rows(row) for row in (ROOT, DIRECTORY, below)]
    restore_from(say(Fetched("1", "", 0, 0), *messages, CatalogEnd()), out)
    assert (out / "dir" / "x").is_dir()


@pytest.mark.parametrize(
    "frame",
    [
        b"no zstd",
        b"",
        zstandard.ZstdCompressor().compress(b"no rows"),
        zstandard.ZstdCompressor().compress(encode_control([[[1, 2, 3]], []])),
        rows(ROOT).compressed[:-3],
        # 5 MiB of zeros in some hundred bytes; a frame that does not say how much it holds.
        zstandard.ZstdCompressor().compress(bytes(5 << 20)),
        zstandard.ZstdCompressor(write_content_size=False).compress(b"x"),
        # It says little and holds much.
        b"\x28\xb5\x2f\xfd\x20\x01" + zstandard.ZstdCompressor().compress(bytes(5 << 20))[9:],
    ],
)
def test_frames_that_hold_no_rows_are_refused(out: Path, frame: bytes):
    with pytest.raises(RemoteProtocolError):
        restore_from(say(Fetched("1", "", 0, 0), CatalogRows(frame), CatalogEnd()), out)


def test_wanted_path_that_is_not_sent_writes_nothing(tmp_path: Path):
    script = serve(ROOT, DIRECTORY, answer=say())
    with pytest.raises(ConfigError, match="Not in the version"):
        restore_from(script, tmp_path / "out", b"dir/file")
    assert not (tmp_path / "out").exists()


def test_numbers_are_named_by_nobody_twice(out: Path):
    principals = (Principal(0, 0, b"eve"), Principal(0, 0, b"root"))
    messages = (Fetched("1", "", 0, 0), rows(ROOT, principals=principals), CatalogEnd())
    assert restore_from(say(*messages), out).problems == []
    strange = (messages[0], rows(ROOT, principals=(Principal(2, 0, b"x"),)), CatalogEnd())
    with pytest.raises(RemoteProtocolError):
        restore_from(say(*strange), out)


# -- content -----------------------------------------------------------------------------------------------


BEGIN = FileBegin(3, 0, 0, 0)
END = FileEnd(LARGE_FILE)


@pytest.mark.parametrize(
    "messages",
    [
        [Contents([(3, CONTENT)])],  # out of turn
        [Contents([(9, b"small")])],
        [Contents([])],
        [Contents([(2, b"small more")])],
        [Contents([(2, b"small"), (2, b"small")])],
        [Contents([(2, b"small"), (3, CONTENT), (4, b"nobody asked")])],
        [NoContent(3, "")],
        [NoContent(9, "")],
        [BEGIN],
        [Contents([(2, b"small")]), FileBegin(2, 0, 0, 0)],
        [Contents([(2, b"small")]), FileBegin(3, 3, 0, 0)],  # against what?
        [Contents([(2, b"small")]), FileBegin(3, 2, 0, 0)],
        [Contents([(2, b"small")]), BEGIN, FileDelta(last=True, content=b"x")],
        [Contents([(2, b"small")]), BEGIN, FileRaw(CONTENT), FileRaw(b"x")],
    ],
)
def test_content_that_was_not_asked_for_is_refused(out: Path, messages: list):
    with pytest.raises(RemoteProtocolError):
        restore_from(serve(ROOT, FILE, LARGE_FILE, answer=say(*messages)), out)
    assert os.listdir(out.parent) == ["out"]
    assert set(os.listdir(out)) <= {"file", "large"}
    for path in out.iterdir():
        assert path.read_bytes() in (b"small", CONTENT)


@pytest.mark.parametrize(
    "messages",
    [
        [FileBegin(3, 3, 0, 0), FileDelta(last=False, content=b"x"), FileRaw(b"x")],
        [FileBegin(3, 3, 0, 0), *[FileDelta(last=False, content=bytes(1 << 20))] * 26],
        [FileBegin(3, 1, 0, 0)],
    ],
)
def test_deltas_that_no_server_makes_are_refused(out: Path, messages: list):
    (out / "large").write_bytes(CONTENT[:-1])
    with pytest.raises(RemoteProtocolError):
        restore_from(serve(ROOT, LARGE_FILE, answer=say(*messages)), out)
    assert (out / "large").read_bytes() == CONTENT[:-1]
    assert os.listdir(out) == ["large"]


ALL_OF_THE_BASIS = bytes.fromhex("72730236") + b"\x4f" + bytes(8) + (LARGE - 1).to_bytes(8, "big")


@pytest.mark.parametrize(
    "delta",
    [
        b"no delta",
        ALL_OF_THE_BASIS + ALL_OF_THE_BASIS[4:] * 1000 + b"\0",  # expands to 200 MB
        ALL_OF_THE_BASIS + b"\0",  # the file as it was
        ALL_OF_THE_BASIS,
    ],
)
def test_wrong_delta_leads_to_the_whole_file(out: Path, delta: bytes):
    (out / "large").write_bytes(CONTENT[:-1])
    asked = []

    def answer(channel: Channel) -> None:
        say(FileBegin(3, 3, 0, 0), FileDelta(last=True, content=delta), END)(channel)
        asked.append(channel.receive())
        say(BEGIN, FileRaw(CONTENT), END)(channel)

    assert restore_from(serve(ROOT, LARGE_FILE, answer=answer), out).problems == []
    assert asked == [WantContents([3])]
    assert (out / "large").read_bytes() == CONTENT


def test_file_whose_delta_and_whole_are_wrong_is_damaged(out: Path):
    (out / "large").write_bytes(CONTENT[:-1])

    def answer(channel: Channel) -> None:
        for begin in (FileBegin(3, 3, 0, 0), BEGIN):
            wrong = FileRaw(CONTENT[:-1]) if begin is BEGIN else FileDelta(True, b"no delta")
            say(begin, wrong, END)(channel)
            if begin is not BEGIN:
                channel.receive()

    result = restore_from(serve(ROOT, LARGE_FILE, answer=answer), out)
    assert result.problems == [
        EntryProblem(b"large", "not restored: its content in the store is damaged")
    ]
    assert (out / "large").read_bytes() == CONTENT[:-1]


@pytest.mark.parametrize(
    ("messages", "problem"),
    [
        ([BEGIN, END], "its content in the store is damaged"),
        ([BEGIN, FileRaw(CONTENT[:-1] + b"?"), END], "its content in the store is damaged"),
        ([BEGIN, FileRaw(CONTENT), FileAbort(3, "no luck")], "no luck"),
        ([BEGIN, FileAbort(3)], "its content in the store is damaged"),
        ([NoContent(3, "x" * 1000)], "x" * 300),
        ([Contents([(3, b"")])], "its content in the store is damaged"),
        ([Contents([(3, CONTENT)])], None),  # in one piece is as good
    ],
)
def test_wrong_content_never_gets_its_name(out: Path, messages: list, problem: str | None):
    result = restore_from(serve(ROOT, LARGE_FILE, answer=say(*messages)), out)
    assert [found.problem for found in result.problems] == (
        [f"not restored: {problem}"] if problem else []
    )
    assert os.listdir(out) == ([] if problem else ["large"])


@pytest.mark.parametrize("before", [[], [BEGIN, FileRaw(CONTENT)], [Contents([(3, CONTENT)])]])
def test_refusal_can_come_at_any_time(out: Path, before: list):
    refused = Refused(Refusal.STORE_FULL, "Strange", b"/store", "none")
    other = LARGE_FILE._replace(id=4, name=b"other")
    script = serve(ROOT, LARGE_FILE, other, answer=say(*before, refused))
    with pytest.raises(StoreFull, match="Strange"):
        restore_from(script, out)


def test_server_that_goes_away_is_a_lost_connection(out: Path):
    def answer(channel: Channel) -> None:
        say(BEGIN, FileRaw(CONTENT[:1000]))(channel)
        raise ConnectionLost("enough")

    with pytest.raises(ConnectionLost):
        restore_from(serve(ROOT, LARGE_FILE, answer=answer), out)
    assert os.listdir(out) == []


# -- the window --------------------------------------------------------------------------------------------


class MuteServer:
    """A channel on which nothing ever comes back."""

    def __init__(self):
        self.asked: list[int] = []

    def send(self, message: WantContents) -> None:
        self.asked += message.ids

    def receive(self) -> None:
        raise ConnectionLost("Mute")


def asked_before_any_answer(out: Path, *files: Entry) -> list[int]:
    """What a client has asked for when it first waits for an answer."""
    server = MuteServer()
    with CatalogWriter.open_writer(os.fsencode(out.parent / "rows.db"), durable=False) as catalog:
        catalog.load([ROOT, *files], [])
        arguments = (catalog, ChannelContents(server), NullMonitor(), SystemClock())
        with pytest.raises(ConnectionLost, match="Mute"):
            restore_into(Destination(os.fsencode(out), DEFAULT_OPTIONS), {}, *arguments)
    return server.asked


def test_client_asks_ahead_by_number(out: Path):
    files = [entry(2 + n, 1, b"%05d" % n, content=b"x") for n in range(6000)]
    assert asked_before_any_answer(out, *files) == [file.id for file in files[:4096]]


def test_client_asks_ahead_by_size(out: Path):
    files = [entry(2 + n, 1, b"%05d" % n, content=bytes(100_000)) for n in range(400)]
    assert len(asked_before_any_answer(out, *files)) == -(-(16 << 20) // 100_000)


def test_client_asks_for_few_large_files_ahead(out: Path):
    files = [entry(2 + n, 1, b"%05d" % n, content=bytes(LARGE)) for n in range(20)]
    assert len(asked_before_any_answer(out, *files)) == 8


def test_client_holds_few_directories_open(out: Path):
    tree: list[Entry] = []
    for n in range(1000):
        tree.append(entry(2 + 2 * n, 1, b"%05d" % n, Kind.DIRECTORY))
        tree.append(entry(3 + 2 * n, 2 + 2 * n, b"file", content=b"x"))
    # The last one the walk is still in.
    assert len(asked_before_any_answer(out, *tree)) == 513
