"""How full the server's disk is: as it said a moment ago, since who asks must not have to wait."""

import trio

from ssfs.clock import Clock
from ssfs.engine.browse.requests import SpaceQuestion
from ssfs.model.entry import NAME_MAX_BYTES
from ssfs.mount.remote.server import Server
from ssfs.mount.wire import Space
from ssfs.protocol.browsing import StoreSpace

_BELIEVED_S = 5.0
_WAIT_S = 1.0
_NOTHING_KNOWN = StoreSpace(512, 0, 0, 0, 0, 0)


class ServerSpace:
    """Asks every few seconds, while somebody wants to know."""

    def __init__(self, server: Server, clock: Clock) -> None:
        """Ask nothing yet."""
        self._server = server
        self._clock = clock
        self._known = _NOTHING_KNOWN
        self._known_s: float | None = None
        self._asked: tuple[SpaceQuestion, trio.Event] | None = None

    async def space(self) -> Space:
        """What is known: without an answer in a second what was known before, at first nothing."""
        self._take()
        if self._known_s is None or self._clock.monotonic_s() - self._known_s >= _BELIEVED_S:
            if self._asked is None:
                question = SpaceQuestion()
                self._asked = question, self._server.begin(question)
            if self._known_s is None or not self._server.link.is_down:
                with trio.move_on_after(_WAIT_S):
                    await self._asked[1].wait()
            self._take()
        fragment = self._known.fragment
        return Space(
            self._known.blocks,
            self._known.free,
            self._known.available,
            self._known.files,
            self._known.free_files,
            fragment,
            NAME_MAX_BYTES,
            fragment,
        )

    def _take(self) -> None:
        """Note what has been answered meanwhile, also long after whoever asked has gone on."""
        if self._asked is None or not self._asked[0].is_done:
            return
        (question, _), self._asked = self._asked, None
        if question.failure is None and question.space is not None:
            self._known, self._known_s = question.space, self._clock.monotonic_s()
