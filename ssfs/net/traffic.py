"""How much went over a wire. A module of its own: a sync on one machine needs nothing of trio."""


class Traffic:
    """Counters of one wire. Written by the event loop, read by any thread.

    Attributes:
        sent_bytes: Bytes given to the operating system for the other machine.
        received_bytes: Bytes that came from there.
    """

    __slots__ = ("received_bytes", "sent_bytes")

    def __init__(self) -> None:
        self.sent_bytes = 0
        self.received_bytes = 0
