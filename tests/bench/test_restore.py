"""Restores through a server, against restores of this machine and plain copies, in one run.

`pytest -m bench -s tests/bench/test_restore.py -n 0`. Client and server are two processes joined by a socket
pair, so nothing is encrypted or compressed here. The one bound that an issue promises is asserted: a long
line at most doubles the time of many small files.
"""

import os
import random
import resource
import socket
import statistics
import subprocess
import time
from pathlib import Path

import pytest

from ssfs.clock import SystemClock
from ssfs.engine.restore.client import fetch_version
from ssfs.engine.restore.local import restore_version
from ssfs.engine.restore.server import serve_restore
from ssfs.model.peer import LOCAL
from ssfs.monitor import NullMonitor
from ssfs.net.channel import Channel
from ssfs.protocol.messages import PROTOCOL_VERSION, Hello
from ssfs.protocol.states import Role
from ssfs.store.store import Store
from ssfs.store.version import Version
from tests.fakes.relays import Relay
from tests.fakes.restores import RestoreServer, request_of, store_of
from tests.fakes.syncs import Backup

pytestmark = pytest.mark.bench

_ROUNDS = 3
_MIB = 1 << 20


def here(version: Version, source: Path, out: Path) -> None:
    result = restore_version(version, (), os.fsencode(out), NullMonitor(), SystemClock())
    assert not result.problems


def remotely(version: Version, source: Path, out: Path) -> None:
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        ours.close()
        os._exit(serve(theirs, store_of(version)))
    theirs.close()
    with Channel(ours, Role.CLIENT) as channel:
        channel.send(Hello(PROTOCOL_VERSION, "bench"))
        channel.receive()
        arguments = (request_of(version), os.fsencode(out), NullMonitor(), SystemClock())
        _, result = fetch_version(channel, *arguments)
        print(f"    received {channel.received_bytes:,}, sent {channel.sent_bytes:,} bytes")
    assert not result.problems
    assert os.waitpid(child, 0)[1] == 0


def serve(stream: socket.socket, store: bytes) -> int:
    with Channel(stream, Role.SERVER) as channel:
        channel.receive()
        channel.send(Hello(PROTOCOL_VERSION, "bench"))
        serve_restore(channel, Store.open(store), LOCAL, channel.receive())
    return 0


def copied(version: Version, source: Path, out: Path) -> None:
    subprocess.run(["cp", "-a", source, out], check=True)


def cpu_s() -> float:
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


def compare(version: Version, source: Path, out: Path) -> None:
    for step in range(_ROUNDS):
        for way in (here, remotely, copied):
            # A new place each time: ext4 does not use again what was deleted in the last seconds, and
            # to make files right after deleting as many took seven times as long, whoever made them.
            place = out / f"{step}-{way.__name__}"
            place.parent.mkdir(exist_ok=True)
            began_s, began_cpu_s = time.perf_counter(), cpu_s()
            way(version, source, place)
            took_s, took_cpu_s = time.perf_counter() - began_s, cpu_s() - began_cpu_s
            print(f"round {step}, {way.__name__}: {took_s:.2f} s, {took_cpu_s:.2f} s of CPU")


def test_many_small_files(tmp_path: Path) -> None:
    source = tmp_path / "source"
    rng = random.Random(1)
    for package in range(6000):
        directory = source / f"{package // 10}" / f"{package}"
        directory.mkdir(parents=True)
        for number in range(10):
            size = min(int(rng.lognormvariate(8, 1.2)), 120_000)
            (directory / f"file{number}").write_bytes(rng.randbytes(size))
    backup = Backup(tmp_path / "store")
    backup.sync(source)
    compare(backup.newest(), source, tmp_path / "out")


def test_large_file(tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    with open(source / "image", "wb") as file:
        file.writelines(os.urandom(_MIB) for _ in range(1000))
    backup = Backup(tmp_path / "store")
    backup.sync(source)
    compare(backup.newest(), source, out)
    there = out / "0-remotely"
    began_s = time.perf_counter()
    remotely(backup.newest(), source, there)
    print(f"the same once more, all of it there: {time.perf_counter() - began_s:.2f} s")
    with open(there / "image", "r+b") as file:
        for at in range(0, 1000, 10):
            file.seek(at * _MIB)
            file.write(b"changed")
    began_s = time.perf_counter()
    remotely(backup.newest(), source, there)
    print(f"with 100 changes in it: {time.perf_counter() - began_s:.2f} s")


def test_long_line_at_most_doubles_the_time_of_small_files(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for number in range(5000):
        directory = source / f"{number // 20}"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"{number}").write_bytes(b"%d" % number * 300)
    backup = Backup(tmp_path / "store")
    backup.sync(source)
    ratios = []
    for step in range(_ROUNDS):
        took: dict[float, float] = {}
        for delay_s in (0.0, 0.05):
            took[delay_s] = through(
                Relay(delay_s), backup.newest(), tmp_path / f"out-{step}-{delay_s}"
            )
        print(f"round {step}: {took[0.0]:.2f} s, with 50 ms each way {took[0.05]:.2f} s")
        ratios.append(took[0.05] / took[0.0])
    assert statistics.median(ratios) < 2


def through(line: Relay, version: Version, out: Path) -> float:
    """Seconds that a restore through this line takes."""
    began_s = time.perf_counter()
    server = RestoreServer(store_of(version), join=line.join)
    _, result = server.restore(request_of(version), out)
    assert not result.problems
    return time.perf_counter() - began_s
