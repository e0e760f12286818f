"""What a mount shows of a place: on this machine opened, on another one reached."""

import functools

from ssfs.cli.location import LocalPlace, Place, open_target, spell
from ssfs.cli.remote import open_channel
from ssfs.mount.process import MountTarget, RemoteTarget
from ssfs.mount.remote.target import reach


def find_target(place: Place) -> MountTarget | RemoteTarget:
    """What is mounted for a place, no more and no less than it names.

    Raises:
        ConfigError: There is no such thing.
        StoreError: There is no store, or it cannot be read.
        TrustError: The server is not the one it should be, or does not let us.
        PeerError: The server cannot be reached.
    """
    if isinstance(place, LocalPlace):
        return open_target(place)
    store = spell(place._replace(point=None, task=None))
    connect = functools.partial(open_channel, place)
    return reach(connect, store, spell(place), place.point or "", place.task or "")
