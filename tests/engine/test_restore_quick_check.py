"""`--quick-check`: what size and modification time tell of a file that is there, and what they do not."""

import os
from pathlib import Path

import pytest

from ssfs.engine.restore.options import RestoreOptions
from ssfs.engine.restore.restorer import RestoreResult
from ssfs.store.version import Version
from tests.fakes.comparing import assert_same_tree
from tests.fakes.restores import backed_up

IN_PLACE = RestoreOptions(in_place=True)
QUICK = RestoreOptions(in_place=True, quick_check=True)
RIGHT = b"as it was recorded"
WRONG = b"something elsewhere"[: len(RIGHT)]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "source"
    root.mkdir()
    for name in ("file", "other"):
        (root / name).write_bytes(RIGHT)
        (root / name).chmod(0o640)
        os.utime(root / name, ns=(0, 1_700_000_000_123_456_789))
    return root


@pytest.fixture
def version(tmp_path: Path, source: Path) -> Version:
    return backed_up(tmp_path, source)


def put(path: Path, content: bytes, *, by_ns: int = 0) -> None:
    """Overwrite a file, its modification time moved by so much."""
    mtime_ns = path.stat().st_mtime_ns
    path.write_bytes(content)
    os.utime(path, ns=(0, mtime_ns + by_ns))


def changes(result: RestoreResult) -> tuple[int, int, int]:
    return result.created, result.replaced, result.metadata_only


def test_content_that_changed_behind_an_unmoved_time_is_found_by_default_only(
    restore, tmp_path, source, version
):
    put(source / "file", WRONG)
    result = restore(version, source, options=QUICK)
    assert (changes(result), result.unchanged, result.problems) == ((0, 0, 0), 3, [])
    assert (source / "file").read_bytes() == WRONG
    assert changes(restore(version, source, options=IN_PLACE)) == (0, 1, 0)
    assert_same_tree(tmp_path / "as-it-was", source)


@pytest.mark.parametrize(
    ("content", "by_ns"), [(WRONG, 1), (WRONG, -1), (WRONG + b".", 0), (RIGHT[:-1], 0)]
)
def test_another_size_or_time_to_the_nanosecond_is_found(
    restore, tmp_path, source, version, content, by_ns
):
    put(source / "file", content, by_ns=by_ns)
    assert changes(restore(version, source, options=QUICK)) == (0, 1, 0)
    assert_same_tree(tmp_path / "as-it-was", source)


def test_a_missing_file_is_found(restore, tmp_path, source, version):
    (source / "file").unlink()
    assert restore(version, source, options=QUICK).created == 1
    assert_same_tree(tmp_path / "as-it-was", source)


def test_another_time_alone_costs_a_look_and_no_content(restore, tmp_path, source, version):
    put(source / "file", RIGHT, by_ns=5)
    assert changes(restore(version, source, options=QUICK)) == (0, 0, 1)
    assert_same_tree(tmp_path / "as-it-was", source)


def test_metadata_is_set_without_a_look_at_the_content(restore, source, version):
    put(source / "file", WRONG)
    (source / "file").chmod(0o600)
    os.setxattr(source / "file", "user.stray", b"x")
    before = (source / "file").stat()
    result = restore(version, source, options=QUICK)
    after = (source / "file").stat()
    assert changes(result) == (0, 0, 1)
    assert (after.st_ino, after.st_mode & 0o777) == (before.st_ino, 0o640)
    assert os.listxattr(source / "file") == []
    assert (source / "file").read_bytes() == WRONG


def test_a_file_that_must_be_made_anew_for_its_metadata_is_read(restore, tmp_path, source, version):
    # Another name of it must not see its mode change: it becomes a copy, and a copy has to be right.
    put(source / "file", WRONG)
    (source / "file").chmod(0o600)
    os.link(source / "file", tmp_path / "elsewhere")
    assert restore(version, source, options=QUICK).problems == []
    assert_same_tree(tmp_path / "as-it-was", source)
    assert (tmp_path / "elsewhere").read_bytes() == WRONG


def test_a_dry_run_says_the_same(restore, source, version):
    put(source / "file", WRONG)
    put(source / "other", WRONG, by_ns=1)
    told: list[tuple[str, bytes]] = []
    options = RestoreOptions(
        in_place=True,
        quick_check=True,
        dry_run=True,
        on_action=lambda action, path: told.append((str(action), path)),
    )
    assert restore(version, source, options=options).unchanged == 2
    assert told == [("replace", b"other")]
    assert (source / "other").read_bytes() == WRONG
