"""Half-open connections: how many strangers may be at the door at a time.

A connection is half-open until its peer has shown a certificate of ours; one that enrols stays so to its
end. When there are too many, the oldest goes: a flood then drives out the flood, and an honest
client, which needs milliseconds, gets in.
"""

import contextlib
from collections.abc import Iterator

import trio


class Door:
    """Counts the half-open connections of a server. All calls are the event loop's."""

    def __init__(self, most: int) -> None:
        """Let at most this many stand there; may be changed later."""
        self.most = most
        self._waiting: list[trio.CancelScope] = []

    @contextlib.contextmanager
    def half_open(self, deadline_s: float) -> Iterator[trio.CancelScope]:
        """A scope for what a stranger may do; cancelled at the deadline, or when too many came after."""
        with trio.move_on_after(deadline_s) as scope:
            self._waiting.append(scope)
            if len(self._waiting) > self.most:
                self._waiting.pop(0).cancel()
            try:
                yield scope
            finally:
                self.known(scope)

    def known(self, scope: trio.CancelScope) -> None:
        """This one is no stranger any more: no deadline, no place at the door."""
        if scope in self._waiting:
            self._waiting.remove(scope)
        scope.deadline = float("inf")
