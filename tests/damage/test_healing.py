"""Damage is not linked on, and what a client or another store still has heals all versions."""

import os
import subprocess
from pathlib import Path

import pytest

from ssfs.engine import resending
from ssfs.errors import StoreLocked
from ssfs.fsio.lock import FileLock
from ssfs.store import clone, healing
from ssfs.store.damage import Damage, DamagedEntry, change_damage, read_damage
from ssfs.store.textfile import FORMAT
from tests.cli.support import run, ssfs_json
from tests.damage.damages import History, damaged, delete, flip, truncate, verify
from tests.fakes.syncs import row, stored
from tests.fakes.trees import tree_inodes, verify_version


@pytest.fixture
def flipped(history):
    """`large` has a flipped bit in all versions, which is known."""
    flip(history.stored(1, "large"))
    assert damaged(verify(history.backup.path)) == {"large": 3}
    return history


def damage_files(history):
    return sorted(history.task_path.glob("versions/*/damage.toml"))


def test_damage_of_one_version_is_recorded_in_all_that_link_it(history):
    flip(history.stored(1, "large"))
    # Only one of them is verified.
    outcome = run("verify", history.backup.path, "2", expect=6)
    assert "large: its content has changed (in 3 versions: " in outcome.err
    assert len(damage_files(history)) == 3
    for version in history.versions:
        (entry,) = read_damage(version.path).entries
        assert (entry.path, entry.id) == ("large", row(version, "large").id)


def test_damaged_file_is_sent_again_and_heals_every_version(flipped):
    before = flipped.stored(3, "large").stat().st_ino
    result = flipped.sync()
    assert result.counts.new_bytes >= 300_000
    assert not damage_files(flipped)
    flipped.check(*flipped.versions)
    inodes = {stored(version, "large").st_ino for version in flipped.versions}
    assert len(inodes) == 1
    assert before not in inodes
    assert not (flipped.task_path / "healing").exists()


def test_unchanged_files_beside_a_damaged_one_are_linked(flipped):
    flipped.sync()
    before, after = (tree_inodes(version) for version in flipped.versions[-2:])
    assert before.pop(b"large") == after.pop(b"large")
    assert before == after


def test_damage_is_not_linked_on_when_the_client_has_lost_the_content(flipped):
    (flipped.source / "large").unlink()
    flipped.sync()
    flipped.check(flipped.versions[-1])
    assert damaged(verify(flipped.backup.path)) == {"large": 3}


def test_damage_is_not_linked_on_when_the_client_has_changed_the_content(flipped):
    content = bytearray((flipped.source / "large").read_bytes())
    content[1000] ^= 255
    (flipped.source / "large").write_bytes(content)
    flipped.sync()
    flipped.check(flipped.versions[-1])
    assert damaged(verify(flipped.backup.path)) == {"large": 3}


@pytest.mark.parametrize("size", [1000, 300_000], ids=["small", "large"])
def test_hard_links_of_a_damaged_file_are_one_inode_again(history, size):
    """Whatever their names, and with what else has that content."""
    content = os.urandom(size)
    (history.source / "a first").write_bytes(content)
    for name in ("deep/second", "zz third"):
        os.link(history.source / "a first", history.source / name)
    history.sync()
    (history.source / "copy").write_bytes(content)
    history.sync()
    names = ["a first", "deep/second", "zz third", *(["copy"] if size > 4096 else [])]
    assert len({history.stored(5, name).stat().st_ino for name in names}) == 1
    flip(history.stored(5, "a first"))
    assert damaged(verify(history.backup.path)).keys() == set(names)
    result = history.sync()
    assert result.problems == []
    assert result.counts.bytes_sent < size * 1.2 + 20_000
    for number in (5, 6):
        assert len({history.stored(number, name).stat().st_ino for name in names}) == 1
    history.check(*history.versions)
    assert damaged(verify(history.backup.path)) == {}
    assert history.sync().counts.new_bytes == 0


def test_hard_link_that_was_parted_meanwhile_is_sent_by_itself(history, monkeypatch):
    """Between the walk and the server's asking again."""
    (history.source / "a").write_bytes(b"a" * 5000)
    os.link(history.source / "a", history.source / "b")
    history.sync()
    flip(history.stored(4, "a"))
    verify(history.backup.path)
    real = resending.Resending.resend

    def resend(self, entry_id):
        if not (history.source / "b").read_bytes().startswith(b"b"):
            (history.source / "b").unlink()
            (history.source / "b").write_bytes(b"b" * 5000)
        return real(self, entry_id)

    monkeypatch.setattr(resending.Resending, "resend", resend)
    history.sync()
    verify_version(history.versions[-1])
    assert history.stored(5, "a").read_bytes() == b"a" * 5000
    assert history.stored(5, "b").read_bytes() == b"b" * 5000


def test_damaged_file_is_no_link_source(flipped):
    (flipped.source / "another").write_bytes((flipped.source / "large").read_bytes())
    (flipped.source / "large").rename(flipped.source / "moved")
    flipped.sync()
    assert not damage_files(flipped)
    flipped.check(*flipped.versions)


def test_unreadable_source_of_a_damaged_file_is_reported(flipped, monkeypatch):
    from ssfs.engine import content

    real = content.open_file

    def refuse(name, dir_fd):
        if name == b"large":
            raise PermissionError(13, "Permission denied")
        return real(name, dir_fd)

    monkeypatch.setattr(content, "open_file", refuse)
    result = flipped.sync()
    assert {item.path for item in result.problems} == {b"large"}
    verify_version(flipped.versions[-1])
    assert damaged(verify(flipped.backup.path)) == {"large": 3}


def test_damage_that_is_known_only_while_a_staging_waits(history):
    """An interrupted sync has cloned what turns out to be damaged then."""
    (history.source / "another").write_bytes((history.source / "large").read_bytes())
    (history.source / "new").write_bytes(os.urandom(3_000_000))
    with pytest.raises(Exception, match=r".*"):
        history.backup.sync(history.source, cut_after=1_000_000)
    assert (history.task_path / "staging" / "staging.toml").exists()
    flip(history.stored(1, "large"))
    assert damaged(verify(history.backup.path))["large"] == 3
    history.sync()
    history.check(*history.versions)
    assert damaged(verify(history.backup.path)) == {}


def test_missing_directory_is_healed(history):
    for number in (1, 2, 3):
        delete(history.stored(number, "deep"))
    found = damaged(verify(history.backup.path))
    assert found == {"deep": 3, "deep/er": 3, "deep/er/inside": 3, "deep/link": 3}
    history.sync()
    assert damaged(verify(history.backup.path)) == {}
    history.check(*history.versions)


def test_healing_at_the_limit_of_links_makes_a_copy(flipped, monkeypatch):
    real = clone.link_file

    def limited(name, source_fd, target, target_fd):
        status = os.stat(name, dir_fd=source_fd, follow_symlinks=False)
        if status.st_size == 300_000 and status.st_nlink >= 3:
            raise OSError(31, "Too many links")
        real(name, source_fd, target, target_fd)

    monkeypatch.setattr(clone, "link_file", limited)
    flipped.sync()
    monkeypatch.undo()
    flipped.check(*flipped.versions)
    assert len({stored(version, "large").st_ino for version in flipped.versions}) > 1


def test_source_that_is_damaged_itself_heals_nothing(flipped, tmp_path):
    healing.heal(flipped.backup.task(), flipped.versions)
    assert damaged(verify(flipped.backup.path)) == {"large": 3}


def test_record_of_what_is_whole_again_goes_with_the_next_verify(flipped):
    flip(flipped.stored(1, "large"))
    assert damaged(verify(flipped.backup.path)) == {}
    assert not damage_files(flipped)


def test_version_whose_damage_record_is_damaged_is_no_base(history):
    for version in history.versions[1:]:
        Path(os.fsdecode(version.path), "damage.toml").write_text("nonsense")
    history.sync()
    assert history.versions[-1].record().base == str(history.versions[0].id)
    history.check(*history.versions)
    assert damaged(verify(history.backup.path)) == {}
    assert not damage_files(history)


def test_more_damage_than_can_be_listed_makes_the_version_doubtful(history, monkeypatch):
    monkeypatch.setattr("ssfs.store.damage.MOST_LISTED", 2)
    version = history.versions[-1]
    found = history.backup.clock.now().replace(microsecond=0)
    many = tuple(DamagedEntry(number, str(number), "damaged", found) for number in range(2, 6))
    with history.backup.task().guard():
        change_damage(version.path, lambda _: Damage(FORMAT, (), many))
    damage = version.damage()
    assert (len(damage.entries), damage.whole != "") == (2, True)
    history.sync()
    assert history.versions[-1].record().base == str(history.versions[-3].id)
    history.check(*history.versions)


# -- from another store ---------------------------------------------------------------------------


@pytest.fixture
def second(history, tmp_path_factory) -> Path:
    """Another store that has what the source is now, as a history of its own."""
    other = History(tmp_path_factory.mktemp("second"))
    other.backup.identity = "second"
    other.backup.sync(history.source, task="elsewhere")
    return other.backup.path


def test_another_store_heals_what_it_has(history, second):
    flip(history.stored(1, "large"))
    truncate(history.stored(3, "grows"))
    flip(history.stored(1, "old"))
    report = ssfs_json("verify", history.backup.path, "--from", second, expect=6)
    healed = {item["path"]: (item["healed"], len(item["versions"])) for item in report["damaged"]}
    assert healed == {"large": (3, 3), "grows": (1, 1), "old": (0, 1)}
    assert damaged(verify(history.backup.path)) == {"old": 1}
    history.check(*history.versions[1:])
    inodes = {stored(version, "large").st_ino for version in history.versions}
    assert len(inodes) == 1, "all versions share the copy"


def test_when_all_is_healed_nothing_is_damaged(history, second):
    flip(history.stored(1, "large"))
    outcome = run("verify", history.backup.path, "--from", second, expect=0)
    assert "healed 1 damaged path" in outcome.out
    assert "large: its content has changed" in outcome.err
    assert ", healed" in outcome.err
    assert run("verify", history.backup.path, expect=0).err == ""
    history.check(*history.versions)


def test_another_store_that_is_damaged_itself_heals_nothing(history, second):
    flip(history.stored(1, "large"))
    for path in second.glob("points/main/tasks/*/versions/*/tree/large"):
        flip(path, 5)
    run("verify", history.backup.path, "--from", second, expect=6)
    assert damaged(verify(history.backup.path)) == {"large": 3}


# -- runs of verify -------------------------------------------------------------------------------


def test_each_inode_is_read_once(history):
    report = verify(history.backup.path)
    inodes = set().union(*(tree_inodes(version).values() for version in history.versions))
    assert report.files == len(inodes)
    assert report.versions == 3


def test_recently_verified_files_are_left_out(history):
    verify(history.backup.path)
    report = ssfs_json("verify", history.backup.path, "--older-than", "1d")
    assert (report["files"], report["damaged"]) == (0, [])
    (history.source / "grows").write_bytes(b"new")
    history.sync()
    assert ssfs_json("verify", history.backup.path, "--older-than", "1d")["files"] == 1


def test_sample_reads_a_part(history, tmp_path):
    for number in range(300):
        (history.source / f"many-{number}").write_bytes(b"%d" % number)
    history.sync()
    read = [ssfs_json("verify", history.backup.path, "--sample", "10%")["files"] for _ in range(2)]
    assert all(5 <= count <= 80 for count in read), read


def test_damage_that_is_known_stays_known_when_it_is_not_in_the_sample(flipped):
    run("verify", flipped.backup.path, "--sample", "0.000001%")
    assert len(damage_files(flipped)) == 3


def test_run_that_broke_off_goes_on(history, monkeypatch):
    from ssfs.engine import verify as engine

    real, calls = engine.fault_of, []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return real(*arguments)

    whole = verify(history.backup.path).files
    monkeypatch.setattr(engine, "fault_of", interrupted)
    with pytest.raises(KeyboardInterrupt):
        verify(history.backup.path)
    monkeypatch.undo()
    report = verify(history.backup.path)
    assert report.resumed
    assert report.files == whole - 4
    again = verify(history.backup.path)
    assert (again.resumed, again.files) == (False, whole)


def test_lost_or_damaged_state_means_more_is_read(history):
    whole = verify(history.backup.path).files
    (history.task_path / "verify.db").write_bytes(b"garbage" * 1000)
    assert verify(history.backup.path).files == whole


def test_two_at_once_exclude_each_other(history):
    verify(history.backup.path)
    with FileLock(os.fsencode(history.task_path / "verify.lock")) as lock:
        assert lock.exclusive_nowait()
        with pytest.raises(StoreLocked):
            verify(history.backup.path)


def test_version_that_leaves_meanwhile_is_no_damage(history, monkeypatch):
    from ssfs.engine import verify as engine
    from ssfs.store.trash import move_to_trash

    real = engine.fault_of_record

    def leave(version):
        # Its catalog is looked at next: by then it has gone.
        if version.id == history.versions[0].id:
            with history.backup.task().guard() as guard:
                from ssfs.store.roll import settle_roll

                settle_roll(history.backup.task(), guard, [version.id])
                move_to_trash(version, guard)
        return real(version)

    monkeypatch.setattr(engine, "fault_of_record", leave)
    assert damaged(verify(history.backup.path)) == {}


def test_expired_and_deleted_versions_are_not_lost(history):
    run("delete", history.backup.path, "2", "--yes", expect=0)
    assert damaged(verify(history.backup.path)) == {}
    run(
        "point",
        history.backup.path,
        "--days",
        "0",
        "--weeks",
        "0",
        "--months",
        "0",
        "--keep-last",
        "1",
    )
    run("expire", history.backup.path, "--yes", expect=0)
    assert damaged(verify(history.backup.path)) == {}
    assert len(history.versions) == 1


def test_verify_without_the_right_to_write_changes_nothing(history):
    flip(history.stored(1, "large"))
    listing = ["find", history.backup.path, "-printf", "%p %s %T@ %i\\n"]
    before = subprocess.run(listing, check=True, capture_output=True).stdout
    report = verify(history.backup.path, records=False)
    assert damaged(report) == {"large": 3}
    assert subprocess.run(listing, check=True, capture_output=True).stdout == before


@pytest.mark.parametrize(
    "arguments",
    [
        ("ssfs://nas2/main",),
        ("ssh://nas2/srv/store", "--from", "."),
        (".", "--sample", "0%"),
        (".", "--sample", "ten"),
        (".", "--older-than", "30"),
    ],
)
def test_wrong_arguments_are_said(arguments):
    assert run("verify", *arguments, expect=2).error


# -- holes and hard links -------------------------------------------------------------------------


@pytest.fixture
def with_holes(history):
    """A sparse file and a file of two names, in two versions."""
    with open(history.source / "sparse", "wb") as file:
        file.write(os.urandom(200_000))
        file.seek(50_000_000)
        file.write(b"end" * 2000)
        file.truncate(80_000_000)
    os.link(history.source / "small", history.source / "deep" / "small too")
    history.sync()
    (history.source / "grows").write_bytes(b"again")
    history.sync()
    return history


def test_sparse_file_is_verified_by_its_data_and_heals_with_its_holes(with_holes, tmp_path_factory):
    history = with_holes
    path = history.stored(4, "sparse")
    report = verify(history.backup.path)
    assert damaged(report) == {}
    assert report.bytes < 10_000_000
    other = History(tmp_path_factory.mktemp("second"))
    other.backup.sync(history.source, task="elsewhere")
    # Not by `flip`, which would write the holes as well.
    path.chmod(0o600)
    with open(path, "r+b") as file:
        file.seek(50_000_100)
        file.write(b"!")
    assert damaged(verify(history.backup.path)) == {"sparse": 2}
    report = ssfs_json("verify", history.backup.path, "--from", other.backup.path)
    assert [item["healed"] for item in report["damaged"]] == [2]
    healed = history.stored(5, "sparse")
    assert healed.read_bytes() == (history.source / "sparse").read_bytes()
    assert healed.stat().st_blocks * 512 < 10_000_000
    assert damaged(verify(history.backup.path)) == {}


def test_something_in_a_hole_is_damage(with_holes):
    path = with_holes.stored(4, "sparse")
    path.chmod(0o600)
    with open(path, "r+b") as file:
        file.seek(30_000_000)
        file.write(b"!")
    assert damaged(verify(with_holes.backup.path)) == {"sparse": 2}
    with_holes.sync()
    assert damaged(verify(with_holes.backup.path)) == {}


def test_file_of_several_names_heals_under_all_of_them(with_holes):
    flip(with_holes.stored(5, "small"))
    found = damaged(verify(with_holes.backup.path))
    assert set(found) == {"small", "deep/small too"}
    with_holes.sync()
    assert damaged(verify(with_holes.backup.path)) == {}
    groups = {row(with_holes.versions[-1], name).link_group for name in ("small", "deep/small too")}
    assert len(groups) == 1
    assert groups != {0}
