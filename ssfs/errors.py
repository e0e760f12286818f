"""The errors a user can meet, sorted by who can act on them.

Every class but `InternalError` and `LocalProtocolError` derives from `SsfsError`: catching
`SsfsError` therefore never hides one of our own bugs. An error holds what is wrong, the path or
option it is about and what to do next, and builds its one-line text from them. The exit code of
each family lives in `ssfs.cli.exit_codes` alone. An unreadable file is no error of a run: it is an
`ssfs.model.problem.EntryProblem`, a value that the run collects while it goes on.
"""

import os

from typing_extensions import override


class SsfsError(Exception):
    """Something a person can act on.

    Attributes:
        problem: What is wrong, capitalised, without a full stop.
        path: The path it is about, if any.
        remedy: What to do next, if we know.
    """

    def __init__(self, problem: str, *, path: bytes | None = None, remedy: str = "") -> None:
        super().__init__(problem, path, remedy)
        self.problem = problem
        self.path = path
        self.remedy = remedy

    @override
    def __str__(self) -> str:
        """The whole error in one line."""
        text = self.problem
        if self.path is not None:
            text += f": {os.fsdecode(self.path)!r}"
        if self.remedy:
            text += f" ({self.remedy})"
        return text


class ConfigError(SsfsError):
    """A wrong option, argument or setting: nothing was done."""


class TrustError(SsfsError):
    """The peer is not who it should be: never retried."""


class PeerError(SsfsError):
    """The other end misbehaved, refused or went away."""


class RemoteProtocolError(PeerError):
    """The peer broke the rules of PROTOCOL.md."""


class ConnectionLost(PeerError):
    """The peer went away; the only peer error that is worth a retry."""


class PeerBusy(PeerError):
    """The peer has no room for one more now, and we would not wait."""


class StoreError(SsfsError):
    """The store cannot do what was asked of it."""


class StoreLocked(StoreError):
    """Somebody else is writing there."""


class StoreFull(StoreError):
    """No space or no inodes left on the store's file system."""


class CorruptStore(StoreError):
    """Something in the store is not what was written there."""


class SourceError(SsfsError):
    """The source as a whole cannot be read."""


class InternalError(Exception):
    """Our own bug: a state that must not occur."""


class LocalProtocolError(InternalError):
    """Our own side tried to break the rules of PROTOCOL.md."""
