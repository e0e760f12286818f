"""One end of a session as a pure machine: bytes in, messages out, and the other way round.

It owns framing, encoding and the order of messages (`ssfs.protocol.states`); it never waits, reads a clock or touches
a socket, and never holds a file: bulk content passes through as views. Pacing, deadlines and TLS are
`ssfs.net`'s; what a message means is `ssfs.engine`'s.

A frame is `length` (u32, little endian, of the payload), `type` (u8), payload.
"""

import struct
from collections.abc import Generator, Iterator

from ssfs.errors import LocalProtocolError, RemoteProtocolError
from ssfs.protocol.codec import TYPE_NUMBERS, decode, encode
from ssfs.protocol.messages import MAX_PAYLOAD_BYTES, Message
from ssfs.protocol.states import Role, State, next_state

_HEADER = struct.Struct("<IB")


class Connection:
    """The state of one session, seen from one end.

    Attributes:
        role: Which end this is.
        state: Where the session is, from what was sent and received so far.
    """

    def __init__(self, role: Role) -> None:
        self.role = role
        self.state = State.START
        self._unread = bytearray()
        # A cut frame for which room was made, and how much of it has come.
        self._frame: bytearray | None = None
        self._filled = 0

    def send(self, message: Message) -> list[bytes | memoryview]:
        """The bytes that say `message`, as buffers to write one after the other.

        Raises:
            LocalProtocolError: We may not say this now: our bug.
        """
        after = next_state(self.state, self.role, type(message))
        if after is None:
            raise LocalProtocolError(f"{type(message).__name__} sent in state {self.state.value}")
        buffers = encode(message)
        length = sum(map(len, buffers))
        if length > MAX_PAYLOAD_BYTES:
            raise LocalProtocolError(f"{type(message).__name__} of {length} bytes is too long")
        self.state = after
        header = _HEADER.pack(length, TYPE_NUMBERS[type(message)])
        return [header, *buffers]

    def receive(self, received: memoryview) -> Iterator[Message]:
        """The messages that are complete with these bytes, in order.

        The iterator must be exhausted before the next call. Bulk messages hold views into
        `received` (or into an internal buffer): good until the next call.

        Raises:
            RemoteProtocolError: The peer broke the rules; the session is over.
        """
        if self._frame is not None:
            count = min(len(self._frame) - self._filled, len(received))
            self._frame[self._filled : self._filled + count] = received[:count]
            yield from self.filled(count)
            received = received[count:]
        if not self._unread:
            used = yield from self._parse(received)
            self._unread += received[used:]
            return
        # Complete the cut frame only, so that the rest of `received` is parsed where it lies.
        taken = self._complete_cut_frame(received)
        if taken is None:
            return
        # A fresh buffer, as views into the old one may still be alive.
        cut_frame, self._unread = self._unread, bytearray()
        yield from self._parse(memoryview(cut_frame))
        rest = received[taken:]
        used = yield from self._parse(rest)
        self._unread += rest[used:]

    def room(self, least_bytes: int) -> memoryview | None:
        """Where the rest of a cut frame belongs, to be filled from its beginning, so that nothing need be copied.

        What is put there is made known by `filled`. Messages in it hold views that stay good.

        Args:
            least_bytes: Make no room for less.

        Returns:
            None if no frame is cut, or it is not known yet that so much of it is missing.

        Raises:
            RemoteProtocolError: The frame is too long; the session is over.
        """
        if self._frame is None:
            begun = len(self._unread)
            if begun < _HEADER.size:
                return None
            missing = (
                self._check_length(_HEADER.unpack_from(self._unread)[0]) + _HEADER.size - begun
            )
            if missing < least_bytes:
                return None
            self._frame = bytearray(begun + missing)
            self._frame[:begun] = self._unread
            self._unread, self._filled = bytearray(), begun
        return memoryview(self._frame)[self._filled :]

    def filled(self, count: int) -> Iterator[Message]:
        """The message that is complete with the next `count` bytes in `room`, if it is; used and raises as `receive`."""
        self._filled += count
        if self._frame is not None and self._filled == len(self._frame):
            frame, self._frame = self._frame, None
            yield from self._parse(memoryview(frame))

    def _complete_cut_frame(self, received: memoryview) -> int | None:
        """Move what completes the cut frame over; how much that was, None if it is still cut."""
        taken = 0
        if len(self._unread) < _HEADER.size:
            taken = min(_HEADER.size - len(self._unread), len(received))
            self._unread += received[:taken]
            if len(self._unread) < _HEADER.size:
                return None
        length = self._check_length(_HEADER.unpack_from(self._unread)[0])
        more = min(_HEADER.size + length - len(self._unread), len(received) - taken)
        self._unread += received[taken : taken + more]
        if len(self._unread) < _HEADER.size + length:
            return None
        return taken + more

    def _parse(self, view: memoryview) -> Generator[Message, None, int]:
        """Yield the complete frames of `view`; returns how many bytes they were."""
        position = 0
        while len(view) - position >= _HEADER.size:
            length, number = _HEADER.unpack_from(view, position)
            end = position + _HEADER.size + self._check_length(length)
            if end > len(view):
                break
            message = decode(number, view[position + _HEADER.size : end])
            after = next_state(self.state, self.role.peer, type(message))
            if after is None:
                raise RemoteProtocolError(
                    f"The peer sent {type(message).__name__} in state {self.state.value!r}"
                )
            self.state = after
            position = end
            yield message
        return position

    def _check_length(self, length: int) -> int:
        if length > MAX_PAYLOAD_BYTES:
            raise RemoteProtocolError(f"The peer announced a frame of {length} bytes")
        return length
