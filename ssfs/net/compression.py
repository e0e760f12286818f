"""Whether a block is worth compressing: the setting, and the judgement of `auto`.

`auto` compresses (level 3) but stops for a while when that does not pay, for one of two reasons:

- The content does not shrink: a block saved less than 5 %.
- The link outruns it. Each block costs time to compress and time in which the wire keeps us waiting. While the
  second is the longer, the link is what we wait for and compressing is free. Otherwise what a byte of content
  costs this way is compared with what it costs uncompressed (waiting alone), and the cheaper way is taken.

After the first bad block 256 KiB go uncompressed, then one block of 64 KiB is tried; each time it is bad again twice as
much goes uncompressed, up to 32 MiB: where compressing is ten times slower than the link, trying costs 2 %. When waiting
for the wire becomes dearer than compressing was, it is tried at once. The first 2 MiB of a session are never judged by the
link: buffers on the way make every link look fast at first.
"""

import enum
import math

import msgspec

MIN_LEVEL = 1
MAX_LEVEL = 19

_AUTO_LEVEL = 3
_WORTHWHILE = 0.95
_JUDGED_BYTES = 4096
_FIRST_BYTES = 2 << 20
_MIN_PAUSE_BYTES = 256 << 10
_MAX_PAUSE_BYTES = 32 << 20
_TRIED_BYTES = 64 << 10
_NEWEST_SHARE = 0.3


class Mode(enum.IntEnum):
    """How to choose; the numbers are those of the preamble."""

    OFF = 1
    AUTO = 2
    LEVEL = 3


class Compression(msgspec.Struct, frozen=True):
    """A setting, `--compress auto|off|LEVEL`.

    Attributes:
        level: Of zstandard, from `MIN_LEVEL` to `MAX_LEVEL`; 0 when off.
    """

    mode: Mode
    level: int = 0


OFF = Compression(Mode.OFF)
AUTO = Compression(Mode.AUTO, _AUTO_LEVEL)


def at_level(level: int) -> Compression:
    """Compress everything with this level."""
    return Compression(Mode.LEVEL, level)


def settle(own: Compression | None, asked: Compression | None, max_asked_level: int) -> Compression:
    """How one end sends, by its own wish and what the other end asks for; None is no wish.

    Either end can switch it off. Otherwise our own wish goes first; a level that only the other end
    wants is at most `max_asked_level`, as it is our time and memory.
    """
    if Mode.OFF in {wish.mode for wish in (own, asked) if wish is not None}:
        return OFF
    if own is not None:
        return own
    if asked is not None and asked.mode is Mode.LEVEL:
        return at_level(min(asked.level, max_asked_level))
    return AUTO


class Judge:
    """Decides block by block. It never reads a clock: who sends tells it how long things took."""

    def __init__(self, compression: Compression) -> None:
        self.compression = compression
        self._pause_bytes = _MIN_PAUSE_BYTES
        self._pause_left = 0
        self._unjudged_left = _FIRST_BYTES
        self._compressed_cost = math.inf
        self._plain_cost: float | None = None

    def wants_compression(self) -> bool:
        """Whether the next block should be compressed."""
        match self.compression.mode:
            case Mode.OFF:
                return False
            case Mode.LEVEL:
                return True
            case Mode.AUTO:
                return self._pause_left <= 0

    def most_bytes(self) -> int | None:
        """The most content the next block should have, None if it makes no difference."""
        is_trying = self._pause_bytes > _MIN_PAUSE_BYTES and self.wants_compression()
        return _TRIED_BYTES if is_trying else None

    def note_compressed(
        self, content_bytes: int, block_bytes: int, compress_s: float, send_s: float
    ) -> None:
        """A block was compressed and sent; it took that long to compress, then to send."""
        self._unjudged_left -= content_bytes
        if content_bytes < _JUDGED_BYTES or self.compression.mode is not Mode.AUTO:
            return
        if block_bytes > _WORTHWHILE * content_bytes:
            self._compressed_cost = math.inf
            self._pause()
        elif self._unjudged_left > 0 or compress_s <= send_s:
            self._pause_bytes = _MIN_PAUSE_BYTES
        else:
            self._compressed_cost = (compress_s + send_s) / content_bytes
            if self._plain_cost is None or self._compressed_cost > self._plain_cost:
                self._pause()
            else:
                self._pause_bytes = _MIN_PAUSE_BYTES

    def note_plain(self, content_bytes: int, send_s: float) -> None:
        """A block was sent as it is."""
        self._pause_left -= content_bytes
        if content_bytes < _JUDGED_BYTES:
            return
        cost = send_s / content_bytes
        if self._plain_cost is not None:
            cost = _NEWEST_SHARE * cost + (1 - _NEWEST_SHARE) * self._plain_cost
        self._plain_cost = cost
        if cost > self._compressed_cost:
            self._pause_left = 0

    def _pause(self) -> None:
        self._pause_left = self._pause_bytes
        self._pause_bytes = min(2 * self._pause_bytes, _MAX_PAUSE_BYTES)
