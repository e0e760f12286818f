"""A session over a blocking socket, driven by one thread at each end.

The client's end never waits for a send without reading: while its outgoing bytes do not fit, it takes in
what the server says and keeps it for later. So the server may always send, and no two ends wait for
each other (PROTOCOL.md, step 5). What can pile up is bounded by the credits of that step.
"""

import collections
import select
import socket
from collections.abc import Iterator

from ssfs.errors import ConnectionLost, RemoteProtocolError
from ssfs.net.traffic import Traffic
from ssfs.protocol.connection import Connection
from ssfs.protocol.messages import FileDelta, FileRaw, Message, Refused, SignaturePart
from ssfs.protocol.restoring import BasisPart
from ssfs.protocol.states import Role, State

_RECEIVE_BYTES = 1 << 20
_EARLY_BYTES = 64 << 10
_ROOM_BYTES = 32 << 10
"""A frame of which so much is missing is received where it stays; less is received along with what comes behind it."""


class Channel:
    """One end of a session."""

    def __init__(self, stream: socket.socket, role: Role, traffic: Traffic | None = None) -> None:
        """Take over the socket: `close` closes it.

        Args:
            stream: The socket, of another process's channel or of a pump.
            role: Which end this is.
            traffic: Counts what the wire behind a pump carries, for `sent_bytes` and
                `received_bytes`. None: what goes over the socket.
        """
        self._stream = stream
        self._stream.settimeout(0)
        self._reads_while_sending = role is Role.CLIENT
        self._connection = Connection(role)
        self._buffer = bytearray(_RECEIVE_BYTES)
        self._inbox: collections.deque[Message] = collections.deque()
        self._is_refused = False
        self._poll = select.poll()
        self._poll.register(stream, select.POLLIN)
        self._is_wire = traffic is not None
        self._traffic = traffic or Traffic()

    @property
    def state(self) -> State:
        """Where the session is."""
        return self._connection.state

    @property
    def sent_bytes(self) -> int:
        """Bytes sent so far; over the network as they were there, compressed and encrypted."""
        return self._traffic.sent_bytes

    @property
    def received_bytes(self) -> int:
        """Bytes received so far, counted like `sent_bytes`."""
        return self._traffic.received_bytes

    def send(self, *messages: Message) -> None:
        """Say it, all at once; returns when the operating system has taken all of it.

        Raises:
            ConnectionLost: The peer is gone, or has refused; what it said last can still be
                received.
        """
        if self._is_refused:
            raise ConnectionLost("The other end ended the session")
        self._check_not_ended()
        buffers = [memoryview(buffer) for one in messages for buffer in self._connection.send(one)]
        while buffers:
            try:
                count = self._stream.sendmsg(buffers)
            except BlockingIOError:
                self._wait_to_send()
                continue
            except OSError as error:
                raise ConnectionLost(
                    f"The other end went away ({error.strerror or 'closed'})"
                ) from error
            if not self._is_wire:
                self._traffic.sent_bytes += count
            while buffers and count >= len(buffers[0]):
                count -= len(buffers.pop(0))
            if buffers:
                buffers[0] = buffers[0][count:]

    def _wait_to_send(self) -> None:
        events = select.POLLOUT | (select.POLLIN if self._reads_while_sending else 0)
        self._poll.modify(self._stream, events)
        ready = self._poll.poll()
        if self._reads_while_sending and any(event & select.POLLIN for _, event in ready):
            self._take_in()
            self._check_not_ended()

    def _check_not_ended(self) -> None:
        """Nobody listens any more once the peer has said its last word, which is still unheard."""
        if self._inbox and self._connection.state is State.CLOSED:
            raise ConnectionLost("The other end ended the session")

    def _take_in(self) -> None:
        """Read once what is there and keep the messages."""
        # A server makes no room for what a client only announces.
        room = self._connection.room(_ROOM_BYTES) if self._reads_while_sending else None
        if room is None:
            messages = self._connection.receive(self._read())
        else:
            messages = self._connection.filled(self._read_into(room))
        for message in messages:
            self._inbox.append(_keepable(message, self._buffer))
            self._is_refused = self._is_refused or isinstance(message, Refused)

    def _read(self) -> memoryview:
        return memoryview(self._buffer)[: self._read_into(self._buffer)]

    def _read_into(self, buffer: bytearray | memoryview) -> int:
        try:
            count = self._stream.recv_into(buffer)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise ConnectionLost(f"The other end went away ({error.strerror})") from error
        if count == 0:
            raise ConnectionLost("The other end closed the connection")
        if not self._is_wire:
            self._traffic.received_bytes += count
        return count

    def receive(self) -> Message:
        """The next message; waits for it.

        Raises:
            ConnectionLost: The peer is gone.
            RemoteProtocolError: The peer broke the rules.
        """
        while not self._inbox:
            self._poll.modify(self._stream, select.POLLIN)
            self._poll.poll()
            self._take_in()
        return self._inbox.popleft()

    def receive_nowait(self) -> Message | None:
        """The next message if there is one."""
        if not self._inbox:
            self._take_in()
        return self._inbox.popleft() if self._inbox else None

    def wait(self, wake_fd: int, timeout_s: float) -> bool:
        """Wait until the peer may have said something, or a descriptor can be read, not for ever; whether the latter is so."""
        if self._inbox:
            return False
        self._poll.register(wake_fd, select.POLLIN)
        try:
            self._poll.modify(self._stream, select.POLLIN)
            return any(ready == wake_fd for ready, _ in self._poll.poll(timeout_s * 1000))
        finally:
            self._poll.unregister(wake_fd)

    def messages(self) -> Iterator[Message]:
        """Every message to come, uncopied: a bulk message is good until the next one.

        For an end that does not read while it sends (a server). Raises as `receive`.
        """
        while self._inbox:
            yield self._inbox.popleft()
        while True:
            self._poll.modify(self._stream, select.POLLIN)
            self._poll.poll()
            yield from self._connection.receive(self._read())

    def has_ended(self, timeout_s: float) -> bool:
        """Whether the peer has closed the stream; waits for that up to `timeout_s`.

        For a server whose client may say nothing now, as it waits in a queue. What it says all the same is
        kept for later.

        Raises:
            RemoteProtocolError: It says more than a little.
        """
        self._poll.modify(self._stream, select.POLLRDHUP)
        has_ended = bool(self._poll.poll(timeout_s * 1000))
        try:
            unread = self._stream.recv(_EARLY_BYTES + 1, socket.MSG_PEEK)
        except BlockingIOError:
            return has_ended
        except OSError:
            return True
        if len(unread) > _EARLY_BYTES:
            raise RemoteProtocolError("The other end talks while it has to wait")
        return has_ended

    def close(self) -> None:
        """Close the stream."""
        self._stream.close()

    def __enter__(self) -> "Channel":
        """Use as a context manager."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the stream."""
        self.close()


def _keepable(message: Message, buffer: bytearray) -> Message:
    """The message with bytes of its own instead of a view into the read buffer."""
    match message:
        case FileRaw(content) if _is_of(content, buffer):
            return FileRaw(bytes(content))
        case FileDelta(last, content) if _is_of(content, buffer):
            return FileDelta(last, bytes(content))
        case SignaturePart(id_, last, content) if _is_of(content, buffer):
            return SignaturePart(id_, last, bytes(content))
        case BasisPart(id_, last, content) if _is_of(content, buffer):
            return BasisPart(id_, last, bytes(content))
        case _:
            return message


def _is_of(content: bytes | memoryview, buffer: bytearray) -> bool:
    return isinstance(content, memoryview) and content.obj is buffer
