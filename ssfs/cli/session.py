"""How a command speaks to a store: alike, whether it is on this machine or behind a server."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol, TypeVar, cast

from typing_extensions import override

from ssfs.cli.location import LocalPlace, Place
from ssfs.cli.remote import open_channel
from ssfs.clock import SystemClock
from ssfs.engine.commands import answer, ask
from ssfs.model.peer import LOCAL
from ssfs.monitor import Monitor, NullMonitor
from ssfs.net.channel import Channel
from ssfs.protocol.asking import Request
from ssfs.store.store import Store

if TYPE_CHECKING:
    from ssfs.protocol.requests import AnyRequest

A = TypeVar("A")
_NOBODY_WATCHES = NullMonitor()


class CommandSession(Protocol):
    """A store that can be asked."""

    def ask(self, request: Request[A], monitor: Monitor = _NOBODY_WATCHES) -> A:
        """The answer to a request; `monitor` hears of progress, where there is any.

        Raises:
            SsfsError: As `ssfs.engine.commands.answer`, and what can go wrong on the way there.
        """
        ...


@contextlib.contextmanager
def open_session(place: Place) -> Iterator[CommandSession]:
    """A session with the store of a place.

    Raises:
        StoreError: There is no store on this machine.
        SsfsError: There is no way to the other one.
    """
    if isinstance(place, LocalPlace):
        yield _LocalSession(Store.open(place.store))
    else:
        with open_channel(place) as channel:
            yield _RemoteSession(channel)


class _LocalSession(CommandSession):
    def __init__(self, store: Store) -> None:
        self._store = store

    @override
    def ask(self, request: Request[A], monitor: Monitor = _NOBODY_WATCHES) -> A:
        # The requests are a closed set, each with its own answer: the type checker cannot know.
        given = answer(self._store, LOCAL, cast("AnyRequest", request), SystemClock(), monitor)
        return cast("A", given)


class _RemoteSession(CommandSession):
    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    @override
    def ask(self, request: Request[A], monitor: Monitor = _NOBODY_WATCHES) -> A:
        return ask(self._channel, request, monitor)
