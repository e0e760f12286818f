"""Clients that obey no rules: they connect as anybody, say anything, and hear what the server makes of it.

with connected(tls_target(machine, server)) as rogue:      over the real link
    rogue.greet()
    rogue.say(Open(...), b"any bytes")
    rogue.last_word()
with raw_tls(tls_target(...)) as stream:                    below it
"""

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Iterator

import msgspec

from ssfs.errors import SsfsError
from ssfs.net.dial import TlsTarget, open_session
from ssfs.net.link import LinkOptions
from ssfs.net.tls import SERVER_NAME, client_context
from ssfs.protocol.codec import TYPE_NUMBERS, decode, encode
from ssfs.protocol.messages import PROTOCOL_VERSION, Hello, Message, Open, Opened, Refused
from tests.system.servers import Machine, ServedStore

HEADER = struct.Struct("<IB")
_PATIENCE_S = 60


def tls_target(machine: Machine, server: ServedStore) -> TlsTarget:
    """A server, as this machine has enrolled with it."""
    (place,) = (machine.directory / "config" / "servers").glob(f"*_{server.port}")
    (credentials,) = (path for path in place.iterdir() if path.is_dir())
    return TlsTarget(
        "127.0.0.1",
        server.port,
        ca_path=credentials / "ca.pem",
        key_path=credentials / "key.pem",
        certificate_path=credentials / "certificate.pem",
    )


def packed(message: Message) -> bytes:
    """The frame of a message, whatever the state."""
    payload = b"".join(encode(message))
    return HEADER.pack(len(payload), TYPE_NUMBERS[type(message)]) + payload


def frame(number: int, content: object) -> bytes:
    """A frame with any content."""
    payload = content if isinstance(content, bytes) else msgspec.msgpack.encode(content)
    return HEADER.pack(len(payload), number) + payload


class Rogue:
    """One end of a session that checks nothing."""

    def __init__(self, stream: socket.socket) -> None:
        stream.settimeout(_PATIENCE_S)
        self._stream = stream
        self._heard = bytearray()

    def say(self, *what: Message | bytes) -> None:
        """Say it, or as much of it as somebody listens to."""
        with contextlib.suppress(OSError):
            for one in what:
                self._stream.sendall(one if isinstance(one, bytes) else packed(one))

    def hear(self) -> Message | None:
        """What the server says next; None at the end."""
        while len(self._heard) < HEADER.size or len(self._heard) < self._length():
            try:
                received = self._stream.recv(1 << 20)
            except ConnectionError:
                received = b""
            if not received:
                return None
            self._heard += received
        length = self._length()
        message = decode(self._heard[4], memoryview(bytes(self._heard[HEADER.size : length])))
        del self._heard[:length]
        return message

    def _length(self) -> int:
        return HEADER.size + HEADER.unpack_from(self._heard)[0]

    def last_word(self) -> Message | None:
        """What the server says last, before it ends the session."""
        last = None
        while (message := self.hear()) is not None:
            last = message
        return last

    def hear_until(self, kind: type) -> None:
        """All up to a message of this type."""
        while not isinstance(message := self.hear(), kind):
            assert message is not None

    def greet(self) -> None:
        """As everybody does."""
        self.say(Hello(PROTOCOL_VERSION, "rogue"))
        answer = self.hear()
        assert isinstance(answer, Hello), answer

    def open(
        self, task: str, *, point: str = "main", source: str = "rogue:/source"
    ) -> Opened | None:
        """Greet and ask for a task; None if that is refused."""
        self.greet()
        self.say(Open(point, task, "root", source, dry_run=False, waits=True))
        answer = self.hear()
        if isinstance(answer, Refused):
            return None
        assert isinstance(answer, Opened), answer
        return answer


@contextlib.contextmanager
def connected(target: TlsTarget) -> Iterator[Rogue]:
    """A session over a real link, that may end in any way."""
    with contextlib.suppress(SsfsError), open_session(target, LinkOptions(linger_s=1)) as session:
        yield Rogue(session.channel._stream)


@contextlib.contextmanager
def raw_tls(target: TlsTarget) -> Iterator[ssl.SSLSocket]:
    """A TLS connection on which nothing has been said."""
    context = client_context(target.ca_path, target.key_path, target.certificate_path)
    with socket.create_connection((target.host, target.port), timeout=_PATIENCE_S) as tcp:
        with context.wrap_socket(tcp, server_hostname=SERVER_NAME) as stream:
            yield stream


def read_all(stream: socket.socket) -> bytes:
    """All that comes, however it ends."""
    heard = b""
    with contextlib.suppress(OSError):
        while received := stream.recv(1 << 16):
            heard += received
    return heard


@contextlib.contextmanager
def half_open(port: int, content: bytes = b"") -> Iterator[socket.socket]:
    """A connection whose peer says no more than this."""
    with socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE_S) as stream:
        with contextlib.suppress(OSError):
            stream.sendall(content)
        yield stream


@contextlib.contextmanager
def crowd(target: TlsTarget, count: int, *says) -> Iterator[None]:
    """So many sessions at once, each of which greets, says this, and stays."""
    release = threading.Event()
    ready = threading.Barrier(count + 1)

    def stand() -> None:
        is_ready = False
        # Who is driven out by those behind is answered nothing.
        with contextlib.suppress(SsfsError, AssertionError):
            with open_session(target, LinkOptions(linger_s=1)) as session:
                rogue = Rogue(session.channel._stream)
                if says:
                    rogue.greet()
                rogue.say(*says)
                ready.wait(120)
                is_ready = True
                release.wait(300)
        if not is_ready:
            ready.wait(120)

    threads = [threading.Thread(target=stand) for _ in range(count)]
    for thread in threads:
        thread.start()
    ready.wait(120)
    try:
        yield
    finally:
        release.set()
        for thread in threads:
            thread.join()
