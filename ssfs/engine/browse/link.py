"""The client's connection while it browses: one thread that asks, hears, and connects again when need be.

Questions may be put from any thread, many at a time: they are sent without waiting for each other's answers. What was asked
and not answered when the connection breaks is asked again on the next one, since reading twice does no harm. The
thread never gives up; how long somebody waits for an answer is theirs to decide (`patience_end_s`).

The server forgets with the connection which versions are kept for us. So the first thing that is asked on a
new one is a row of each (`hold`).
"""

import collections
import contextlib
import logging
import os
import select
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager

from typing_extensions import override

from ssfs.clock import Clock
from ssfs.engine.browse.requests import (
    Lacked,
    Question,
    RowsQuestion,
    VersionRef,
    ends_answer,
)
from ssfs.engine.refusal import hear, hearing_refusals, raise_refused
from ssfs.errors import ConnectionLost, RemoteProtocolError, SsfsError
from ssfs.model.entry import ROOT_ID
from ssfs.net.channel import Channel
from ssfs.protocol.browsing import Browse, Browsed, Lacking, LetGo
from ssfs.protocol.messages import Leave, Message, Refused

OpenChannel = Callable[[], AbstractContextManager[Channel]]

_MOST_UNANSWERED = 64
_FIRST_WAIT_S = 0.25
_LONGEST_WAIT_S = 30.0
_WAIT_WHEN_ASKED_S = 1.0
_ATTEMPTS = 3
_LOOK_UP_S = 60.0
_GOODBYE_S = 1.0

_log = logging.getLogger(__name__)


class _Stopped(Exception):
    """Nobody asks any more."""


class _HoldQuestion(RowsQuestion):
    """Keep a version for us; what comes is known already."""

    def __init__(self, ref: VersionRef) -> None:
        super().__init__(ref, ROOT_ID, -1, lambda _: None)

    @override
    def hear(self, message: Message) -> None:
        """Nothing to be learnt."""


def enter(channel: Channel) -> Browsed:
    """Begin to browse in a session that has been greeted.

    Raises:
        SsfsError: The server refuses.
    """
    with hearing_refusals(channel):
        channel.send(Browse())
    answer = hear(channel)
    if not isinstance(answer, Browsed):
        raise RemoteProtocolError(f"The server answered with {type(answer).__name__}")
    return answer


def ask_once(channel: Channel, question: Question) -> None:
    """Put one question in a session that is browsing, and wait for its answer.

    Raises:
        Lacked: The server does not have it.
        SsfsError: It refuses, or breaks the rules.
    """
    channel.send(question.request)
    while True:
        message = hear(channel)
        if isinstance(message, Lacking):
            raise Lacked(message)
        question.hear(message)
        if ends_answer(message):
            return


class BrowsingLink:
    """Asks a server, for as long as it is not stopped."""

    def __init__(self, connect: OpenChannel, location: str, clock: Clock) -> None:
        """Do nothing yet.

        Args:
            connect: Connects and greets; called for each connection, in the link's thread.
            location: What is at the other end, for messages.
            clock: For patience.
        """
        self._connect = connect
        self._location = location
        self._clock = clock
        self._lock = threading.Lock()
        self._waiting: collections.deque[Question | LetGo] = collections.deque()
        self._unanswered: collections.deque[Question] = collections.deque()
        self._held: set[VersionRef] = set()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._is_stopped = False
        self._heard_s = 0.0
        self._down_since_s: float | None = None
        self._complaint = ""
        self._thread = threading.Thread(target=self._run, name="ssfs browse", daemon=True)

    def start(self) -> None:
        """Connect, from a thread of our own."""
        self._down_since_s = self._heard_s = self._clock.monotonic_s()
        self._thread.start()

    def stop(self) -> None:
        """Leave the server, or at least try to."""
        self._is_stopped = True
        self._wake_up()
        if self._thread.ident is not None:
            self._thread.join(_GOODBYE_S)

    @property
    def is_stopped(self) -> bool:
        """Whether nobody asks any more."""
        return self._is_stopped

    # -- for whoever asks ------------------------------------------------------------------------

    def ask(self, question: Question) -> None:
        """Put a question; its `on_done` tells when it is answered."""
        question.asked_s = self._clock.monotonic_s()
        with self._lock:
            self._waiting.append(question)
        self._wake_up()

    def hold(self, ref: VersionRef) -> None:
        """Have the version kept on later connections too, if it is there; the first question about it does so on this one."""
        with self._lock:
            self._held.add(ref)

    def let_go(self, ref: VersionRef) -> None:
        """Nobody here uses the version any more."""
        with self._lock:
            self._held.discard(ref)
            self._waiting.append(LetGo(*ref))
        self._wake_up()

    def has_looked(self, ref: VersionRef) -> None:
        """What was asked of the version was asked once: unless it is held, it may be deleted from now on."""
        with self._lock:
            if ref in self._held:
                return
            self._waiting.append(LetGo(*ref))
        self._wake_up()

    @property
    def is_down(self) -> bool:
        """Whether there is no connection."""
        return self._down_since_s is not None

    def patience_end_s(self, question: Question, patience_s: float) -> float:
        """Until when to wait for an answer; may move on while the server is heard of, so ask again then.

        What is waited for is a sign of life: an answer may be long and the line slow. While there is no
        connection nobody waits the full time once more; but those who come get one attempt to connect.
        """
        down_since_s = self._down_since_s
        if down_since_s is None:
            return max(question.asked_s, self._heard_s) + patience_s
        attempt_s = min(patience_s, 2 * _WAIT_WHEN_ASKED_S)
        return max(down_since_s + patience_s, question.asked_s + attempt_s)

    def _wake_up(self) -> None:
        os.eventfd_write(self._wake, 1)

    # -- the thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        wait_s = _FIRST_WAIT_S
        while not self._is_stopped:
            try:
                with self._connect() as channel:
                    with hearing_refusals(channel):
                        enter(channel)
                        wait_s = _FIRST_WAIT_S
                        self._come_up()
                        self._converse(channel)
                    return
            except _Stopped:
                return
            except SsfsError as error:
                self._go_down(error)
            except Exception as error:  # the last frame of a thread  # noqa: BLE001
                _log.exception("A bug in ssfs; please report the lines below")
                self._go_down(ConnectionLost(f"The connection ended: {error}"))
            self._pause(wait_s)
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)

    def _come_up(self) -> None:
        self._heard_s = self._clock.monotonic_s()
        self._down_since_s = None
        if self._complaint:
            _log.warning("%s: connected again", self._location)
            self._complaint = ""
        with self._lock:
            self._waiting.extendleft(_HoldQuestion(ref) for ref in self._held)

    def _go_down(self, error: SsfsError) -> None:
        if self._down_since_s is None:
            self._down_since_s = self._clock.monotonic_s()
        if str(error) != self._complaint and not self._is_stopped:
            self._complaint = str(error)
            _log.warning("%s: %s; trying again", self._location, error)
        again: list[Question] = []
        for question in self._unanswered:
            if isinstance(question, _HoldQuestion):
                continue
            if question.is_dropped or question.attempts >= _ATTEMPTS:
                question.finish(error)
            else:
                again.append(question)
        self._unanswered.clear()
        with self._lock:
            questions = [one for one in self._waiting if not isinstance(one, _HoldQuestion | LetGo)]
            self._waiting = collections.deque([*again, *questions])

    def _pause(self, wait_s: float) -> None:
        """Wait for the next attempt; not for long when somebody asks."""
        begun_s = self._clock.monotonic_s()
        while not self._is_stopped:
            self._forget_dropped()
            is_asked = bool(self._waiting)
            longest_s = min(wait_s, _WAIT_WHEN_ASKED_S) if is_asked else wait_s
            left_s = begun_s + longest_s - self._clock.monotonic_s()
            if left_s <= 0:
                return
            _wait_readable(self._wake, left_s)
            self._drain()

    def _forget_dropped(self) -> None:
        with self._lock:
            dropped = [one for one in self._waiting if isinstance(one, Question) and one.is_dropped]
            for question in dropped:
                self._waiting.remove(question)
        for question in dropped:
            question.finish(_nobody_waits())

    def _drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake)

    def _converse(self, channel: Channel) -> None:
        """Ask and hear until stopped."""
        is_woken = True
        while True:
            if is_woken:
                self._drain()
            if self._is_stopped:
                if self._unanswered:
                    raise _Stopped
                channel.send(Leave())
                return
            self._send_waiting(channel)
            message = channel.receive_nowait()
            is_woken = message is None and channel.wait(self._wake, _LOOK_UP_S)
            if message is None:
                continue
            self._heard_s = self._clock.monotonic_s()
            self._hear(message)

    def _send_waiting(self, channel: Channel) -> None:
        while len(self._unanswered) < _MOST_UNANSWERED:
            with self._lock:
                if not self._waiting:
                    return
                question = self._waiting.popleft()
            if isinstance(question, LetGo):
                channel.send(question)
            elif question.is_dropped:
                question.finish(_nobody_waits())
            else:
                question.begin()
                question.attempts += 1
                self._unanswered.append(question)
                channel.send(question.request)

    def _hear(self, message: Message) -> None:
        if isinstance(message, Refused):
            raise_refused(message)
        if not self._unanswered:
            raise RemoteProtocolError(f"The server sent {type(message).__name__} unasked")
        question = self._unanswered[0]
        if isinstance(message, Lacking):
            question.failure = question.failure or Lacked(message)
        elif question.failure is None and not question.is_dropped:
            self._let_hear(question, message)
        if ends_answer(message):
            self._unanswered.popleft()
            question.finish(question.failure)

    def _let_hear(self, question: Question, message: Message) -> None:
        try:
            question.hear(message)
        except RemoteProtocolError as error:
            # It will be no better next time.
            self._unanswered.popleft()
            question.finish(error)
            raise
        except Exception as error:  # noqa: BLE001  # who asked hears of it, the rest is passed over
            question.failure = error


def _nobody_waits() -> ConnectionLost:
    """What a question ends with that was dropped before it was asked; should somebody wait for it after all, they hear this."""
    return ConnectionLost("The question was given up")


def _wait_readable(descriptor: int, timeout_s: float) -> None:
    """Wait until a descriptor can be read, but not for ever."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    poll.poll(timeout_s * 1000)
