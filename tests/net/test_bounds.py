"""A pump takes no more than it can hand on, so a slow end slows the other one down and nothing piles up."""

import array
import fcntl
import subprocess
import sys
import termios
from pathlib import Path

import pytest
import trio

from ssfs.net.blocks import HEADER, Kind, Preamble, encode_preamble
from ssfs.net.compression import OFF
from ssfs.net.link import HELD_BYTES
from ssfs.net.options import LinkOptions
from tests.fakes.wires import memory_wires
from tests.net.links import MIB, Side, running

PLAIN = LinkOptions(compression=OFF)
BLOCK_BYTES = 256 << 10
LEVEL_3_TABLES_BYTES = 2_700_000
ROOT = Path(__file__).parents[2]


def unread_bytes(stream: trio.socket.SocketType) -> int:
    """What lies in a socket's receive buffer."""
    count = array.array("i", [0])
    fcntl.ioctl(stream.fileno(), termios.FIONREAD, count)
    return count[0]


async def test_engine_cannot_run_ahead_of_its_wire(autojump_clock):
    left, _ = memory_wires(room_bytes=100_000)
    side = Side(left, PLAIN)
    said = 0
    async with running(side):
        with trio.move_on_after(1):
            while True:
                said += await side.engine.send(bytes(MIB))
        taken = said - unread_bytes(side.pump_socket)
        assert 0 < taken <= BLOCK_BYTES + left.traffic.sent_bytes


async def test_wire_cannot_run_ahead_of_the_engine(autojump_clock):
    left, peer = memory_wires(receive_bytes=50_000)
    side = Side(left, PLAIN)
    async with running(side):
        with trio.move_on_after(1):
            await peer.send_all(encode_preamble(Preamble()))
            while True:
                await peer.send_all(HEADER.pack(MIB, Kind.PLAIN) + bytes(MIB))
        delivered = unread_bytes(side.engine)
        assert delivered > 0
        assert left.traffic.received_bytes - delivered <= 50_000 + 1000


@pytest.mark.slow
@pytest.mark.parametrize(
    ("compression", "bound_bytes"),
    [("off", HELD_BYTES), ("auto", HELD_BYTES + LEVEL_3_TABLES_BYTES)],
)
def test_memory_of_a_clogged_pump_is_bounded(compression: str, bound_bytes: int):
    command = [sys.executable, str(ROOT / "tests/net/memory.py"), compression]
    run = subprocess.run(
        command, check=True, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)}
    )
    assert 500_000 < int(run.stdout) <= bound_bytes
