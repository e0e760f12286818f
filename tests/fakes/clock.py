"""A clock that stands still until a test moves it."""

import datetime

START = datetime.datetime(2024, 5, 1, 2, 0, tzinfo=datetime.UTC)


class FrozenClock:
    """Satisfies `ssfs.clock.Clock`; both its clocks move together, and only by `advance`."""

    def __init__(self, now: datetime.datetime = START) -> None:
        self._now = now
        self._monotonic_s = 0.0

    def now(self) -> datetime.datetime:
        return self._now

    def monotonic_s(self) -> float:
        return self._monotonic_s

    def advance(self, step: datetime.timedelta) -> None:
        """Let time pass."""
        self._now += step
        self._monotonic_s += step.total_seconds()

    def set(self, now: datetime.datetime) -> None:
        """Set the time of day, back too; the monotonic clock stays."""
        self._now = now
