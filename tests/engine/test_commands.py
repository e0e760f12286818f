"""Commands on a store: who may what, what looking does and what applying does, and the way there."""

import contextlib
import datetime
import os
import socket
import threading
from pathlib import Path

import msgspec.structs
import pytest

from ssfs.engine.commands import answer, ask
from ssfs.errors import (
    ConfigError,
    ConnectionLost,
    CorruptStore,
    RemoteProtocolError,
    SsfsError,
    StoreError,
    TrustError,
)
from ssfs.fsio.lock import DirectoryLock
from ssfs.model.peer import LOCAL, Peer, Role
from ssfs.model.policy import Policy
from ssfs.net.channel import Channel
from ssfs.protocol import requests
from ssfs.protocol.asking import Request
from ssfs.protocol.messages import (
    PROTOCOL_VERSION,
    AnswerEnd,
    AnswerPart,
    Ask,
    CatalogEnd,
    Hello,
    Message,
    Refusal,
    Refused,
)
from ssfs.protocol.questions import CompareVersions, FindPaths, ShowHistory, ShowUsage
from ssfs.protocol.requests import (
    DeleteVersions,
    ExpireVersions,
    ListPoints,
    ListVersions,
    PinReport,
    SetPin,
    SetPoint,
    encode_answer,
)
from ssfs.protocol.states import Role as End
from ssfs.store.store import Store, Task
from tests.fakes.clock import FrozenClock
from tests.fakes.histories import (
    FIRST,
    add_version,
    make_store,
    make_task,
)
from tests.fakes.remote import RemoteStore

DAY = datetime.timedelta(days=1)
CLOCK = FrozenClock(FIRST + 60 * DAY)
MAIN = frozenset({"main"})
NEWEST = "000005-2024-01-05T020000Z"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Two points; in main a task of each of two clients, docs with five versions."""
    store = make_store(tmp_path / "store")
    docs = make_task(store, "docs", owner="nas1")
    for day in range(5):
        add_version(docs, FIRST + day * DAY)
    make_task(store, "photos", owner="nas2")
    make_task(store, "secret", owner="nas3", point="other")
    return store


def task_of(store: Store, name: str = "docs") -> Task:
    return store.point("main").task(name)


def sequences(store: Store) -> list[int]:
    return [version.id.sequence for version in task_of(store).versions()]


def client(*roles: Role) -> Peer:
    return Peer("nas1", frozenset(roles), MAIN)


def tell(store: Store, request, peer: Peer = LOCAL):
    return answer(store, peer, request, CLOCK)


# -- who may --------------------------------------------------------------------------------------

LOOKING = [
    ListVersions("main", "docs"),
    FindPaths("main", "docs", b"*"),
    ShowUsage("main", "docs"),
    SetPoint("main"),
    ExpireVersions("main", "docs", dry_run=True),
    ExpireVersions("main", "docs", dry_run=True, apply=True),
]
CHANGING = [
    SetPoint("main", days=1),
    SetPoint("main", quota_bytes=10**12),
    ExpireVersions("main", "docs", dry_run=False),
    DeleteVersions("main", "docs", ("1",)),
    SetPin("main", "docs", "1", is_pinned=True),
    SetPin("main", "docs", "1", is_pinned=False),
]


def applied(request: Request[object]) -> Request[object]:
    if isinstance(request, DeleteVersions):
        request = msgspec.structs.replace(request, agreed=("000001-2024-01-01T020000Z",))
    if not hasattr(request, "apply"):
        return request
    return msgspec.structs.replace(request, apply=True)


@pytest.mark.parametrize("request_", LOOKING, ids=repr)
@pytest.mark.parametrize("role", Role)
def test_whoever_may_read_a_task_may_look(store: Store, role: Role, request_):
    before = tree_of(store)
    assert tell(store, request_, client(role)) == tell(store, request_)
    assert tree_of(store) == before


@pytest.mark.parametrize("request_", CHANGING, ids=repr)
@pytest.mark.parametrize("roles", [(), (Role.BACKUP,), (Role.BACKUP, Role.RESTORE)], ids=str)
def test_only_administrators_change_anything(store: Store, roles: tuple[Role, ...], request_):
    before = tree_of(store)
    for asked in (request_, applied(request_)):
        with pytest.raises(
            TrustError, match=r"Client 'nas1' may not .* sync point 'main'"
        ) as caught:
            tell(store, asked, client(*roles))
        assert caught.value.remedy.endswith("`ssfs invite STORE nas1 --role admin`")
    assert tree_of(store) == before


@pytest.mark.parametrize("request_", CHANGING, ids=repr)
def test_administrators_change_what_they_are_granted(store: Store, request_):
    tell(store, request_, client(Role.ADMIN))
    tell(store, applied(request_), client(Role.ADMIN))


@pytest.mark.parametrize("request_", [*LOOKING, *CHANGING], ids=repr)
def test_other_sync_points_are_nobodys_business(store: Store, request_):
    for point in ("other", "absent"):
        asked = msgspec.structs.replace(applied(request_), point=point)
        with pytest.raises(TrustError, match=f"may not use sync point '{point}'"):
            tell(store, asked, client(*Role))
    assert [point.name for point in store.points()] == ["main", "other"]


def test_tasks_of_others_are_not_shown(store: Store):
    for asked in (
        ListVersions("main", "photos"),
        ExpireVersions("main", "photos", dry_run=True),
        FindPaths("main", "photos", b"*"),
        ShowHistory("main", "photos", b"a"),
        CompareVersions("main", "photos", "1", "2"),
        ShowUsage("main", "photos"),
    ):
        with pytest.raises(TrustError, match="may not read task 'main/photos'"):
            tell(store, asked, client(Role.BACKUP))

    def shown(peer: Peer) -> dict[str, list[str]]:
        points = tell(store, ListPoints(), peer).points
        return {line.point: [task.task for task in line.tasks] for line in points}

    assert shown(LOCAL) == {"main": ["docs", "photos"], "other": ["secret"]}
    assert shown(client(Role.RESTORE)) == {"main": ["docs", "photos"]}
    assert shown(client(Role.BACKUP)) == {"main": ["docs"]}
    assert shown(Peer("x", frozenset(Role), frozenset())) == {}
    report = tell(store, ExpireVersions("main", "", dry_run=True), client(Role.BACKUP))
    assert [task.task for task in report.tasks] == ["docs"]


def test_new_sync_point_is_made_by_who_may(store: Store):
    granted = Peer("nas1", frozenset({Role.BACKUP}), frozenset({"new"}))
    for request in (SetPoint("new"), SetPoint("new", days=3, apply=True)):
        with pytest.raises(TrustError, match="may not make sync point 'new'"):
            tell(store, request, granted)
    admin = Peer("nas1", frozenset({Role.ADMIN}), frozenset({"*"}))
    assert tell(store, SetPoint("new", days=3), admin).created
    assert "new" not in [point.name for point in store.points()]
    report = tell(store, SetPoint("new", days=3, apply=True), admin)
    assert (report.created, report.policy) == (True, Policy(3, 0, 0, 2))
    assert store.point("new").settings.policy == Policy(3, 0, 0, 2)
    for name in ("../x", "", "a b"):
        with pytest.raises(ConfigError, match="cannot name"):
            tell(store, SetPoint(name, apply=True), admin)


def test_only_whoever_has_the_files_becomes_the_owner(store: Store, monkeypatch):
    became: list[str] = []
    monkeypatch.setattr(Store, "become_owner", lambda _store: became.append("owner"))
    for request in LOOKING:
        tell(store, request)
    for request in CHANGING:
        tell(store, request, client(Role.ADMIN))
    assert became == []
    for request in CHANGING:
        tell(store, request)
    assert became == ["owner"] * len(CHANGING)


# -- looking and doing ----------------------------------------------------------------------------


def tree_of(store: Store) -> list[tuple[str, int]]:
    """Every path of a store, and when it was changed."""
    return sorted(
        (os.path.join(top, name), os.lstat(os.path.join(top, name)).st_mtime_ns)
        for top, directories, files in os.walk(os.fsdecode(store.path))
        for name in (*directories, *files)
    )


@pytest.mark.parametrize("request_", [r for r in CHANGING if not isinstance(r, SetPin)], ids=repr)
def test_nothing_is_changed_before_apply(store: Store, request_):
    before = tree_of(store)
    tell(store, request_)
    assert tree_of(store) == before
    tell(store, applied(request_))
    if not isinstance(request_, ExpireVersions):  # by this policy nothing goes
        assert tree_of(store) != before


def test_losses_are_named_before_and_after(store: Store):
    request = SetPoint("main", days=2, keep_last=1)
    proposed = tell(store, request)
    assert [(loss.task, len(loss.versions)) for loss in proposed.expires] == [("docs", 3)]
    assert tell(store, applied(request)) == proposed
    assert sequences(store) == [1, 2, 3, 4, 5]
    again = tell(store, request)
    assert (again.changed, again.expires) == (False, ())


def test_settings_of_two_at_once_are_both_kept(store: Store):
    # Both looked before either applied.
    requests = [SetPoint("main", days=3), SetPoint("main", max_concurrent=2)]
    for request in requests:
        assert tell(store, request).changed
    for request in requests:
        tell(store, applied(request))
    settings = store.point("main").settings
    assert (settings.policy.days, settings.limits.max_concurrent) == (3, 2)


def test_expiry_judges_anew_when_applied(store: Store):
    tell(store, SetPoint("main", days=2, keep_last=1, apply=True))
    request = ExpireVersions("main", "", dry_run=False)
    assert [len(task.expired) for task in tell(store, request).tasks] == [3, 0]
    tell(store, SetPin("main", "docs", "1", is_pinned=True))
    done = tell(store, applied(request))
    assert [len(task.expired) for task in done.tasks] == [2, 0]
    assert sequences(store) == [1, 4, 5]
    assert os.listdir(os.path.join(task_of(store).path, b"trash")) == []


def test_deletion_of_what_was_not_agreed_to_is_refused(store: Store):
    request = DeleteVersions("main", "docs", ("latest~1", "2024-01-01"))
    agreed = tell(store, request).versions
    assert [version[:6] for version in agreed] == ["000004", "000001"]
    request = msgspec.structs.replace(request, agreed=agreed, apply=True)
    add_version(task_of(store), FIRST + 9 * DAY)
    with pytest.raises(ConfigError, match="Other versions are meant now"):
        tell(store, request)
    with pytest.raises(ConfigError, match="Other versions are meant now"):
        tell(store, msgspec.structs.replace(request, agreed=()))
    assert sequences(store) == [1, 2, 3, 4, 5, 6]
    request = msgspec.structs.replace(request, versions=("4", *agreed))
    assert tell(store, request).versions == agreed
    assert sequences(store) == [2, 3, 5, 6]


def test_pinned_between_look_and_apply_is_not_deleted(store: Store):
    request = DeleteVersions("main", "docs", ("1", "2"))
    agreed = tell(store, request).versions
    tell(store, SetPin("main", "docs", "2", is_pinned=True))
    with pytest.raises(ConfigError, match="is pinned"):
        tell(store, msgspec.structs.replace(request, agreed=agreed, apply=True))
    assert sequences(store) == [1, 2, 3, 4, 5]


def test_newest_goes_by_its_id_alone(store: Store):
    for text in ("5", "latest", "2024-01-05"):
        with pytest.raises(ConfigError, match=NEWEST):
            tell(store, DeleteVersions("main", "docs", ("1", text)))
    request = DeleteVersions("main", "docs", (NEWEST,), (NEWEST,), apply=True)
    tell(store, request)
    assert sequences(store) == [1, 2, 3, 4]
    assert task_of(store).next_sequence() == 6


@pytest.mark.parametrize(
    "request_",
    [
        DeleteVersions("main", "docs", ("1",), ("000001-2024-01-01T020000Z",), apply=True),
        ExpireVersions("main", "docs", dry_run=False, apply=True),
    ],
)
def test_what_is_pinned_while_a_deletion_waits_for_the_guard_stays(
    store: Store, monkeypatch: pytest.MonkeyPatch, request_
):
    tell(store, SetPoint("main", days=1, keep_last=1, apply=True))
    real = Task.guard

    def slow_guard(task: Task) -> DirectoryLock:
        guard = real(task)
        task.versions()[0].pin(FIRST)
        return guard

    monkeypatch.setattr(Task, "guard", slow_guard)
    with contextlib.suppress(ConfigError):
        tell(store, request_)
    assert 1 in sequences(store)


def test_pins_say_which_version_they_are_on(store: Store):
    assert tell(store, SetPin("main", "docs", "2024-01-02", is_pinned=True)) == PinReport(
        "000002-2024-01-02T020000Z"
    )
    (line,) = [v for v in tell(store, ListVersions("main", "docs")).versions if v.pinned]
    assert line.keep == ("day 2024-01-02", "pinned")
    tell(store, SetPin("main", "docs", "2", is_pinned=False))
    tell(store, SetPin("main", "docs", "2", is_pinned=False))
    assert not any(v.pinned for v in tell(store, ListVersions("main", "docs")).versions)


def test_quota_shows_what_is_used(store: Store):
    assert tell(store, SetPoint("main")).used is None
    report = tell(store, SetPoint("main", quota_bytes=5, apply=True))
    assert (report.quota, report.used) == (5, 0)
    assert tell(store, SetPoint("new", quota_bytes=5)).used == 0


def test_sync_point_is_shown_and_set_although_a_task_has_lost_its_versions(store: Store):
    versions = Path(os.fsdecode(store.point("main").task("docs").path), "versions")
    versions.rename(versions.with_name("gone"))
    report = tell(store, SetPoint("main", days=1, quota_bytes=5, apply=True))
    assert (report.policy.days, report.used, report.expires) == (1, 0, ())


def test_disk_errors_are_the_stores(store: Store):
    (Path(os.fsdecode(store.path)) / "points").rename(Path(os.fsdecode(store.path)) / "gone")
    with pytest.raises(StoreError, match="no such file or directory"):
        tell(store, ListPoints())


# -- the way there --------------------------------------------------------------------------------


def test_several_questions_in_one_session(store: Store):
    server = RemoteStore(Path(os.fsdecode(store.path)), client(Role.ADMIN), CLOCK)
    with server.open_channel() as channel:
        for request in (ListPoints(), *LOOKING, *CHANGING, ListPoints()):
            assert ask(channel, request) == tell(store, request, client(Role.ADMIN))
    assert server.asked == 2 + len(LOOKING) + len(CHANGING)
    assert server.refusals == []


def test_long_answer_comes_in_pieces(store: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(requests, "MAX_BULK_BYTES", 100)
    server = RemoteStore(Path(os.fsdecode(store.path)), LOCAL, CLOCK)
    request = ListVersions("main", "docs")
    expected = tell(store, request)
    assert len(list(requests.split_answer(encode_answer(expected)))) > 5
    with server.open_channel() as channel:
        assert ask(channel, request) == expected


@pytest.mark.parametrize(
    ("request_", "kind", "text"),
    [
        (DeleteVersions("main", "docs", ("1",)), TrustError, "may not delete versions"),
        (ListVersions("main", "absent"), ConfigError, "No task 'absent'"),
        (ListVersions("other", ""), TrustError, "may not use sync point 'other'"),
    ],
)
def test_refusal_arrives_as_it_was_raised_and_ends_the_session(
    store: Store, request_, kind: type[SsfsError], text: str
):
    server = RemoteStore(Path(os.fsdecode(store.path)), client(Role.BACKUP), CLOCK)
    with server.open_channel() as channel:
        with pytest.raises(kind, match=text) as caught:
            ask(channel, request_)
        with pytest.raises(ConnectionLost):
            channel.receive()
    assert [str(refusal) for refusal in server.refusals] == [str(caught.value)]


def test_damage_is_told_as_damage(store: Store):
    path = Path(os.fsdecode(task_of(store).path)) / "task.toml"
    path.write_text("garbage")
    server = RemoteStore(Path(os.fsdecode(store.path)), LOCAL, CLOCK)
    with server.open_channel() as channel, pytest.raises(CorruptStore, match=r"task\.toml"):
        ask(channel, ListVersions("main", ""))
    # It hides nothing of the others.
    with server.open_channel() as channel:
        lines = ask(channel, ListPoints()).points
    assert [line.lost for line in lines if line.point == "main"] == [(path.parent.name,)]


def test_malformed_request_ends_the_session_with_a_reason(store: Store):
    server = RemoteStore(Path(os.fsdecode(store.path)), LOCAL, CLOCK)
    with server.open_channel() as channel:
        channel.send(Ask(b"\x81\xa7command\xa6format"))
        refused = channel.receive()
    assert isinstance(refused, Refused)
    assert (refused.code, "malformed request" in refused.problem) == (Refusal.BAD_REQUEST, True)
    assert isinstance(server.refusals[0], RemoteProtocolError)


def scripted(*messages: Message) -> socket.socket:
    """The client's end of a session whose server says these after the greeting, and goes."""
    ours, theirs = socket.socketpair()

    def serve() -> None:
        with Channel(theirs, End.SERVER) as channel:
            said = list(messages)
            for message in channel.messages():
                if isinstance(message, Hello):
                    channel.send(Hello(PROTOCOL_VERSION, "test"))
                elif isinstance(message, Ask):
                    for one in said:
                        channel.send(one)
                    return

    threading.Thread(target=serve).start()
    return ours


def ask_scripted(*messages: Message, request: Request[object] | None = None) -> object:
    with Channel(scripted(*messages), End.CLIENT) as channel:
        channel.send(Hello(PROTOCOL_VERSION, "test"))
        channel.receive()
        return ask(channel, request or SetPin("main", "", "1", is_pinned=True))


def test_answer_is_put_together_from_its_pieces():
    content = encode_answer(PinReport("x" * 10))
    pieces = [AnswerPart(content[:3]), AnswerPart(b""), AnswerPart(content[3:]), AnswerEnd(b"")]
    assert ask_scripted(*pieces) == PinReport("x" * 10)


def test_answer_that_breaks_off_is_a_lost_connection():
    with pytest.raises(ConnectionLost):
        ask_scripted(AnswerPart(b"\x81"))


@pytest.mark.parametrize("content", [b"", b"\xc1", b"\x80", encode_answer(PinReport("x")) + b"x"])
def test_malformed_answer_is_the_servers_fault(content: bytes):
    with pytest.raises(RemoteProtocolError, match="malformed answer"):
        ask_scripted(AnswerEnd(content))


@pytest.mark.slow
def test_answer_without_end_is_cut_short():
    part = AnswerPart(bytes(1 << 20))
    with pytest.raises(RemoteProtocolError, match="without an end"):
        ask_scripted(*[part] * 64, AnswerPart(b"x"))


def test_refusal_between_two_questions_is_heard():
    ours, theirs = socket.socketpair()
    with Channel(ours, End.CLIENT) as channel, Channel(theirs, End.SERVER) as server:
        channel.send(Hello(PROTOCOL_VERSION, "test"))
        server.receive()
        server.send(Hello(PROTOCOL_VERSION, "test"))
        channel.receive()
        server.send(Refused(Refusal.GOING_DOWN, "The server goes down", b"", "try again later"))
        server.close()
        with pytest.raises(ConnectionLost, match="goes down"):
            ask(channel, ListPoints())


def test_server_that_is_gone_is_a_lost_connection():
    ours, theirs = socket.socketpair()
    with Channel(ours, End.CLIENT) as channel, Channel(theirs, End.SERVER) as server:
        channel.send(Hello(PROTOCOL_VERSION, "test"))
        server.receive()
        server.send(Hello(PROTOCOL_VERSION, "test"))
        channel.receive()
        server.close()
        with pytest.raises(ConnectionLost):
            ask(channel, ListPoints())


def test_what_is_no_answer_is_out_of_order():
    ours, theirs = socket.socketpair()
    with Channel(ours, End.CLIENT) as channel, theirs:
        frames = Channel(theirs, End.SERVER)
        channel.send(Hello(PROTOCOL_VERSION, "test"))
        frames.receive()
        frames.send(Hello(PROTOCOL_VERSION, "test"))
        channel.receive()
        # No state lets a server say this to an Ask; the bytes are put on the stream by hand.
        theirs.send(b"\x01\x00\x00\x00\x07\x90")
        with pytest.raises(RemoteProtocolError, match=CatalogEnd.__name__):
            ask(channel, ListPoints())
