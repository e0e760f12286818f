"""What can be chosen about a link. Without trio, which a command that stays on this machine need not load."""

import msgspec

from ssfs.net.compression import Compression

MIN_RATE_BYTES_S = 1000
"""Below it keep-alives and headers would be most of what is sent."""


class LinkOptions(msgspec.Struct, frozen=True):
    """How one end wants a link to be.

    Attributes:
        compression: For what this end sends and, as a wish, for what it is sent. None: as the other end
            wishes.
        limit_bytes_s: The same for the rate, in bytes on the wire per second; 0 for no limit. At least
            `MIN_RATE_BYTES_S`. The lower one of the two ends counts.
        max_asked_level: The highest compression level that the other end can ask of us.
        keep_alive_s: An empty block is sent after so much silence.
        idle_s: A wire from which nothing came for so long is given up.
        linger_s: How long to wait for the other end to end, once this one has.
    """

    compression: Compression | None = None
    limit_bytes_s: int = 0
    max_asked_level: int = 9
    keep_alive_s: float = 15
    idle_s: float = 60
    linger_s: float = 5
