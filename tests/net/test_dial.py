"""A client's sessions over real TLS and real processes: success, refusal, failure, and nothing left behind."""

import contextlib
import os
import random
import signal
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ssfs.errors import ConfigError, ConnectionLost, RemoteProtocolError, StoreError, TrustError
from ssfs.net.channel import Channel
from ssfs.net.compression import AUTO, OFF
from ssfs.net.dial import Session, SshTarget, Target, TlsTarget, open_session
from ssfs.net.options import LinkOptions
from ssfs.net.tls import server_context
from ssfs.protocol.messages import Checkpoint, CheckpointDone, FileRaw, SignaturePart
from ssfs.protocol.states import Role
from tests.fakes.certificates import Authority
from tests.fakes.delay_proxy import DelayProxy, Direction
from tests.fakes.peers import REFUSED
from tests.net.servers import (
    Server,
    go_to,
    refuse,
    send_a_file,
    take_a_file,
    take_a_file_and_stay,
)

MIB = 1 << 20
QUICK = LinkOptions(linger_s=2)
SERVERS = Path(__file__).with_name("servers.py")


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ours"))


@pytest.fixture(scope="module")
def context(ours: Authority) -> ssl.SSLContext:
    return server_context(*ours.server(), ours.ca)


@pytest.fixture(scope="module")
def credentials(ours: Authority) -> tuple[Path, Path]:
    return ours.client()


@pytest.fixture
def tls(ours, credentials):
    def target(server: Server) -> TlsTarget:
        return TlsTarget("127.0.0.1", server.port, ours.ca, *credentials)

    return target


def over_stdio(what: str) -> SshTarget:
    return SshTarget([sys.executable, str(SERVERS), what])


@pytest.fixture(autouse=True)
def _nothing_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No thread of a session, no descriptor and no child outlives a test."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    before = len(os.listdir("/proc/self/fd"))
    yield
    assert "ssfs link" not in {thread.name for thread in threading.enumerate()}
    assert len(os.listdir("/proc/self/fd")) == before
    assert not _children()


def in_session(
    target: Target, use: Callable[[Session], object], options: LinkOptions = QUICK
) -> None:
    with open_session(target, options) as session:
        use(session)


def receive(session: Session) -> None:
    session.channel.receive()


def send_much(session: Session) -> None:
    send_a_file(session.channel, 100)


def unused(_: Session) -> None:
    pytest.fail("connected")


@pytest.mark.parametrize("options", [LinkOptions(compression=OFF), LinkOptions(compression=AUTO)])
def test_session_over_tls(options: LinkOptions, context, tls):
    with Server(context, take_a_file) as server:
        with open_session(tls(server), options) as session:
            send_a_file(session.channel, 20)
            sent = session.channel.sent_bytes
            assert sent == session.traffic.sent_bytes
            assert (sent > 20 * MIB) == (options.compression == OFF)
    assert not server.failures


@pytest.mark.slow
def test_session_over_a_command() -> None:
    with open_session(over_stdio("take"), LinkOptions()) as session:
        send_a_file(session.channel, 20)
        assert session.traffic.received_bytes > 0


def test_last_word_without_an_answer_is_delivered(context, tls):
    heard = []

    def serve(channel):
        go_to(channel, Role.SERVER)
        heard.extend(len(message.content) for message in channel.messages())

    with Server(context, serve) as server:
        with open_session(tls(server), QUICK) as session:
            go_to(session.channel, Role.CLIENT)
            for _ in range(30):
                session.channel.send(FileRaw(os.urandom(MIB)))
    assert heard == [MIB] * 30
    assert isinstance(server.failures[0], ConnectionLost)


@pytest.mark.parametrize("kind", ["tls", "command"])
def test_refusal_in_the_middle_of_a_file_is_heard(kind: str, context, tls):
    with Server(context, refuse) as server:
        target: Target = tls(server) if kind == "tls" else over_stdio("refuse")
        with open_session(target, QUICK) as session:
            go_to(session.channel, Role.CLIENT)
            with pytest.raises(ConnectionLost):
                send_for_ever(session)
            assert session.channel.receive() == REFUSED


def send_for_ever(session: Session) -> None:
    while True:
        session.channel.send(FileRaw(os.urandom(MIB)))


def test_nobody_listens(ours):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(
        ConnectionLost, match=f"Cannot connect to 127.0.0.1:{port}: Connection refused"
    ):
        in_session(TlsTarget("127.0.0.1", port, ours.ca), unused)


def test_host_without_an_address(ours):
    with pytest.raises(ConnectionLost, match=r"Cannot connect to nas\.invalid:7433: "):
        in_session(TlsTarget("nas.invalid", 7433, ours.ca), unused)


def test_address_of_another_program_is_told(ours):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet() -> None:
            stream, _ = listener.accept()
            with stream:
                stream.sendall(b"220 mail.example ESMTP ready\r\n")
                stream.recv(1000)

        thread = threading.Thread(target=greet)
        thread.start()
        with pytest.raises(ConnectionLost, match=r"TLS handshake failed.*ssfs server"):
            in_session(TlsTarget("127.0.0.1", listener.getsockname()[1], ours.ca), unused)
        thread.join()


def test_missing_key_is_a_setting_to_mend(ours, tmp_path):
    target = TlsTarget("127.0.0.1", 1, ours.ca, tmp_path / "no.key", tmp_path / "no.pem")
    with pytest.raises(ConfigError):
        in_session(target, unused)


def test_server_of_another_store_is_not_trusted(context, ours, tmp_path, credentials):
    others = Authority(tmp_path, "other")
    with Server(context, take_a_file) as server:
        target = TlsTarget("127.0.0.1", server.port, others.ca, *credentials)
        with pytest.raises(TrustError, match="server's certificate"):
            in_session(target, unused)
    assert isinstance(server.failures[0], TrustError)


@pytest.mark.parametrize("is_sending", [True, False])
def test_client_that_is_not_accepted_hears_it(is_sending: bool, context, ours, tmp_path):
    """The handshake is over for the client by then: the session fails with the first words."""
    stranger = Authority(tmp_path, "stranger").client()
    with Server(context, take_a_file) as server:
        target = TlsTarget("127.0.0.1", server.port, ours.ca, *stranger)
        use = send_much if is_sending else receive
        with pytest.raises(TrustError, match="does not accept this client's certificate"):
            in_session(target, use)


def test_client_that_is_not_accepted_and_says_nothing(context, ours, tmp_path):
    stranger = Authority(tmp_path, "stranger").client()
    with Server(context, take_a_file) as server:
        target = TlsTarget("127.0.0.1", server.port, ours.ca, *stranger)
        with pytest.raises(TrustError):
            with open_session(target, QUICK):
                pass


def test_unverified_session(context):
    with Server(context, take_a_file) as server:
        target = TlsTarget("127.0.0.1", server.port, "/nonexistent", verify=False)
        with open_session(target, QUICK) as session:
            send_a_file(session.channel, 1)


def test_exception_of_the_engine_cuts_the_connection(context, tls):
    with Server(context, take_a_file_and_stay) as server:
        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            in_session(tls(server), interrupted, LinkOptions(linger_s=60))
        assert time.monotonic() - began < 30
    assert isinstance(server.failures[0], ConnectionLost)


def interrupted(session: Session) -> None:
    send_a_file(session.channel, 1)
    raise KeyboardInterrupt


def test_interrupt_while_connecting(context, tls, ours):
    """Nobody answers: the listener accepts nothing, the handshake waits."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        target = TlsTarget("127.0.0.1", listener.getsockname()[1], ours.ca)
        interrupter = threading.Thread(target=_interrupt_once_connected, args=(listener,))
        interrupter.start()
        with pytest.raises(KeyboardInterrupt):
            in_session(target, unused)
        interrupter.join()


def _interrupt_once_connected(listener: socket.socket) -> None:
    stream, _ = listener.accept()
    with stream:
        stream.recv(1)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        while stream.recv(10_000):
            pass


def test_server_that_goes_away_is_named_as_the_pump_saw_it(context, tls):
    with Server(context, take_a_file_and_stay) as server:

        def stop_it(session: Session) -> None:
            go_to(session.channel, Role.CLIENT)
            server.stop()
            session.channel.receive()

        with pytest.raises(ConnectionLost, match=r"The connection (was cut|broke)"):
            in_session(tls(server), stop_it)


@pytest.mark.parametrize("direction", Direction)
@pytest.mark.parametrize("position", [0, 1, 100, 1000, 1500, 2000, 2500, 70_000, 3 * MIB])
def test_cut_at_any_moment_is_a_lost_connection(position, direction, context, ours, credentials):
    with Server(context, echo_signatures) as server, DelayProxy(server.port) as proxy:
        proxy.cut_after(direction, position)
        target = TlsTarget("127.0.0.1", proxy.port, ours.ca, *credentials)
        with pytest.raises(ConnectionLost):
            in_session(target, ask_for_signatures)
        assert proxy.cuts == 1
    assert all(isinstance(failure, ConnectionLost) for failure in server.failures)


def echo_signatures(channel: Channel) -> None:
    """As many bytes in both directions."""
    go_to(channel, Role.SERVER)
    for message in channel.messages():
        channel.send(SignaturePart(7, last=False, content=bytes(message.content)))


def ask_for_signatures(session: Session) -> None:
    go_to(session.channel, Role.CLIENT)
    for number in range(6):
        content = random.Random(number).randbytes(MIB)
        session.channel.send(FileRaw(content))
        assert session.channel.receive() == SignaturePart(7, last=False, content=content)


def test_network_that_falls_silent_is_given_up(context, ours, credentials):
    options = LinkOptions(idle_s=0.5)
    with Server(context, take_a_file_and_stay, options) as server, DelayProxy(server.port) as proxy:
        target = TlsTarget("127.0.0.1", proxy.port, ours.ca, *credentials)

        def use(session: Session) -> None:
            send_a_file(session.channel, 1)
            proxy.black_hole()
            session.channel.receive()

        with pytest.raises(ConnectionLost, match="timed out"):
            in_session(target, use, options)
        proxy.resume()


def test_command_that_does_not_exist() -> None:
    with pytest.raises(ConfigError, match="Cannot run"):
        in_session(SshTarget(["/nonexistent/ssh"]), unused)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("exit 255", "exit status 255.*what it said is above"),
        ("kill -9 $$", "ended by SIGKILL"),
        ("exit 0", "before the other end said anything"),
        ("head -c 10; exit 5", "exit status 5"),
    ],
)
def test_command_that_fails(script: str, message: str) -> None:
    with pytest.raises(ConnectionLost, match=message):
        in_session(SshTarget(["sh", "-c", script]), receive)


@pytest.mark.parametrize(
    ("script", "family"),
    [
        ("exit 2", ConfigError),
        ("exit 4", TrustError),
        ("head -c 10; exit 6", StoreError),
        ("exit 127", ConfigError),
    ],
)
def test_command_that_would_fail_again(script: str, family: type[Exception]) -> None:
    with pytest.raises(family, match="exit status"):
        in_session(SshTarget(["sh", "-c", script]), receive)


def test_shell_that_prints_something_at_login() -> None:
    command = ["sh", "-c", "echo 'Welcome to nas2!'; cat > /dev/null"]
    with pytest.raises(RemoteProtocolError, match=r"begins with 'Welcome to nas2!\\n'"):
        in_session(SshTarget(command), receive)


def test_command_that_hangs_is_ended() -> None:
    with pytest.raises(KeyboardInterrupt):
        with open_session(SshTarget(["sleep", "1000"]), QUICK):
            raise KeyboardInterrupt


@pytest.mark.slow
def test_interrupt_from_the_terminal_reaches_us_alone(capfd) -> None:
    """The whole process group gets it; the command goes on until we have closed down."""

    def interrupt_all(session: Session) -> None:
        send_a_file(session.channel, 1)
        (child,) = _children()
        os.kill(child, signal.SIGINT)
        try:
            os.kill(os.getpid(), signal.SIGINT)
            pytest.fail("not interrupted")
        except KeyboardInterrupt:
            # Alive and well: it answers.
            session.channel.send(Checkpoint(10))
            assert session.channel.receive() == CheckpointDone(10)
            raise

    with pytest.raises(KeyboardInterrupt):
        in_session(over_stdio("stay"), interrupt_all)
    assert "server: lost" in capfd.readouterr().err


def _children() -> list[int]:
    """Ours, but for the helpers of multiprocessing, which other tests may have started."""
    found = []
    for task in os.listdir("/proc/self/task"):
        with contextlib.suppress(FileNotFoundError):  # a thread that has ended since
            found += Path(f"/proc/self/task/{task}/children").read_text().split()
    return [
        int(pid)
        for pid in found
        if b"multiprocessing" not in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
