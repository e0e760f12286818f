"""Progress of a run, on stderr: one live line on a terminal, a line every ten seconds elsewhere.

Nothing appears before the run has taken a second, and no thread starts before the first call of the
monitor, because `ssfs.engine.local` forks. Problems are named as they happen with `-v` only; the commands
list them at the end.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Protocol

import click

from ssfs.cli.output import bytes_text, complain, counted, path_text, problem_text, safe_text
from ssfs.cli.output import seconds_text as duration
from ssfs.clock import Clock
from ssfs.model.problem import EntryProblem
from ssfs.monitor import Monitor

_QUIET_START_S = 1.0
_LINE_EVERY_S = 10.0
_LOOK_EVERY_CALLS = 64


@contextlib.contextmanager
def open_progress(clock: Clock, *, quiet: bool, verbose: bool) -> Iterator[Monitor]:
    """A monitor that draws until the block ends.

    Args:
        clock: For rates; only its monotonic side is used.
        quiet: Draw nothing.
        verbose: Name each problem as it happens.
    """
    display: _Display
    if quiet:
        display = _NoDisplay()
    elif sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb":
        # A quarter of what a sync takes to start: not for cron.
        from ssfs.cli.live import LiveLine  # noqa: PLC0415

        display = LiveLine()
    else:
        display = _Lines(clock)
    progress = _Progress(clock, display, verbose=verbose)
    try:
        yield progress
    finally:
        display.close()


class _Display(Protocol):
    """Where progress is drawn."""

    def update(self, progress: "_Progress") -> None:
        """There is news; cheap enough to be called often."""

    def say(self, text: str) -> None:
        """Print a line that stays."""

    def close(self) -> None:
        """Draw nothing any more."""


class _Progress:
    """What is known about the run; the monitor itself."""

    def __init__(self, clock: Clock, display: _Display, *, verbose: bool) -> None:
        self._clock = clock
        self._display = display
        self._verbose = verbose
        self._started_s = clock.monotonic_s()
        self._expected = (0, 0)
        self._calls = 0
        self._entries = 0
        self._bytes = 0
        self._path = b""
        self._phase = ""

    def expect(self, entries: int, size_bytes: int) -> None:
        self._expected = (entries, size_bytes)

    def advance(self, entries: int, size_bytes: int, path: bytes) -> None:
        self._entries += entries
        self._bytes += size_bytes
        self._path = path
        self._calls += 1
        # Asking the clock at each of a million entries would cost more than the drawing.
        if self._calls % _LOOK_EVERY_CALLS == 0 or size_bytes:
            self._draw()

    def phase(self, text: str) -> None:
        self._phase = text
        self._draw()

    def problem(self, problem: EntryProblem) -> None:
        if self._verbose:
            self._display.say(problem_text(problem))

    def note(self, text: str) -> None:
        if self._verbose:
            self._display.say(text)

    def _draw(self) -> None:
        if self.elapsed_s() >= _QUIET_START_S:
            self._display.update(self)

    def elapsed_s(self) -> float:
        return self._clock.monotonic_s() - self._started_s

    def text(self) -> str:
        """The state of the run in one line."""
        elapsed_s = max(self.elapsed_s(), 0.001)
        parts = [
            counted(self._entries, "entry"),
            bytes_text(self._bytes),
            f"{bytes_text(self._bytes / elapsed_s)}/s",
        ]
        left_s = self._left_s(elapsed_s)
        if left_s is not None and not self._phase:
            parts.append(f"{duration(left_s)} left")
        parts.append(self._phase or safe_text(path_text(self._path)))
        return ", ".join(part for part in parts if part)

    def _left_s(self, elapsed_s: float) -> float | None:
        """An estimate by the size of the version before, None without any.

        A sync reads few of the expected bytes, a restore all of them: the one that is further on
        says how much is left.
        """
        done = max(
            count / expected if expected else 0.0
            for count, expected in zip((self._entries, self._bytes), self._expected, strict=True)
        )
        return elapsed_s * (1 - done) / done if 0 < done < 1 else None


class _NoDisplay:
    """Draws nothing; what must be said is said."""

    def update(self, progress: _Progress) -> None:
        pass

    def say(self, text: str) -> None:
        complain(text)

    def close(self) -> None:
        pass


class _Lines:
    """A log: a line now and then."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._next_s = clock.monotonic_s() + _LINE_EVERY_S

    def update(self, progress: _Progress) -> None:
        now_s = self._clock.monotonic_s()
        if now_s >= self._next_s:
            self._next_s = now_s + _LINE_EVERY_S
            click.echo(progress.text(), err=True)

    def say(self, text: str) -> None:
        complain(text)

    def close(self) -> None:
        pass
