"""kill -9 just before every Nth disk call of one name, for N = 1, 2, 3... until nothing is killed any more.

What is killed: the sender or the receiver of a sync with a base, its commit and its expiry; the receiver of a
first sync, and of one that resumes what an interrupted one has left; `expire` and `delete`. The processes are traced one at a time, so that each call of each is met, and killed
before the call: before call N+1 is after call N. Then the acknowledged versions must be whole, and the
next run must do the rest.

All N up to 10 are tried, then some; SSFS_EXHAUSTIVE=1 tries them all.
"""

import itertools
import os
import random
from pathlib import Path

import pytest

from tests.crash.kills import CALLS, Kill, at_every_call, run_killed
from tests.crash.support import Rig
from tests.fakes.trees import SourceImage, build_tree, remember

pytestmark = [pytest.mark.slow, pytest.mark.needs_root, pytest.mark.timeout(1800)]

# -- the source, before and after -----------------------------------------------------------------


def _first_source(root: Path) -> None:
    build_tree(root, 3, directories=5, files=14, large_bytes=300_000)
    for name in ("gone", "moved", "emptied"):
        (root / name).mkdir()
        for number in range(3):
            (root / name / f"{number}").write_bytes(os.urandom(4000 + number))
    (root / "basis").write_bytes(random.Random(1).randbytes(400_000))
    (root / "left").write_bytes(b"left")
    (root / "right").write_bytes(b"right")
    (root / "other-kind").write_bytes(b"file")


def _edit(root: Path) -> None:
    """One of each: new, changed, moved, swapped, removed, another kind, metadata only."""
    for path in ("gone", "emptied"):
        for file in (root / path).iterdir():
            file.unlink()
    (root / "gone").rmdir()
    (root / "moved").rename(root / "dir-0" / "has-moved")
    content = bytearray((root / "basis").read_bytes())
    content[1000:1010] = b"0123456789"
    (root / "basis").write_bytes(content)
    (root / "left").rename(root / "aside")
    (root / "right").rename(root / "left")
    (root / "aside").rename(root / "right")
    (root / "other-kind").unlink()
    (root / "other-kind").mkdir()
    (root / "other-kind" / "inside").write_bytes(b"now a directory")
    (root / "new-large").write_bytes(os.urandom(200_000))
    (root / "new").mkdir()
    for number in range(4):
        (root / "new" / f"{number}").write_bytes(os.urandom(number * 2000))
    (root / "new" / "copy").write_bytes((root / "dir-0" / "has-moved" / "1").read_bytes())
    (root / "new" / "link").symlink_to("nowhere")
    (root / "file-1-link").symlink_to("basis")
    for path in sorted(root.rglob("file-*"))[:3]:
        if not path.is_symlink():
            path.chmod(0o640)


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory) -> Rig:
    """A store in which nothing was ever made."""
    rig = Rig(tmp_path_factory.mktemp("first"))
    _first_source(rig.source)
    rig.init()
    return rig


@pytest.fixture(scope="module")
def edited(tmp_path_factory) -> Rig:
    """Two versions, the first of which expires with the third; and a source that was edited since."""
    rig = Rig(tmp_path_factory.mktemp("edited"))
    _first_source(rig.source)
    rig.init(keep_last=2)
    rig.sync()
    (rig.source / "left").write_bytes(b"left, changed before the second version")
    rig.sync()
    assert len(rig.acknowledged) == 2
    _edit(rig.source)
    return rig


@pytest.fixture(scope="module")
def four_versions(tmp_path_factory) -> Rig:
    """Four versions of one day."""
    rig = Rig(tmp_path_factory.mktemp("four"))
    build_tree(rig.source, 3, directories=3, files=4, large_files=0)
    rig.init()
    for number in range(4):
        (rig.source / "changing").write_bytes(b"%d" % number)
        rig.sync()
    return rig


# -- syncs ----------------------------------------------------------------------------------------


def _sync_killed(template: Rig, directory: Path, kills: list[Kill], image: SourceImage) -> bool:
    """Kill syncs of a copy of the template, one after the other, then let one more do it all.

    Returns:
        Whether the last of them was killed.
    """
    rig = template.copy(directory / f"{kills[-1].nth}")
    was_killed = False
    try:
        for kill in kills:
            ended, was_killed = run_killed(rig, rig.sync_arguments, kill)
            assert was_killed or ended.returncode == 0, ended
            _leave_out_expired(rig)
            rig.acknowledge(ended, image)
            rig.check(image)
        before = len(rig.versions()) if (rig.task_path / "task.toml").exists() else 0
        rig.sync()
        _leave_out_expired(rig)
        rig.check(image)
        policy = rig.task().point.settings.policy
        assert len(rig.versions()) == min(before + 1, policy.keep_last)
        _assert_tidy(rig)
    except AssertionError as error:
        error.add_note(f"{kills}: {ended}")
        raise
    rig.remove()
    return was_killed


def _leave_out_expired(rig: Rig) -> None:
    """The oldest acknowledged versions may have expired, as the policy says; no others."""
    keep = 2 if len(rig.acknowledged) > 1 else 1000
    if not (rig.task_path / "task.toml").exists():
        return
    present = [str(version.id) for version in rig.versions()]
    for version_id in sorted(rig.acknowledged):
        if version_id not in present:
            assert len([other for other in present if other > version_id]) >= keep
            del rig.acknowledged[version_id]


def _assert_tidy(rig: Rig) -> None:
    """Nothing half-made is left of either end."""
    assert not (rig.task_path / "staging").exists()
    assert list((rig.task_path / "trash").iterdir()) == []
    (cached,) = rig.cache.iterdir()
    kept = sorted(path.suffix for path in cached.iterdir())
    assert kept == ["", ".blake3", ".db"], list(cached.iterdir())


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("victim", ["sender", "receiver"])
def test_sync_with_base_killed_before_every_call(edited, tmp_path, victim, name):
    image = remember(edited.source)

    def attempt(nth: int) -> bool:
        return _sync_killed(edited, tmp_path, [Kill(victim, name, nth)], image)

    kills = at_every_call(attempt)
    # A receiver makes each of these calls; a sender writes its cache only.
    if victim == "receiver" or name in {"rename", "fsync", "pwrite", "ftruncate"}:
        assert kills


@pytest.mark.parametrize("name", ["rename", "fsync", "mkdir", "syncfs", "write"])
def test_first_sync_killed_before_every_call(empty_store, tmp_path, name):
    image = remember(empty_store.source)

    def attempt(nth: int) -> bool:
        return _sync_killed(empty_store, tmp_path, [Kill("receiver", name, nth)], image)

    assert at_every_call(attempt)


@pytest.mark.parametrize("name", ["rename", "fsync", "unlink", "pwrite"])
def test_resumed_sync_killed_before_every_call(edited, tmp_path, name):
    image = remember(edited.source)
    # Before the third syncfs two checkpoints have been made, and the tree is ahead of them.
    first = Kill("receiver", "syncfs", 3, checkpoint_bytes=1)

    def attempt(nth: int) -> bool:
        return _sync_killed(edited, tmp_path, [first, Kill("receiver", name, nth)], image)

    assert at_every_call(attempt)


# -- what a killed sync has left must not be taken for what it looks like ---------------------------


def _swap(root: Path, other: Path) -> None:
    """Exchange all files of two directories: their inodes and times stay, their content moves."""
    for path in sorted(other.iterdir()):
        aside = other.parent / "aside"
        (root / path.name).rename(aside)
        path.rename(root / path.name)
        aside.rename(path)


def _contents(directory: Path, seed: int) -> Path:
    """Files of the same names, sizes and times in every such directory, but other content."""
    directory.mkdir(parents=True)
    for number in range(12):
        path = directory / f"{number}"
        path.write_bytes(random.Random(100 * seed + number).randbytes(15_000 * number))
        os.utime(path, (1_000_000_000, 1_000_000_000))
    return directory


@pytest.mark.parametrize("checkpoint_bytes", [1 << 28, 1])
def test_source_as_it_was_before_a_killed_sync_is_stored_as_it_was(tmp_path, checkpoint_bytes):
    rig = Rig(tmp_path)
    _contents(rig.source / "in", 1)
    second = _contents(tmp_path / "second", 2)
    third = _contents(tmp_path / "third", 3)
    rig.init()
    rig.sync()
    # The tree holds the second content, the catalog holds the second too if there was a checkpoint.
    _swap(rig.source / "in", second)
    kill = Kill("receiver", "syncfs", 2 if checkpoint_bytes == 1 else 1, checkpoint_bytes)
    assert run_killed(rig, rig.sync_arguments, kill)[1]
    # The tree holds the third, no catalog does.
    _swap(rig.source / "in", third)
    assert run_killed(rig, rig.sync_arguments, Kill("receiver", "syncfs", 1))[1]
    _swap(rig.source / "in", third)
    if checkpoint_bytes > 1:
        _swap(rig.source / "in", second)
    rig.sync()
    rig.check()


_FEW_AT_A_TIME = """
import ssfs.engine.incoming, ssfs.engine.sender
ssfs.engine.incoming._MAX_NEED_IDS = ssfs.engine.sender._IDS_PER_NEED = 2
"""


@pytest.mark.parametrize("name", ["rename", "fsync"])
def test_commit_that_was_killed_makes_nothing_travel_again(empty_store, tmp_path, name):
    """Content that has all been received is not sent again, wherever in the commit the receiver died."""
    image = remember(empty_store.source)
    kills = 0
    for nth in itertools.count(1):
        rig = empty_store.copy(tmp_path / f"{nth}")
        ended, was_killed = run_killed(rig, rig.sync_arguments, Kill("receiver", name, nth))
        if not was_killed:
            break
        staging = rig.task_path / "staging"
        is_in_commit = (staging / ".version.toml.new").exists() or (
            staging / "version.toml"
        ).exists()
        rig.acknowledge(ended, image)
        rig.check(image)
        summary = rig.sync()
        if is_in_commit:
            kills += 1
            assert summary["bytes_sent"] < 20_000
            assert summary["new_bytes"] == 0
        rig.remove()
    assert kills


def test_all_content_is_asked_for_again_however_much_it_is(empty_store, tmp_path):
    """The files of an interrupted staging are gone; the server asks for some at a time."""
    rig = empty_store.copy(tmp_path / "rig")
    kill = Kill("receiver", "syncfs", 5, checkpoint_bytes=1)
    assert run_killed(rig, rig.sync_arguments, kill)[1]
    for path in (rig.task_path / "staging" / "tree").rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.unlink()
    summary = rig.sync(before=_FEW_AT_A_TIME)
    assert summary["new_bytes"] == summary["bytes"]


# -- expire and delete ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["rename", "fsync", "unlink", "write"])
@pytest.mark.parametrize("command", ["expire", "delete"])
def test_deletion_killed_before_every_call(four_versions, tmp_path, command, name):
    first = sorted(four_versions.acknowledged)[:2]

    def attempt(nth: int) -> bool:
        rig = four_versions.copy(tmp_path / f"{nth}")
        arguments = ["delete", rig.location, *first, "--yes"]
        if command == "expire":
            rig.set_policy(keep_last=2)
            arguments = ["expire", rig.location, "--yes"]
        ended, was_killed = run_killed(rig, arguments, Kill("command", name, nth))
        try:
            present = {str(version.id) for version in rig.versions()}
            for version_id in first:
                if version_id not in present:
                    del rig.acknowledged[version_id]
            rig.check()
            rig.sync()
            if command == "delete":
                left = [version_id for version_id in first if version_id in present]
                if left:
                    assert rig.run("delete", rig.location, *left, "--yes").returncode == 0
            for version_id in first:
                rig.acknowledged.pop(version_id, None)
            rig.check()
            # expire keeps two: what was the third version has gone with the sync.
            assert len(rig.versions()) == len(rig.acknowledged)
            assert list((rig.task_path / "trash").iterdir()) == []
        except AssertionError as error:
            error.add_note(f"{command} killed before {name} number {nth}: {ended}")
            raise
        rig.remove()
        return was_killed

    assert at_every_call(attempt)
