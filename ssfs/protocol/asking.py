"""What all requests and answers have in common; the closed set of them is in `ssfs.protocol.requests`."""

from typing import Annotated, Generic, TypeVar

import msgspec

A_co = TypeVar("A_co", covariant=True)

Text = Annotated[str, msgspec.Meta(max_length=1000)]
"""A name in a request: of a sync point, a task, a version."""
Path = Annotated[bytes, msgspec.Meta(max_length=1 << 16)]
"""A path in a request, or a pattern of paths: any bytes."""


class Report(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of the answers and of what they consist of."""


class Request(
    msgspec.Struct, Generic[A_co], frozen=True, forbid_unknown_fields=True, tag_field="command"
):
    """Base of the requests; the parameter is what each is answered with."""
