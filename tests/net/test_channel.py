"""A session over a real socket pair: no waiting for each other, no last word lost."""

import os
import socket
import threading
from collections.abc import Callable

import pytest

from ssfs.errors import ConnectionLost, RemoteProtocolError
from ssfs.net.channel import Channel
from ssfs.net.traffic import Traffic
from ssfs.protocol.connection import Connection
from ssfs.protocol.messages import Checkpoint, CheckpointDone, FileRaw, Hello, SignaturePart
from ssfs.protocol.states import Role, State
from tests.fakes.peers import REFUSED, SAMPLES, way_to

MIB = 1 << 20


class Session:
    """A client's channel in a state, and a server that does what it is told in a thread."""

    def __init__(self, state: State, serve: Callable):
        ours, theirs = socket.socketpair()
        self._way = way_to(state)
        self._serve = serve
        self.failures: list[Exception] = []
        self._thread = threading.Thread(target=self._run, args=(theirs,))
        self._thread.start()
        self.client = Channel(ours, Role.CLIENT)
        for speaker, message in self._way:
            if speaker is Role.CLIENT:
                self.client.send(message)
            else:
                assert self.client.receive() == message

    def _run(self, stream: socket.socket) -> None:
        try:
            with Channel(stream, Role.SERVER) as channel:
                messages = channel.messages()
                for speaker, message in self._way:
                    if speaker is Role.SERVER:
                        channel.send(message)
                    else:
                        assert next(messages) == message
                self._serve(channel, messages)
        except Exception as error:
            self.failures.append(error)

    def end(self) -> None:
        self.client.close()
        self._thread.join()


def test_server_may_send_while_the_client_sends():
    parts = 40

    def serve(channel, messages):
        for _ in range(parts):
            channel.send(SignaturePart(7, last=False, content=bytes(MIB)))
        total = 0
        for message in messages:
            match message:
                case FileRaw(content):
                    total += len(content)
                case Checkpoint(number):
                    assert total == parts * MIB
                    channel.send(CheckpointDone(number))
                    return

    session = Session(State.IN_FILE, serve)
    for number in range(parts):
        session.client.send(FileRaw(bytes([number]) * MIB))
    session.client.send(SAMPLES_END)
    session.client.send(Checkpoint(1))
    heard = [session.client.receive() for _ in range(parts + 1)]
    assert heard == [SignaturePart(7, False, bytes(MIB))] * parts + [CheckpointDone(1)]
    assert session.client.sent_bytes > parts * MIB < session.client.received_bytes
    session.end()
    assert not session.failures


SAMPLES_END = next(m for t, m in SAMPLES.items() if t.__name__ == "FileEnd")


def test_refusal_during_a_file_ends_sending_and_can_be_heard():
    done = threading.Event()

    def serve(channel, messages):
        next(messages)
        channel.send(REFUSED)
        # Neither reads nor closes: the client must not wait for either.
        done.wait(20)

    session = Session(State.IN_FILE, serve)
    with pytest.raises(ConnectionLost):
        send_for_ever(session.client)
    with pytest.raises(ConnectionLost):
        session.client.send(FileRaw(b"more"))
    assert session.client.receive() == REFUSED
    done.set()
    session.end()


def test_refusal_of_a_server_that_closed_can_be_heard():
    def serve(channel, messages):
        next(messages)
        channel.send(REFUSED)

    session = Session(State.IN_FILE, serve)
    with pytest.raises(ConnectionLost):
        send_for_ever(session.client)
    assert session.client.receive() == REFUSED
    with pytest.raises(ConnectionLost):
        session.client.receive()
    session.end()


def send_for_ever(channel: Channel) -> None:
    for _ in range(1000):
        channel.send(FileRaw(bytes(MIB)))


def test_bulk_messages_a_client_keeps_are_its_own():
    def serve(channel, messages):
        next(messages)
        for number in range(10):
            channel.send(SignaturePart(7, False, bytes([number]) * 1000))

    session = Session(State.TRANSFER, serve)
    session.client.send(Checkpoint(1))
    kept = [session.client.receive() for _ in range(10)]
    assert [part.content for part in kept] == [bytes([number]) * 1000 for number in range(10)]
    session.end()


@pytest.mark.parametrize("ask", ["receive", "receive_nowait"])
def test_large_messages_a_client_keeps_are_its_own(ask):
    contents = [bytes([number]) * (MIB - 7 * number) for number in range(12)]

    def serve(channel, messages):
        next(messages)
        for content in contents:
            channel.send(SignaturePart(7, False, content))

    session = Session(State.TRANSFER, serve)
    session.client.send(Checkpoint(1))
    kept: list[SignaturePart] = []
    while len(kept) < len(contents):
        part = getattr(session.client, ask)()
        if part is not None:
            kept.append(part)
    assert [part.content for part in kept] == contents
    session.end()


def test_wait_tells_whether_it_was_woken():
    ours, theirs = socket.socketpair()
    wake = os.eventfd(0, os.EFD_CLOEXEC)
    try:
        with Channel(ours, Role.CLIENT) as channel, theirs:
            assert not channel.wait(wake, 0.01)
            os.eventfd_write(wake, 1)
            assert channel.wait(wake, 10)
            os.eventfd_read(wake)
            theirs.sendall(b"x")
            assert not channel.wait(wake, 10)
            assert channel.receive_nowait() is None
            assert not channel.wait(wake, 0.01)
    finally:
        os.close(wake)


def test_peer_that_breaks_the_rules_is_found_out():
    ours, theirs = socket.socketpair()
    with Channel(ours, Role.CLIENT) as channel, theirs:
        theirs.sendall(b"GET / HTTP/1.1\r\n\r\n")
        with pytest.raises(RemoteProtocolError):
            channel.receive()


@pytest.mark.parametrize("ask", ["receive", "receive_nowait"])
def test_end_of_the_stream_is_a_lost_connection(ask):
    ours, theirs = socket.socketpair()
    theirs.close()
    with Channel(ours, Role.CLIENT) as channel, pytest.raises(ConnectionLost):
        getattr(channel, ask)()


def test_nothing_said_is_nothing_heard():
    ours, theirs = socket.socketpair()
    with Channel(ours, Role.CLIENT) as channel, theirs:
        assert channel.receive_nowait() is None


@pytest.fixture
def waiting():
    """A server's channel, and the socket of its client."""
    ours, theirs = socket.socketpair()
    with Channel(ours, Role.SERVER) as channel, theirs:
        yield channel, theirs


def test_client_that_waits_has_not_ended(waiting):
    channel, _ = waiting
    assert not channel.has_ended(0)
    assert not channel.has_ended(0.01)


def test_client_that_leaves_is_noticed_without_waiting_for_the_timeout(waiting):
    channel, client = waiting
    thread = threading.Thread(target=client.close)
    thread.start()
    assert channel.has_ended(60)
    thread.join()
    assert channel.has_ended(60)


def test_client_that_leaves_with_unread_words_is_noticed(waiting):
    channel, client = waiting
    client.sendall(bytes(100))
    client.close()
    assert channel.has_ended(60)


def test_what_a_waiting_client_says_is_kept(waiting):
    channel, client = waiting
    client.sendall(b"".join(Connection(Role.CLIENT).send(Hello(1, "0.1"))))
    assert not channel.has_ended(0)
    assert not channel.has_ended(0.01)
    assert channel.receive() == Hello(1, "0.1")


def test_waiting_client_may_not_say_much(waiting):
    channel, client = waiting
    client.sendall(bytes(65_536))
    assert not channel.has_ended(0)
    client.sendall(b"x")
    with pytest.raises(RemoteProtocolError):
        channel.has_ended(0)


def test_traffic_of_the_wire_is_reported_where_there_is_one():
    ours, theirs = socket.socketpair()
    traffic = Traffic()
    traffic.sent_bytes, traffic.received_bytes = 7, 8
    with Channel(ours, Role.CLIENT, traffic) as channel, theirs:
        channel.send(Hello(1, "0.1"))
        assert (channel.sent_bytes, channel.received_bytes) == (7, 8)
        traffic.sent_bytes += 1
        assert channel.sent_bytes == 8
