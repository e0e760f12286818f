"""Machines of their own on one machine: a network, a host name and an /etc/hosts for each, a cable between two.

Nothing of it is visible outside: the namespaces have no names, both ends of the cable are inside from the beginning, and
all of it lives as long as one process that waits for the end of its standard input. So it goes away when a test
fails, and when the tests are killed too.

A `Capture` reads all packets of a machine's end of the cable; `streams` puts TCP streams together again from them.
"""

import collections
import contextlib
import os
import shlex
import socket
import struct
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

from tests.system.programs import TIMEOUT_S

INTERFACE = "cable"

_ROOT = Path(__file__).resolve().parent.parent.parent
_HOLD = "mount --bind {hosts} /etc/hosts && hostname {name} && ip link set lo up && echo ready && exec cat"
_CAPTURE = """
import selectors, socket, struct, sys
with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire, open(sys.argv[2], "wb") as kept:
    wire.setsockopt(socket.SOL_SOCKET, 33, 256 << 20)  # SO_RCVBUFFORCE
    wire.bind((sys.argv[1], 3))  # ETH_P_ALL
    selector = selectors.DefaultSelector()
    selector.register(wire, selectors.EVENT_READ)
    selector.register(sys.stdin, selectors.EVENT_READ)
    print("ready", flush=True)
    is_over = False
    while ready := selector.select(0 if is_over else None):
        is_over = is_over or any(key.fileobj is sys.stdin for key, _ in ready)
        if is_over and not any(key.fileobj is wire for key, _ in ready):
            break
        packet = wire.recv(1 << 18)
        kept.write(struct.pack("!I", len(packet)) + packet)
    seen, dropped = struct.unpack("II", wire.getsockopt(263, 6, 8))  # SOL_PACKET, PACKET_STATISTICS
    print(seen, dropped)
"""
_PROGRAM = '#!/bin/sh\nexec {python} -m ssfs "$@"\n'

Flow = tuple[bytes, int, bytes, int]


class Host:
    """A machine.

    Attributes:
        name: What it is called.
        address: Its IPv4 address.
        environment: For what runs there; `ssfs` is in its PATH.
    """

    def __init__(self, name: str, address: str, directory: Path, hosts: dict[str, str]) -> None:
        self.name = name
        self.address = address
        directory.mkdir(parents=True)
        listed = directory / "hosts"
        lines = [f"{where} {who}\n" for who, where in {"localhost": "127.0.0.1", **hosts}.items()]
        listed.write_text("".join(lines))
        self.environment = {
            **os.environ,
            "PATH": f"{program_directory(directory)}:{os.environ['PATH']}",
            "PYTHONPATH": str(_ROOT),
            "SSFS_CONFIG_DIR": str(directory / "config"),
            "SSFS_CACHE_DIR": str(directory / "cache"),
        }
        hold = _HOLD.format(hosts=shlex.quote(str(listed)), name=name)
        self._holder = subprocess.Popen(
            ["unshare", "--net", "--uts", "--mount", "sh", "-c", hold],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._holder.stdout.readline() == "ready\n"

    @property
    def pid(self) -> int:
        """The process whose namespaces these are."""
        return self._holder.pid

    def _inside(self, command: list[str]) -> list[str]:
        return ["nsenter", f"--target={self.pid}", "--net", "--uts", "--mount", "--", *command]

    def start(self, *command: str | Path, **how: object) -> "subprocess.Popen[str]":
        """Start a program there; to be ended by the caller."""
        return subprocess.Popen(
            self._inside([*map(str, command)]), env=self.environment, text=True, **how
        )

    def run(self, *command: str | Path, stdin: str = "", expect: int = 0) -> str:
        """Run a program there to its end; what it wrote to standard output."""
        done = subprocess.run(
            self._inside([*map(str, command)]),
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert done.returncode == expect, (command, done.returncode, done.stdout, done.stderr)
        return done.stdout

    def close(self) -> None:
        """End it all; what still runs there keeps its namespaces until it ends."""
        self._holder.stdin.close()
        self._holder.stdout.close()
        self._holder.wait(TIMEOUT_S)


@contextlib.contextmanager
def two_hosts(directory: Path, one: str, other: str) -> Iterator[tuple[Host, Host]]:
    """Two machines that know each other by name, and a cable between them."""
    places = {one: "10.97.0.1", other: "10.97.0.2"}
    with contextlib.ExitStack() as stack:
        hosts = []
        for name, address in places.items():
            hosts.append(Host(name, address, directory / name, places))
            stack.callback(hosts[-1].close)
        end = f"type veth peer name {INTERFACE} netns {hosts[1].pid}"
        hosts[0].run("ip", "link", "add", INTERFACE, *end.split())
        for host in hosts:
            host.run("ip", "address", "add", f"{host.address}/24", "dev", INTERFACE)
            host.run("ip", "link", "set", INTERFACE, "up")
        yield hosts[0], hosts[1]


class Capture:
    """All packets of a machine's end of the cable, while it lasts."""

    def __init__(self, host: Host, path: Path) -> None:
        self.path = path
        self._reader = host.start(
            *(sys.executable, "-c", textwrap.dedent(_CAPTURE), INTERFACE, path),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._reader.stdout.readline() == "ready\n"

    def __enter__(self) -> "Capture":
        return self

    def __exit__(self, *_: object) -> None:
        """End it, with all packets that there were before; none may have been lost."""
        told, _ = self._reader.communicate("", TIMEOUT_S)
        seen, dropped = map(int, told.split())
        assert seen > 0
        assert dropped == 0

    def packets(self) -> Iterator[bytes]:
        """Every packet, as it was on the cable."""
        with open(self.path, "rb") as kept:
            while head := kept.read(4):
                yield kept.read(*struct.unpack("!I", head))


def streams(packets: Iterator[bytes]) -> dict[Flow, bytes]:
    """The TCP streams in packets, one for each direction of each connection, without holes."""
    parts: dict[Flow, dict[int, bytes]] = collections.defaultdict(dict)
    begins: dict[Flow, int] = {}
    for packet in packets:
        if packet[12:14] != b"\x08\x00" or packet[23] != socket.IPPROTO_TCP:
            continue
        segment = packet[14 + 4 * (packet[14] & 15) : 14 + int.from_bytes(packet[16:18], "big")]
        sender, receiver, number = struct.unpack_from("!HHI", segment)
        flow = (packet[26:30], sender, packet[30:34], receiver)
        if segment[13] & 2:  # SYN
            begins[flow] = number + 1
        content = segment[4 * (segment[12] >> 4) :]
        if content:
            at = (number - begins[flow]) % (1 << 32)
            parts[flow][at] = max(content, parts[flow].get(at, b""), key=len)
    return {flow: _joined(pieces) for flow, pieces in parts.items()}


def _joined(pieces: dict[int, bytes]) -> bytes:
    stream = bytearray()
    for at, content in sorted(pieces.items()):
        assert at <= len(stream), "a packet is missing"
        stream += content[len(stream) - at :]
    return bytes(stream)


def program_directory(directory: Path) -> Path:
    """A directory for PATH that holds `ssfs`, and nothing else."""
    place = directory / "bin"
    place.mkdir(parents=True)
    (place / "ssfs").write_text(_PROGRAM.format(python=shlex.quote(sys.executable)))
    (place / "ssfs").chmod(0o755)
    return place
