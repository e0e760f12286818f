"""What the content of a file becomes on its way: segments, each a delta or as it is."""

from dataclasses import dataclass

SEGMENT_BYTES = 8 << 20
"""About how much of the new file one of them makes."""


@dataclass(frozen=True, slots=True)
class Delta:
    """A segment as instructions on the basis."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Raw:
    """A segment as it is: the very memory that was handed in."""

    payload: memoryview
