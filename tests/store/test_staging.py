"""A version being received: changes and resuming (hostile clients: `test_staging_peers.py`)."""

import os
import shutil
from pathlib import Path

import pytest

from ssfs.errors import CorruptStore, StoreError
from ssfs.model.entry import Kind, Principal
from ssfs.store import clone
from ssfs.store import staging as staging_parts
from ssfs.store.partials import Origin
from ssfs.store.staging import Staging
from ssfs.store.textfile import FORMAT, seal
from ssfs.store.trash import empty_trash, move_to_trash
from tests.fakes.trees import tree_inodes, verify_version
from tests.store.stagings import (
    BASE_TREE,
    ROOT,
    begin,
    commit,
    directory,
    file,
    make_base,
    make_task,
    staged_tree,
    symlink,
    tree_of,
)

ORIGIN = Origin(0, 77)


@pytest.fixture
def task(tmp_path):
    return make_task(tmp_path / "store")


@pytest.fixture
def base(task):
    return make_base(task)


def send_file(staging, entry, content, basis=0):
    with staging.begin_file(entry.id, basis, ORIGIN) as incoming:
        for at in range(0, len(content), 1000):
            incoming.write(content[at : at + 1000])
        staging.finish_file(incoming, entry)


def version_tree(version):
    return tree_of(os.path.join(version.path, b"tree"))


# -- changes --------------------------------------------------------------------------------------


def test_first_version_is_what_was_sent(task, base):
    verify_version(base)
    assert version_tree(base) == BASE_TREE
    assert not (Path(os.fsdecode(task.path)) / "staging").exists()


def test_unchanged_version_links_every_file(task, base):
    version = commit(task, begin(task))
    verify_version(version)
    assert tree_inodes(version) == tree_inodes(base)
    with version.catalog() as one, base.catalog() as other:
        assert one.logical_digest() == other.logical_digest()


def test_each_change_does_what_it_says(task, base):
    staging = begin(task)
    staging.keep(file(2, b"a", b"content a")._replace(mode=0o600))
    staging.make(directory(8, b"new"))
    staging.keep(file(4, b"moved", b"content b", 8))
    staging.store(file(6, b"c", b"other", 5), b"other")
    staging.make(symlink(7, b"l", b"elsewhere", 3))
    staging.link(file(9, b"copy of a", b"content a", 8), 2)
    staging.make(ROOT._replace(id=10, parent=8, name=b"fifo", kind=int(Kind.FIFO)))
    send_file(staging, file(11, b"large", b"large" * 1000, 8), b"large" * 1000)
    staging.keep(directory(5, b"e renamed"))
    staging.name(Principal(0, 0, b"root"))
    assert staging.new_bytes == 5 + 5000
    version = commit(task, staging)
    verify_version(version)
    assert version_tree(version) == {
        "a": b"content a",
        "d": b"/",
        "d/l": b"-> elsewhere",
        "e renamed": b"/",
        "e renamed/c": b"other",
        "new": b"/",
        "new/moved": b"content b",
        "new/copy of a": b"content a",
        "new/large": b"large" * 1000,
    }
    inodes, old = tree_inodes(version), tree_inodes(base)
    assert inodes[b"a"] == inodes[b"new/copy of a"] == old[b"a"]
    assert inodes[b"new/moved"] == old[b"d/b"]
    assert version_tree(base) == BASE_TREE
    verify_version(base)


def test_removed_directory_is_gone_with_all_below(task, base):
    staging = begin(task)
    assert staging.remove(3) == 5
    assert staging.remove(2) == 1
    version = commit(task, staging)
    assert version_tree(version) == {}
    verify_version(version)


def test_two_files_change_places(task, base):
    staging = begin(task)
    staging.keep(file(4, b"a", b"content b"))
    assert not staging.wanted()
    with pytest.raises(CorruptStore):
        staging.commit(None, None)
    staging.keep(file(2, b"b", b"content a", 3))
    version = commit(task, staging)
    assert version_tree(version) == BASE_TREE | {"a": b"content b", "d/b": b"content a"}
    verify_version(version)


def test_directory_changes_places_with_the_one_inside_it(task, base):
    staging = begin(task)
    staging.keep(directory(5, b"d"))
    staging.keep(directory(3, b"e", 5))
    version = commit(task, staging)
    assert version_tree(version) == {
        "a": b"content a",
        "d": b"/",
        "d/c": b"content c",
        "d/e": b"/",
        "d/e/b": b"content b",
        "d/e/l": b"-> /target",
    }
    verify_version(version)


def test_file_becomes_a_directory_and_the_other_way_round(task, base):
    staging = begin(task)
    staging.make(directory(8, b"a"))
    staging.store(file(9, b"inside", b"i", 8), b"i")
    staging.store(file(10, b"d", b"now a file"), b"now a file")
    staging.remove(2)
    staging.remove(3)
    version = commit(task, staging)
    assert version_tree(version) == {"a": b"/", "a/inside": b"i", "d": b"now a file"}
    verify_version(version)


def test_hard_link_onto_its_own_inode_leaves_nothing_beside(task, base):
    staging = begin(task)
    staging.link(file(2, b"a", b"content a"), 2)
    assert os.listdir(os.path.join(task.path, b"staging", b"incoming")) == []
    assert tree_inodes(commit(task, staging)) == tree_inodes(base)


# -- content that is not what it should be --------------------------------------------------------


@pytest.mark.parametrize("entry_id", [2, 8], ids=["known", "new"])
@pytest.mark.parametrize("how", ["small", "large"])
def test_digest_that_does_not_match_is_asked_for_again(task, base, entry_id, how):
    staging = begin(task)
    entry = file(entry_id, b"a" if entry_id == 2 else b"n", b"right")
    if how == "small":
        staging.store(entry, b"wrong")
    else:
        send_file(staging, entry, b"wrong")
    assert staging.wanted() == [entry_id]
    with pytest.raises(CorruptStore):
        staging.commit(None, None)
    staging.store(entry, b"right")
    assert staging.wanted() == []
    verify_version(commit(task, staging))


@pytest.mark.parametrize("content", [b"", b"righ", b"right "])
def test_length_that_does_not_match_is_asked_for_again(task, base, content):
    with begin(task) as staging:
        staging.store(file(8, b"n", b"right"), content)
        assert staging.wanted() == [8]
        staging.remove(8)
        assert staging.wanted() == []


@pytest.mark.parametrize("damage", ["missing", "shorter", "directory"])
def test_link_source_that_the_base_has_lost_is_asked_for(task, base, damage):
    path = Path(os.fsdecode(base.path)) / "tree" / "a"
    path.unlink()
    match damage:
        case "shorter":
            path.write_bytes(b"cont")
        case "directory":
            path.mkdir()
    staging = begin(task)
    # A clone links without looking: one name more or less is noticed, another size is not.
    noticed = [] if damage == "shorter" else [2]
    assert staging.wanted() == noticed
    staging.link(file(8, b"copy", b"content a"), 2)
    assert staging.wanted() == [*noticed, 8]
    assert staging.open_basis(99) is None
    for entry in (file(8, b"copy", b"content a"), file(2, b"a", b"content a")):
        staging.store(entry, b"content a")
    version = commit(task, staging)
    verify_version(version)


@pytest.mark.parametrize("source", [99, 4, 3, 8, 1 << 64], ids=str)
def test_link_source_with_other_content_is_asked_for(task, base, source):
    with begin(task) as staging:
        staging.link(file(8, b"copy", b"content a"), source)
        assert staging.wanted() == [8]


def test_link_goes_to_the_base_when_the_source_has_changed_since(task, base):
    staging = begin(task)
    staging.store(file(2, b"a", b"new"), b"new")
    staging.link(file(8, b"old a", b"content a"), 2)
    version = commit(task, staging)
    assert tree_inodes(version)[b"old a"] == tree_inodes(base)[b"a"]
    verify_version(version)


@pytest.mark.slow
def test_too_many_links_make_one_copy_for_many(task, base, monkeypatch):
    real, limit = clone.link_file, 3

    def limited(name, source_fd, target, target_fd):
        if os.stat(name, dir_fd=source_fd, follow_symlinks=False).st_nlink >= limit:
            raise OSError(31, "Too many links")
        real(name, source_fd, target, target_fd)

    monkeypatch.setattr(clone, "link_file", limited)
    versions = [base]
    copies = []
    for _ in range(6):
        staging = begin(task)
        assert staging.wanted() == []
        copies.append(staging.fresh_copies)
        versions.append(commit(task, staging))
    for version in versions:
        verify_version(version)
        assert version_tree(version) == BASE_TREE
    # A copy serves until it is full itself: neither none nor one each time.
    assert copies[:2] == [0, 0]
    assert 0 < sum(map(bool, copies)) < len(copies)


def test_links_within_one_staging_share_the_newest_copy(task, base, monkeypatch):
    real = clone.link_file

    def limited(name, source_fd, target, target_fd):
        if os.stat(name, dir_fd=source_fd, follow_symlinks=False).st_nlink >= 4:
            raise OSError(31, "Too many links")
        real(name, source_fd, target, target_fd)

    staging = begin(task)
    monkeypatch.setattr(clone, "link_file", limited)
    for number in range(8, 20):
        staging.link(file(number, b"%d" % number, b"content a"), 2)
    assert staging.fresh_copies == 4
    version = commit(task, staging)
    verify_version(version)


# -- resuming -------------------------------------------------------------------------------------


def interrupted(task):
    """A staging with a checkpoint, and changes of every kind after it."""
    with begin(task) as staging:
        staging.store(file(8, b"recorded", b"recorded"), b"recorded")
        staging.store(file(2, b"a", b"new a"), b"new a")
        staging.link(file(9, b"linked", b"content b"), 4)
        staging.keep(file(6, b"moved", b"content c"))
        staging.make(directory(10, b"n"))
        staging.checkpoint()
        digest = staging.catalog.logical_digest()
        recorded = staged_tree(task)
        staging.store(file(8, b"recorded", b"RECORDED"), b"RECORDED")
        staging.store(file(11, b"unrecorded", b"x", 10), b"x")
        staging.keep(directory(10, b"renamed"))
        staging.remove(9)
        staging.keep(file(4, b"a", b"content b"))
        staging.remove(5)
        staging.make(directory(12, b"more"))
        staging.keep(directory(3, b"into", 12))
        send = staging.begin_file(13, 0, ORIGIN)
        send.write(b"half")
        send.close()
    return digest, recorded


def test_interrupted_staging_goes_on_as_of_the_checkpoint(task, base):
    digest, recorded = interrupted(task)
    assert recorded != staged_tree(task)
    with begin(task) as staging:
        assert staging.is_resumed
        assert staging.catalog.logical_digest() == digest
        # Replaced, parked or removed after the checkpoint; what the base has too is linked again.
        assert staging.wanted() == [2, 8, 9]
        lost = {"recorded", "linked", "a"}
        assert staged_tree(task) == {k: v for k, v in recorded.items() if k not in lost}
        assert os.listdir(os.path.join(task.path, b"staging", b"parked")) == []
        assert os.listdir(os.path.join(task.path, b"staging", b"incoming")) == []
        staging.store(file(2, b"a", b"new a"), b"new a")
        staging.store(file(8, b"recorded", b"recorded"), b"recorded")
        staging.link(file(9, b"linked", b"content b"), 4)
        verify_version(commit(task, staging))


def test_what_a_checkpoint_recorded_is_not_asked_for_again(task, base):
    with begin(task) as staging:
        staging.store(file(8, b"small", b"s"), b"s")
        send_file(staging, file(9, b"large", b"l" * 5000), b"l" * 5000)
        staging.link(file(10, b"linked", b"content b"), 4)
        staging.checkpoint()
        recorded = staged_tree(task)
    for _ in range(2):
        with begin(task) as staging:
            assert staging.is_resumed
            assert staging.wanted() == []
            assert staged_tree(task) == recorded
    staging = begin(task)
    verify_version(commit(task, staging))


def test_content_from_before_a_failed_link_is_not_taken_for_the_new_one(task, base):
    with begin(task) as staging:
        staging.store(file(8, b"n", b"first content"), b"first content")
        staging.checkpoint()
        staging.link(file(8, b"n", b"other content"), 99)
        staging.checkpoint()
        assert staging.wanted() == [8]
    with begin(task) as staging:
        assert staging.wanted() == [8]


@pytest.mark.parametrize("damage", ["other inode", "other time", "other size", "gone"])
def test_received_file_that_is_not_as_recorded_is_asked_for(task, base, damage):
    with begin(task) as staging:
        staging.store(file(8, b"n", b"content"), b"content")
        staging.checkpoint()
    path = Path(os.fsdecode(task.path)) / "staging" / "tree" / "n"
    match damage:
        case "other inode":
            content = path.read_bytes()
            path.rename(path.with_name("kept"))
            path.write_bytes(content)
        case "other time":
            os.utime(path, ns=(0, 0))
        case "other size":
            path.chmod(0o600)
            path.write_bytes(b"conten")
        case "gone":
            path.unlink()
    with begin(task) as staging:
        assert staging.wanted() == [8]
        assert staged_tree(task) == BASE_TREE


def spoil(tree):
    (tree / "a").unlink()
    (tree / "a").mkdir()
    (tree / "a" / "x").write_bytes(b"x")
    shutil.rmtree(tree / "d" / "e")
    (tree / "d" / "l").unlink()
    (tree / "d" / "l").symlink_to("elsewhere")
    (tree / "d" / "b").unlink()
    (tree / "d" / "b").write_bytes(b"content B")
    (tree / "stranger").symlink_to("/")
    (tree / "\udcff").write_bytes(b"")


def test_any_state_of_an_interrupted_tree_is_put_right(task, base):
    with Staging(task, base):
        pass  # no clone yet: nothing is there
    with begin(task) as staging:
        assert staging.is_resumed
        assert staged_tree(task) == BASE_TREE
    spoil(Path(os.fsdecode(task.path)) / "staging" / "tree")
    staging = begin(task)
    assert staging.wanted() == []
    assert staged_tree(task) == BASE_TREE
    version = commit(task, staging)
    assert tree_inodes(version) == tree_inodes(base)
    assert version_tree(base) == BASE_TREE


def test_symlink_in_place_of_a_staged_directory_is_not_followed(task, base, tmp_path):
    with begin(task):
        pass
    victim = tmp_path / "victim"
    (victim / "e").mkdir(parents=True)
    (victim / "e" / "c").write_bytes(b"mine")
    tree = Path(os.fsdecode(task.path)) / "staging" / "tree"
    (tree / "d").rename(tmp_path / "away")
    (tree / "d").symlink_to(victim)
    with begin(task):
        assert staged_tree(task) == BASE_TREE
    assert (victim / "e" / "c").read_bytes() == b"mine"


def test_staging_of_an_older_base_is_dropped(task, base):
    staging = begin(task)
    staging.store(file(8, b"n", b"content"), b"content")
    staging.checkpoint()
    staging.close()
    path = Path(os.fsdecode(task.path))
    (path / "staging").rename(path / "aside")
    newer = begin(task)
    newer.store(file(8, b"m", b"other"), b"other")
    commit(task, newer)
    (path / "aside").rename(path / "staging")
    with begin(task) as staging:
        assert not staging.is_resumed
        assert staged_tree(task) == BASE_TREE | {"m": b"other"}
    assert len(list((path / "trash").iterdir())) == 1


@pytest.mark.parametrize(
    "damage", ["no record", "record", "no catalog", "catalog", "empty catalog"]
)
def test_damaged_staging_is_dropped_and_made_anew(task, base, damage):
    with begin(task) as staging:
        staging.store(file(8, b"n", b"content"), b"content")
        staging.checkpoint()
    path = Path(os.fsdecode(task.path)) / "staging"
    match damage:
        case "no record":
            (path / "staging.toml").unlink()
        case "record":
            (path / "staging.toml").write_bytes(b"format = 1\nbase = \xff")
        case "no catalog":
            (path / "catalog.db").unlink()
        case "catalog":
            (path / "catalog.db").write_bytes(b"x" * 5000)
        case "empty catalog":
            (path / "catalog.db").write_bytes(b"")
    with begin(task) as staging:
        assert not staging.is_resumed
        assert staging.catalog.first_new_id == 8
        assert staged_tree(task) == BASE_TREE


BREAKS = {
    "before the record": ("replace_file", b"version.toml"),
    "before the rows are dropped": ("StagedRows.drop", None),
    "before the scraps are removed": ("remove_tree", b"partials"),
    "before the settings go": ("fsync", None),
    "before the rename": ("rename", b"staging"),
}


def break_commit(task, monkeypatch, staging, where):
    """Commit, but die just before a step."""
    name, wanted = BREAKS[where]
    owner = staging_parts
    if "." in name:
        owner, name = staging_parts.StagedRows, "drop"
    original = getattr(owner, name)

    def die(*arguments, **options):
        if wanted in (None, arguments[0]):
            raise KeyboardInterrupt
        return original(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, die)
        with pytest.raises(KeyboardInterrupt):
            commit(task, staging)


@pytest.mark.parametrize("where", BREAKS)
def test_commit_that_broke_off_has_forgotten_nothing(task, base, monkeypatch, where):
    staging = begin(task)
    staging.store(file(8, b"small", b"s"), b"s")
    send_file(staging, file(9, b"large", b"l" * 200_000), b"l" * 200_000)
    staging.store(file(2, b"a", b"new a"), b"new a")
    staging.link(file(10, b"linked", b"content b"), 4)
    staging.keep(file(6, b"moved", b"content c"))
    tree = staged_tree(task)
    break_commit(task, monkeypatch, staging, where)
    for _ in range(2):
        with begin(task) as again:
            assert again.is_resumed
            assert again.wanted() == []
            assert again.partials == []
            assert staged_tree(task) == tree
        assert not (Path(os.fsdecode(task.path)) / "staging" / "version.toml").exists()
    again = begin(task)
    again.remove(8)
    version = commit(task, again)
    verify_version(version)
    assert version_tree(version) == {k: v for k, v in tree.items() if k != "small"}
    assert tree_inodes(version)[b"linked"] == tree_inodes(base)[b"d/b"]


def test_record_of_a_broken_commit_vouches_only_for_what_it_was_made_of(task, base, monkeypatch):
    staging = begin(task)
    staging.store(file(8, b"n", b"one"), b"one")
    break_commit(task, monkeypatch, staging, "before the rename")
    record = Path(os.fsdecode(task.path)) / "staging" / "version.toml"
    content = record.read_bytes()
    with begin(task) as again:
        again.store(file(8, b"n", b"two"), b"two")
        again.checkpoint()
        again.store(file(8, b"n", b"six"), b"six")
    # As if the file system had brought it back.
    record.write_bytes(content)
    with begin(task) as again:
        assert again.wanted() == [8]
        assert not record.exists()


def test_file_of_a_broken_commit_that_has_lost_its_size_is_asked_for(task, base, monkeypatch):
    staging = begin(task)
    staging.store(file(8, b"n", b"one"), b"one")
    staging.store(file(9, b"m", b"two"), b"two")
    break_commit(task, monkeypatch, staging, "before the rename")
    path = Path(os.fsdecode(task.path)) / "staging" / "tree" / "n"
    path.chmod(0o600)
    path.write_bytes(b"on")
    with begin(task) as again:
        assert again.wanted() == [8]


def test_broken_commit_of_a_first_version_is_resumed(task, monkeypatch):
    staging = begin(task)
    staging.make(ROOT)
    staging.store(file(2, b"n", b"content"), b"content")
    break_commit(task, monkeypatch, staging, "before the rename")
    again = begin(task)
    assert again.is_resumed
    assert again.wanted() == []
    assert version_tree(commit(task, again)) == {"n": b"content"}


def test_staging_of_a_newer_ssfs_is_left_alone(task, base):
    with begin(task):
        pass
    record = Path(os.fsdecode(task.path)) / "staging" / "staging.toml"
    _, _, content = record.read_bytes().partition(b"\n")
    record.write_bytes(
        seal(content.replace(b"format = %d" % FORMAT, b"format = %d" % (FORMAT + 1)))
    )
    with pytest.raises(StoreError, match="newer"):
        Staging(task, base)
    assert record.exists()


def test_first_version_can_be_resumed_too(task):
    with begin(task) as staging:
        staging.make(ROOT)
        staging.store(file(2, b"n", b"content"), b"content")
        staging.checkpoint()
        staging.store(file(3, b"m", b"content"), b"content")
    staging = begin(task)
    assert staging.is_resumed
    assert staging.wanted() == []
    assert version_tree(commit(task, staging)) == {"n": b"content"}


def test_base_cannot_be_deleted_while_it_is_one(task, base):
    staging = begin(task)
    with task.guard() as guard:
        move_to_trash(base, guard)
    assert empty_trash(task.path) == 0
    staging.close()
    assert empty_trash(task.path) == 1
