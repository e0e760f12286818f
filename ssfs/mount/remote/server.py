"""The server as a mount sees it: questions that are awaited, and what their failures mean to whoever reads.

Whoever waits gets an error after `patience_s` without a sign of life of the server (EIO), never none at all.
"""

import contextlib
import errno
from collections.abc import Awaitable, Callable

import trio

from ssfs.clock import Clock
from ssfs.engine.browse.link import BrowsingLink, OpenChannel
from ssfs.engine.browse.requests import Lacked, Question
from ssfs.errors import CorruptStore
from ssfs.mount.inodes import Stale
from ssfs.protocol.browsing import Lack

_SOON_S = 0.01


class _Work:
    """Something that several may wait for."""

    def __init__(self) -> None:
        self.is_over = trio.Event()
        self.error: Exception | None = None


class Server:
    """The server behind a mount, once `start` was called inside of trio.

    Attributes:
        link: Asks it.
        location: What it shows, for messages.
    """

    def __init__(
        self, connect: OpenChannel, location: str, clock: Clock, patience_s: float
    ) -> None:
        """Do nothing yet; arguments as for `BrowsingLink`."""
        self.link = BrowsingLink(connect, location, clock)
        self.location = location
        self._clock = clock
        self._patience_s = patience_s
        self._token: trio.lowlevel.TrioToken | None = None
        self._under_way: dict[object, _Work] = {}

    def start(self) -> None:
        """Connect; answers come to the loop that is running."""
        self._token = trio.lowlevel.current_trio_token()
        self.link.start()

    def begin(self, question: Question) -> trio.Event:
        """Ask; the event is set when the question is done."""
        answered = trio.Event()

        def tell() -> None:
            assert self._token is not None
            if not self.link.is_stopped:
                with contextlib.suppress(trio.RunFinishedError):
                    self._token.run_sync_soon(answered.set)

        question.on_done = tell
        self.link.ask(question)
        return answered

    async def wait(self, question: Question, answered: trio.Event) -> None:
        """Wait for an answer.

        Raises:
            Stale: What was asked for is not there any more.
            CorruptStore: The server has lost it.
            OSError: There is no answer, or none that can be used.
        """
        # The question knows before the loop has its turn to set the event.
        while not (question.is_done or answered.is_set()):
            end_s = self.link.patience_end_s(question, self._patience_s)
            left_s = end_s - self._clock.monotonic_s()
            if left_s <= 0:
                question.is_dropped = True
                raise OSError(errno.EIO, "The server does not answer", self.location)
            with trio.move_on_after(max(left_s, _SOON_S)):
                await answered.wait()
        if question.failure is not None:
            raise self._meaning(question.failure)

    async def ask(self, question: Question) -> None:
        """Ask and wait; raises as `wait`."""
        await self.wait(question, self.begin(question))

    def in_loop(self, work: Callable[[], None]) -> None:
        """Have something done by the loop, from the link's thread, and wait until it is."""
        if not self.link.is_stopped:
            trio.from_thread.run_sync(work, trio_token=self._token)

    async def once(self, key: object, work: Callable[[], Awaitable[None]]) -> None:
        """Do something that others may be doing already: then wait for them, and share their failure."""
        under_way = self._under_way.get(key)
        if under_way is not None:
            await under_way.is_over.wait()
            if under_way.error is not None:
                raise under_way.error
            return
        under_way = self._under_way[key] = _Work()
        try:
            await work()
        except Exception as error:
            under_way.error = error
            raise
        finally:
            del self._under_way[key]
            under_way.is_over.set()

    def _meaning(self, failure: Exception) -> Exception:
        if not isinstance(failure, Lacked):
            if isinstance(failure, OSError | CorruptStore):
                return failure
            return OSError(errno.EIO, str(failure), self.location)
        match failure.lack:
            case Lack.GONE:
                return Stale()
            case Lack.DAMAGED:
                return CorruptStore(f"{self.location}: {failure.problem}")
            case Lack.REFUSED:
                return OSError(errno.EACCES, failure.problem, self.location)
            case Lack.FAILED:
                return OSError(errno.EIO, failure.problem, self.location)
