"""Progress: what is said, when, and where."""

import datetime
import threading

import pytest

from ssfs.cli.progress import open_progress
from ssfs.model.problem import EntryProblem
from tests.fakes.clock import FrozenClock


def step(clock: FrozenClock, seconds: float) -> None:
    clock.advance(datetime.timedelta(seconds=seconds))


def test_log_gets_a_line_every_ten_seconds(capsys: pytest.CaptureFixture[str]):
    clock = FrozenClock()
    with open_progress(clock, quiet=False, verbose=False) as monitor:
        monitor.expect(1000, 0)
        for _ in range(30):
            step(clock, 1)
            monitor.advance(10, 1000, b"some/where")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert lines[0] == "100 entries, 10.0 kB, 1.0 kB/s, 1:30 left, some/where"


def test_short_run_says_nothing(capsys: pytest.CaptureFixture[str]):
    clock = FrozenClock()
    with open_progress(clock, quiet=False, verbose=False) as monitor:
        for _ in range(1000):
            monitor.advance(1, 1, b"x")
        monitor.phase("committing")
        monitor.problem(EntryProblem(b"x", "unreadable"))
    assert capsys.readouterr().err == ""


def test_quiet_run_says_nothing(capsys: pytest.CaptureFixture[str]):
    clock = FrozenClock()
    with open_progress(clock, quiet=True, verbose=False) as monitor:
        step(clock, 100)
        monitor.advance(1000, 1000, b"x")
    assert capsys.readouterr().err == ""


def test_verbose_run_names_problems_as_they_happen(capsys: pytest.CaptureFixture[str]):
    with open_progress(FrozenClock(), quiet=False, verbose=True) as monitor:
        monitor.problem(EntryProblem(b"a\xff\x1b", "cannot be read"))
        assert capsys.readouterr().err == "ssfs: a\\xff\\x1b: cannot be read\n"


def test_no_time_left_without_expectation(capsys: pytest.CaptureFixture[str]):
    clock = FrozenClock()
    with open_progress(clock, quiet=False, verbose=False) as monitor:
        step(clock, 20)
        monitor.advance(5, 5, b"x")
    assert "left" not in capsys.readouterr().err


def test_no_thread_before_the_first_second_of_a_terminal_run(monkeypatch: pytest.MonkeyPatch):
    # A sync forks before it reports anything; a thread would not survive that.
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    clock = FrozenClock()
    before = threading.active_count()
    with open_progress(clock, quiet=False, verbose=False) as monitor:
        monitor.advance(1, 1, b"x")
        assert threading.active_count() == before
        step(clock, 2)
        monitor.advance(1, 1, b"x")
        assert threading.active_count() == before + 1
    for thread in threading.enumerate():
        if thread is not threading.current_thread():
            thread.join(5)
    assert threading.active_count() == before
