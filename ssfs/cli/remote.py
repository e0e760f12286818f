"""The way to a store on another machine."""

from contextlib import AbstractContextManager

from ssfs.cli.location import SshPlace, TlsPlace, spell
from ssfs.errors import ConfigError
from ssfs.net.channel import Channel


def open_channel(place: TlsPlace | SshPlace) -> AbstractContextManager[Channel]:
    """A session with the server of a place, greeted and ready for a first question.

    Raises:
        ConfigError: There is no way to it.
    """
    raise ConfigError(f"Stores on other machines are not available yet: {spell(place)}")
