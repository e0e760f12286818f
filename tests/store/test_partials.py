"""What is kept of half-received files, what of it is offered, and when it goes."""

import errno
import os
from pathlib import Path

import pytest

from ssfs.errors import ConnectionLost, StoreFull
from ssfs.protocol.messages import INLINE_MAX_BYTES, Partial, basis_number
from ssfs.store import partials as partials_module
from ssfs.store.partials import Origin, Partials
from tests.store.stagings import ROOT, begin, commit, file, make_base, make_task, staged_tree

SMALLEST = INLINE_MAX_BYTES + 1
ORIGIN = Origin(0, -5)


@pytest.fixture
def task(tmp_path):
    return make_task(tmp_path / "store")


@pytest.fixture
def base(task):
    return make_base(task)


def directory_of(task) -> Path:
    return Path(os.fsdecode(task.path)) / "staging" / "partials"


def leave(task, *sizes, origin=ORIGIN, entry_id=8):
    """Parts of these sizes, the newest last, as so many cut runs have left them."""
    directory = directory_of(task)
    before = len(list(directory.iterdir()))
    for number, size in enumerate(sizes, start=before + 1):
        name = f"{number}.{origin.dev}.{origin.ino}.{entry_id}"
        (directory / name).write_bytes(bytes([number % 256]) * size)


def receive(staging, content, *, origin=ORIGIN, entry_id=8, basis=0):
    incoming = staging.begin_file(entry_id, basis, origin)
    incoming.write(content)
    return incoming


def sizes(task) -> list[int]:
    return sorted(path.stat().st_size for path in directory_of(task).iterdir())


# -- what is offered --------------------------------------------------------------------------------


def test_half_received_file_is_offered_to_the_next_run(task, base):
    content = os.urandom(SMALLEST)
    with begin(task) as staging:
        assert staging.partials == []
        receive(staging, content, origin=Origin(7, 1 << 63)).close()
    with begin(task) as staging:
        assert staging.partials == [Partial(1, 7, 1 << 63, SMALLEST)]
        with staging.open_basis(basis_number(1, 0)) as basis:
            buffer = memoryview(bytearray(SMALLEST + 1))
            assert buffer[: basis.read_at(buffer, 0)] == content


def test_partial_is_followed_by_the_content_of_an_entry(task, base):
    with begin(task) as staging:
        receive(staging, b"x" * SMALLEST).close()
    with begin(task) as staging, staging.open_basis(basis_number(1, 2)) as basis:
        buffer = memoryview(bytearray(100))
        assert basis.size_bytes == SMALLEST + len(b"content a")
        assert buffer[: basis.read_at(buffer, SMALLEST)] == b"content a"
        assert staging.open_basis(basis_number(1, 99)).size_bytes == SMALLEST
        assert staging.open_basis(basis_number(2, 2)) is None


@pytest.mark.parametrize(
    ("left", "kept"),
    [
        ([SMALLEST - 1], []),
        ([SMALLEST + 5, SMALLEST], [SMALLEST, SMALLEST + 5]),
        ([SMALLEST, SMALLEST + 5], [SMALLEST + 5]),
        ([SMALLEST, SMALLEST], [SMALLEST]),
        ([SMALLEST, SMALLEST + 9, SMALLEST + 2], [SMALLEST + 2, SMALLEST + 9]),
        ([SMALLEST + 9, SMALLEST + 3, 5], [SMALLEST + 3, SMALLEST + 9]),
        # Three at most: the largest, and the newest two.
        ([SMALLEST + n for n in (4, 3, 2, 1, 0)], [SMALLEST, SMALLEST + 1, SMALLEST + 4]),
    ],
)
def test_older_part_is_kept_only_if_it_is_larger(task, base, left, kept):
    begin(task).close()
    leave(task, *left)
    with begin(task) as staging:
        assert sizes(task) == kept
        announced = [Partial(1, *ORIGIN, sum(kept))] if kept else []
        assert staging.partials == announced
        if kept:
            with staging.open_basis(basis_number(1, 0)) as basis:
                first = memoryview(bytearray(kept[0] + 1))
                # The newest is first, and is the smallest.
                assert basis.read_at(first, 0) == kept[0]


def test_only_so_many_files_are_remembered_the_largest(task, base, monkeypatch):
    monkeypatch.setattr(partials_module, "MOST_PARTIALS", 3)
    begin(task).close()
    for number in (4, 1, 5, 3, 2):
        leave(task, SMALLEST + number, origin=Origin(0, number))
    with begin(task) as staging:
        assert [partial.ino for partial in staging.partials] == [5, 4, 3]
        assert sizes(task) == [SMALLEST + 3, SMALLEST + 4, SMALLEST + 5]


def test_partial_that_cannot_be_rebuilt_beside_itself_is_dropped(task, base, monkeypatch):
    monkeypatch.setattr(Partials, "_free_bytes", lambda self: SMALLEST + 5)
    begin(task).close()
    leave(task, SMALLEST + 6, origin=Origin(0, 6))
    leave(task, SMALLEST + 5, origin=Origin(0, 5))
    with begin(task) as staging:
        assert staging.partials == [Partial(1, 0, 5, SMALLEST + 5)]
        assert sizes(task) == [SMALLEST + 5]


FULL = [OSError(errno.ENOSPC, "No space"), OSError(errno.EDQUOT, "Quota"), StoreFull("No space")]


@pytest.mark.parametrize("error", [*FULL, OSError(errno.EIO, "I/O"), ConnectionLost("gone")])
def test_partials_make_room_when_the_disk_is_full_and_only_then(task, base, error):
    begin(task).close()
    leave(task, SMALLEST)

    def run():
        with begin(task) as staging:
            receive(staging, b"x" * SMALLEST, origin=Origin(0, 6))
            raise error

    with pytest.raises(type(error)):
        run()
    assert sizes(task) == ([] if error in FULL else [SMALLEST, SMALLEST])


def test_what_is_no_partial_goes(task, base, tmp_path):
    begin(task).close()
    directory = directory_of(task)
    (directory / "strange").write_bytes(bytes(SMALLEST))
    (directory / "1.2.3.-4").write_bytes(bytes(SMALLEST))
    (directory / "1.2.3.4").mkdir()
    (directory / "1.2.3.4" / "below").write_bytes(b"")
    (tmp_path / "victim").write_bytes(bytes(SMALLEST))
    (directory / "2.2.3.4").symlink_to(tmp_path / "victim")
    with begin(task) as staging:
        assert staging.partials == []
        assert list(directory.iterdir()) == []
    assert (tmp_path / "victim").exists()


def test_numbers_go_on_after_those_that_are_there(task, base):
    begin(task).close()
    leave(task, SMALLEST, SMALLEST + 1)
    with begin(task) as staging:
        receive(staging, b"x" * (SMALLEST + 2)).close()
    with begin(task) as staging:
        assert staging.partials == [Partial(1, *ORIGIN, SMALLEST + 2)]


# -- when they go -----------------------------------------------------------------------------------


def test_whole_file_stays_a_partial_until_it_is_recorded(task, base):
    content = os.urandom(SMALLEST)
    with begin(task) as staging:
        staging.finish_file(receive(staging, content), file(8, b"large", content))
        assert sizes(task) == [SMALLEST]
        # Killed here: renamed into the tree, no checkpoint.
    with begin(task) as staging:
        assert "large" not in staged_tree(task)
        assert staging.partials == [Partial(1, *ORIGIN, SMALLEST)]
        staging.finish_file(
            receive(staging, content, basis=basis_number(1, 0)), file(8, b"large", content)
        )
        assert sizes(task) == [SMALLEST, SMALLEST]
        staging.checkpoint()
        assert sizes(task) == []
    with begin(task) as staging:
        assert staging.partials == []
        assert staging.wanted() == []
        assert staged_tree(task)["large"] == content


def test_recorded_file_whose_name_here_was_left_is_no_partial(task, base, monkeypatch):
    monkeypatch.setattr(Partials, "sweep", lambda self: None)
    content = os.urandom(SMALLEST)
    begin(task).close()
    leave(task, SMALLEST + 1)
    with begin(task) as staging:
        staging.finish_file(receive(staging, content), file(8, b"large", content))
        staging.checkpoint()
    assert sizes(task) == [SMALLEST, SMALLEST + 1]
    with begin(task) as staging:
        assert staging.partials == []
        assert sizes(task) == []


def test_used_partial_is_no_basis_any_more(task, base):
    begin(task).close()
    leave(task, SMALLEST)
    content = os.urandom(SMALLEST)
    with begin(task) as staging:
        staging.finish_file(receive(staging, content), file(8, b"large", content))
        assert staging.open_basis(basis_number(1, 0)) is None
        assert staging.open_basis(basis_number(1, 2)) is None


def test_nothing_is_left_by_a_commit(task, base):
    begin(task).close()
    leave(task, SMALLEST)
    leave(task, SMALLEST, origin=Origin(0, 6))
    staging = begin(task)
    content = os.urandom(SMALLEST)
    staging.finish_file(receive(staging, content), file(8, b"large", content))
    receive(staging, content, origin=Origin(1, 2)).close()
    version = commit(task, staging)
    assert not directory_of(task).exists()
    assert os.stat(os.path.join(version.path, b"tree", b"large")).st_nlink == 1


def test_abandoned_file_is_kept_if_it_is_the_most_so_far(task, base):
    with begin(task) as staging:
        for size in (100, SMALLEST, SMALLEST + 7, SMALLEST + 3):
            staging.abandon_file(receive(staging, b"x" * size))
        assert sizes(task) == [SMALLEST + 7]
        staging.abandon_file(receive(staging, b"x" * SMALLEST, origin=Origin(0, 6)))
        content = os.urandom(SMALLEST)
        staging.finish_file(receive(staging, content), file(8, b"large", content))
        staging.checkpoint()
        assert sizes(task) == [SMALLEST]


def test_file_that_is_not_what_its_row_says_is_a_partial(task, base):
    content = os.urandom(SMALLEST)
    with begin(task) as staging:
        staging.finish_file(receive(staging, content), file(8, b"large", content + b"more"))
        assert staging.wanted() == [8]
    with begin(task) as staging:
        assert staging.partials == [Partial(1, *ORIGIN, SMALLEST)]


def test_first_version_has_partials_too(task):
    with begin(task) as staging:
        staging.make(ROOT)
        receive(staging, b"x" * SMALLEST).close()
    with begin(task) as staging:
        assert staging.partials == [Partial(1, *ORIGIN, SMALLEST)]
