"""The one place that reads a clock, so that tests can hold it still.

Dates of versions come from the server's clock in UTC; durations from the monotonic clock.
"""

import datetime
import time
from typing import Protocol


class Clock(Protocol):
    """What the program needs to know about time."""

    def now(self) -> datetime.datetime:
        """The time of day, aware, in UTC."""
        ...

    def monotonic_s(self) -> float:
        """Seconds on a clock that never goes back."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> datetime.datetime:
        """The time of day, aware, in UTC."""
        return datetime.datetime.now(datetime.UTC)

    def monotonic_s(self) -> float:
        """Seconds on a clock that never goes back."""
        return time.monotonic()
