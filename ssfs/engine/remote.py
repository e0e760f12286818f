"""A sync over a network: the sender on a channel that may break, and is then opened again.

Whatever broke off, the server keeps what has arrived and the next attempt goes on from there
(`ssfs.store.staging`), so trying again is no more than calling `send_version` again.
"""

import random
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import msgspec

from ssfs.clock import Clock
from ssfs.engine.cache import cache_root
from ssfs.engine.sender import SyncRequest, SyncResult, send_version
from ssfs.errors import ConnectionLost, SsfsError, StoreLocked
from ssfs.monitor import Monitor
from ssfs.net.channel import Channel

_FIRST_WAIT_S = 1.0
_LONGEST_WAIT_S = 60.0

OpenChannel = Callable[[], AbstractContextManager[Channel]]


def sync_remote(
    open_channel: OpenChannel, request: SyncRequest, monitor: Monitor, clock: Clock, retries: int
) -> SyncResult:
    """Make one version on a server.

    Args:
        open_channel: Connects and greets; called once for each attempt.
        request: What is to be backed up.
        monitor: Hears of progress, and of attempts that failed.
        clock: For durations.
        retries: How many further attempts a lost connection is worth.

    Raises:
        TrustError: The server is not who it should be, or does not let us: never tried again.
        ConnectionLost: The last attempt's.
        SsfsError: As `ssfs.engine.sender.send_version`.
    """
    started_s = clock.monotonic_s()
    sent = received = 0
    for attempt in range(retries + 1):
        channel: Channel | None = None
        try:
            with open_channel() as channel:
                result = send_version(channel, request, cache_root(), monitor, clock)
        except (ConnectionLost, StoreLocked) as error:
            if attempt == retries or not _is_worth_a_retry(error, attempt):
                raise
            wait_s = _wait_s(attempt)
            monitor.note(f"{error}; trying again in {wait_s:.0f} s")
            monitor.phase(f"connection lost, trying again in {wait_s:.0f} s")
            time.sleep(wait_s)
            monitor.phase("")
        else:
            return _in_all(result, sent, received, clock.monotonic_s() - started_s)
        finally:
            if channel is not None:
                sent += channel.sent_bytes
                received += channel.received_bytes
    raise AssertionError("the last attempt returns or raises")


def _is_worth_a_retry(error: SsfsError, attempt: int) -> bool:
    # A server that has not noticed yet that our connection is gone still holds our own lock.
    return isinstance(error, ConnectionLost) or attempt > 0


def _wait_s(attempt: int) -> float:
    """Twice as long each time, and never the same for all clients of a server that came back."""
    return min(_FIRST_WAIT_S * 2.0**attempt, _LONGEST_WAIT_S) * random.uniform(0.75, 1.25)  # noqa: S311


def _in_all(result: SyncResult, sent: int, received: int, seconds: float) -> SyncResult:
    """The result of the last attempt, with what all of them moved."""
    counts = msgspec.structs.replace(
        result.counts,
        bytes_sent=result.counts.bytes_sent + sent,
        bytes_received=result.counts.bytes_received + received,
    )
    return msgspec.structs.replace(result, counts=counts, seconds=seconds)
