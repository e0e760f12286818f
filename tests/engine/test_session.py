"""A server's session as a thread sees it: what each kind of visitor is told, and what the log is."""

import contextlib
import os
import socket
import threading

import pytest

from ssfs.clock import SystemClock
from ssfs.engine.commands import ask
from ssfs.engine.enrolment import EnrolmentDesk
from ssfs.engine.greeting import ask_to_enrol, ask_to_renew, fetch_authority, greet_server
from ssfs.engine.session import Visitor, serve_session
from ssfs.errors import PeerBusy, TrustError
from ssfs.model.peer import NOBODY, Peer, Role
from ssfs.model.policy import Policy
from ssfs.net.channel import Channel
from ssfs.pki.certificate import make_key, make_request
from ssfs.protocol import states
from ssfs.protocol.messages import (
    PROTOCOL_VERSION,
    Hello,
    Leave,
    Open,
    Opened,
    Queued,
    Refusal,
    Refused,
)
from ssfs.protocol.requests import ListPoints
from ssfs.store.clients import Registry
from ssfs.store.slots import SlotRequest
from ssfs.store.store import Store
from tests.store.registries import enrol, invite

NAS1 = Peer("nas1", frozenset({Role.BACKUP}), frozenset({"main"}))
HELLO_FROM_THE_FUTURE = Hello(99, "9.9")


class Served:
    """A store, and sessions with it.

    Attributes:
        outcome: How the last session ended, for the log.
        notes: What its client wanted.
    """

    def __init__(self, directory) -> None:
        self.store = Store.create(os.fsencode(directory), Policy(), "UTC", SystemClock())
        self.registry = Registry(self.store)
        self.desk = EnrolmentDesk(self.registry, SystemClock(), lambda _: None)
        self.outcome = ""
        self.notes: list[str] = []

    @contextlib.contextmanager
    def session(self, visitor: Visitor, *, greets: bool = True):
        """The client's end; the session is over after the block."""
        ours, theirs = socket.socketpair()
        self.notes = []
        thread = threading.Thread(target=self._serve, args=(theirs, visitor))
        thread.start()
        try:
            with Channel(ours, states.Role.CLIENT) as channel:
                if greets:
                    greet_server(channel)
                yield channel
        finally:
            thread.join()

    def _serve(self, stream: socket.socket, visitor: Visitor) -> None:
        with Channel(stream, states.Role.SERVER) as channel:
            clock = SystemClock()
            self.outcome = serve_session(channel, self.store, visitor, clock, self.notes.append)


@pytest.fixture
def served(tmp_path) -> Served:
    return Served(tmp_path / "store")


def _open(task: str = "docs", *, point: str = "main", waits: bool = True) -> Open:
    return Open(point, task, "whatever it says", "/source", dry_run=False, waits=waits)


def test_a_client_that_only_greets_is_no_error(served):
    with served.session(Visitor(NAS1)) as channel:
        channel.send(Leave())
    assert (served.outcome, served.notes) == ("left", [])


def test_a_client_that_goes_without_a_word_was_cut_off(served):
    with served.session(Visitor(NAS1)):
        pass
    assert served.outcome.startswith("cut off (")


def test_a_client_of_another_protocol_is_told_so(served):
    with served.session(Visitor(NAS1), greets=False) as channel:
        channel.send(HELLO_FROM_THE_FUTURE)
        hello, refused = channel.receive(), channel.receive()
        assert isinstance(hello, Hello)
        assert hello.protocol == PROTOCOL_VERSION, "by which a client says what is wrong"
        assert isinstance(refused, Refused)
        assert "speaks protocol" in refused.problem
    assert served.outcome.startswith("refused (")


@pytest.mark.parametrize(
    "refusal", [PeerBusy("Too many sessions"), TrustError("The access was revoked")]
)
def test_a_visitor_that_is_refused_hears_why_whatever_it_asks(served, refusal):
    with served.session(Visitor(NAS1, refusal=refusal)) as channel:
        with pytest.raises(type(refusal), match=refusal.problem):
            ask(channel, ListPoints())
    assert refusal.problem in served.outcome


def test_a_stranger_can_enrol_and_nothing_else(served):
    secret = invite(served.registry, "nas1", now=SystemClock().now())
    stranger = Visitor(NOBODY, desk=served.desk)
    with served.session(stranger) as channel:
        assert fetch_authority(channel) == served.registry.authority().pem
    assert (served.outcome, served.notes) == ("authority shown", ["enrolment begins"])
    with served.session(stranger) as channel:
        assert ask_to_enrol(channel, secret, make_request(make_key())).client == "nas1"
    assert served.outcome == "enrolled nas1"
    with served.session(stranger) as channel:
        with pytest.raises(TrustError):
            ask_to_enrol(channel, secret, make_request(make_key()))
    with served.session(stranger) as channel:
        with pytest.raises(TrustError, match="does not know you"):
            ask(channel, ListPoints())
    with served.session(stranger) as channel:
        channel.send(_open())
        assert channel.receive().code is Refusal.NOT_TRUSTED
    with served.session(stranger) as channel:
        with pytest.raises(TrustError):
            ask_to_renew(channel, make_request(make_key()))
    assert not os.path.exists(
        os.path.join(served.store.path, b"points", b"main", b"tasks", b"docs")
    )


def test_without_certificates_there_is_nothing_to_enrol_for(served):
    with served.session(Visitor(NAS1)) as channel:
        with pytest.raises(TrustError, match="nothing to enrol for"):
            ask_to_renew(channel, make_request(make_key()))


def test_renewing_comes_before_whatever_a_session_is_for(served):
    machine = enrol(served.registry, "nas1", SystemClock().now())
    visitor = Visitor(NAS1, machine.der, renew=True, desk=served.desk)
    with served.session(visitor, greets=False) as channel:
        assert greet_server(channel).renew
        assert ask_to_renew(channel, make_request(machine.key)).startswith(b"-----BEGIN")
        ask(channel, ListPoints())
        channel.send(Leave())
    assert (served.outcome, served.notes) == ("answered", ["command"])


def test_a_backup_that_is_cut_off_gives_back_lock_and_slot(served):
    for _ in range(2):
        with served.session(Visitor(NAS1)) as channel:
            channel.send(_open())
            assert isinstance(channel.receive(), Opened)
        assert served.outcome.startswith("cut off (")
        assert served.notes == ["backup main/docs"]


def test_who_waits_hears_its_place_and_gets_the_slot_when_it_is_free(served):
    point = served.store.create_point("main")
    with contextlib.ExitStack() as stack:
        taken = [stack.enter_context(SlotRequest(point, f"{n}")) for n in range(8)]
        assert all(slot.is_granted() for slot in taken)
        with served.session(Visitor(NAS1)) as channel:
            channel.send(_open())
            assert channel.receive() == Queued(1)
            taken[3].close()
            assert isinstance(channel.receive(), Opened)


def test_who_does_not_wait_is_told_that_all_slots_are_taken(served):
    point = served.store.create_point("main")
    with contextlib.ExitStack() as stack:
        assert all(stack.enter_context(SlotRequest(point, f"{n}")).is_granted() for n in range(8))
        with served.session(Visitor(NAS1)) as channel:
            channel.send(_open(waits=False))
            assert channel.receive().code is Refusal.NO_SLOT
        with served.session(Visitor(NAS1)) as channel:
            channel.send(_open())
            assert channel.receive() == Queued(1)
        assert "left the queue" in served.outcome
        last = stack.enter_context(SlotRequest(point, "next"))
        assert not last.is_granted()
        assert last.place == 1, "who left the queue still had a place in it"


@pytest.mark.parametrize("point", ["photos", "../main", "main/x", ""])
def test_a_backup_into_what_was_not_granted_touches_nothing(served, point):
    before = sorted(os.listdir(os.path.join(served.store.path, b"points")))
    with served.session(Visitor(NAS1)) as channel:
        channel.send(_open(point=point))
        assert isinstance(channel.receive(), Refused)
    assert served.outcome.startswith("refused (")
    assert sorted(os.listdir(os.path.join(served.store.path, b"points"))) == before


def test_a_bad_disk_is_a_refusal_and_no_traceback(served, monkeypatch):
    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("ssfs.engine.session.receive_version", fail)
    with served.session(Visitor(NAS1)) as channel:
        channel.send(_open())
        refused = channel.receive()
        assert isinstance(refused, Refused)
        assert "input/output error" in refused.problem
    assert "input/output error" in served.outcome
