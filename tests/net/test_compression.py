"""What `auto` makes of links and contents, simulated: a link has a speed and a buffer, time is a number."""

import pytest

from ssfs.net.compression import AUTO, OFF, Compression, Judge, Mode, at_level, settle

BLOCK = 256 << 10
MB = 1_000_000
TLS_S = 1 / (1000 * MB)


class Simulation:
    """Sends blocks as a pump does, over a link that a buffer precedes.

    Attributes:
        now_s: The time.
        sent_bytes: Bytes on the wire.
        compressed_blocks: How many blocks were compressed.
    """

    def __init__(self, *, link_bytes_s: float, compress_bytes_s: float, saved: float) -> None:
        self.link_bytes_s = link_bytes_s
        self.compress_bytes_s = compress_bytes_s
        self.saved = saved
        self.judge = Judge(AUTO)
        self.now_s = 0.0
        self.sent_bytes = 0.0
        self.compressed_blocks = 0
        self._buffer_bytes = 2 << 20
        self._wire_free_s = 0.0

    def send(self) -> int:
        """One block; how much content that was."""
        content_bytes = self.judge.most_bytes() or BLOCK
        began_s = self.now_s
        if not self.judge.wants_compression():
            self._put(content_bytes)
            self.judge.note_plain(content_bytes, self.now_s - began_s)
            return content_bytes
        self.compressed_blocks += 1
        self.now_s += content_bytes / self.compress_bytes_s
        compressed_s = self.now_s
        block_bytes = int(content_bytes * (1 - self.saved))
        self._put(block_bytes)
        self.judge.note_compressed(
            content_bytes, block_bytes, compressed_s - began_s, self.now_s - compressed_s
        )
        return content_bytes

    def _put(self, wire_bytes: float) -> None:
        self.sent_bytes += wire_bytes
        self.now_s += wire_bytes * TLS_S
        self._wire_free_s = max(self._wire_free_s, self.now_s) + wire_bytes / self.link_bytes_s
        # Wait until the buffer has room for it.
        self.now_s = max(self.now_s, self._wire_free_s - self._buffer_bytes / self.link_bytes_s)

    def send_mib(self, count: int) -> None:
        left = count << 20
        while left > 0:
            left -= self.send()


@pytest.mark.parametrize("link", [0.1 * MB, 1 * MB, 10 * MB, 100 * MB])
def test_slow_link_gets_compressed_blocks(link: float) -> None:
    run = Simulation(link_bytes_s=link, compress_bytes_s=200 * MB, saved=0.6)
    run.send_mib(100)
    assert run.sent_bytes < 0.45 * 100 * (1 << 20)


def test_fast_link_is_not_slowed_down() -> None:
    run = Simulation(link_bytes_s=1000 * MB, compress_bytes_s=100 * MB, saved=0.6)
    run.send_mib(1000)
    plain_s = 1000 * (1 << 20) / (1000 * MB)
    assert run.now_s < 1.1 * plain_s


def test_compressor_that_is_faster_than_what_it_saves_is_used() -> None:
    """Twice the link's speed, and less than half of it sent: faster than sending it as it is."""
    run = Simulation(link_bytes_s=100 * MB, compress_bytes_s=200 * MB, saved=0.6)
    run.send_mib(300)
    assert run.now_s < 0.6 * 300 * (1 << 20) / (100 * MB)


def test_content_that_does_not_shrink_is_soon_left_alone() -> None:
    run = Simulation(link_bytes_s=10 * MB, compress_bytes_s=200 * MB, saved=0.0)
    run.send_mib(500)
    assert run.compressed_blocks < 30


def test_content_that_shrinks_after_some_that_does_not_is_found() -> None:
    run = Simulation(link_bytes_s=10 * MB, compress_bytes_s=200 * MB, saved=0.0)
    run.send_mib(200)
    run.saved = 0.6
    run.sent_bytes = 0
    run.send_mib(200)
    assert run.sent_bytes < 0.55 * 200 * (1 << 20)


def test_link_that_becomes_slow_is_noticed_at_once() -> None:
    run = Simulation(link_bytes_s=1000 * MB, compress_bytes_s=100 * MB, saved=0.6)
    run.send_mib(300)
    run.link_bytes_s = 2 * MB
    run.sent_bytes = 0
    run.send_mib(40)
    assert run.sent_bytes < 0.6 * 40 * (1 << 20)


def test_small_session_over_a_slow_link_is_compressed_from_the_start() -> None:
    run = Simulation(link_bytes_s=1 * MB, compress_bytes_s=100 * MB, saved=0.6)
    run.send_mib(2)
    assert run.sent_bytes < 0.41 * 2 * (1 << 20)


def test_small_blocks_are_no_evidence() -> None:
    judge = Judge(AUTO)
    for _ in range(100):
        judge.note_compressed(100, 130, 1.0, 0.0)
        assert judge.wants_compression()


def test_off_never_and_a_level_always() -> None:
    never, always = Judge(OFF), Judge(at_level(5))
    never.note_plain(BLOCK, 100)
    always.note_compressed(BLOCK, BLOCK + 3, 100, 0)
    assert not never.wants_compression()
    assert always.wants_compression()
    assert always.most_bytes() is None


@pytest.mark.parametrize(
    ("own", "asked", "settled"),
    [
        (None, None, AUTO),
        (None, at_level(6), at_level(6)),
        (None, at_level(19), at_level(9)),
        (at_level(19), None, at_level(19)),
        (at_level(3), at_level(6), at_level(3)),
        (AUTO, at_level(6), AUTO),
        (OFF, at_level(6), OFF),
        (at_level(6), OFF, OFF),
        (None, Compression(Mode.OFF, 7), OFF),
    ],
)
def test_wishes_of_both_ends(own, asked, settled) -> None:
    assert settle(own, asked, 9) == settled
