"""What a restoring client has asked for and was not answered, within its credit (`ssfs.engine.restore.credit`)."""

import collections
import itertools
from typing import NamedTuple

from ssfs.delta.described import DescribedBasis
from ssfs.engine.restore.credit import CREDIT_BASIS_BYTES, CREDIT_FILES
from ssfs.errors import RemoteProtocolError
from ssfs.protocol.restoring import BasisPart


class Request(NamedTuple):
    """A file that was asked for; with what the client has of it, if anything, and how long the description of that is."""

    entry_id: int
    basis: DescribedBasis | None
    basis_bytes: int


class Requests:
    """What was asked for and is not answered."""

    def __init__(self) -> None:
        self._queue: collections.deque[Request] = collections.deque()
        self._basis_bytes = 0
        self._coming: Request | None = None

    def __bool__(self) -> bool:
        return bool(self._queue)

    @property
    def first(self) -> Request:
        """The one to answer next."""
        return self._queue[0]

    def next_ids(self, count: int) -> list[int]:
        """The files to answer for next, at most so many."""
        return [request.entry_id for request in itertools.islice(self._queue, count)]

    def want(self, ids: list[int]) -> None:
        """Files are wanted whole; raises as `hear_basis`."""
        if len(self._queue) + len(ids) > CREDIT_FILES:
            raise RemoteProtocolError("The client asked for too many files at a time")
        self._queue.extend(Request(entry_id, None, 0) for entry_id in ids)

    def hear_basis(self, part: BasisPart) -> None:
        """A piece of the description of a basis; with the last one its file is wanted.

        Raises:
            RemoteProtocolError: It is too much, malformed, or of another file than the piece before.
        """
        coming = self._coming or Request(part.id, DescribedBasis(), 0)
        if coming.entry_id != part.id or coming.basis is None:
            raise RemoteProtocolError("The client mixed what it has of two files")
        # Kept before it is looked at, so that `close` frees it whatever happens.
        self._coming = coming._replace(basis_bytes=coming.basis_bytes + len(part.content))
        self._basis_bytes += len(part.content)
        if self._basis_bytes > CREDIT_BASIS_BYTES:
            raise RemoteProtocolError("The client described too much at a time")
        coming.basis.feed(part.content)
        if part.last:
            if len(self._queue) >= CREDIT_FILES:
                raise RemoteProtocolError("The client asked for too many files at a time")
            self._queue.append(self._coming)
            self._coming = None

    def answered(self, request: Request) -> None:
        """The first one is; its basis is freed."""
        self._queue.popleft()
        self._basis_bytes -= request.basis_bytes
        if request.basis is not None:
            request.basis.close()

    def close(self) -> None:
        """Free all that was described."""
        for request in (*self._queue, self._coming):
            if request is not None and request.basis is not None:
                request.basis.close()
        self._queue.clear()
        self._coming = None
