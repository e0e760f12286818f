"""Takes the kernel's requests from /dev/fuse, and gives it the answers.

pyfuse3 mounts and unmounts, but its own loop is not used: it wakes a task by way of the event loop for every request, which costs
several times what most answers here do (DECISIONS.md section 29). Here one task reads; while requests keep coming it answers one after
the other without going back to the event loop, and for a moment it waits for the next one in a system call of its own.

A handler that has to wait (for a disk, for a server) must not keep the others waiting. So the moment it
first waits, another task takes over reading; its own ends with its answer. Between two waits of a handler nothing else runs.
"""

import errno
import logging
import os
import select
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Final

import trio

from ssfs.mount.wire import MESSAGE_BYTES, Request, decode_request, encode_header, encode_vanished

Answer = bytes | memoryview | list[memoryview] | int | None
"""A payload, in one or in some parts, or an errno, or nothing: the kernel does not wait for an answer."""

_LINGER_MS: Final = 1
"""For so long the next request is waited for, if nothing else is under way."""
_TURNS: Final = 64
"""After so many requests in a row everything else has its turn."""
_COPIED_BYTES: Final = 4096
_UNWRITTEN = frozenset({errno.ENOENT, errno.ENODEV})
"""The request was given up meanwhile, or the mount has ended."""
_PASSING = frozenset({errno.EINTR, errno.EAGAIN, errno.ENOENT})

_log = logging.getLogger(__name__)


class Pump:
    """Serves one mount."""

    def __init__(
        self,
        fd: int,
        answer: Callable[[Request], Coroutine[object, object, Answer]],
        between: Callable[[], None],
    ) -> None:
        """Serve nothing yet.

        Args:
            fd: The kernel's end of the mount; it stays the caller's.
            answer: Answers a request; raises nothing.
            between: Called when no request is there, before the next one is waited for: a millisecond's work at most;
                raises nothing.
        """
        os.set_blocking(fd, False)
        self._fd = fd
        self._answer = answer
        self._between = between
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)
        self._has_ended = False
        self._waiting = 0
        self._nursery: trio.Nursery | None = None

    async def run(self) -> None:
        """Serve until the mount is gone or `stop` is called."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._serve)

    def stop(self) -> None:
        """End `run`; requests under way are broken off."""
        self._has_ended = True
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel()

    async def forget(self, directory: int, name: bytes) -> None:
        """Tell the kernel that a name leads nowhere any more: all that it keeps for what was below goes.

        Raises:
            OSError: It cannot be told.
        """
        message = encode_vanished(directory, name)
        try:
            # It may have to wait for a request that we are still to answer.
            await trio.to_thread.run_sync(os.write, self._fd, message)
        except OSError as error:
            # ENOTDIR: the kernel knows of nothing there, or of something else by now.
            if error.errno not in _UNWRITTEN | {errno.ENOTDIR}:
                raise

    async def _serve(self) -> None:
        """Answer requests, until the mount ends or a handler has to wait."""
        turns = 0
        while not self._has_ended:
            message = self._receive()
            if message is None:
                turns = 0
                await trio.lowlevel.wait_readable(self._fd)
            elif message:
                request = decode_request(message)
                work = self._answer(request)
                try:
                    waits_for = work.send(None)
                except StopIteration as answered:
                    self._reply(request, answered.value)
                else:
                    self._hand_over()
                    try:
                        answer = await _rest_of(work, waits_for)
                    except trio.Cancelled:
                        # Whoever waits for it may hold what `forget` waits for.
                        self._reply(request, errno.ENODEV)
                        raise
                    self._reply(request, answer)
                    self._waiting -= 1
                    return
                turns += 1
                if turns == _TURNS:
                    turns = 0
                    await trio.lowlevel.checkpoint()
        self.stop()

    def _hand_over(self) -> None:
        self._waiting += 1
        assert self._nursery is not None
        self._nursery.start_soon(self._serve)

    def _receive(self) -> bytes | None:
        """The next request; b"" if there is none after all, None if it must be waited for."""
        if not self._poll.poll(0):
            self._between()
            if not self._poll.poll(0 if self._waiting else _LINGER_MS):
                return None
        try:
            return os.read(self._fd, MESSAGE_BYTES)
        except OSError as error:
            if error.errno in _PASSING:
                return b""
            if error.errno != errno.ENODEV:
                _log.error("Requests cannot be read any more: %s", error)
            self._has_ended = True
            return b""

    def _reply(self, request: Request, answer: Answer) -> None:
        if answer is None:
            return
        try:
            if isinstance(answer, int):
                os.write(self._fd, encode_header(request.unique, 0, answer))
            elif isinstance(answer, list):
                header = encode_header(request.unique, sum(map(len, answer)))
                os.writev(self._fd, (header, *answer))
            elif len(answer) < _COPIED_BYTES:
                os.write(self._fd, encode_header(request.unique, len(answer)) + answer)
            else:
                os.writev(self._fd, (encode_header(request.unique, len(answer)), answer))
        except OSError as error:
            if error.errno not in _UNWRITTEN:
                _log.error("Request %d was not answered: %s", request.opcode, error)


@types.coroutine
def _rest_of(
    work: Coroutine[object, object, Answer], waits_for: object
) -> Generator[object, object, Answer]:
    """What work that has begun in this task, and waits for something now, comes to."""
    while True:
        thrown: BaseException | None = None
        given: object = None
        try:
            given = yield waits_for
        except BaseException as error:  # noqa: BLE001, ASYNC103 - it is for the work to deal with
            thrown = error
        try:
            waits_for = work.send(given) if thrown is None else work.throw(thrown)
        except StopIteration as answered:
            answer: Answer = answered.value
            return answer
