"""What a killed sync has staged, and what the next one makes of it: the same every time, unlike in `test_kill`.

The sender is killed when it has said all but `Finish`: the receiver keeps all of it in staging/, as of a source
that may be another one by the time of the next sync. The last test holds `check_continuity` to account.
"""

import random

import pytest

from tests.crash.support import Rig, check_continuity
from tests.fakes.trees import build_tree, entries_by_path

pytestmark = pytest.mark.slow

_KILLED_AT_THE_END = """
import os, signal
import ssfs.engine.sender

def end(channel, comparison, outgoing, working):
    outgoing.flush()
    os.kill(os.getpid(), signal.SIGKILL)

ssfs.engine.sender._finish = end
"""
_FROM_NOTHING = """
import ssfs.engine.receiver

ssfs.engine.receiver._newest_intact = lambda task: None
"""


def _kill_sync(rig: Rig) -> None:
    """Sync up to `Finish`; the staging has what the source is now."""
    image = rig.look()
    ended = rig.run(*rig.sync_arguments, before=_KILLED_AT_THE_END)
    assert ended.returncode < 0, ended
    assert (rig.task_path / "staging" / "staging.toml").exists()
    rig.check(image)


@pytest.fixture
def rig(tmp_path) -> Rig:
    """A store with one version of a small tree."""
    rig = Rig(tmp_path)
    build_tree(rig.source, 8)
    (rig.source / "file").write_bytes(b"first")
    rig.init()
    rig.sync()
    return rig


@pytest.mark.parametrize("is_directory", [True, False])
def test_path_that_was_something_else_for_a_killed_sync_is_a_new_entry(rig, is_directory):
    file = rig.source / "file"
    file.unlink()
    if is_directory:
        file.mkdir()
    _kill_sync(rig)
    if is_directory:
        file.rmdir()
    file.write_bytes(b"second")
    rig.sync()
    first, second = rig.versions()
    assert entries_by_path(first)[b"file"].id != entries_by_path(second)[b"file"].id
    # The two versions alone look as if the file had lost its id, the more so if it got its inode back.
    with pytest.raises(AssertionError, match="b'file': id"):
        check_continuity(first, second, [])


def test_content_that_was_another_for_a_killed_sync_may_be_stored_again(rig):
    file = rig.source / "file"
    file.write_bytes(b"second")
    _kill_sync(rig)
    file.write_bytes(b"first")
    rig.sync()
    with pytest.raises(AssertionError, match="b'file' was stored again"):
        check_continuity(*rig.versions(), [])


@pytest.mark.parametrize("sizes", [(6 << 20, 150_000), (150_000, 6 << 20)])
def test_large_file_is_a_delta_against_what_a_killed_sync_has_staged(rig, sizes):
    rng = random.Random(1)
    large = rig.source / "large"
    large.write_bytes(rng.randbytes(sizes[0]))
    rig.sync()
    content = bytearray(rng.randbytes(sizes[1]))
    large.write_bytes(content)
    _kill_sync(rig)
    content[1000:1000] = b"inserted"
    large.write_bytes(content)
    summary = rig.sync()
    assert isinstance(summary["bytes_sent"], int)
    assert summary["bytes_sent"] < 20_000


@pytest.mark.parametrize("is_resumed", [False, True])
def test_sync_that_started_from_nothing_is_found_out(rig, is_resumed):
    if is_resumed:
        (rig.source / "new").write_bytes(b"new")
        _kill_sync(rig)
    with pytest.raises(AssertionError, match="was stored again"):
        rig.sync(before=_FROM_NOTHING)
