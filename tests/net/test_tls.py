"""TLS against a real peer (`trio.SSLStream`, the openssl program), byte by byte, cut, and with wrong certificates."""

import functools
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from ssfs.errors import ConfigError, ConnectionLost, TrustError
from ssfs.net.tls import (
    SERVER_NAME,
    TlsStream,
    client_context,
    server_context,
    unverified_context,
)
from tests.fakes.certificates import Authority
from tests.fakes.wires import ByteWise, CutShort

MIB = 1 << 20


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ours"))


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("others"), "another")


@pytest.fixture(scope="module")
def server(ours: Authority) -> ssl.SSLContext:
    return server_context(*ours.server(), ours.ca)


@pytest.fixture(scope="module")
def client(ours: Authority) -> ssl.SSLContext:
    return client_context(ours.ca, *ours.client())


class Plain:
    """A `trio.SSLStream` with the interface of a wire."""

    def __init__(self, stream: trio.SSLStream) -> None:
        self.stream = stream

    async def handshake(self) -> None:
        await self.stream.do_handshake()

    async def send_all(self, data) -> None:
        await self.stream.send_all(data)

    async def receive_some(self) -> bytes:
        return bytes(await self.stream.receive_some(100_000))

    async def aclose(self) -> None:
        await self.stream.aclose()


def real(transport, context: ssl.SSLContext, *, server_side: bool) -> Plain:
    name = None if server_side else SERVER_NAME
    return Plain(trio.SSLStream(transport, context, server_side=server_side, server_hostname=name))


Wrap = Callable[[trio.abc.HalfCloseableStream], trio.abc.HalfCloseableStream]


def as_it_is(stream):
    return stream


async def joined(
    make_client, make_server, contexts, wrap: Wrap = as_it_is, wrap_server: Wrap | None = None
):
    """Two ends after their handshake."""
    left, right = trio.testing.memory_stream_pair()
    a = make_client(wrap(left), contexts[0], server_side=False)
    b = make_server((wrap_server or wrap)(right), contexts[1], server_side=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(a.handshake)
        nursery.start_soon(b.handshake)
    return a, b


async def receive(stream, count: int) -> bytes:
    got = bytearray()
    while len(got) < count:
        piece = await stream.receive_some()
        assert piece
        got += piece
    assert len(got) == count
    return bytes(got)


async def close_both(*streams) -> None:
    async with trio.open_nursery() as nursery:
        for stream in streams:
            nursery.start_soon(stream.aclose)


PAIRINGS = [(TlsStream, TlsStream), (TlsStream, real), (real, TlsStream)]


@pytest.mark.parametrize("size", [1, 16_384, 3 * MIB + 17])
@pytest.mark.parametrize(("make_client", "make_server"), PAIRINGS)
async def test_bytes_arrive_both_ways_at_once(make_client, make_server, size, client, server):
    a, b = await joined(make_client, make_server, (client, server))
    there, back = bytes(range(256)) * (size // 256) + b"x" * (size % 256), b"b" * size

    async def check(stream, expected: bytes) -> None:
        assert await receive(stream, len(expected)) == expected

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(a.send_all, memoryview(there))
            nursery.start_soon(b.send_all, bytearray(back))
            nursery.start_soon(check, a, back)
            nursery.start_soon(check, b, there)
        await close_both(a, b)


@pytest.mark.parametrize(("make_client", "make_server"), PAIRINGS)
async def test_transport_that_gives_single_bytes(make_client, make_server, client, server):
    a, b = await joined(make_client, make_server, (client, server), ByteWise)
    for sender, receiver in ((a, b), (b, a)):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sender.send_all, b"one byte at a time" * 50)
            assert await receive(receiver, 900) == b"one byte at a time" * 50
    await close_both(a, b)


@pytest.mark.parametrize(("make_client", "make_server"), PAIRINGS)
async def test_clean_end_is_empty_and_stays_so(make_client, make_server, client, server):
    a, b = await joined(make_client, make_server, (client, server))
    if isinstance(a, TlsStream):
        a, b = b, a
    await a.send_all(b"the last word")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(a.aclose)
        assert await receive(b, 13) == b"the last word"
        assert bytes(await b.receive_some()) == b""
        assert bytes(await b.receive_some()) == b""
        nursery.start_soon(b.aclose)


async def test_many_records_are_handed_out_at_once(client, server):
    a, b = await joined(TlsStream, TlsStream, (client, server))
    await a.send_all(bytes(200_000))
    assert len(await b.receive_some()) == 200_000
    assert a.traffic.sent_bytes == b.traffic.received_bytes > 200_000
    await close_both(a, b)


async def test_cut_at_any_byte_is_no_clean_end(client, server):
    text = b"0123456789" * 3
    a, b = await joined(TlsStream, TlsStream, (client, server))
    handshake = a.traffic.sent_bytes
    await a.send_all(text)
    whole = a.traffic.sent_bytes
    await close_both(a, b)
    for length in range(handshake, whole + 1):
        a, b = await joined(
            TlsStream,
            TlsStream,
            (client, server),
            wrap_server=functools.partial(CutShort, after_bytes=length),
        )
        await a.send_all(text)
        if length == whole:
            assert bytes(await b.receive_some()) == text
        with pytest.raises(ConnectionLost, match="cut"):
            await b.receive_some()
        await close_both(a, b)


async def test_damaged_record_is_an_error_after_what_came_before_it(client, server):
    a, b = await joined(TlsStream, TlsStream, (client, server), Damaging)
    await a.send_all(b"good")
    a._transport.is_damaging = True
    await a.send_all(b"damaged")
    assert bytes(await b.receive_some()) == b"good"
    with pytest.raises(ConnectionLost, match="broke"):
        await b.receive_some()
    await close_both(a, b)


class Damaging(ByteWise):
    """Flips a bit of what is sent, once told so; receives at once what is there."""

    is_damaging = False

    async def send_all(self, data) -> None:
        changed = bytearray(data)
        changed[-1] ^= self.is_damaging
        await super().send_all(changed)

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._stream.receive_some(max_bytes)


async def test_send_that_was_cancelled_leaves_no_clean_end(client, server):
    a, b = await joined(TlsStream, TlsStream, (client, server), Clogged)
    a._transport.is_clogged = True
    with trio.move_on_after(0.01) as scope:
        await a.send_all(bytes(MIB))
    assert scope.cancelled_caught
    a._transport.is_clogged = False
    await a.aclose()
    with pytest.raises(ConnectionLost, match="cut"):
        await b.receive_some()
    await b.aclose()


class Clogged(Damaging):
    """Sends nothing while it is clogged."""

    is_clogged = False

    async def send_all(self, data) -> None:
        if self.is_clogged:
            await trio.sleep_forever()
        await super().send_all(data)


async def test_session_tickets_do_not_disturb_a_client_that_sends(client, ours):
    with_tickets = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with_tickets.load_cert_chain(*reversed(ours.server()))
    assert with_tickets.num_tickets == 2
    a, b = await joined(TlsStream, real, (client, with_tickets))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(a.send_all, bytes(MIB))
        nursery.start_soon(b.send_all, b"hello")
        assert await receive(a, 5) == b"hello"
        assert await receive(b, MIB) == bytes(MIB)
    await close_both(a, b)


def test_no_tickets_are_given_out(server):
    assert server.num_tickets == 0


async def tcp_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    """(connected, accepted) over the loopback."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        connected = await trio.open_tcp_stream(*listener.socket.getsockname())
        return connected, await listener.accept()


async def test_key_updates_while_bytes_go_both_ways(server, ours):
    """`openssl s_client` renews its keys and asks for ours to be renewed ("K") between lines of text."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-CAfile", str(ours.ca)]
    process = await trio.lowlevel.open_process(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with trio.fail_after(60):
        stream = TlsStream(await listener.accept(), server, server_side=True)
        await stream.handshake()
        printed = bytearray()

        async def wait_printed(text: bytes, times: int) -> None:
            while printed.count(text) < times:
                printed.extend(await process.stdout.receive_some(1 << 16))

        for number in range(5):
            line = b"line %d\n" % number
            await process.stdin.send_all(line)
            assert await receive(stream, len(line)) == line
            await process.stdin.send_all(b"K\n")
            await wait_printed(b"KEYUPDATE", number + 1)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.send_all, b"%d" % number * 50_000 + b"\n")
                await process.stdin.send_all(b"after\n")
                assert await receive(stream, 6) == b"after\n"
            await wait_printed(b"%d" % number * 50_000, 1)
        await process.stdin.aclose()
        assert bytes(await stream.receive_some()) == b""
        await stream.aclose()
        await process.stdout.aclose()
        await process.wait()
    await listener.aclose()


async def test_peer_certificates(server, ours):
    key, certificate = ours.client("nas7")
    own_key, own_certificate = ours.server()
    contexts = (
        client_context(ours.ca, key, certificate),
        server_context(own_key, own_certificate, ours.ca),
    )
    a, b = await joined(TlsStream, TlsStream, contexts)
    for stream, path in ((a, own_certificate), (b, certificate)):
        assert stream.peer_certificate() == ssl.PEM_cert_to_DER_cert(path.read_text())
    await close_both(a, b)
    a, b = await joined(TlsStream, TlsStream, (client_context(ours.ca), server))
    assert b.peer_certificate() is None
    await close_both(a, b)


async def attempt(client: ssl.SSLContext, server: ssl.SSLContext) -> tuple[object, object]:
    """What a client and a server over TCP make of each other: bytes, or the error each met."""
    connected, accepted = await tcp_pair()
    outcome: dict[bool, object] = {}

    async def run(
        transport: trio.SocketStream, context: ssl.SSLContext, *, is_server: bool
    ) -> None:
        stream = TlsStream(transport, context, server_side=is_server)
        try:
            await stream.handshake()
            await stream.send_all(b"hello")
            outcome[is_server] = bytes(await stream.receive_some())
        except (TrustError, ConnectionLost) as error:
            outcome[is_server] = error
        finally:
            await stream.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(functools.partial(run, connected, client, is_server=False))
        nursery.start_soon(functools.partial(run, accepted, server, is_server=True))
    return outcome[False], outcome[True]


async def test_server_of_another_authority_is_not_trusted(client, others):
    at_client, at_server = await attempt(client, server_context(*others.server(), others.ca))
    assert isinstance(at_client, TrustError)
    assert "server's certificate is not of the store" in str(at_client)
    assert isinstance(at_server, TrustError)
    assert "client does not accept" in str(at_server)


async def test_name_of_the_server_must_be_ours(client, ours):
    at_client, _ = await attempt(client, server_context(*ours.server("nas2.example"), ours.ca))
    assert isinstance(at_client, TrustError)


async def test_client_certificate_makes_no_server(client, ours):
    at_client, _ = await attempt(client, server_context(*ours.client("ssfs-server"), ours.ca))
    assert isinstance(at_client, TrustError)


@pytest.mark.parametrize("kind", ["of another authority", "of a server"])
async def test_client_with_a_wrong_certificate_hears_why(kind, server, ours, others):
    pair = others.client() if kind == "of another authority" else ours.server()
    at_client, at_server = await attempt(client_context(ours.ca, *pair), server)
    assert isinstance(at_server, TrustError)
    assert "client's certificate is not of this store" in str(at_server)
    assert isinstance(at_client, TrustError)
    assert "server does not accept this client's certificate" in str(at_client)


@pytest.mark.parametrize("starts_in_days", [-1000, 1000])
async def test_dates_of_certificates_do_not_count(starts_in_days, ours):
    a = client_context(ours.ca, *ours.client(starts_in_days=starts_in_days))
    b = server_context(*ours.server(starts_in_days=starts_in_days), ours.ca)
    assert await attempt(a, b) == (b"hello", b"hello")


async def test_unverified_client_sees_the_certificate(server, ours):
    assert await attempt(unverified_context(), server) == (b"hello", b"hello")


async def test_older_tls_is_not_spoken(client, ours):
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    old.load_cert_chain(*reversed(ours.server()))
    at_client, at_server = await attempt(client, old)
    assert isinstance(at_client, ConnectionLost)
    assert isinstance(at_server, ConnectionLost)


async def test_peer_that_speaks_something_else(client):
    left, right = trio.testing.memory_stream_pair()
    stream = TlsStream(left, client, server_side=False)
    await right.send_all(b"220 mail.example ESMTP\r\n")
    with pytest.raises(ConnectionLost, match="handshake failed"):
        await stream.handshake()
    await right.send_eof()
    await stream.aclose()


def old_hello() -> bytes:
    """The first words of a client that speaks TLS 1.2 at most."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    said = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), said, server_hostname=SERVER_NAME).do_handshake()
    return said.read()


async def test_peer_of_a_failed_handshake_can_read_why(server):
    """All that it sent meanwhile is read, else the kernel would answer with a reset."""
    connected, accepted = await tcp_pair()
    stream = TlsStream(accepted, server, server_side=True)
    heard = bytearray()

    async def talk() -> None:
        await connected.send_all(old_hello() + bytes(1_000_000))
        while piece := await connected.receive_some():
            heard.extend(piece)
        await connected.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(talk)
        with pytest.raises(ConnectionLost):
            await stream.handshake()
        await stream.aclose()
    assert heard[0] == 21  # an alert


async def test_peer_that_hangs_up(client):
    left, right = trio.testing.memory_stream_pair()
    stream = TlsStream(left, client, server_side=False)
    await right.aclose()
    with pytest.raises(ConnectionLost):
        await stream.handshake()
    await stream.aclose()


async def test_peer_that_neither_reads_nor_closes_holds_up_a_close_for_a_second(
    client, autojump_clock
):
    left, right = trio.testing.lockstep_stream_pair()
    stream = TlsStream(left, client, server_side=False)
    with trio.move_on_after(5):
        await stream.handshake()
    began = trio.current_time()
    await stream.aclose()
    assert trio.current_time() - began <= 1
    await right.aclose()


def test_files_that_are_of_no_use(tmp_path: Path, ours: Authority):
    key, certificate = ours.client()
    other_key, _ = ours.client("other")
    garbage = tmp_path / "garbage"
    garbage.write_text("no certificate")
    for arguments in (
        (tmp_path / "missing",),
        (garbage,),
        (ours.ca, tmp_path / "missing", certificate),
        (ours.ca, key, garbage),
        (ours.ca, other_key, certificate),
    ):
        with pytest.raises(ConfigError, match="of no use"):
            client_context(*arguments)
    with pytest.raises(ConfigError):
        server_context(garbage, certificate, ours.ca)


def test_key_with_a_password_is_refused_not_asked_for(tmp_path: Path, ours: Authority):
    key, certificate = ours.client()
    locked = tmp_path / "locked.key"
    subprocess.run(
        ["openssl", "pkey", "-in", key, "-aes256", "-passout", "pass:secret", "-out", locked],
        check=True,
    )
    with pytest.raises(ConfigError):
        client_context(ours.ca, locked, certificate)
