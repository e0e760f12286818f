"""What instruments wrote is summed up."""

from tools.benchmark.profiling import NO_FRAME, Spent, calls, spent

FOLDED = """main (a.py);walk (b.py);stat (b.py) 30
main (a.py);walk (b.py) 10
main (a.py);send (c.py) 5
main (a.py);walk (b.py);walk (b.py) 1
"""

COUNTED = """% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 61.50    1.250000           2      5000           pread64
 38.50    0.750000           1     12000        17 statx
------ ----------- ----------- --------- --------- ----------------
100.00    2.000000           1     17000        17 total
"""


def test_stacks_are_summed_up_once_for_each_function() -> None:
    assert spent(FOLDED) == [
        Spent("stat (b.py)", own=30, total=30),
        Spent("walk (b.py)", own=11, total=41),
        Spent("send (c.py)", own=5, total=5),
        Spent("main (a.py)", own=0, total=46),
    ]


def test_what_waits_is_left_out_and_what_has_no_frame_is_named() -> None:
    folded = "run (a.py);EpollIOManager.get_events (trio/_core/_io_epoll.py:238) 90\n 3\n"
    assert spent(folded) == [Spent(NO_FRAME, own=3, total=3)]


def test_system_calls_are_listed_by_their_number() -> None:
    assert calls(COUNTED) == {"statx": (12_000, 0.75), "pread64": (5_000, 1.25)}
    assert list(calls(COUNTED)) == ["statx", "pread64"]
    assert calls("") == {}
