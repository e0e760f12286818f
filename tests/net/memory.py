"""How much memory a pump takes when nothing moves on: `python tests/net/memory.py COMPRESSION`, in bytes.

Pairs of pumps over real TLS with engines that say all they can and hear nothing. The kernel's
buffers are not counted, as everywhere.
"""

import os
import random
import sys
import tempfile
from pathlib import Path

import trio

from ssfs.net.compression import AUTO, OFF
from ssfs.net.link import pump
from ssfs.net.options import LinkOptions
from ssfs.net.tls import TlsStream, client_context, server_context
from ssfs.net.wire import engine_socketpair
from tests.fakes.certificates import Authority

PAIRS = 6
QUIET_BYTES = 1 << 20
MIB = 1 << 20
# Does not shrink to nothing, and not to half: so that every buffer fills, and no block is judged bad.
WORDS = [random.Random(3).randbytes(8) for _ in range(200)]


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def wait_clogged(wires: list[TlsStream]) -> None:
    """Until hardly anything moves (the kernels still probe each other's windows)."""
    seen = -QUIET_BYTES
    while (
        sent := sum(wire.traffic.sent_bytes for wire in wires)
    ) - seen >= QUIET_BYTES or not sent:
        seen = sent
        await trio.sleep(2)


async def pair(contexts, options: LinkOptions, content: bytes, wires: list[TlsStream]) -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    connected = await trio.open_tcp_stream(*listener.socket.getsockname())
    client = TlsStream(connected, contexts[0], server_side=False)
    server = TlsStream(await listener.accept(), contexts[1], server_side=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.handshake)
        nursery.start_soon(server.handshake)
    wires += client, server
    async with trio.open_nursery() as nursery:
        for wire in (client, server):
            nursery.start_soon(talk, wire, options, content)


async def talk(wire, options: LinkOptions, content: bytes) -> None:
    """An engine that never listens."""
    ours, theirs = engine_socketpair()
    engine = trio.socket.from_stdlib_socket(ours)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pump, wire, theirs, options)
        while True:
            await engine.send(content)


async def measure(options: LinkOptions) -> float:
    with tempfile.TemporaryDirectory() as directory:
        ours = Authority(Path(directory))
        contexts = client_context(ours.ca, *ours.client()), server_context(*ours.server(), ours.ca)
    rng = random.Random(5)
    wires: list[TlsStream] = []
    content = b"".join(rng.choice(WORDS) for _ in range(MIB // 8))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pair, contexts, options, content, wires)
        await wait_clogged(wires)
        before = resident_bytes()
        for _ in range(PAIRS):
            nursery.start_soon(pair, contexts, options, content, wires)
        await wait_clogged(wires)
        after = resident_bytes()
        nursery.cancel_scope.cancel()
    return (after - before) / (2 * PAIRS)


if __name__ == "__main__":
    setting = {"off": OFF, "auto": AUTO}[sys.argv[1]]
    print(int(trio.run(measure, LinkOptions(compression=setting))))
