"""What all control messages have in common; the closed set of them is in `ssfs.protocol.messages`."""

import msgspec


class ControlMessage(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Base of the control messages."""
