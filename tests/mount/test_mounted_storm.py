"""Sixteen readers of a mount under which versions come and go (five minutes of it: `tests/bench/test_storm.py`)."""

import pytest

from tests.mount.storm import Storm

pytestmark = [pytest.mark.needs_fuse, pytest.mark.slow]

ROUNDS = 8
"""How many versions come and go at least."""
READS = 3
"""How many versions are read to their end at least, by readers of each kind."""


def test_readers_get_the_right_bytes_while_versions_come_and_go(tmp_path):
    storm = Storm(tmp_path)
    storm.run(lambda: storm.versions > ROUNDS and min(storm.reads.values()) >= READS)
    assert not storm.faults, storm.faults[:5]
    assert storm.gone
    assert max(storm.memory_kb) < 150_000
