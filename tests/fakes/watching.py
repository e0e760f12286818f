"""Runs that must end, and leave nothing open."""

import contextlib
import os
import signal
from collections.abc import Iterator

_HANG_CPU_S = 30


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """Fail what uses the processor for much longer than it can need, or leaves descriptors open."""

    def fail(*_: object) -> None:
        raise AssertionError("it does not end")

    before = os.listdir("/proc/self/fd")
    handler = signal.signal(signal.SIGPROF, fail)
    signal.setitimer(signal.ITIMER_PROF, _HANG_CPU_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, handler)
    assert len(os.listdir("/proc/self/fd")) == len(before), "descriptors are left open"
