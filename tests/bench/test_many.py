"""Eight clients at once against the same eight one after another (`pytest -m bench -s tests/bench/test_many.py -n 0`).

Each client is a program of its own with a tree of its own; both rounds send the same bytes, to two stores. While the
eight run, every second in which one of them stood still is counted.
"""

import os
import time
from pathlib import Path

import pytest

from tests.fakes.trees import build_tree
from tests.system.crowd import enrolled, is_receiving, received_bytes, task_path
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


def _written_bytes(server: ServedStore, task: str) -> int:
    """Something that grows with each step of a backup: content, or the catalog."""
    total = received_bytes(server, task)
    for name in ("catalog.db", "catalog.db-wal"):
        path = task_path(server, task) / "staging" / name
        total += path.stat().st_size if path.exists() else 0
    return total


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
    still: list[str] = []
    with served(tmp_path / "at-once") as server:
        crowd = _crowd(server, tmp_path, "at-once")
        began = time.perf_counter()
        running = {
            machine.name: machine.start(
                "sync", source, server.url(f"main/{machine.name}"), "--quiet"
            )
            for machine, source in crowd
        }
        before: dict[str, int] = {}
        while any(process.poll() is None for process in running.values()):
            time.sleep(1)
            now = {task: _written_bytes(server, task) for task in running}
            still += [
                task
                for task in running
                if before.get(task) and now[task] == before[task] and is_receiving(server, task)
            ]
            before = now
        at_once_s = time.perf_counter() - began
        for process in running.values():
            _, stderr = process.communicate()
            assert process.returncode == 0, stderr
    print(
        f"one after another {in_turn_s:.1f} s, at once {at_once_s:.1f} s, "
        f"ratio {at_once_s / in_turn_s:.2f}; seconds in which one stood still: {len(still)}"
    )
    assert at_once_s <= in_turn_s * 1.1
