"""Errors over the wire: a server's error as a `Refused` message, and back into an error."""

import contextlib
from collections.abc import Iterator
from typing import NoReturn

from ssfs.errors import (
    ConfigError,
    ConnectionLost,
    CorruptStore,
    InternalError,
    PeerBusy,
    PeerError,
    SsfsError,
    StoreError,
    StoreFull,
    StoreLocked,
    TrustError,
)
from ssfs.net.channel import Channel
from ssfs.protocol.messages import Message, Refusal, Refused

_MAX_TEXT = 10_000

# The most specific class first: the first that fits is sent.
_CODES: list[tuple[type[SsfsError], Refusal]] = [
    (StoreLocked, Refusal.TASK_BUSY),
    (StoreFull, Refusal.STORE_FULL),
    (CorruptStore, Refusal.CORRUPT),
    (StoreError, Refusal.STORE),
    (ConfigError, Refusal.BAD_REQUEST),
    (TrustError, Refusal.NOT_TRUSTED),
    (PeerBusy, Refusal.NO_SLOT),
    # A server that goes down says so by the error that makes a client try again later.
    (ConnectionLost, Refusal.GOING_DOWN),
]
_CLASSES = {code: kind for kind, code in _CODES}


def to_refusal(error: SsfsError) -> Refused:
    """The message that tells a client of a server's error."""
    for kind, code in _CODES:
        if isinstance(error, kind):
            return Refused(code, sendable(error.problem), error.path or b"", sendable(error.remedy))
    return Refused(Refusal.BAD_REQUEST, sendable(str(error)), b"", "")


def sendable(text: str) -> str:
    """What travels of a text: it may quote any path, and anything that a client sent."""
    if len(text) > _MAX_TEXT:
        text = f"{text[:_MAX_TEXT]}..."
    return text.encode(errors="backslashreplace").decode()


def raise_refused(message: Refused) -> NoReturn:
    """Raise at the client what was raised at the server."""
    if message.code is Refusal.CATALOG_DIFFERS:
        raise InternalError(f"{message.problem}: please report this")
    kind = _CLASSES.get(message.code, PeerError)
    raise kind(message.problem, path=message.path or None, remedy=message.remedy)


@contextlib.contextmanager
def hearing_refusals(channel: Channel) -> Iterator[None]:
    """When the server is gone, raise what it said last: who refuses says why and closes."""
    try:
        yield
    except ConnectionLost:
        last: Message | None = None
        with contextlib.suppress(PeerError):
            while not isinstance(last, Refused):
                last = channel.receive()
        if isinstance(last, Refused):
            raise_refused(last)
        raise


def hear(channel: Channel) -> Message:
    """The next message of a server; a refusal is raised."""
    message = channel.receive()
    if isinstance(message, Refused):
        raise_refused(message)
    return message
