"""The process whose standard input and output are a wire: ssh, or whatever else leads to a server.

It stays in our process group, because it may ask for a password on the terminal; so a Ctrl-C there reaches it too.
It must outlive that for a moment: the server should hear the end of the stream, not lose the connection. Therefore
call this in a thread that blocks SIGINT: a child inherits that through fork and exec. (Not by
`trio.lowlevel.open_process`, which forks from yet another thread.)

What it writes to standard error goes to ours. However the session ends, the process is reaped.
"""

import contextlib
import os
import signal
import subprocess
from collections.abc import AsyncIterator

import trio

from ssfs.errors import ConfigError, ConnectionLost, SsfsError, StoreError, TrustError
from ssfs.net.wire import PipeWire, close_at_once, widen_pipe

_CLEAN_END_S = 5
_CUT_END_S = 0.5
_KILL_S = 2
_SSH_FAILED = 255
_NO_COMMAND = 127
_FINAL: dict[int, type[SsfsError]] = {
    2: ConfigError,
    4: TrustError,
    6: StoreError,
    _NO_COMMAND: ConfigError,
}
"""What the other machine's `ssfs` ends with when another try would end no better; a shell that finds no `ssfs` too."""


@contextlib.asynccontextmanager
async def open_command(command: list[str]) -> AsyncIterator[PipeWire]:
    """Start the command; when the block is left, close its input, and end it if it does not end by itself.

    Raises:
        ConfigError: It cannot be run.
        ConnectionLost: Instead of one raised inside: how the command failed, if it did.
        SsfsError: Instead of one, too: what the server at its other end could not do, and cannot do next time either.
    """
    process = _start(command)
    wire = _pipes(process)
    patience_s: float = _CUT_END_S
    try:
        yield wire
        patience_s = _CLEAN_END_S
    except ConnectionLost as error:
        await _wait_exited(process, _CLEAN_END_S)
        if process.poll() in {0, None}:
            raise
        raise _failed(command[0], process.returncode) from error
    finally:
        with trio.CancelScope(shield=True):
            await close_at_once(wire)
            await _reap(process, patience_s)


def _start(command: list[str]) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(  # noqa: S603  # no shell; the user's own words
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )
    except OSError as error:
        raise ConfigError(f"Cannot run {command[0]} ({error.strerror})") from error


def _pipes(process: subprocess.Popen[bytes]) -> PipeWire:
    """The pipes as streams with descriptors of their own."""
    descriptors = []
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        descriptors.append(os.dup(pipe.fileno()))
        pipe.close()
        widen_pipe(descriptors[-1])
    to_it, from_it = map(trio.lowlevel.FdStream, descriptors)
    return PipeWire(to_it, from_it)


async def _reap(process: subprocess.Popen[bytes], patience_s: float) -> None:
    """Its pipes are closed, so it should end by itself; else it is ended."""
    await _wait_exited(process, patience_s)
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            try:
                process.send_signal(number)
            except PermissionError:
                return  # it is root's, and we are a store's owner by now: its pipes are closed
            await _wait_exited(process, _KILL_S)
    process.wait()


async def _wait_exited(process: subprocess.Popen[bytes], timeout_s: float) -> None:
    await trio.lowlevel.checkpoint()
    if process.poll() is not None:
        return
    descriptor = os.pidfd_open(process.pid)
    try:
        with trio.move_on_after(timeout_s):
            await trio.lowlevel.wait_readable(descriptor)
    finally:
        os.close(descriptor)


def _failed(command: str, status: int) -> SsfsError:
    if status < 0:
        return ConnectionLost(f"{command} was ended by {signal.Signals(-status).name}")
    remedies = {
        _SSH_FAILED: "what it said is above",
        _NO_COMMAND: "is ssfs installed on the other machine, and in its PATH?",
    }
    family = _FINAL.get(status, ConnectionLost)
    return family(
        f"{command} ended with exit status {status}",
        remedy=remedies.get(status, "what the other machine said is above"),
    )
