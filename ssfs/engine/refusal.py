"""Errors over the wire: a server's error as a `Refused` message, and back into an error."""

from typing import NoReturn

from ssfs.errors import (
    ConfigError,
    CorruptStore,
    InternalError,
    PeerError,
    SsfsError,
    StoreError,
    StoreFull,
    StoreLocked,
)
from ssfs.protocol.messages import Refusal, Refused

# The most specific class first: the first that fits is sent.
_CODES: list[tuple[type[SsfsError], Refusal]] = [
    (StoreLocked, Refusal.TASK_BUSY),
    (StoreFull, Refusal.STORE_FULL),
    (CorruptStore, Refusal.CORRUPT),
    (StoreError, Refusal.STORE),
    (ConfigError, Refusal.BAD_REQUEST),
]
_CLASSES = {code: kind for kind, code in _CODES}


def to_refusal(error: SsfsError) -> Refused:
    """The message that tells a client of a server's error."""
    for kind, code in _CODES:
        if isinstance(error, kind):
            return Refused(code, error.problem, error.path or b"", error.remedy)
    return Refused(Refusal.BAD_REQUEST, str(error), b"", "")


def raise_refused(message: Refused) -> NoReturn:
    """Raise at the client what was raised at the server."""
    if message.code is Refusal.CATALOG_DIFFERS:
        raise InternalError(f"{message.problem}: please report this")
    kind = _CLASSES.get(message.code, PeerError)
    raise kind(message.problem, path=message.path or None, remedy=message.remedy)
