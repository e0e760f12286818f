"""Slots and their queue, between descriptions of one process and between processes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ssfs.model.policy import Policy
from ssfs.store.slots import SlotRequest
from ssfs.store.store import Point, Store
from tests.fakes.clock import FrozenClock

_HOLD = """
import sys
from ssfs.store.slots import SlotRequest
from ssfs.store.store import Store
point = Store.open(sys.argv[1].encode()).point("main")
request = SlotRequest(point, "another process")
print(request.is_granted(), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def point(tmp_path: Path) -> Point:
    store = Store.create(os.fsencode(tmp_path / "store"), Policy(), "UTC", FrozenClock())
    return store.create_point("main")


def ask(point: Point, count: int) -> list[SlotRequest]:
    return [SlotRequest(point, f"backup {number}") for number in range(count)]


def test_so_many_get_a_slot_and_the_rest_a_place_in_order(point):
    requests = ask(point, 11)
    assert [request.is_granted() for request in requests] == [True] * 8 + [False] * 3
    assert [request.place for request in requests[8:]] == [1, 2, 3]
    for request in requests:
        request.close()


def test_a_free_slot_goes_to_who_waits_longest_whoever_asks_first(point):
    requests = ask(point, 10)
    for request in requests:
        request.is_granted()
    requests[3].close()
    late = SlotRequest(point, "late")
    assert not late.is_granted()
    assert not requests[9].is_granted()
    assert requests[8].is_granted()
    assert (requests[8].place, requests[9].is_granted(), late.is_granted()) == (0, False, False)
    assert (requests[9].place, late.place) == (1, 2)
    for request in [*requests, late]:
        request.close()


def test_who_leaves_the_queue_gives_up_the_place(point):
    requests = ask(point, 10)
    for request in requests:
        request.is_granted()
    requests[8].close()
    requests[0].close()
    assert requests[9].is_granted()
    for request in requests:
        request.close()


def test_all_is_given_back_at_the_end(point):
    for _ in range(3):
        requests = ask(point, 9)
        assert [request.is_granted() for request in requests] == [True] * 8 + [False]
        for request in requests:
            request.close()
    assert os.listdir(os.path.join(point.path, b"slots", b"queue")) == []


@pytest.mark.slow
@pytest.mark.parametrize("waits", [False, True], ids=["runs", "waits"])
def test_a_killed_process_gives_back_what_it_held(point, waits):
    ours = ask(point, 8 if waits else 7)
    for request in ours:
        assert request.is_granted()
    other = subprocess.Popen(
        [sys.executable, "-c", _HOLD, os.fsdecode(point.store.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert other.stdout.readline().strip() == str(not waits)
    next_one = SlotRequest(point, "next")
    assert not next_one.is_granted()
    assert next_one.place == 1 + waits
    if waits:
        ours[0].close()
        assert not next_one.is_granted(), "the other process waits longer"
    os.kill(other.pid, signal.SIGKILL)
    other.communicate()
    assert next_one.is_granted()
    for request in [*ours, next_one]:
        request.close()
