"""The pump, at the end of a packet socket instead of /dev/fuse."""

import errno
import os
import socket
import struct
from collections.abc import Callable, Coroutine, Iterator

import pytest
import trio

from ssfs.mount.pump import Answer, Pump
from ssfs.mount.wire import Request


def message(unique: int, opcode: int = 1, body: bytes = b"") -> bytes:
    return struct.pack("=IIQQIIIHH", 40 + len(body), opcode, unique, 1, 0, 0, 0, 0, 0) + body


def answer_of(packet: bytes) -> tuple[int, int, bytes]:
    """Unique number, errno, payload."""
    length, number, unique = struct.unpack_from("=IiQ", packet)
    assert length == len(packet)
    return unique, -number, packet[16:]


class Kernel:
    """The other end."""

    def __init__(self) -> None:
        self.end, self.mounts_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.end.setblocking(False)

    def ask(self, *messages: bytes) -> None:
        for sent in messages:
            self.end.send(sent)

    async def take(self) -> tuple[int, int, bytes]:
        with trio.fail_after(10):
            await trio.lowlevel.wait_readable(self.end)
        return answer_of(self.end.recv(1 << 21))

    def pump(self, answer: Callable[[Request], Coroutine[object, object, Answer]]) -> Pump:
        return Pump(self.mounts_end.fileno(), answer, lambda: None)


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    kernel = Kernel()
    yield kernel
    kernel.end.close()
    kernel.mounts_end.close()


async def test_payloads_errnos_and_silence(kernel, nursery):
    async def answer(request: Request) -> Answer:
        if request.opcode == 2:
            return None
        return errno.ENOENT if request.opcode == 3 else request.body * 2

    pump = kernel.pump(answer)
    nursery.start_soon(pump.run)
    kernel.ask(message(1, 1, b"ab"), message(2, 2), message(3, 3), message(4, 1, b"x" * 9000))
    assert await kernel.take() == (1, 0, b"abab")
    assert await kernel.take() == (3, errno.ENOENT, b"")
    assert await kernel.take() == (4, 0, b"x" * 18000)
    pump.stop()


async def test_who_waits_keeps_nobody_waiting(kernel, nursery):
    gate = trio.Event()

    async def answer(request: Request) -> Answer:
        if request.opcode == 15:
            await gate.wait()
        return b"%d" % request.opcode

    pump = kernel.pump(answer)
    nursery.start_soon(pump.run)
    kernel.ask(*(message(unique, 15) for unique in range(30)), message(99, 1))
    assert await kernel.take() == (99, 0, b"1")
    gate.set()
    assert sorted([await kernel.take() for _ in range(30)]) == [(n, 0, b"15") for n in range(30)]
    kernel.ask(message(100, 1))
    assert (await kernel.take())[0] == 100
    pump.stop()


async def test_a_worker_threads_result_and_error_come_back(kernel, nursery):
    def fail() -> None:
        raise OSError(errno.EIO, "as a disk would")

    async def answer(request: Request) -> Answer:
        try:
            await trio.to_thread.run_sync(fail if request.opcode == 3 else os.getpid)
        except OSError as error:
            return error.errno
        return b"read"

    pump = kernel.pump(answer)
    nursery.start_soon(pump.run)
    kernel.ask(message(1, 2), message(2, 3))
    assert {await kernel.take(), await kernel.take()} == {(1, 0, b"read"), (2, errno.EIO, b"")}
    pump.stop()


async def test_others_have_their_turn_while_requests_keep_coming(kernel):
    turns = 0

    async def answer(request: Request) -> Answer:
        kernel.ask(message(request.unique + 1, 2))  # there is always another one
        return None

    async def count() -> None:
        nonlocal turns
        while turns < 5:
            turns += 1
            await trio.lowlevel.checkpoint()
        pump.stop()

    pump = kernel.pump(answer)
    kernel.ask(message(1, 2))
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pump.run)
            nursery.start_soon(count)
    assert turns == 5


async def test_stop_breaks_off_what_waits(kernel):
    asked = trio.Event()

    async def answer(_: Request) -> Answer:
        asked.set()
        await trio.sleep_forever()
        return b""

    pump = kernel.pump(answer)
    kernel.ask(message(1), message(2))
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pump.run)
            await asked.wait()
            pump.stop()
