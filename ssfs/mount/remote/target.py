"""What is mounted of a server, found to be there before anything is mounted."""

import zoneinfo
from typing import NamedTuple

from ssfs.engine.browse.link import OpenChannel, ask_once, enter
from ssfs.engine.browse.requests import Lacked, ListingQuestion
from ssfs.errors import ConfigError, RemoteProtocolError, StoreError, TrustError
from ssfs.protocol.browsing import Browsed, Lack
from ssfs.protocol.messages import Leave


class RemoteTarget(NamedTuple):
    """A server's store, a sync point or a task of it.

    Attributes:
        connect: Connects and greets.
        store: The server's store, as a user would write it.
        location: What is shown, likewise.
        point: Sync point name; "": the whole store.
        task: Task name; "": the whole sync point.
        zone: The store's time zone.
    """

    connect: OpenChannel
    store: str
    location: str
    point: str
    task: str
    zone: zoneinfo.ZoneInfo


def reach(connect: OpenChannel, store: str, location: str, point: str, task: str) -> RemoteTarget:
    """Ask the server once whether it has what is to be mounted.

    Raises:
        ConfigError: It does not.
        TrustError: It does not let us.
        SsfsError: It cannot be reached, or is none.
    """
    with connect() as channel:
        zone = _zone(enter(channel))
        try:
            ask_once(channel, ListingQuestion(point, task, b""))
        except Lacked as error:
            kinds = {Lack.GONE: ConfigError, Lack.REFUSED: TrustError}
            raise kinds.get(error.lack, StoreError)(error.problem) from error
        channel.send(Leave())
    return RemoteTarget(connect, store, location, point, task, zone)


def _zone(browsed: Browsed) -> zoneinfo.ZoneInfo:
    try:
        return zoneinfo.ZoneInfo(browsed.timezone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise RemoteProtocolError(
            f"The server's time zone {browsed.timezone!r} is unknown here"
        ) from error
