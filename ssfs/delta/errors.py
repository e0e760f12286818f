"""What a signature or a delta that breaks its format becomes."""

from ssfs.errors import RemoteProtocolError


class DeltaError(RemoteProtocolError):
    """A signature or delta that cannot be used: ask for the whole file or close the session.

    Both come from the peer, so this is the peer's fault, with one exception: a basis that shrank
    while it was being patched looks the same from here.
    """
