"""A process that steps aside: its disk and processor time are what nobody else wants."""

import contextlib
import ctypes
import os
import platform

_IOPRIO_SET = {
    "x86_64": 251,
    "aarch64": 30,
    "riscv64": 30,
    "armv7l": 314,
    "ppc64le": 273,
    "s390x": 282,
}
_WHO_PROCESS = 1
_CLASS_IDLE = 3 << 13
_NICE = 10


def lower_priority() -> None:
    """Give this process the idle class of I/O priority, and little of the processor; for good.

    Where the kernel or its I/O scheduler knows no such thing, nothing happens: it is a courtesy.
    """
    number = _IOPRIO_SET.get(platform.machine())
    if number is not None:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.syscall(number, _WHO_PROCESS, 0, _CLASS_IDLE)
    with contextlib.suppress(OSError):
        os.nice(_NICE)
