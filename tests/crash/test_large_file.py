"""kill -9 while a large file is on its way: what had arrived of it does not travel again.

The receiver is killed just before disk calls of every kind, in a first run and in one that rebuilds the file from what
the first had received, the sender while it sends. How much had arrived is looked up on the disk.
"""

import random
from pathlib import Path

import pytest

from tests.crash.kills import Kill, at_every_call, run_killed
from tests.crash.support import Rig
from tests.fakes.trees import remember

pytestmark = [pytest.mark.slow, pytest.mark.needs_root]

MB = 1 << 20
SIZE = 6 * MB
_SLACK = MB + 100_000
"""A segment that matches by less than a tenth, a piece that had not come in, and the rest of a session."""
_ROW = 10_000
_FIRST_PIECES = 17
"""The first such calls of a sync are those of its catalog, then a MiB of the file each."""


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Rig:
    """A store in which nothing was ever made, for a source with one large file."""
    rig = Rig(tmp_path_factory.mktemp("large"))
    rig.source.mkdir()
    (rig.source / "image").write_bytes(random.Random(1).randbytes(SIZE))
    rig.init()
    return rig


def _arrived(rig: Rig) -> int:
    """How much the store has of the file, or of the most complete part of it."""
    places = [*rig.task_path.glob("staging/partials/*"), *rig.task_path.glob("*/**/tree/image")]
    return max((path.stat().st_size for path in places), default=0)


def _check_rest(rig: Rig) -> None:
    """The next run sends what is missing, and leaves nothing behind."""
    image = remember(rig.source)
    rig.check(image)
    arrived = _arrived(rig)
    sent = rig.sync()["bytes_sent"]
    assert isinstance(sent, int)
    slack = _ROW if arrived == SIZE else _SLACK
    assert sent < SIZE - arrived + slack, f"{sent} sent, where {arrived} of {SIZE} had arrived"
    newest = Path(rig.versions()[-1].path.decode())
    assert (newest / "tree" / "image").stat().st_nlink == len(rig.versions())
    rig.check(image)


@pytest.mark.parametrize("name", ["write", "link", "rename", "unlink", "syncfs", "fsync", "pwrite"])
def test_receiver_killed_before_every_call(large, tmp_path, name):
    def attempt(nth: int) -> bool:
        rig = large.copy(tmp_path / f"{nth}")
        kill = Kill("receiver", name, nth)
        ended, was_killed = run_killed(rig, rig.sync_arguments, kill)
        try:
            rig.acknowledge(ended, remember(rig.source))
            _check_rest(rig)
        except AssertionError as error:
            error.add_note(f"{kill}: {ended}")
            raise
        rig.remove()
        return was_killed

    assert at_every_call(attempt)


@pytest.mark.parametrize("name", ["write", "pwrite", "link", "unlink", "syncfs"])
def test_receiver_that_goes_on_with_a_file_killed_before_every_call(large, tmp_path, name):
    def attempt(nth: int) -> bool:
        rig = large.copy(tmp_path / f"{nth}")
        first = Kill("receiver", "pwrite", _FIRST_PIECES + 3)
        assert run_killed(rig, rig.sync_arguments, first)[1]
        had = _arrived(rig)
        assert 0 < had < SIZE
        kill = Kill("receiver", name, nth)
        ended, was_killed = run_killed(rig, rig.sync_arguments, kill)
        try:
            assert _arrived(rig) >= had
            rig.acknowledge(ended, remember(rig.source))
            _check_rest(rig)
        except AssertionError as error:
            error.add_note(f"{kill}: {ended}")
            raise
        rig.remove()
        return was_killed

    assert at_every_call(attempt)


def test_receiver_killed_between_the_rename_into_the_tree_and_the_checkpoint(large, tmp_path):
    rig = large.copy(tmp_path / "rig")
    assert run_killed(rig, rig.sync_arguments, Kill("receiver", "syncfs", 1))[1]
    assert (rig.task_path / "staging" / "tree" / "image").stat().st_size == SIZE
    assert _arrived(rig) == SIZE
    _check_rest(rig)


@pytest.mark.parametrize("nth", [6, 8, 10])
def test_sender_killed_in_the_middle_of_the_file(large, tmp_path, nth):
    rig = large.copy(tmp_path / "rig")
    assert run_killed(rig, rig.sync_arguments, Kill("sender", "sendmsg", nth))[1]
    assert 0 < _arrived(rig) < SIZE
    _check_rest(rig)


def test_killed_three_times_it_goes_on_each_time(large, tmp_path):
    rig = large.copy(tmp_path / "rig")
    rig.source = tmp_path / "source"
    rig.source.mkdir()
    (rig.source / "image").write_bytes(random.Random(2).randbytes(5 * SIZE))
    had = 0
    for pieces in (5, 12, 24):
        kill = Kill("receiver", "pwrite", _FIRST_PIECES + pieces)
        assert run_killed(rig, rig.sync_arguments, kill)[1]
        arrived = _arrived(rig)
        assert arrived > had + 3 * MB
        had = arrived
    sent = rig.sync()["bytes_sent"]
    assert isinstance(sent, int)
    assert sent < 5 * SIZE - had + _SLACK
    rig.check()
