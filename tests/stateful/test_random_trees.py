"""Random trees, random edits, a sync after each: every version is what the source was then.

Seeded, so that a failure can be repeated: the seed is in the test's name. The first thing it found: a
directory claimed by a reused inode number (DECISIONS.md, 4).
"""

import os
import random
import shutil
from pathlib import Path

import pytest

from tests.fakes.syncs import Backup
from tests.fakes.trees import (
    build_tree,
    compare_with_version,
    edit_tree,
    remember,
    verify_version,
)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_every_version_is_what_the_source_was(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    source = tmp_path / "source"
    build_tree(source, seed)
    backup = Backup(tmp_path / "store")
    images = []
    for step in range(10):
        edit_tree(source, seed * 1000 + step, rng.choice([0, 1, 5, 25]))
        if rng.random() < 0.1:
            shutil.rmtree(os.environ["SSFS_CACHE_DIR"])
        result = backup.sync(source)
        assert not result.problems
        images.append(remember(source))
        compare_with_version(images[-1], backup.newest())
    for image, version in zip(images, backup.versions(), strict=True):
        compare_with_version(image, version)
        verify_version(version)
