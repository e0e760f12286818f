"""How full a server's disk is: asked now and then, and never waited for."""

import trio
import trio.testing

from ssfs.engine.browse.requests import SpaceQuestion
from ssfs.errors import ConnectionLost
from ssfs.mount.remote.space import ServerSpace
from ssfs.protocol.browsing import StoreSpace
from tests.mount.stores import HandClock


class SilentServer:
    """A server that answers when the test says so.

    Attributes:
        asked: What it was asked.
        is_down: Whether there is no connection.
    """

    def __init__(self) -> None:
        self.link = self
        self.is_down = False
        self.asked: list[tuple[SpaceQuestion, trio.Event]] = []

    def begin(self, question: SpaceQuestion) -> trio.Event:
        self.asked.append((question, trio.Event()))
        return self.asked[-1][1]

    def answer(self, free: int) -> None:
        question, answered = self.asked[-1]
        question.hear(StoreSpace(4096, 100, free, free, 10, 5))
        question.finish(None)
        answered.set()

    def fail(self) -> None:
        question, answered = self.asked[-1]
        question.finish(ConnectionLost("gone"))
        answered.set()


async def free(space: ServerSpace) -> int:
    return (await space.space()).free


async def test_server_is_asked_every_few_seconds(autojump_clock):
    server, clock = SilentServer(), HandClock()
    space = ServerSpace(server, clock)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(free, space)
        await trio.testing.wait_all_tasks_blocked()
        server.answer(7)
    assert await free(space) == 7
    clock.seconds += 4
    assert await free(space) == 7
    assert len(server.asked) == 1
    clock.seconds += 2
    async with trio.open_nursery() as nursery:
        nursery.start_soon(free, space)
        await trio.testing.wait_all_tasks_blocked()
        server.answer(6)
    assert await free(space) == 6


async def test_server_that_says_nothing_is_waited_for_a_second_and_heard_later(autojump_clock):
    server, clock = SilentServer(), HandClock()
    space = ServerSpace(server, clock)
    begun = trio.current_time()
    assert await free(space) == 0
    assert await free(space) == 0
    assert trio.current_time() - begun <= 2.5
    assert len(server.asked) == 1
    server.answer(7)
    assert await free(space) == 7


async def test_what_is_known_is_told_at_once_while_the_line_is_down(autojump_clock):
    server, clock = SilentServer(), HandClock()
    space = ServerSpace(server, clock)
    await free(space)
    server.answer(7)
    assert await free(space) == 7
    clock.seconds += 60
    server.is_down = True
    begun = trio.current_time()
    assert await free(space) == 7
    assert trio.current_time() == begun
    server.fail()
    assert await free(space) == 7
    # It is asked once more.
    assert len(server.asked) == 3
