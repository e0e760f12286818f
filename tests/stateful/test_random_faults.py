"""Random trees, edits and faults: what could not be seen stays, and no trace of a fault outlives it."""

import errno
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from ssfs.model.entry import Entry, Flag
from ssfs.store.version import Version
from tests.fakes.syncs import Backup
from tests.fakes.trees import build_tree, compare_with_version, edit_tree, verify_version

SEEDS = 6
ROUNDS = 3


class Faults:
    """Fails system calls on some paths below a source, in this process only."""

    def __init__(self, source: Path, patch: pytest.MonkeyPatch):
        self._source = os.fsencode(source)
        self.stat: dict[bytes, int] = {}
        self.open: dict[bytes, int] = {}
        self.list: dict[bytes, int] = {}
        for name, paths in (("stat", self.stat), ("open", self.open), ("listdir", self.list)):
            patch.setattr(os, name, self._failing(getattr(os, name), paths))

    def _failing(self, original: Callable, paths: dict[bytes, int]) -> Callable:
        def call(name, *rest, **options):
            number = self._number(paths, self._below(name, options.get("dir_fd"))) if paths else 0
            if number:
                raise OSError(number, os.strerror(number))
            return original(name, *rest, **options)

        return call

    def _number(self, paths: dict[bytes, int], path: bytes | None) -> int:
        """How it fails. Nothing can be looked at below what cannot be."""
        while path:
            if path in paths:
                return paths[path]
            path = os.path.dirname(path) if paths is self.stat else b""
        return 0

    def _below(self, name: bytes | str | int, dir_fd: int | None) -> bytes | None:
        """The path below the source, None if it is not there."""
        if isinstance(name, int):
            path = os.fsencode(os.readlink(f"/proc/self/fd/{name}"))
        else:
            above = (
                os.fsencode(os.readlink(f"/proc/self/fd/{dir_fd}")) if dir_fd is not None else b""
            )
            path = os.path.join(above, os.fsencode(name))
        return path.removeprefix(self._source + b"/") if path.startswith(self._source) else None

    def clear(self) -> None:
        for paths in (self.stat, self.open, self.list):
            paths.clear()


def rows(version: Version) -> dict[bytes, Entry]:
    with version.catalog() as catalog:
        return {b"/".join(catalog.path_names(entry.id) or []): entry for entry in catalog.entries()}


def is_at_or_below(path: bytes, above: bytes) -> bool:
    return path == above or path.startswith(above + b"/")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(SEEDS))
def test_faults_cost_nothing_and_leave_nothing(tmp_path: Path, monkeypatch, seed: int) -> None:
    rng = random.Random(seed)
    source = build_tree(tmp_path / "source", seed, directories=10, large_files=1)
    backup = Backup(tmp_path / "store")
    faults = Faults(source, monkeypatch)
    backup.sync(source)
    for number in range(ROUNDS):
        before = rows(backup.newest())
        edit_tree(source, seed * 100 + number, 10)
        present = [
            path
            for path in before
            if path and os.path.lexists(os.path.join(os.fsencode(source), path))
        ]
        for kind in (faults.stat, faults.open, faults.list):
            for path in rng.sample(present, min(3, len(present))):
                kind[path] = rng.choice((errno.EIO, errno.EACCES, errno.ENOTCONN))
        unseen = set(faults.stat)
        result = backup.sync(source)
        verify_version(backup.newest())
        after = rows(backup.newest())
        ids = {entry.id for entry in after.values()}
        told = [problem.path for problem in result.problems]
        assert told
        assert len(told) == len(set(told)), told
        for path, entry in before.items():
            above = [fault for fault in unseen if is_at_or_below(path, fault)]
            if above and min(above, key=len) in told:
                # Not even the name could be looked at: all of it is as it was, if it was still there.
                assert path in after or entry.id in ids, (path, told)
        for path in told:
            for below, entry in after.items():
                if path in after and after[path].flags & Flag.STALE and is_at_or_below(below, path):
                    assert entry.flags & Flag.STALE, (path, below)
        faults.clear()
        assert not backup.sync(source).problems
        assert not any(entry.flags & Flag.STALE for entry in rows(backup.newest()).values())
        compare_with_version(source, backup.newest())
