"""Sixteen readers of a mount under which versions come and go (five minutes of it: `tests/bench/test_storm.py`)."""

import pytest

from tests.mount.storm import Storm

pytestmark = [pytest.mark.needs_fuse, pytest.mark.slow]


def test_readers_get_the_right_bytes_while_versions_come_and_go(tmp_path):
    storm = Storm(tmp_path)
    storm.run(12.0)
    assert not storm.faults, storm.faults[:5]
    assert storm.versions > 2
    assert storm.gone
    assert all(storm.reads.values()), storm.reads
    assert max(storm.memory_kb) < 150_000
