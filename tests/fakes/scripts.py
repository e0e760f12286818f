"""Sessions as scripts: what one end said in a real session, spoilt at will and said again to a real other end.

    frames = recorded(tap.events, "sent")       a session's bytes in one direction, frame by frame
    spoil(rng, frames, others)                  cut it, flip bits, swap frames, lie in a field ...
    with ScriptedChannel(Role.SERVER, pieces(frames)) as channel:
        serve_session(channel, ...)             hears the script; nobody else is there

All of it happens in one thread and needs no clock: a scripted channel says the next piece when its
reader would wait, and takes in what the reader says. When nothing is left it ends the stream. A reader that waits
even then would wait for ever, and fails the test.
"""

import random
import select
import socket
import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec
import zstandard

from ssfs.net.channel import Channel
from ssfs.protocol.codec import BULK_TYPES, CONTROL_TYPES
from ssfs.protocol.messages import MAX_PAYLOAD_BYTES, AnswerEnd, AnswerPart, Ask, CatalogRows
from ssfs.protocol.states import Role

HEADER = struct.Struct("<IB")
_TAKEN_BYTES = 1 << 20


class Frame(NamedTuple):
    """A frame of a recording.

    Attributes:
        waits: Whether its speaker had heard something since the frame before.
        content: Its bytes, header included.
    """

    waits: bool
    content: bytes


# -- recording ------------------------------------------------------------------------------------


class Tap:
    """A socket for a `Channel` that remembers what went over it.

    Attributes:
        events: ("sent" or "heard", bytes), in order.
    """

    def __init__(self, stream: socket.socket) -> None:
        self._stream = stream
        self.events: list[tuple[str, bytes]] = []
        for name in ("fileno", "settimeout", "close", "recv"):
            setattr(self, name, getattr(stream, name))

    def sendmsg(self, buffers: list[memoryview]) -> int:
        count = self._stream.sendmsg(buffers)
        self.events.append(("sent", b"".join(buffers)[:count]))
        return count

    def recv_into(self, buffer: bytearray) -> int:
        count = self._stream.recv_into(buffer)
        if count:
            self.events.append(("heard", bytes(buffer[:count])))
        return count


def recorded(events: list[tuple[str, bytes]], direction: str) -> list[Frame]:
    """The frames of one direction."""
    stream = bytearray()
    turns = []  # where in the stream its speaker had just heard something
    for which, content in events:
        if which == direction:
            stream += content
        else:
            turns.append(len(stream))
    frames, position, last = [], 0, -1
    while position < len(stream):
        end = position + HEADER.size + HEADER.unpack_from(stream, position)[0]
        waits = any(last < turn <= position for turn in turns)
        frames.append(Frame(waits, bytes(stream[position:end])))
        last, position = position, end
    return frames


def frame(number: int, payload: bytes, *, waits: bool = False) -> Frame:
    """A frame of any type with any payload."""
    return Frame(waits, HEADER.pack(len(payload), number) + payload)


# -- playing --------------------------------------------------------------------------------------


def pieces(frames: Iterable[Frame]) -> Iterator[bytes]:
    """What is said at a time: up to where the speaker had to wait."""
    held = b""
    for waits, content in frames:
        if waits and held:
            yield held
            held = b""
        held += content
    if held:
        yield held


def crumbs(rng: random.Random, frames: Iterable[Frame]) -> Iterator[bytes]:
    """The same byte by byte, or a few of them; the inside of a long frame in one piece."""
    for _, content in frames:
        inside, end = content[600:-600], content[600:][-600:]
        yield from _crumbs(rng, content[:600])
        if inside:
            yield inside
        yield from _crumbs(rng, end)


def _crumbs(rng: random.Random, content: bytes) -> Iterator[bytes]:
    while content:
        size = rng.choice((1, 1, 1, 2, 3, 40))
        yield content[:size]
        content = content[size:]


class ScriptedChannel(Channel):
    """A channel at whose other end a script is read out.

    Attributes:
        heard: All that this end has said.
    """

    def __init__(self, role: Role, script: Iterable[bytes]) -> None:
        ours, theirs = socket.socketpair()
        super().__init__(ours, role)
        self.heard = bytearray()
        self._theirs = theirs
        self._poll = _Prompter(self._poll, theirs, iter(script), self.heard)

    def close(self) -> None:
        super().close()
        self._poll.take_in()
        self._theirs.close()


class _Prompter:
    """In place of the channel's `select.poll`: instead of waiting it makes the other end act."""

    def __init__(
        self, poll: select.poll, theirs: socket.socket, script: Iterator[bytes], heard: bytearray
    ) -> None:
        theirs.setblocking(False)
        self._poll = poll
        self._theirs = theirs
        self._script = script
        self._heard = heard
        self._unsaid = b""
        self._events = 0
        self._has_ended = False

    def modify(self, stream: socket.socket, events: int) -> None:
        self._events = events
        self._poll.modify(stream, events)

    def poll(self, timeout_ms: float | None = None) -> list[tuple[int, int]]:
        if timeout_ms is not None:
            return self._poll.poll(0)
        while not (ready := self._poll.poll(0)):
            if not self.take_in() and not self._say():
                raise AssertionError("it waits for a peer that has ended")
        return ready

    def take_in(self) -> bool:
        """Hear what there is; whether that was anything."""
        before = len(self._heard)
        try:
            while content := self._theirs.recv(_TAKEN_BYTES):
                self._heard += content
        except (BlockingIOError, ConnectionResetError):
            pass
        return len(self._heard) > before

    def _say(self) -> bool:
        if not self._events & select.POLLIN or self._has_ended:
            return False
        self._unsaid = self._unsaid or next(self._script, b"")
        if not self._unsaid:
            self._theirs.shutdown(socket.SHUT_WR)
            self._has_ended = True
            return True
        self._unsaid = self._unsaid[self._theirs.send(self._unsaid) :]
        return True


# -- spoiling -------------------------------------------------------------------------------------

_NUMBERS = (0, 1, 2, -1, 255, 1 << 31, (1 << 40) - 1, 1 << 40, (1 << 63) - 1, 1 << 63, -(1 << 63))
_NUMBERS += ((1 << 64) - 1, (1 << 80) + 5, ((1 << 40) - 1) << 20)
_BYTES = (b"", b".", b"..", b"a/b", b"/etc/passwd", b"a\0b", b"../../x", b"x" * 256, b"\xff" * 32)
_TEXTS = ("", "..", "main", "mine", "other", "a/b", "\0", "../../other", "x" * 300, "*", "latest~9")
_ODD = (None, True, [], {}, 1.5, [[]], "text", b"bytes", 7)


def spoil(rng: random.Random, frames: list[Frame], others: list[list[Frame]]) -> list[Frame]:
    """A copy with one to three things wrong.

    Args:
        rng: Decides what.
        frames: A recording.
        others: Recordings of other sessions, whose frames turn up in this one.
    """
    spoilt = list(frames)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if spoilt:
            spoilt = rng.choice(_WAYS)(rng, spoilt, others)
    return spoilt


def _any_of(rng, frames):
    """A frame's place; seldom that of a greeting, after which little happens."""
    at = rng.randrange(len(frames))
    return at if at > 1 or rng.random() < 0.4 else rng.randrange(len(frames))


def _truncate(rng, frames, others):
    at = _any_of(rng, frames)
    content = frames[at].content
    return [*frames[:at], frames[at]._replace(content=content[: rng.randrange(len(content) + 1)])]


def _in_frame(change):
    """A way to spoil the bytes of one frame."""

    def way(rng, frames, others):
        at = _any_of(rng, frames)
        content = bytearray(frames[at].content)
        if content:
            change(rng, content)
        return [*frames[:at], frames[at]._replace(content=bytes(content)), *frames[at + 1 :]]

    return way


def _position(rng, content):
    """A place in a frame: as often in its beginning, where the fields are, as anywhere."""
    return rng.randrange(min(len(content), rng.choice((16, 200, 1 << 30))))


def _flip(rng, content):
    content[_position(rng, content)] ^= 1 << rng.randrange(8)


def _overwrite(rng, content):
    at = _position(rng, content)
    content[at : at + rng.choice((1, 2, 4))] = rng.randbytes(rng.choice((1, 2, 4)))


def _delete(rng, content):
    at = _position(rng, content)
    del content[at : at + rng.choice((1, 2, 7, 500))]


def _insert(rng, content):
    at = _position(rng, content)
    content[at:at] = rng.choice((rng.randbytes(3), b"\xff" * 5, b"\0" * 40, bytes(content[:60])))


def _repeat(rng, content):
    at = _position(rng, content)
    content[at:at] = content[at : at + rng.choice((1, 5, 300))]


def _lie_about_length(rng, content):
    length = int.from_bytes(content[:4], "little")
    lies = (length + 1, length - 1, 0, MAX_PAYLOAD_BYTES, MAX_PAYLOAD_BYTES + 1, (1 << 32) - 1)
    content[:4] = (rng.choice(lies) % (1 << 32)).to_bytes(4, "little")


def _other_type(rng, content):
    content[4:5] = bytes([rng.choice((*CONTROL_TYPES, *BULK_TYPES, 0, 39, 255))])


def _drop_frame(rng, frames, others):
    at = _any_of(rng, frames)
    return [*frames[:at], *frames[at + 1 :]]


def _repeat_frame(rng, frames, others):
    at = _any_of(rng, frames)
    return [*frames[: at + 1], *frames[at:]]


def _move_frame(rng, frames, others):
    moved = list(frames)
    moved.insert(rng.randrange(len(frames)), moved.pop(rng.randrange(len(frames))))
    return moved


def _foreign_frame(rng, frames, others):
    at = rng.randrange(len(frames) + 1)
    return [*frames[:at], rng.choice(rng.choice(others)), *frames[at:]]


def _splice(rng, frames, others):
    other = rng.choice(others)
    return [*frames[: rng.randrange(len(frames))], *other[rng.randrange(len(other)) :]]


def _lie_in_field(rng, frames, others):
    """Another value somewhere in a well-formed message."""
    at = _any_of(rng, frames)
    content = frames[at].content
    if len(content) < HEADER.size or content[4] in BULK_TYPES:
        return _in_frame(_flip)(rng, frames, others)
    try:
        message = msgspec.msgpack.decode(content[HEADER.size :])
        kind = CONTROL_TYPES.get(content[4])
        if kind is CatalogRows:
            message[0] = _compress(_spoilt(rng, _decompress(message[0])))
        elif kind in (Ask, AnswerPart, AnswerEnd) and rng.random() < 0.8:
            message[0] = _spoilt(rng, message[0])
        else:
            _spoil_values(rng, message)
        payload = msgspec.msgpack.encode(message)
    except (ValueError, TypeError, IndexError, OverflowError, zstandard.ZstdError):
        # It is spoilt so far that it holds no fields.
        return _in_frame(_flip)(rng, frames, others)
    spoilt = HEADER.pack(len(payload), content[4]) + payload
    return [*frames[:at], frames[at]._replace(content=spoilt), *frames[at + 1 :]]


def _decompress(content):
    return zstandard.ZstdDecompressor().decompress(content, max_output_size=1 << 24)


def _compress(content):
    return zstandard.ZstdCompressor().compress(content)


def _spoilt(rng, packed):
    """A packed value with another value somewhere in it."""
    value = msgspec.msgpack.decode(packed)
    _spoil_values(rng, value)
    return msgspec.msgpack.encode(value)


def _spoil_values(rng, value):
    places = list(_places(value))
    holder, key = rng.choice(places)
    holder[key] = _lie(rng, holder[key], rng.choice(places))


def _places(value):
    """Where values are: (list or dictionary, key), those in it included."""
    for key in range(len(value)) if isinstance(value, list) else list(value):
        yield value, key
        if isinstance(value[key], list | dict):
            yield from _places(value[key])


def _lie(rng, truth, other_place):
    if rng.random() < 0.15:
        return rng.choice(_ODD)
    if rng.random() < 0.2:
        holder, key = other_place
        return msgspec.msgpack.decode(msgspec.msgpack.encode(holder[key]))
    match truth:
        case bool():
            return not truth
        case int():
            return rng.choice((*_NUMBERS, truth + 1, truth - 1, rng.randrange(30)))
        case bytes():
            return rng.choice((*_BYTES, truth[:-1], truth + b"x"))
        case str():
            return rng.choice(_TEXTS)
        case list():
            return rng.choice((truth[1:], truth * 2, truth[::-1]))
        case _:
            return rng.choice(_ODD)


_WAYS = (
    _truncate,
    _truncate,
    *map(_in_frame, (_flip, _overwrite, _delete, _insert, _repeat)),
    _in_frame(_lie_about_length),
    _in_frame(_other_type),
    _drop_frame,
    _repeat_frame,
    _move_frame,
    _foreign_frame,
    _splice,
    *(_lie_in_field,) * 8,
)
