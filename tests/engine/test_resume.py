"""Cut in the middle of a large file: the next run sends what had not arrived, whatever has changed since."""

import datetime
import errno
import itertools
import os
import random
from pathlib import Path

import pytest

from ssfs.engine import content as content_module
from ssfs.engine import outgoing
from ssfs.engine.comparison import Comparison
from ssfs.engine.outgoing import Outgoing
from ssfs.errors import ConnectionLost, RemoteProtocolError
from ssfs.protocol.messages import Partial
from ssfs.store import staging as staging_module
from ssfs.store.staging import Staging
from tests.fakes.clock import FrozenClock
from tests.fakes.syncs import Backup
from tests.fakes.trees import compare_with_version, verify_version

pytestmark = pytest.mark.slow

MB = 1 << 20
SIZE = 40 * MB


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "source"
    root.mkdir()
    return root


@pytest.fixture
def backup(tmp_path: Path) -> Backup:
    return Backup(tmp_path / "store")


def noise(size: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(size)


def cut(backup: Backup, source: Path, after: int) -> None:
    with pytest.raises(ConnectionLost):
        backup.sync(source, cut_after=after)


def staging_of(backup: Backup) -> Path:
    return Path(os.fsdecode(backup.task().path)) / "staging"


def partials(backup: Backup) -> list[int]:
    """Sizes of what an interrupted run has left, newest first."""
    names = (staging_of(backup) / "partials").iterdir()
    ordered = sorted(names, key=lambda path: -int(path.name.split(".")[0]))
    return [path.stat().st_size for path in ordered]


def finish(backup: Backup, source: Path) -> int:
    """A sync that is not cut, its version checked; what it sent."""
    result = backup.sync(source)
    assert not result.problems
    verify_version(backup.newest())
    compare_with_version(source, backup.newest())
    assert not staging_of(backup).exists()
    return result.counts.bytes_sent


@pytest.mark.parametrize("part", [0.05, 0.5, 0.95, 0.999])
def test_new_file_cut_in_the_middle_goes_on_where_it_was(source, backup, part):
    (source / "image").write_bytes(noise(SIZE, 1))
    cut(backup, source, int(SIZE * part))
    (left,) = partials(backup)
    assert left > SIZE * part - MB - 4096
    assert finish(backup, source) < SIZE * (1 - part) + 0.05 * SIZE * part + MB


def test_each_of_three_cuts_makes_progress(source, backup):
    (source / "image").write_bytes(noise(SIZE, 1))
    had = 0
    for _ in range(3):
        cut(backup, source, 12 * MB)
        (left, *_) = partials(backup)
        assert left > had + 10 * MB
        had = left
    assert finish(backup, source) < SIZE - had + 2 * MB
    # One part is enough when each is larger than the one before.
    assert len(backup.versions()) == 1


def test_run_cut_before_it_has_caught_up_loses_nothing(source, backup):
    (source / "image").write_bytes(noise(SIZE, 1))
    cut(backup, source, 30 * MB)
    cut(backup, source, 10_000)
    assert max(partials(backup)) > 28 * MB
    assert finish(backup, source) < SIZE - 30 * MB + 3 * MB


def test_source_changed_between_the_cut_and_the_next_run(source, backup):
    content = noise(SIZE, 1)
    (source / "image").write_bytes(content)
    cut(backup, source, 30 * MB)
    changed = noise(300_000, 2) + content[: 10 * MB] + noise(MB, 3) + content[12 * MB :]
    with (source / "image").open("r+b") as file:
        file.write(changed)
        file.truncate()
    assert finish(backup, source) < SIZE - 30 * MB + 5 * MB


def test_source_changed_and_cut_again_keeps_what_both_runs_brought(source, backup):
    content = noise(SIZE, 1)
    (source / "image").write_bytes(content)
    cut(backup, source, 30 * MB)
    with (source / "image").open("r+b") as file:
        file.write(noise(12 * MB, 2))
    cut(backup, source, 12 * MB + 100_000)
    new, old = partials(backup)
    assert 11 * MB < new < old
    assert old > 28 * MB
    assert finish(backup, source) < SIZE - 30 * MB + 4 * MB


def test_source_gone_leaves_the_partial_to_the_commit(source, backup):
    (source / "image").write_bytes(noise(SIZE, 1))
    cut(backup, source, 20 * MB)
    (source / "image").unlink()
    (source / "other").write_bytes(b"other")
    assert finish(backup, source) < 10_000


def test_partial_and_old_version_are_one_basis(source, backup):
    old = noise(SIZE, 1)
    (source / "image").write_bytes(old)
    finish(backup, source)
    # New content up to 30%, then the old.
    with (source / "image").open("r+b") as file:
        file.write(noise(12 * MB, 2))
    cut(backup, source, 8 * MB)
    assert finish(backup, source) < 12 * MB - 8 * MB + 3 * MB


def test_new_content_after_the_old_is_resumed_too(source, backup):
    (source / "image").write_bytes(noise(SIZE, 1))
    finish(backup, source)
    with (source / "image").open("r+b") as file:
        file.seek(int(0.3 * SIZE))
        file.write(noise(int(0.7 * SIZE), 2))
    cut(backup, source, 20 * MB)
    assert finish(backup, source) < 0.7 * SIZE - 20 * MB + 3 * MB


def test_two_files_and_the_second_is_cut(source, backup):
    for number in (1, 2):
        (source / f"image{number}").write_bytes(noise(SIZE // 2, number))
    cut(backup, source, 35 * MB)
    # The first was recorded when the connection broke.
    (left,) = partials(backup)
    assert 13 * MB < left < 16 * MB
    assert finish(backup, source) < 5 * MB + 2 * MB


def test_hard_links_of_a_half_received_file_both_arrive(source, backup):
    (source / "a").write_bytes(noise(SIZE // 4, 1))
    os.link(source / "a", source / "b")
    cut(backup, source, 6 * MB)
    # A partial serves for one of them.
    assert finish(backup, source) < SIZE // 4 + 6 * MB


def test_hard_link_is_never_sent_against_a_partial_that_is_used_up(source, backup, monkeypatch):
    """Both ask for its signature before either is sent."""
    monkeypatch.setattr(content_module, "CREDIT_BYTES", 1 << 30)
    (source / "a").write_bytes(noise(SIZE // 4, 1))
    cut(backup, source, 6 * MB)
    (source / "dir").mkdir()
    os.link(source / "a", source / "b")
    monkeypatch.setattr(outgoing, "CHECKPOINT_BYTES", 1)
    assert finish(backup, source) < SIZE // 4 + 6 * MB


def test_content_that_the_server_lost_is_resumed_too(source, backup):
    """NEED: the sending again is cut as well."""
    (source / "image").write_bytes(noise(SIZE, 1))
    finish(backup, source)
    os.unlink(os.path.join(backup.newest().path, b"tree/image"))
    cut(backup, source, 30 * MB)
    (left,) = partials(backup)
    assert left > 28 * MB
    assert finish(backup, source) < SIZE - 30 * MB + 3 * MB


def test_partial_that_cannot_be_read_is_done_without(source, backup, monkeypatch):
    (source / "image").write_bytes(noise(SIZE // 4, 1))
    cut(backup, source, 6 * MB)

    def unreadable(*_):
        raise OSError(errno.EIO, "Input/output error")
        yield b""

    monkeypatch.setattr("ssfs.engine.incoming.signature", unreadable)
    assert finish(backup, source) > SIZE // 4


def test_aborted_file_is_kept_while_it_is_sent_again(source, backup, monkeypatch):
    """It changes while it is read; the connection breaks early in the second attempt."""
    path = source / "image"
    path.write_bytes(noise(SIZE // 2, 1))
    original = Outgoing.abort_file

    def abort_file(self, entry_id):
        original(self, entry_id)
        self._channel._stream.left = 2 * MB

    monkeypatch.setattr(Outgoing, "abort_file", abort_file)
    monkeypatch.setattr(content_module, "is_same", lambda before, after: False)
    cut(backup, source, 1 << 40)
    monkeypatch.undo()
    new, old = partials(backup)
    assert new < 3 * MB
    assert old == SIZE // 2
    assert finish(backup, source) < MB


# -- checkpoints ----------------------------------------------------------------------------------


def kill(backup: Backup, source: Path, monkeypatch: pytest.MonkeyPatch, checkpoints: int) -> None:
    """A sync whose server dies when it is to make another checkpoint; its last one is lost as well."""
    original = Staging.checkpoint
    count = itertools.count(1)

    def checkpoint(self):
        if next(count) > checkpoints:
            raise ConnectionLost("killed")
        original(self)

    with monkeypatch.context() as patch:
        patch.setattr(Staging, "checkpoint", checkpoint)
        with pytest.raises(ConnectionLost):
            backup.sync(source)


def test_large_files_of_one_directory_are_recorded_one_by_one(source, backup, monkeypatch):
    monkeypatch.setattr(outgoing, "CHECKPOINT_BYTES", MB)
    for number in range(5):
        (source / f"{number}").write_bytes(noise(2 * MB, number))
    kill(backup, source, monkeypatch, 4)
    # The fifth was complete, but nothing says so.
    assert partials(backup) == [2 * MB]
    assert finish(backup, source) < MB // 2


def test_small_files_of_one_directory_are_recorded_on_the_way(source, backup, monkeypatch):
    monkeypatch.setattr(outgoing, "CHECKPOINT_BYTES", MB)
    for number in range(300):
        (source / f"{number:03}").write_bytes(noise(30_000, number))
    kill(backup, source, monkeypatch, 6)
    assert finish(backup, source) < 300 * 30_000 - 6 * MB + MB


def test_checkpoints_become_rare_as_a_session_grows(source, backup, monkeypatch):
    monkeypatch.setattr(outgoing, "CHECKPOINT_BYTES", 100_000)
    for number in range(60):
        (source / f"{number}").write_bytes(noise(140_000, number))
    said = []
    monkeypatch.setattr(Staging, "checkpoint_if_full", lambda self: None)
    original = Staging.checkpoint
    monkeypatch.setattr(
        Staging,
        "checkpoint",
        lambda self: (said.append(self.catalog.counter("bytes")), original(self)),
    )
    finish(backup, source)
    # One after each file up to 2.5 MB, then one for each 4% more; the last two are the commit's.
    gaps = [after - before for before, after in itertools.pairwise(said[:-2])]
    assert max(gaps[:15]) == 140_000
    assert all(gap <= 140_000 + total // 25 for gap, total in zip(gaps, said[1:-2], strict=True))
    assert len(said) < 50


def test_rows_alone_make_checkpoints_too(source, backup, monkeypatch):
    monkeypatch.setattr(outgoing, "CHECKPOINT_CHANGES", 100)
    monkeypatch.setattr(outgoing, "_MAX_CHANGES", 50)
    for number in range(500):
        (source / f"{number}").symlink_to("nowhere")
    kill(backup, source, monkeypatch, 4)
    assert finish(backup, source) < 120 * 200


def test_time_makes_checkpoints_where_anything_has_changed(source, tmp_path, monkeypatch):
    clock = FrozenClock()
    backup = Backup(tmp_path / "slow", clock=clock)
    for name in ("a", "b", "c"):
        (source / name).mkdir()
        (source / name / "file").write_bytes(b"x")
    original = Comparison._directory

    def directory(self, fd, entry_id, path):
        clock.advance(datetime.timedelta(seconds=31))
        return original(self, fd, entry_id, path)

    monkeypatch.setattr(Comparison, "_directory", directory)
    sent = []
    real = Outgoing.listen
    monkeypatch.setattr(
        Outgoing, "listen", lambda self: (real(self), sent.append(self._checkpoints))[0]
    )
    backup.sync(source)
    assert sent == [1, 2, 3, 4]
    sent.clear()
    backup.sync(source)
    # The files again, whose times prove nothing yet; the directories are as they were.
    assert sent == [0, 1, 2, 3]


def test_server_makes_checkpoints_for_a_client_that_asks_for_none(source, backup, monkeypatch):
    monkeypatch.setattr(staging_module, "_MOST_STAGED", 100)
    monkeypatch.setattr(outgoing, "_MAX_CHANGES", 50)
    for number in range(1000):
        (source / f"{number}").write_bytes(b"%d" % number)
    rows = []
    original = Staging.checkpoint
    monkeypatch.setattr(
        Staging, "checkpoint", lambda self: (rows.append(len(self._staged)), original(self))[1]
    )
    finish(backup, source)
    assert len(rows) >= 10
    assert max(rows) <= 150


def test_impossible_partials_are_the_servers_fault(tmp_path):
    for partial in (Partial(0, 0, 1, 1), Partial(1 << 23, 0, 1, 1), Partial(1, 0, 1, -1)):
        with pytest.raises(RemoteProtocolError):
            Outgoing(None, None, FrozenClock(), [partial])
