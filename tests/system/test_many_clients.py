"""Many clients at once: slots and the queue, progress of each, cut connections, clients that stop dead."""

import concurrent.futures
import json
import os
import random
import signal
import subprocess
from pathlib import Path

import pytest

from ssfs.engine import remote
from tests.fakes.comparing import assert_same_tree
from tests.fakes.cutting_proxy import CuttingProxy
from tests.fakes.trees import build_tree, compare_with_version, edit_tree, verify_version
from tests.system.crowd import (
    enrolled,
    is_receiving,
    only_version,
    received_bytes,
    set_server,
    sync_through,
    versions_of,
    wait_until,
)
from tests.system.programs import mounted
from tests.system.servers import Machine, ServedStore, run_ssfs, served

pytestmark = pytest.mark.slow

_SLOW = ("--limit", "150k", "--compress", "off", "--json")
_LARGE_BYTES = 1_500_000


def _names(count: int) -> list[str]:
    return [f"nas{number}" for number in range(1, count + 1)]


def _crowd(
    server: ServedStore, tmp_path: Path, count: int, large_bytes: int
) -> list[tuple[Machine, Path]]:
    """Machines, each with a tree of its own."""
    return [
        (
            enrolled(server, tmp_path / name, name),
            build_tree(tmp_path / name / "source", number, files=20, large_bytes=large_bytes),
        )
        for number, name in enumerate(_names(count))
    ]


def _stop_in_transfer(server: ServedStore, clients: dict[str, subprocess.Popen[str]]) -> None:
    """Stop each of these clients (by task) as soon as it has its slot."""
    moving = dict(clients)

    def have_all_stopped() -> bool:
        for task in [task for task in moving if is_receiving(server, task)]:
            process = moving.pop(task)
            os.kill(process.pid, signal.SIGSTOP)
            assert process.poll() is None, "it was done before it could be stopped"
        return not moving

    wait_until(have_all_stopped)


def test_eight_run_a_ninth_waits_and_readers_expiry_and_a_mount_go_on(tmp_path):
    run_ssfs("init", tmp_path / "store", "--timezone", "UTC", "--keep-last", "2")
    set_server(tmp_path / "store", idle_s=600)
    with served(tmp_path / "store", make=False) as server:
        crowd = _crowd(server, tmp_path, 9, _LARGE_BYTES)
        old = enrolled(server, tmp_path / "old", "old")
        tree = build_tree(tmp_path / "old" / "source", 77)
        first = old.sync(tree, server.url("main/old"))["version"]
        edit_tree(tree, 1)
        old.sync(tree, server.url("main/old"), "--allow-shrink")

        running = []
        try:
            for machine, source in crowd[:8]:
                place = server.url(f"main/{machine.name}")
                running.append(machine.start("sync", source, place, *_SLOW))
            _stop_in_transfer(server, dict(zip(_names(8), running, strict=True)))
            ninth, ninth_source = crowd[8]
            place = server.url("main/nas9")
            left = ninth.ssfs("sync", ninth_source, place, "--no-wait", expect=5)
            assert "All slots of sync point 'main' are taken" in left.stderr
            assert len(left.stderr.strip().splitlines()) == 1
            waiting = ninth.start("sync", ninth_source, place, "--verbose")
            running.append(waiting)
            told = next(line for line in waiting.stderr if "queue" in line)
            assert "waiting for a slot, place 1 in the queue" in told
            assert not is_receiving(server, "nas9")

            # All slots are taken and none of their holders moves.
            listed = json.loads(old.ssfs("versions", server.url("main/old"), "--json").stdout)
            assert listed[0]["version"] == first
            old.ssfs("restore", server.url("main/old"), "latest", "--to", tmp_path / "back")
            assert_same_tree(tree, tmp_path / "back")
            run_ssfs("point", f"{server.path}::main", "--keep-last", "1", "--yes")
            run_ssfs("expire", f"{server.path}::main/old", "--yes")
            assert first not in {version.name for version in versions_of(server, "old")}

            for process in running[:8]:
                os.kill(process.pid, signal.SIGCONT)
            if os.access("/dev/fuse", os.W_OK):
                with mounted(f"{server.path}::main/old", tmp_path / "mount") as mount:
                    assert_same_tree(tree, (mount / "latest").resolve())
            _each_grows(server, _names(8))
            for process in running:
                _, stderr = process.communicate(timeout=240)
                assert process.returncode == 0, stderr
        finally:
            _end(running)
        for machine, source in crowd:
            version = only_version(server, machine.name)
            compare_with_version(source, version)
            verify_version(version)
    ended = [line for line in server.log if "version 000001" in line and "ended" in line]
    assert len(ended) == 10


def _each_grows(server: ServedStore, tasks: list[str], looks: int = 3) -> None:
    """Between two looks all of them have received more, or are done."""
    for _ in range(looks):
        before = {task: received_bytes(server, task) for task in tasks}
        wait_until(
            lambda before=before: all(
                received_bytes(server, task) > before[task] or not is_receiving(server, task)
                for task in tasks
            )
        )


def _end(processes: list[subprocess.Popen[str]]) -> None:
    for process in processes:
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        process.stdout.close()
        process.stderr.close()


def test_sixty_four_tasks_survive_cut_connections(tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "_FIRST_WAIT_S", 0.02)
    monkeypatch.setattr(remote, "_LONGEST_WAIT_S", 0.2)
    rng = random.Random(20)

    def budget() -> int | None:
        # A handshake alone takes some 3 KB.
        return rng.choice(
            (rng.randrange(4_000), rng.randrange(60_000), rng.randrange(400_000), None)
        )

    with served(tmp_path / "store", "--keep-last", "9") as server:
        machines = [enrolled(server, tmp_path / name, name) for name in _names(8)]
        work = [
            (machines[number % 8], f"task{number}", tmp_path / "sources" / str(number))
            for number in range(64)
        ]
        for number, (_, _, source) in enumerate(work):
            build_tree(source, number, directories=3, files=12, large_bytes=200_000)
        with CuttingProxy(server.port, budget) as proxy:
            for step in range(2):
                with concurrent.futures.ThreadPoolExecutor(12) as pool:
                    results = list(
                        pool.map(
                            lambda item: sync_through(
                                item[0], proxy.port, item[2], item[1], retries=60
                            ),
                            work,
                        )
                    )
                assert [result.problems for result in results] == [[]] * 64
                for _, task, source in work:
                    versions = versions_of(server, task)
                    compare_with_version(source, versions[-1])
                    if step == 0:
                        edit_tree(source, int(task[4:]), 3, large_bytes=100_000)
        print(f"{proxy.connections} connections, {proxy.cuts} of them cut")
        assert proxy.cuts >= 64, "too few to have shown anything"
        for _, task, _ in work:
            # A commit whose answer was cut off is a version; the next attempt makes one more of it.
            assert len(versions_of(server, task)) >= 2
            for version in versions_of(server, task):
                verify_version(version)
