"""Eight clients at once against the same eight one after another (`pytest -m bench -s tests/bench/test_many.py -n 0`).

Each client is a program of its own with a tree of its own; both rounds send the same bytes, to two stores. While the
eight run, each has to move bytes in every second.
"""

import os
import re
import subprocess
import time
from pathlib import Path

import pytest

from tests.fakes.trees import build_tree
from tests.system.crowd import enrolled
from tests.system.servers import Machine, ServedStore, served

pytestmark = pytest.mark.bench

_CLIENTS = 8
_LARGE_BYTES = int(os.environ.get("SSFS_BENCH_BYTES", "150000000"))
_SMALL_FILES = 1500


def _crowd(server: ServedStore, tmp_path: Path, label: str) -> list[tuple[Machine, Path]]:
    return [
        (enrolled(server, tmp_path / label / f"nas{n}", f"nas{n}"), tmp_path / f"source{n}")
        for n in range(_CLIENTS)
    ]


def _moved_bytes(port: int) -> dict[int, int]:
    """Bytes that each connection to a server has carried, both ways, by the client's port."""
    told = subprocess.run(
        ["ss", "-tinHO", "state", "established", f"sport = :{port}"],
        capture_output=True,
        text=True,
        check=True,
    )
    moved = {}
    for line in told.stdout.splitlines():
        counters = re.findall(r"bytes_(?:received|acked):(\d+)", line)
        moved[int(line.split()[3].rpartition(":")[2])] = sum(map(int, counters))
    return moved


def _longest_still_s(looks: list[tuple[float, dict[int, int]]]) -> list[float]:
    """For each connection the longest time between two looks without a byte, but for its end: the commit.

    A client that has said all waits there for the disk, which it shares with all others.
    """
    longest = []
    for port in {port for _, moved in looks for port in moved}:
        moves = [(when, moved[port]) for when, moved in looks if port in moved]
        total = moves[-1][1]
        # The answer to a commit is a few hundred bytes.
        under_way = [move for move in moves if move[1] < total - 2000]
        longest.append(0.0)
        since_s, last = under_way[0]
        for when, count in under_way:
            longest[-1] = max(longest[-1], when - since_s)
            if count != last:
                since_s, last = when, count
    return longest


def test_eight_at_once_are_no_slower_than_one_after_another(tmp_path: Path) -> None:
    for number in range(_CLIENTS):
        build_tree(
            tmp_path / f"source{number}",
            number,
            directories=40,
            files=_SMALL_FILES,
            large_bytes=_LARGE_BYTES,
        )
    with served(tmp_path / "one-by-one") as server:
        crowd = _crowd(server, tmp_path, "one-by-one")
        began = time.perf_counter()
        for machine, source in crowd:
            machine.sync(source, server.url(f"main/{machine.name}"))
        in_turn_s = time.perf_counter() - began
    looks = []
    with served(tmp_path / "at-once") as server:
        crowd = _crowd(server, tmp_path, "at-once")
        began = time.perf_counter()
        running = [
            machine.start("sync", source, server.url(f"main/{machine.name}"), "--quiet")
            for machine, source in crowd
        ]
        while any(process.poll() is None for process in running):
            time.sleep(0.05)
            looks.append((time.perf_counter(), _moved_bytes(server.port)))
        at_once_s = time.perf_counter() - began
        for process in running:
            _, stderr = process.communicate()
            assert process.returncode == 0, stderr
    still_s = _longest_still_s(looks)
    assert len(still_s) == _CLIENTS
    print(
        f"one after another {in_turn_s:.1f} s, at once {at_once_s:.1f} s, "
        f"ratio {at_once_s / in_turn_s:.2f}; longest time that each stood still: "
        + ", ".join(f"{each:.2f} s" for each in sorted(still_s))
    )
    assert at_once_s <= in_turn_s * 1.1
    assert max(still_s) < 1
