"""How fast a session's bytes go over a link, and at what cost (`pytest -m bench -s -n 0 tests/bench/test_link.py`).

Blocking engines in two processes send frames of 1 MiB one way: over a plain socket pair, over pumps and TLS on the
loopback, over pumps and pipes. For comparison the bare cipher: one `SSLObject` that encrypts, one that decrypts,
in memory. Nothing is asserted: a shared machine would make it flake. Look at CPU time first, it is the steadier one.

Rates are asserted, in windows of 10 s as a proxy between the two ends sees them.
"""

import contextlib
import os
import resource
import socket
import ssl
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from ssfs.net.channel import Channel
from ssfs.net.compression import AUTO, OFF, Compression
from ssfs.net.dial import SshTarget, TlsTarget, open_session
from ssfs.net.link import LinkOptions, pump
from ssfs.net.tls import TlsStream, client_context, server_context
from ssfs.net.wire import engine_socketpair, tune_tcp
from ssfs.protocol.messages import Checkpoint, FileEnd, FileRaw, SignaturePart
from ssfs.protocol.states import Role
from tests.fakes.certificates import Authority
from tests.fakes.delay_proxy import DelayProxy, Direction
from tests.fakes.peers import SAMPLES
from tests.net.servers import Server, go_to, take_a_file

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1200)]

MIB = 1 << 20
TOTAL_BYTES = int(os.environ.get("BENCH_MIB", "1024")) * MIB
ROUNDS = 3
ROOT = Path(__file__).parents[2]


def cpu_seconds(who: int = resource.RUSAGE_SELF) -> float:
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


def send(channel: Channel, content: bytes) -> None:
    go_to(channel, Role.CLIENT)
    for _ in range(TOTAL_BYTES // len(content)):
        channel.send(FileRaw(content))
    channel.send(SAMPLES[FileEnd])
    channel.send(Checkpoint(1))
    channel.receive()


def measured(name: str, run: Callable[[], int | None]) -> None:
    """Time it, with the processor time of this process and of the child it returns."""
    rates, costs = [], []
    for _ in range(ROUNDS):
        own, began = cpu_seconds(), time.perf_counter()
        child = run()
        seconds = time.perf_counter() - began
        own = cpu_seconds() - own
        other = 0.0
        if child is not None:
            usage = os.wait4(child, 0)[2]
            other = usage.ru_utime + usage.ru_stime
        rates.append(TOTAL_BYTES / seconds / 1e6)
        costs.append((own * 1e9 / TOTAL_BYTES, other * 1e9 / TOTAL_BYTES))
    best = max(range(ROUNDS), key=lambda at: rates[at])
    print(
        f"{name:34} {rates[best]:6.0f} MB/s (median {statistics.median(rates):.0f}),"
        f" CPU s/GB: sender {costs[best][0]:.2f}, receiver {costs[best][1]:.2f}"
    )


def forked(serve: Callable[[], None]) -> int:
    child = os.fork()
    if child == 0:
        try:
            serve()
        finally:
            os._exit(0)
    return child


def over_socketpair(content: bytes) -> int:
    ours, theirs = engine_socketpair()

    def serve() -> None:
        ours.close()
        with Channel(theirs, Role.SERVER) as channel:
            take_a_file(channel)

    child = forked(serve)
    theirs.close()
    with Channel(ours, Role.CLIENT) as channel:
        send(channel, content)
    return child


def over_tls(content: bytes, authority: Authority, compression: Compression) -> int:
    options = LinkOptions(compression=compression)
    listener = socket.create_server(("127.0.0.1", 0))
    context = server_context(*authority.server(), authority.ca)

    async def serve() -> None:
        accepting = trio.SocketListener(trio.socket.from_stdlib_socket(listener))
        stream = await accepting.accept()
        tune_tcp(stream)
        wire = TlsStream(stream, context, server_side=True)
        await wire.handshake()
        ours, theirs = engine_socketpair()

        def engine() -> None:
            with Channel(ours, Role.SERVER, wire.traffic) as channel:
                take_a_file(channel)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, engine)
            await pump(wire, theirs, options)

    child = forked(lambda: trio.run(serve))
    target = TlsTarget("127.0.0.1", listener.getsockname()[1], authority.ca, *authority.client())
    listener.close()
    with open_session(target, options) as session:
        send(session.channel, content)
    return child


def over_pipes(content: bytes) -> None:
    command = [sys.executable, str(ROOT / "tests/net/servers.py"), "take"]
    os.environ["PYTHONPATH"] = str(ROOT)
    with open_session(SshTarget(command), LinkOptions(compression=OFF)) as session:
        send(session.channel, content)


def cipher_alone(authority: Authority) -> None:
    ends = []
    bios = [ssl.MemoryBIO(), ssl.MemoryBIO()]
    client = client_context(authority.ca, *authority.client())
    server = server_context(*authority.server(), authority.ca)
    ends.append(client.wrap_bio(bios[0], bios[1], server_hostname="ssfs-server"))
    ends.append(server.wrap_bio(bios[1], bios[0], server_side=True))
    for end in (*ends, *ends):
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            continue
    content = memoryview(os.urandom(256 << 10))
    plain = memoryview(bytearray(len(content)))
    for _ in range(TOTAL_BYTES // len(content)):
        ends[0].write(content)
        got = 0
        while got < len(content):
            got += ends[1].read(len(content) - got, plain[got:])


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def test_throughput(authority: Authority) -> None:
    noise = os.urandom(MIB)
    text = b"".join(b"%d: the quick brown fox, %d\n" % (n * n, n) for n in range(40_000))[:MIB]
    print()
    measured("plain socket pair", lambda: over_socketpair(noise))
    measured("cipher alone, both ends", lambda: cipher_alone(authority))
    measured("pumps over TLS", lambda: over_tls(noise, authority, OFF))
    measured("pumps over TLS, auto, noise", lambda: over_tls(noise, authority, AUTO))
    measured("pumps over TLS, auto, text", lambda: over_tls(text, authority, AUTO))
    measured("pumps over pipes", lambda: over_pipes(noise))


@pytest.mark.parametrize("rate", [20_000, 5_000_000])
@pytest.mark.parametrize("direction", Direction)
def test_rate_holds_in_every_window(rate: int, direction: Direction, authority: Authority) -> None:
    options = LinkOptions(compression=OFF, limit_bytes_s=rate)
    context = server_context(*authority.server(), authority.ca)
    with Server(context, talk_or_listen) as server, DelayProxy(server.port) as proxy:
        target = TlsTarget("127.0.0.1", proxy.port, authority.ca, *authority.client())
        with contextlib.suppress(InterruptedError), open_session(target, options) as session:
            go_to(session.channel, Role.CLIENT)
            session.channel.send(FileRaw(direction.name.encode()))
            ends = time.monotonic() + 25
            while time.monotonic() < ends:
                if direction is Direction.UP:
                    session.channel.send(FileRaw(os.urandom(rate // 20)))
                else:
                    session.channel.receive()
            raise InterruptedError
        rates = proxy.window_rates(direction, 10)
    print(
        f"\n{direction.name} {rate}: {min(rates) / rate:.3f} to {max(rates) / rate:.3f} of the rate"
    )
    assert min(rates) > 0.95 * rate
    assert max(rates) < 1.05 * rate


def talk_or_listen(channel: Channel) -> None:
    """As the client says."""
    go_to(channel, Role.SERVER)
    messages = channel.messages()
    if bytes(next(messages).content) == b"DOWN":
        while True:
            channel.send(SignaturePart(7, last=False, content=os.urandom(100_000)))
    for _ in messages:
        pass
