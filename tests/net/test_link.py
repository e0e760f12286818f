"""Pumps: what goes in at one end comes out at the other, until one ends, is cut, or falls silent."""

import random
from collections.abc import Callable

import pytest
import trio

from ssfs.errors import ConnectionLost, RemoteProtocolError, TrustError
from ssfs.net.blocks import END, HEADER, KEEP_ALIVE, Kind, Preamble, encode_preamble
from ssfs.net.compression import AUTO, OFF, Compression, at_level
from ssfs.net.options import LinkOptions
from tests.fakes.wires import MemoryWire, memory_wires
from tests.net.links import DEFAULT, MIB, Side, running, say_for_ever, wait_ended

PLAIN = LinkOptions(compression=OFF)
"""For every test with the autojump clock: it would jump while a thread compresses."""
HELLO = encode_preamble(Preamble())


def joined(a: LinkOptions = DEFAULT, b: LinkOptions = DEFAULT, **wire: int) -> tuple[Side, Side]:
    left, right = memory_wires(**wire)
    return Side(left, a), Side(right, b)


def against() -> tuple[Side, MemoryWire]:
    """A pump, and the other end of its wire for a test that plays the peer by hand."""
    left, right = memory_wires()
    return Side(left, PLAIN), right


@pytest.mark.parametrize("compression", [OFF, AUTO, at_level(1), at_level(19)])
async def test_streams_cross_whole(compression: Compression):
    a, b = joined(LinkOptions(compression=compression), receive_bytes=50_001)
    rng = random.Random(5)
    there = b"".join(rng.randbytes(7) * rng.randrange(2000) for _ in range(400))
    back = rng.randbytes(3 * MIB)
    async with running(a, b):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(a.say, there)
            nursery.start_soon(b.say, back)

            async def hear_back() -> None:
                assert await a.hear(len(back)) == back

            nursery.start_soon(hear_back)
            assert await b.hear(len(there)) == there
        a.engine.close()
        await wait_ended(a, b)
    assert (a.failure, b.failure) == (None, None)
    assert a.wire.traffic.sent_bytes == b.wire.traffic.received_bytes


async def test_all_that_was_said_before_the_end_arrives():
    a, b = joined()
    said = bytes(range(256)) * 8192
    async with running(a, b), trio.open_nursery() as nursery:

        async def say_and_go() -> None:
            await a.say(said)
            a.engine.close()

        nursery.start_soon(say_and_go)
        got = await b.hear_end()
        assert (len(got), got == said) == (len(said), True), (a.failure, b.failure)
        await wait_ended(a, b)
    assert (a.failure, b.failure) == (None, None)
    assert a.wire.is_closed
    assert b.wire.is_closed


async def test_last_word_is_heard_by_an_engine_that_is_busy_sending():
    """A server refuses and closes while the client goes on sending."""
    client, server = joined()
    async with running(client, server), trio.open_nursery() as nursery:
        nursery.start_soon(say_for_ever, client)
        await server.hear(2 * MIB)
        await server.say(b"no space here")
        server.engine.close()
        assert await client.hear_end() == b"no space here"
        await wait_ended(client, server)
    assert (client.failure, server.failure) == (None, None)


async def test_both_end_at_once():
    a, b = joined()
    async with running(a, b):
        await a.say(b"a")
        await b.say(b"b")
        a.engine.close()
        b.engine.close()
        await wait_ended(a, b)
    assert (a.failure, b.failure) == (None, None)


async def test_engine_that_leaves_unread_what_it_was_told_is_a_clean_end():
    a, b = joined()
    async with running(a, b):
        await b.say(b"never read")
        await a.wait_delivered(10)
        await a.say(b"bye")
        a.engine.close()
        assert await b.hear_end() == b"bye"
        await wait_ended(a, b)
    assert (a.failure, b.failure) == (None, None)


async def test_a_cut_is_an_error_at_both_ends_after_what_had_come():
    a, b = joined()
    async with running(a, b):
        await a.say(b"before the cut")
        assert await b.hear(14) == b"before the cut"
        a.wire.break_off()
        assert await b.hear_end() == b""
        assert await a.hear_end() == b""
        await wait_ended(a, b)
    assert isinstance(a.failure, ConnectionLost)
    assert isinstance(b.failure, ConnectionLost)
    assert a.wire.is_closed
    assert b.wire.is_closed


@pytest.mark.parametrize(
    "told", [b"", HELLO[:7], HELLO, HELLO + HEADER.pack(9, Kind.PLAIN) + b"part"]
)
async def test_wire_that_closes_without_an_end_block_was_cut(told: bytes):
    a, peer = against()
    async with running(a):
        await peer.send_all(told)
        await peer.aclose()
        assert (await a.hear_end()) in {b"", b"part"}
        await wait_ended(a)
    assert isinstance(a.failure, ConnectionLost)
    assert "closed" in str(a.failure)
    assert ("before the other end said anything" in str(a.failure)) == (HELLO not in told)


@pytest.mark.parametrize(
    "said",
    [b"HTTP/1.1 400 Bad Request\r\n", b"Welcome to nas1!\nssfslink", bytes(40), b"\xff" * 40],
)
async def test_other_programs_are_told_from_ssfs(said: bytes):
    a, peer = against()
    async with running(a):
        await peer.send_all(said)
        assert await a.hear_end() == b""
        await wait_ended(a)
    assert isinstance(a.failure, RemoteProtocolError)
    assert "does not speak ssfs" in str(a.failure)
    assert "\n" not in str(a.failure)


async def test_silence_is_given_up(autojump_clock):
    a, peer = against()
    async with running(a):
        await peer.send_all(HELLO + HEADER.pack(5, Kind.PLAIN) + b"hello")
        assert await a.hear(5) == b"hello"
        heard_s = trio.current_time()
        assert await a.hear_end() == b""
        await wait_ended(a)
        assert trio.current_time() - heard_s == pytest.approx(60)
    assert isinstance(a.failure, ConnectionLost)
    assert "timed out" in str(a.failure)
    sent = await everything(peer)
    assert sent.count(KEEP_ALIVE) == 3
    assert END not in sent


async def everything(peer: MemoryWire) -> bytes:
    got = b""
    while piece := await peer.receive_some():
        got += piece
    return got


async def test_any_byte_counts_as_a_sign_of_life(autojump_clock):
    a, peer = against()
    block = HELLO + HEADER.pack(3, Kind.PLAIN) + b"abc"
    async with running(a):
        for byte in block:
            await peer.send_all(bytes([byte]))
            await trio.sleep(59)
        assert await a.hear(3) == b"abc"
        assert not a.ended.is_set()


async def test_keep_alives_hold_a_silent_link(autojump_clock):
    a, b = joined(PLAIN, PLAIN)
    async with running(a, b):
        await trio.sleep(3600)
        await a.say(b"still there?")
        assert await b.hear(12) == b"still there?"
        assert a.wire.traffic.sent_bytes < len(HELLO) + 5 * 240 + 20


async def test_engine_may_take_its_time(autojump_clock):
    """A server that spends minutes in one disk call neither times out nor is timed out."""
    a, b = joined(PLAIN, PLAIN)
    said = random.Random(1).randbytes(12 * MIB)
    async with running(a, b), trio.open_nursery() as nursery:
        nursery.start_soon(a.say, said)
        await trio.sleep(600)
        assert await b.hear(len(said)) == said
        assert (a.failure, b.failure) == (None, None)


async def test_other_end_that_never_ends_is_waited_for_a_little(autojump_clock):
    a, peer = against()
    async with running(a):
        await peer.send_all(HELLO)
        await a.say(b"bye")
        a.engine.close()
        await wait_ended(a)
        assert trio.current_time() == pytest.approx(5, abs=0.1)
    assert a.failure is None
    assert (await everything(peer)).endswith(b"bye" + END)


async def test_cancelled_pump_closes_both(autojump_clock):
    a, b = joined(PLAIN, PLAIN)
    async with running(a, b):
        await a.say(b"arrives")
        assert await b.hear(7) == b"arrives"
        a.scope.cancel()
        assert await a.hear_end() == b""
        assert await b.hear_end() == b""
        await wait_ended(a, b)
        assert trio.current_time() == 0
    assert isinstance(b.failure, ConnectionLost)


async def test_cancelled_pump_whose_wire_takes_nothing(autojump_clock):
    a, peer = against()
    async with running(a):
        with trio.move_on_after(1):
            await a.say(bytes(64 * MIB))
        a.scope.cancel()
        await wait_ended(a)
        assert trio.current_time() == 1
    assert peer._has_ended


class Refusing(MemoryWire):
    """Sends fail at once; what is received explains it, a moment later."""

    def __init__(self, receive: Callable) -> None:
        super().__init__()
        self._explain = receive

    async def send_all(self, data) -> None:
        await trio.lowlevel.checkpoint()
        raise ConnectionLost("The connection broke (Broken pipe)")

    async def receive_some(self) -> bytes:
        await trio.sleep(0.5)
        return self._explain()


def alert() -> bytes:
    raise TrustError("The server does not accept this client's certificate")


def reset() -> bytes:
    raise ConnectionLost("The connection broke (Connection reset by peer)")


async def test_reason_for_a_broken_send_is_looked_for(autojump_clock):
    a = Side(Refusing(alert))
    async with running(a):
        await wait_ended(a)
    assert isinstance(a.failure, TrustError)


async def test_broken_connection_is_raised_once(autojump_clock):
    a = Side(Refusing(reset))
    async with running(a):
        await wait_ended(a)
    assert isinstance(a.failure, ConnectionLost)
    assert "reset" in str(a.failure)


async def test_last_word_survives_a_broken_send(autojump_clock):
    said = HELLO + HEADER.pack(7, Kind.PLAIN) + b"refused" + END
    a = Side(Refusing(lambda: said))
    async with running(a):
        assert await a.hear_end() == b"refused"
        await wait_ended(a)
    assert a.failure is None


@pytest.mark.parametrize(
    ("own", "asked", "is_smaller"),
    [
        (None, None, True),
        (AUTO, None, True),
        (None, AUTO, True),
        (None, at_level(3), True),
        (OFF, AUTO, False),
        (AUTO, OFF, False),
        (None, OFF, False),
    ],
)
async def test_compression_is_agreed_on(own, asked, is_smaller):
    client, server = joined(LinkOptions(compression=asked), LinkOptions(compression=own))
    async with running(client, server):
        await client.say(b"hello")
        assert await server.hear(5) == b"hello"
        await server.say(bytes(MIB))
        assert await client.hear(MIB) == bytes(MIB)
        sent = server.wire.traffic.sent_bytes
        assert (sent < 10_000) if is_smaller else (sent > MIB)


async def test_rate_is_kept_in_both_directions_at_the_wish_of_one_end(autojump_clock):
    rate = 100_000
    client, server = joined(LinkOptions(limit_bytes_s=rate, compression=OFF))
    async with running(client, server), trio.open_nursery() as nursery:
        await client.say(b"hello")
        assert await server.hear(5) == b"hello"
        for side in (client, server):
            nursery.start_soon(side.say, bytes(8 * MIB))
        for side in (client, server):
            nursery.start_soon(side.hear, 8 * MIB)
        await trio.sleep(1)
        for _ in range(10):
            before = [side.wire.traffic.sent_bytes for side in (client, server)]
            await trio.sleep(2)
            after = [side.wire.traffic.sent_bytes for side in (client, server)]
            for start, end in zip(before, after, strict=True):
                assert end - start == pytest.approx(2 * rate, rel=0.06)
        nursery.cancel_scope.cancel()


async def test_slow_rate_leaves_time_for_signs_of_life(autojump_clock):
    client, server = joined(LinkOptions(limit_bytes_s=1000, compression=OFF))
    async with running(client, server), trio.open_nursery() as nursery:
        nursery.start_soon(client.say, bytes(70_000))
        await server.hear(70_000)
        assert trio.current_time() == pytest.approx(70, rel=0.05)
        assert (client.failure, server.failure) == (None, None)
