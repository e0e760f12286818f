"""Browsing, at both ends: what is asked, what is refused, and what is kept of the answers."""

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ssfs.clock import SystemClock
from ssfs.engine.browse.link import BrowsingLink, ask_once, enter
from ssfs.engine.browse.partial import PartialCatalog
from ssfs.engine.browse.requests import (
    BytesQuestion,
    Lacked,
    ListingQuestion,
    Question,
    RowsQuestion,
    VersionRef,
)
from ssfs.engine.browse.shelf import catalog_key, open_shelf
from ssfs.engine.browse.walk import add_walk
from ssfs.engine.greeting import greet_client, greet_server
from ssfs.engine.session import Visitor, serve_session
from ssfs.errors import ConfigError, ConnectionLost, RemoteProtocolError
from ssfs.model.entry import ROOT_ID, Entry, Kind
from ssfs.model.peer import Peer
from ssfs.model.peer import Role as Part
from ssfs.net.channel import Channel
from ssfs.protocol.browsing import (
    Browse,
    Browsed,
    BytesEnd,
    Lack,
    LetGo,
    LinkedNames,
    RowsEnd,
    WantBytes,
    WantRows,
)
from ssfs.protocol.messages import CatalogBatch, FileRaw, Leave, Message
from ssfs.protocol.states import Role
from ssfs.store.catalog.writer import CatalogWriter
from ssfs.store.store import Store
from tests.fakes.syncs import Backup, row
from tests.mount.stores import directory, entry

REF = VersionRef("main", "docs", "000001-2024-05-01T020000Z")
ROOT = directory(ROOT_ID, 0, b"")
SUB = directory(2, ROOT_ID, b"sub")
FILE = entry(3, 2, b"file", Kind.FILE, digest=bytes(32))


# -- what is kept -----------------------------------------------------------------------------------


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[PartialCatalog]:
    made = PartialCatalog.open_partial(os.fsencode(tmp_path / "partial.db"))
    made.store(CatalogBatch([ROOT, SUB], []), ROOT_ID)
    made.mark_complete([ROOT_ID])
    yield made
    made.close()


def test_directory_is_complete_only_once_that_is_said(catalog: PartialCatalog):
    assert catalog.is_complete(ROOT_ID)
    catalog.store(CatalogBatch([SUB, FILE], []), SUB.id)
    assert not catalog.is_complete(SUB.id)
    catalog.mark_complete([SUB.id])
    assert catalog.is_complete(SUB.id)
    assert list(catalog.children(SUB.id)) == [FILE]
    catalog.store_links([LinkedNames(5, 3, 2)])
    assert (catalog.linked(5), catalog.linked(6)) == ((3, 2), None)


@pytest.mark.parametrize(
    "bad",
    [
        FILE._replace(name=b"../x"),
        FILE._replace(name=b""),
        FILE._replace(id=0),
        FILE._replace(id=1 << 40),
        FILE._replace(id=-1),
        FILE._replace(kind=9),
        FILE._replace(size=-1),
        FILE._replace(mode=0o10000),
        FILE._replace(parent=77),
        FILE._replace(parent=3),
        FILE._replace(name=b"sub", parent=ROOT_ID),
        FILE._replace(link_group=1 << 70),
        SUB._replace(name=b"elsewhere"),
        SUB._replace(mode=0o700),
        directory(4, 99, b"from nowhere", link_group=7),
        directory(ROOT_ID, 2, b"again"),
    ],
)
def test_rows_that_no_version_has_are_refused_whole(catalog: PartialCatalog, bad: Entry):
    good = entry(8, 2, b"good", Kind.FILE, digest=bytes(32))
    with pytest.raises(RemoteProtocolError):
        catalog.store(CatalogBatch([good, bad], []), SUB.id + 1000)
    assert not catalog.has(good.id)
    assert list(catalog.children(ROOT_ID)) == [SUB]


@pytest.mark.parametrize("ids", [[3], [0], [-1], [1 << 70], [ROOT_ID, 99]])
def test_only_directories_that_are_known_are_complete(catalog: PartialCatalog, ids: list[int]):
    catalog.store(CatalogBatch([FILE], []), SUB.id)
    with pytest.raises(RemoteProtocolError):
        catalog.mark_complete(ids)


@pytest.mark.parametrize(
    "link", [(0, 3, 2), (5, 0, 2), (5, 1 << 40, 2), (5, 3, 1), (1 << 70, 3, 2)]
)
def test_hard_links_that_are_none_are_refused(catalog: PartialCatalog, link: tuple[int, int, int]):
    with pytest.raises(RemoteProtocolError):
        catalog.store_links([LinkedNames(*link)])


def test_shelf_loses_what_nobody_uses_when_it_is_too_large(tmp_path: Path):
    with open_shelf(os.fsencode(tmp_path), "ssfs://nas2/main", limit_bytes=1) as shelf:
        first, second = shelf.lease("a" * 64), shelf.lease("b" * 64)
        first.catalog.store(CatalogBatch([ROOT], []), ROOT_ID)
        second.catalog.store(CatalogBatch([ROOT], []), ROOT_ID)
        first.release()
        names = [path.name[0] for path in tmp_path.glob("*/*/*.db")]
        assert names == ["b"]
        assert second.catalog.has(ROOT_ID)
    (place,) = tmp_path.glob("mount_cache/*")
    assert place.stat().st_mode & 0o777 == 0o700


def test_shelf_keeps_rows_between_mounts_but_not_over_a_boot(tmp_path: Path):
    for has_row in (False, True):
        with open_shelf(os.fsencode(tmp_path), "ssfs://nas2/main") as shelf:
            catalog = shelf.lease("a" * 64).catalog
            assert catalog.has(ROOT_ID) is has_row
            catalog.store(CatalogBatch([ROOT], []), ROOT_ID)
    (kept,) = tmp_path.glob("*/*/*.db")
    kept.rename(kept.with_name("a" * 64 + ".another-boot.db"))
    with open_shelf(os.fsencode(tmp_path), "ssfs://nas2/main") as shelf:
        assert list(tmp_path.glob("*/*/*.db")) == []
        assert not shelf.lease("a" * 64).catalog.has(ROOT_ID)


def test_damaged_catalog_on_the_shelf_begins_anew(tmp_path: Path):
    with open_shelf(os.fsencode(tmp_path), "ssfs://nas2/main") as shelf:
        shelf.lease("a" * 64).catalog.store(CatalogBatch([ROOT], []), ROOT_ID)
    (kept,) = tmp_path.glob("*/*/*.db")
    kept.write_bytes(b"no database at all" * 100)
    with open_shelf(os.fsencode(tmp_path), "ssfs://nas2/main") as shelf:
        assert not shelf.lease("a" * 64).catalog.has(ROOT_ID)


def test_two_mounts_of_one_place_have_a_shelf_each(tmp_path: Path):
    with open_shelf(os.fsencode(tmp_path), "there") as one:
        one.lease("a" * 64).catalog.store(CatalogBatch([ROOT], []), ROOT_ID)
        with open_shelf(os.fsencode(tmp_path), "there") as other:
            assert not other.lease("a" * 64).catalog.has(ROOT_ID)


def test_digest_of_a_server_names_no_file_but_its_catalog():
    assert catalog_key("ab" * 32, b"x") == "ab" * 32
    for digest in ("", "../../etc", "AB" * 32, "ab" * 33):
        assert "/" not in catalog_key(digest, b"x")
        assert catalog_key(digest, b"x") != catalog_key(digest, b"y")


# -- the server -------------------------------------------------------------------------------------


@pytest.fixture
def backup(tmp_path: Path) -> Backup:
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "sub" / "file").write_text("content")
    (source / "link").symlink_to("/etc/passwd")
    made = Backup(tmp_path / "store")
    made.sync(source)
    return made


@contextlib.contextmanager
def browsing(backup: Backup, peer: Peer | None = None) -> Iterator[tuple[Channel, VersionRef]]:
    """A session that has begun to browse, and the newest version."""
    version = backup.newest()
    store_path, _, rest = os.fsdecode(version.path).partition("/points/")
    point, _, task = rest.split("/")[:3]
    ours, theirs = socket.socketpair()
    peer = peer or Peer("reader", frozenset({Part.RESTORE}), frozenset({point}))

    def serve() -> None:
        with Channel(theirs, Role.SERVER) as channel:
            store = Store.open(os.fsencode(store_path))
            serve_session(channel, store, Visitor(peer), SystemClock(), lambda _: None)

    server = threading.Thread(target=serve)
    server.start()
    try:
        with Channel(ours, Role.CLIENT) as channel:
            greet_server(channel)
            enter(channel)
            yield channel, VersionRef(point, task, str(version.id))
    finally:
        server.join()


def rows_of(
    channel: Channel, ref: VersionRef, entry_id: int, ahead: int, *, walks: bool = False
) -> list[bytes]:
    names: list[bytes] = []

    def take(rows: CatalogBatch | list[LinkedNames]) -> None:
        if isinstance(rows, CatalogBatch):
            names.extend(one.name for one in rows.entries)

    ask_once(channel, RowsQuestion(ref, entry_id, ahead, take, walks=walks))
    return names


def test_server_sends_an_entry_what_is_in_it_and_some_of_what_lies_below(backup: Backup):
    with browsing(backup) as (channel, ref):
        assert rows_of(channel, ref, ROOT_ID, -1) == [b""]
        assert sorted(rows_of(channel, ref, ROOT_ID, 0)) == [b"", b"link", b"sub"]
        assert sorted(rows_of(channel, ref, ROOT_ID, 9)) == [b"", b"file", b"link", b"sub"]


class Collected:
    """An answer that is kept."""

    def __init__(self) -> None:
        self.rows: list[int] = []

    def add(self, entry: Entry) -> None:
        self.rows.append(entry.id)


@pytest.fixture
def nested(tmp_path: Path) -> Iterator[CatalogWriter]:
    """Directories 2 and 3 with two each (20, 21, 30, 31), in which there is a file each; and a file behind them."""
    catalog = CatalogWriter.open_writer(os.fsencode(tmp_path / "nested.db"), durable=False)
    catalog.put(ROOT)
    for top in (2, 3):
        catalog.put(directory(top, ROOT_ID, b"%d" % top))
        for inner in (10 * top, 10 * top + 1):
            catalog.put(directory(inner, top, b"%d" % inner))
            catalog.put(entry(10 * inner, inner, b"f", Kind.FILE, digest=bytes(32)))
    catalog.put(entry(9, ROOT_ID, b"last", Kind.FILE, digest=bytes(32)))
    yield catalog
    catalog.close()


@pytest.mark.parametrize(
    ("begin", "ahead", "directories"),
    [
        (ROOT_ID, 0, [ROOT_ID]),
        (ROOT_ID, 100, [ROOT_ID, 2, 20, 21, 3, 30, 31]),
        (20, 0, [20]),
        (20, 1, [20]),
        (20, 2, [20, 21]),
        (20, 5, [20, 21, 3]),
        (21, 100, [21, 3, 30, 31]),
        (3, 100, [3, 30, 31]),
        (31, 100, [31]),
    ],
)
def test_walk_goes_on_beside_and_above(
    nested: CatalogWriter, begin: int, ahead: int, directories: list[int]
):
    first = nested.entry(begin)
    assert first is not None
    answer = Collected()
    assert add_walk(answer, nested, first, ahead) == directories
    inside = {row.id for top in directories for row in nested.children(top)}
    assert set(answer.rows) - set(directories) == inside - set(directories)
    # Each directory but the first one comes before what is in it.
    for top in directories[1:]:
        assert answer.rows.index(top) < min(
            answer.rows.index(row.id) for row in nested.children(top)
        )


def test_server_sends_who_walks_what_lies_beside(backup: Backup, tmp_path: Path):
    (tmp_path / "source" / "sub2").mkdir()
    (tmp_path / "source" / "sub2" / "inside").touch()
    backup.sync(tmp_path / "source")
    with browsing(backup) as (channel, ref):
        sub = row(backup.newest(), "sub").id
        assert rows_of(channel, ref, sub, 9) == [b"sub", b"file"]
        found = rows_of(channel, ref, sub, 9, walks=True)
        assert found == [b"sub", b"file", b"sub2", b"inside"]


def test_unchanged_listing_is_not_sent_again(backup: Backup):
    with browsing(backup) as (channel, ref):
        question = ListingQuestion(ref.point, ref.task, b"")
        ask_once(channel, question)
        assert [listed.version for listed in question.versions] == [ref.version]
        again = ListingQuestion(ref.point, ref.task, question.stamp)
        ask_once(channel, again)
        assert (again.stamp, again.versions) == (question.stamp, [])


@pytest.mark.parametrize(
    ("change", "lack"),
    [
        ({"version": "000009-2024-05-01T020000Z"}, Lack.GONE),
        ({"task": "none"}, Lack.GONE),
        ({"point": "none"}, Lack.REFUSED),
        ({"point": "../main"}, Lack.REFUSED),
        ({"task": "../docs"}, Lack.GONE),
    ],
)
def test_what_is_not_there_or_not_allowed_lacks_and_the_session_goes_on(
    backup: Backup, change: dict[str, str], lack: Lack
):
    with browsing(backup) as (channel, ref):
        with pytest.raises(Lacked) as caught:
            rows_of(channel, ref._replace(**change), ROOT_ID, 0)
        assert caught.value.lack is lack
        with pytest.raises(Lacked):
            rows_of(channel, ref, 999, 0)
        assert rows_of(channel, ref, ROOT_ID, -1) == [b""]


def test_other_clients_tasks_are_refused(backup: Backup):
    stranger = Peer("stranger", frozenset({Part.BACKUP}), frozenset({"main"}))
    with browsing(backup, stranger) as (channel, ref):
        for attempt in (
            ListingQuestion(ref.point, ref.task, b""),
            BytesQuestion(ref, row(backup.newest(), "sub/file").id, 0, 7),
        ):
            with pytest.raises(Lacked) as caught:
                ask_once(channel, attempt)
            assert caught.value.lack is Lack.REFUSED
        listing = ListingQuestion(ref.point, "", b"")
        ask_once(channel, listing)
        assert listing.names == []


@pytest.mark.parametrize(
    ("path", "offset", "count"),
    [
        ("sub/file", 0, 8),
        ("sub/file", -1, 2),
        ("sub/file", 0, -1),
        ("sub/file", 1 << 62, 1),
        ("sub/file", 3, (4 << 20) + 1),
        ("sub", 0, 0),
        ("link", 0, 1),
    ],
)
def test_client_that_reads_what_is_no_part_of_a_file_is_sent_away(
    backup: Backup, path: str, offset: int, count: int
):
    entry_id = row(backup.newest(), path).id
    with browsing(backup) as (channel, ref), pytest.raises(ConfigError, match="The client "):
        ask_once(channel, BytesQuestion(ref, entry_id, offset, count))


@pytest.mark.parametrize("version", ["", "..", "000001", "latest", "000001-2024-05-01T020000Z/.."])
def test_client_that_names_no_version_id_is_sent_away(backup: Backup, version: str):
    with browsing(backup) as (channel, ref), pytest.raises(ConfigError, match="The client "):
        rows_of(channel, ref._replace(version=version), ROOT_ID, 0)


def test_version_is_kept_until_it_is_let_go_or_the_client_leaves(backup: Backup):
    version = backup.newest()

    def is_free() -> bool:
        with version.share() as lock:
            return lock.exclusive_nowait()

    with browsing(backup) as (channel, ref):
        rows_of(channel, ref, ROOT_ID, -1)
        assert not is_free()
        channel.send(LetGo(*ref))
        ask_once(channel, ListingQuestion("", "", b""))
        assert is_free()
        rows_of(channel, ref, ROOT_ID, -1)
        assert not is_free()
        channel.send(Leave())
    assert is_free()


# -- the link ---------------------------------------------------------------------------------------

Answer = Callable[[Channel, Message], None]


class FakeServer:
    """Answers each request of each connection as it is told to.

    Attributes:
        connections: How many there were.
    """

    def __init__(self, answer: Answer) -> None:
        self.connections = 0
        self._answer = answer

    @contextlib.contextmanager
    def connect(self) -> Iterator[Channel]:
        self.connections += 1
        ours, theirs = socket.socketpair()
        threading.Thread(target=self._serve, args=(theirs,), daemon=True).start()
        with Channel(ours, Role.CLIENT) as channel:
            greet_server(channel)
            yield channel

    def _serve(self, stream: socket.socket) -> None:
        with Channel(stream, Role.SERVER) as channel, contextlib.suppress(ConnectionLost):
            greet_client(channel)
            while not isinstance(request := channel.receive(), Leave):
                if isinstance(request, Browse):
                    channel.send(Browsed("UTC"))
                else:
                    self._answer(channel, request)


def answered(answer: Answer, *questions: Question) -> FakeServer:
    """Put questions to such a server, and wait until they are done."""
    server = FakeServer(answer)
    link = BrowsingLink(server.connect, "there", SystemClock())
    link.start()
    try:
        done = [threading.Event() for _ in questions]
        for question, event in zip(questions, done, strict=True):
            question.on_done = event.set
            link.ask(question)
        assert all(event.wait(20) for event in done)
    finally:
        link.stop()
    return server


def give(channel: Channel, request: Message) -> None:
    assert isinstance(request, WantBytes)
    channel.send(FileRaw(b"x" * request.count))
    channel.send(BytesEnd())


def test_many_questions_are_under_way_and_answered_in_order():
    questions = [BytesQuestion(REF, 3, 0, count) for count in range(1, 200)]
    server = answered(give, *questions)
    assert [len(question.content) for question in questions] == list(range(1, 200))
    assert server.connections == 1


@pytest.mark.parametrize(
    "messages",
    [
        [FileRaw(b"four"), BytesEnd()],
        [FileRaw(b"four" * 9)],
        [RowsEnd("", [])],
    ],
)
def test_answer_of_a_wrong_size_or_kind_fails_and_the_next_is_heard(
    messages: list[Message], expected_warnings
):
    given: list[int] = []

    def answer(channel: Channel, request: Message) -> None:
        given.append(1)
        for message in messages if len(given) == 1 else []:
            channel.send(message)
        if len(given) > 1:
            give(channel, request)

    bad, good = BytesQuestion(REF, 3, 0, 10), BytesQuestion(REF, 3, 0, 10)
    answered(answer, bad, good)
    assert isinstance(bad.failure, RemoteProtocolError)
    assert good.failure is None
    assert "trying again" in expected_warnings[0].getMessage()


def test_question_is_asked_again_on_a_new_connection(expected_warnings):
    given: list[int] = []

    def answer(channel: Channel, request: Message) -> None:
        given.append(1)
        if len(given) == 1:
            channel.send(FileRaw(b"xx"))
            raise ConnectionLost("cut off in the middle")
        give(channel, request)

    question = BytesQuestion(REF, 3, 0, 10)
    server = answered(answer, question)
    assert (bytes(question.content), server.connections) == (b"x" * 10, 2)
    assert "connected again" in expected_warnings[-1].getMessage()


def test_question_that_ends_every_connection_fails(expected_warnings):
    def answer(_channel: Channel, _request: Message) -> None:
        raise ConnectionLost("every time")

    question = BytesQuestion(REF, 3, 0, 10)
    server = answered(answer, question)
    assert isinstance(question.failure, ConnectionLost)
    assert server.connections == 3
    assert expected_warnings


def test_versions_that_are_held_are_asked_for_first_on_a_new_connection(expected_warnings):
    requests: list[Message] = []

    def answer(channel: Channel, request: Message) -> None:
        requests.append(request)
        if len(requests) == 1:
            raise ConnectionLost("once")
        if isinstance(request, WantRows):
            channel.send(RowsEnd("", []))
        else:
            give(channel, request)

    server = FakeServer(answer)
    link = BrowsingLink(server.connect, "there", SystemClock())
    done = threading.Event()
    question = BytesQuestion(REF, 3, 0, 10)
    question.on_done = done.set
    link.start()
    link.ask(question)
    link.hold(REF)
    assert done.wait(20)
    link.stop()
    assert requests[1] == WantRows(*REF, ROOT_ID, -1)
    assert expected_warnings
