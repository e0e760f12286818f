"""Keeping the average rate of what is sent, whatever the link could do.

The sending end of a direction paces it; the other end can only ask for that (`ssfs.net.blocks.Preamble`). A send is
cut into pieces of a tenth of a second. A piece may go as soon as all before it are paid for, and up
to a quarter of a second late is made up for: any window of 10 s holds between 97 and 104 % of the rate
while there is something to send, at 1,000 bytes/s as at 100 million.
"""

import math

import trio

_PIECE_S = 0.1
_CATCH_UP_S = 0.25


class Pacer:
    """Says when the next bytes may go. For one sending task.

    Attributes:
        rate_bytes_s: Bytes per second, 0 for no limit; may be changed between two pieces.
    """

    def __init__(self, rate_bytes_s: int = 0) -> None:
        self.rate_bytes_s = rate_bytes_s
        self._due_s = -math.inf

    @property
    def piece_bytes(self) -> int:
        """At most so many bytes are to be sent between `wait` and `spend`. For a rate that is not 0."""
        return max(1, int(self.rate_bytes_s * _PIECE_S))

    async def wait(self) -> None:
        """Return when the next piece may go."""
        await trio.sleep_until(max(self._due_s, trio.current_time()))

    def spend(self, sent_bytes: int) -> None:
        """So many bytes went over the wire, headers and all."""
        if self.rate_bytes_s:
            earliest_s = trio.current_time() - _CATCH_UP_S
            self._due_s = max(self._due_s, earliest_s) + sent_bytes / self.rate_bytes_s
