"""Five minutes of readers of a mount under which versions come and go (`pytest -m bench -s tests/bench/test_storm.py -n 0`)."""

import os
import time

import pytest

from tests.mount.storm import Storm

pytestmark = [pytest.mark.bench, pytest.mark.needs_fuse, pytest.mark.timeout(1200)]

SECONDS = float(os.environ.get("SSFS_STORM_SECONDS", "300"))
GROWTH_KB = 10_000
"""By how much the mount may grow after the first third."""


def test_five_minutes_of_storm(tmp_path):
    storm = Storm(tmp_path)
    ends_s = time.monotonic() + SECONDS
    storm.run(lambda: time.monotonic() >= ends_s)
    settled = storm.memory_kb[len(storm.memory_kb) // 3 :]
    print(
        f"\n{storm.versions} versions made, {len(storm.gone)} gone; read to the end: {storm.reads}, "
        f"given up because the version had gone: {storm.given_up}; "
        f"memory {settled[0] / 1024:.0f} to {max(settled) / 1024:.0f} MiB"
    )
    assert not storm.faults, storm.faults[:5]
    assert storm.gone
    assert all(storm.reads.values()), storm.reads
    assert max(settled) < settled[0] + GROWTH_KB
