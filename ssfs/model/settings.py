"""Settings that bound what a sync point and a server take: limits, deadlines, reserves.

All have defaults, so that a text file (FORMAT.md, "Text files") names only those that somebody set.
"""

from typing import Annotated

import msgspec

MAX_CONCURRENT = 1000
"""No sync point takes more backups at once."""

Count = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
# An end that lives shows it every 15 s (`LinkOptions.keep_alive_s`); one lost packet must not end it.
Idle = Annotated[int, msgspec.Meta(ge=30, le=1_000_000)]
Concurrency = Annotated[int, msgspec.Meta(ge=1, le=MAX_CONCURRENT)]
Bytes = Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]
Percent = Annotated[int, msgspec.Meta(ge=0, le=50)]


class PointLimits(msgspec.Struct, frozen=True, omit_defaults=True):
    """How much a sync point takes: `[limits]` of point.toml.

    Attributes:
        max_concurrent: Backups that run at once; more of them wait.
        quota_bytes: Content bytes from which on it takes no new backup; 0: as much as there is.
    """

    max_concurrent: Concurrency = 8
    quota_bytes: Bytes = 0


class ServerSettings(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a server of the store allows its clients: `[server]` of store.toml.

    Attributes:
        max_sessions: Sessions of known clients at once, of whatever kind; half of them of one client.
        max_half_open: Connections at once that have not shown yet who they are.
        handshake_s: Seconds a connection has for that.
        idle_s: Seconds a session may say nothing.
    """

    max_sessions: Count = 256
    max_half_open: Count = 64
    handshake_s: Count = 10
    idle_s: Idle = 60


class Reserve(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a new backup must find free in the store's file system: `[reserve]` of store.toml.

    Attributes:
        space_percent: Percent of its bytes ...
        space_most_bytes: ... but no more than this.
        inodes_percent: Percent of its inodes, where it counts them.
    """

    space_percent: Percent = 2
    space_most_bytes: Bytes = 5 << 30
    inodes_percent: Percent = 2
