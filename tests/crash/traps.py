"""Stops a process before each of its system calls of some names, so that another can count them and kill it there.

A seccomp filter of the process stops it in the kernel before the call, until whoever holds the listener lets the call happen; a
process that is killed meanwhile has not made it. Unlike a tracer this costs nothing at all other calls, and a forked
process can take its own trap along.
"""

import contextlib
import ctypes
import fcntl
import os
import platform
import select
import signal
import socket
import struct
import threading
from collections.abc import Sequence
from multiprocessing.reduction import DupFd

_NUMBERS = {
    "x86_64": {
        "link": (86, 265),
        "rename": (82, 264, 316),
        "fsync": (74,),
        "fdatasync": (75,),
        "syncfs": (306,),
        "mkdir": (83, 258),
        "unlink": (87, 263, 84),
        "pwrite": (18, 328),
        "write": (1,),
        "ftruncate": (77,),
        "sendmsg": (46,),
        "seccomp": (317,),
    },
    "aarch64": {
        "link": (37,),
        "rename": (38, 276),
        "fsync": (82,),
        "fdatasync": (83,),
        "syncfs": (267,),
        "mkdir": (34,),
        "unlink": (35,),
        "pwrite": (68, 287),
        "write": (64,),
        "ftruncate": (46,),
        "sendmsg": (211,),
        "seccomp": (277,),
    },
}
"""System calls by what they do: link is also linkat, unlink unlinkat and rmdir, pwrite pwritev2."""

# <linux/seccomp.h>, <linux/bpf_common.h>
_SET_MODE_FILTER, _NEW_LISTENER = 1, 8
_ALLOW, _NOTIFY = 0x7FFF0000, 0x7FC00000
_LOAD_NUMBER, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_RECEIVE, _SEND = 0xC0502100, 0xC0182101
_NOTICE_BYTES = 80
_CONTINUE = 1

_HELLO = struct.Struct("i")


class _Instruction(ctypes.Structure):
    _fields_ = [
        ("code", ctypes.c_ushort),
        ("if_true", ctypes.c_ubyte),
        ("if_false", ctypes.c_ubyte),
        ("operand", ctypes.c_uint),
    ]


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("first", ctypes.POINTER(_Instruction))]


def _numbers(name: str) -> tuple[int, ...]:
    return _NUMBERS[platform.machine()][name]


def _install(numbers: Sequence[int]) -> int:
    """Stop this thread, and what it starts, at these calls from now on; the listener."""
    steps = [
        (_LOAD_NUMBER, 0, 0, 0),
        *((_JUMP_IF_EQUAL, len(numbers) - at, 0, number) for at, number in enumerate(numbers)),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _NOTIFY),
    ]
    filled = (_Instruction * len(steps))(*steps)
    program = _Program(len(steps), filled)
    libc = ctypes.CDLL(None, use_errno=True)
    (seccomp,) = _numbers("seccomp")
    listener = libc.syscall(seccomp, _SET_MODE_FILTER, _NEW_LISTENER, ctypes.byref(program))
    if listener < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return int(listener)


class Trap:
    """The victim's end; travels to its process.

    Attributes:
        name: Of the calls.
    """

    def __init__(self, name: str, stream: socket.socket) -> None:
        """`stream`: one end of a pair, whose other end is a `Trapper`'s."""
        self.name = name
        self._stream = stream

    def __getstate__(self) -> dict:
        return {"name": self.name, "_fd": DupFd(self._stream.fileno())}

    def __setstate__(self, state: dict) -> None:
        self.name = state["name"]
        self._stream = socket.socket(fileno=state["_fd"].detach())

    def close_in(self) -> None:
        """From now on this thread, and what it starts, is stopped at each of these calls."""
        found: list[int] = []
        is_set = threading.Event()

        def tell() -> None:
            # Another thread, one without the filter: saying it may be such a call.
            is_set.wait()
            socket.send_fds(self._stream, [_HELLO.pack(os.getpid())], found)
            os.close(found[0])
            self._stream.close()

        teller = threading.Thread(target=tell)
        teller.start()
        found.append(_install(_numbers(self.name)))
        is_set.set()
        teller.join()


class Trapper:
    """The killer's end."""

    def __init__(self) -> None:
        self._ours, self._theirs = socket.socketpair()

    def trap(self, name: str) -> Trap:
        """What the victim is to be given."""
        return Trap(name, self._theirs)

    def kill_at(self, nth: int, timeout_s: float) -> bool:
        """Kill the process just before that call of its main thread; whether it came to it.

        Returns when the process, and what else has its filter, has ended.

        Raises:
            AssertionError: It neither ends nor makes a call for so long.
        """
        # Now that the victim has it: if it ends without a trap, the stream does.
        self._theirs.close()
        self._ours.settimeout(timeout_s)
        with self._ours:
            hello, listeners, *_ = socket.recv_fds(self._ours, _HELLO.size, 1)
        if not listeners:
            return False
        (victim,) = _HELLO.unpack(hello)
        try:
            return self._watch(listeners[0], victim, nth, timeout_s)
        finally:
            os.close(listeners[0])

    def _watch(self, listener: int, victim: int, nth: int, timeout_s: float) -> bool:
        poll = select.poll()
        poll.register(listener, select.POLLIN)
        seen = 0
        while True:
            events = poll.poll(timeout_s * 1000)
            assert events, f"process {victim} hangs"
            if not events[0][1] & select.POLLIN:
                return seen >= nth
            notice = bytearray(_NOTICE_BYTES)
            # Whoever is killed while it waits is not there any more.
            with contextlib.suppress(FileNotFoundError):
                fcntl.ioctl(listener, _RECEIVE, notice)
                number, thread = struct.unpack_from("QI", notice)
                seen += thread == victim
                if thread == victim and seen == nth:
                    os.kill(victim, signal.SIGKILL)
                else:
                    fcntl.ioctl(
                        listener, _SEND, bytearray(struct.pack("QqiI", number, 0, 0, _CONTINUE))
                    )
