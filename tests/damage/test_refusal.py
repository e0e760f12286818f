"""What is known to be damaged is not given out unless somebody insists."""

import errno
import os

import pytest

from ssfs.protocol.restoring import Fetch
from tests.cli.support import run, ssfs_json
from tests.damage.damages import delete, flip, truncate, verify
from tests.fakes.comparing import assert_same_tree
from tests.fakes.restores import RestoreServer
from tests.mount.mounts import errno_of, mounted


@pytest.fixture
def damaged_history(history):
    """`large` has a flipped bit in all versions, `grows` of the second one is cut; both are known."""
    flip(history.stored(1, "large"))
    truncate(history.stored(2, "grows"))
    verify(history.backup.path)
    return history


@pytest.mark.needs_fuse
def test_mount_refuses_damaged_files_and_no_others(damaged_history, tmp_path):
    history = damaged_history
    mountpoint = tmp_path / "mnt"
    with mounted(history.backup.task(), mountpoint):
        names = [version.record().name for version in history.versions]
        for name in names:
            assert errno_of((mountpoint / name / "large").read_bytes) == errno.EIO
            assert (mountpoint / name / "kept").read_bytes() == b"kept" * 2000
        assert errno_of((mountpoint / names[1] / "grows").read_bytes) == errno.EIO
        assert (mountpoint / names[2] / "grows").read_bytes() == b"g" * 5002
        # Healed under the mount's eyes.
        history.sync()
        assert (mountpoint / names[0] / "large").read_bytes() == (
            history.source / "large"
        ).read_bytes()


@pytest.mark.needs_fuse
def test_damage_found_while_mounted_is_refused_and_damaged_ok_lets_it_through(history, tmp_path):
    mountpoint = tmp_path / "mnt"
    name = history.versions[0].record().name
    right = (history.source / "large").read_bytes()
    with mounted(history.backup.task(), mountpoint):
        assert (mountpoint / name / "large").read_bytes() == right
        flip(history.stored(1, "large"))
        verify(history.backup.path)
        assert errno_of((mountpoint / name / "large").read_bytes) == errno.EIO
    with mounted(history.backup.task(), mountpoint, "damaged_ok"):
        assert len((mountpoint / name / "large").read_bytes()) == len(right)


@pytest.mark.needs_fuse
def test_version_with_a_damaged_catalog_cannot_be_entered(history, tmp_path):
    path = history.part(2, "catalog.db")
    flip(path, path.read_bytes().rindex(b"inside"))
    verify(history.backup.path)
    mountpoint = tmp_path / "mnt"
    names = [version.record().name for version in history.versions]
    with mounted(history.backup.task(), mountpoint):
        assert errno_of(lambda: os.listdir(mountpoint / names[1])) == errno.EIO
        assert "large" in os.listdir(mountpoint / names[2])
    with mounted(history.backup.task(), mountpoint, "damaged_ok"):
        assert "large" in os.listdir(mountpoint / names[1])


def test_restore_leaves_damaged_files_out(damaged_history, tmp_path):
    history = damaged_history
    out = tmp_path / "out"
    report = ssfs_json("restore", history.backup.path, "2", "--to", out, expect=3)
    assert sorted(item["path"] for item in report["problems"]) == ["grows", "large"]
    assert not (out / "large").exists()
    assert not (out / "grows").exists()
    assert (out / "kept").read_bytes() == b"kept" * 2000


def test_restore_of_what_is_known_to_be_damaged_does_not_read_it(damaged_history, tmp_path):
    history = damaged_history
    stored = history.stored(1, "large")
    flip(stored)  # right again, but who knows that
    report = ssfs_json("restore", history.backup.path, "1", "--to", tmp_path / "out", expect=3)
    assert [item["path"] for item in report["problems"]] == ["large"]


def test_restore_copies_damaged_files_if_told_to(damaged_history, tmp_path):
    history = damaged_history
    out = tmp_path / "out"
    report = ssfs_json("restore", history.backup.path, "2", "--damaged-ok", "--to", out, expect=3)
    assert sorted(item["path"] for item in report["problems"]) == ["grows", "large"]
    assert all("as it is" in item["problem"] for item in report["problems"])
    assert (out / "large").read_bytes() == history.stored(2, "large").read_bytes()
    assert (out / "grows").read_bytes() == b"g" * 2500


def test_restore_refuses_a_version_with_a_damaged_catalog(history, tmp_path):
    path = history.part(2, "catalog.db")
    flip(path, path.read_bytes().rindex(b"inside"))
    verify(history.backup.path)
    out = tmp_path / "out"
    assert "--damaged-ok" in run("restore", history.backup.path, "2", "--to", out, expect=6).error
    assert not out.exists()
    report = ssfs_json("restore", history.backup.path, "2", "--damaged-ok", "--to", out, expect=3)
    assert report["problems"][0]["path"] == ""
    assert "damaged catalog" in report["problems"][0]["problem"]
    assert (out / "kept").exists()
    ssfs_json("restore", history.backup.path, "3", "--to", tmp_path / "other")


def test_restore_from_a_server_leaves_damaged_files_out(damaged_history, tmp_path):
    server = RestoreServer(damaged_history.backup.path)
    _, result = server.restore(Fetch("main", "task", "2", []), tmp_path / "out")
    assert sorted(item.path for item in result.problems) == [b"grows", b"large"]


def test_restore_from_another_machine_copies_damaged_files_if_told_to(
    damaged_history, far_off, tmp_path
):
    history = damaged_history
    delete(history.stored(2, "small"))
    out, here = tmp_path / "out", tmp_path / "here"
    command = ("2", "--damaged-ok", "--to")
    report = ssfs_json("restore", far_off(history.backup.path), *command, out, expect=3)
    local = ssfs_json("restore", history.backup.path, *command, here, expect=3)
    assert report["problems"] == local["problems"]
    assert sorted(item["path"] for item in report["problems"]) == ["grows", "large", "small"]
    assert (out / "large").read_bytes() == history.stored(2, "large").read_bytes()
    assert (out / "grows").read_bytes() == b"g" * 2500
    assert not (out / "small").exists()
    assert_same_tree(here, out)


def test_damaged_large_file_comes_as_it_is_although_the_target_has_another(
    damaged_history, far_off, tmp_path
):
    """Cut short, and asked for as a delta against a file that is right in its other half."""
    history = damaged_history
    out = tmp_path / "out"
    run("restore", far_off(history.backup.path), "3", "--damaged-ok", "--to", out, expect=3)
    (out / "large").write_bytes((history.source / "large").read_bytes()[:-1000])
    truncate(history.stored(3, "large"))
    report = ssfs_json(
        *("restore", far_off(history.backup.path), "3", "large", "--damaged-ok", "--to", out),
        expect=3,
    )
    assert [item["path"] for item in report["problems"]] == ["large"]
    assert (out / "large").read_bytes() == history.stored(3, "large").read_bytes()
    assert (out / "large").stat().st_size == 150_000


def test_damaged_sparse_file_comes_from_another_machine_as_it_is(history, far_off, tmp_path):
    for name, blocks in (("sparse", 1), ("large sparse", 60)):
        with open(history.source / name, "wb") as file:
            file.seek(1 << 20)
            file.write(os.urandom(4096 * blocks))
            file.truncate(4 << 20)
    history.sync()
    for name in ("sparse", "large sparse"):
        flip(history.stored(4, name), (1 << 20) + 100)
        os.truncate(history.stored(4, name), 3 << 20)
    verify(history.backup.path)
    out, here = tmp_path / "out", tmp_path / "here"
    for location, target in ((far_off(history.backup.path), out), (history.backup.path, here)):
        report = ssfs_json("restore", location, "4", "--damaged-ok", "--to", target, expect=3)
        assert sorted(item["path"] for item in report["problems"]) == ["large sparse", "sparse"]
    assert_same_tree(here, out)
    assert (out / "sparse").stat().st_size == 4 << 20
    assert (out / "sparse").stat().st_blocks * 512 < 1 << 20


def test_damaged_catalog_of_another_machine_is_told_of(history, far_off, tmp_path):
    path = history.part(2, "catalog.db")
    flip(path, path.read_bytes().rindex(b"inside"))
    verify(history.backup.path)
    location = far_off(history.backup.path)
    assert "--damaged-ok" in run("restore", location, "2", "--to", tmp_path / "x", expect=6).error
    report = ssfs_json("restore", location, "2", "--damaged-ok", "--to", tmp_path / "y", expect=3)
    assert "damaged catalog" in report["problems"][0]["problem"]
    assert (tmp_path / "y" / "kept").exists()


def test_versions_shows_damage(damaged_history):
    history = damaged_history
    listed = ssfs_json("versions", history.backup.path, expect=3)
    assert [line["damaged"] for line in listed] == [1, 2, 1]
    outcome = run("versions", history.backup.path, expect=3)
    assert "2 damaged" in outcome.out.splitlines()[2]
    assert "3 versions with damage" in outcome.error
    delete(history.part(3, "catalog.db"))
    verify(history.backup.path)
    assert ssfs_json("versions", history.backup.path, expect=3)[2]["damaged"] is None
    history.sync()
    assert [line["damaged"] for line in ssfs_json("versions", history.backup.path, expect=3)] == [
        *(0, 1, None, 0)
    ]


def test_restore_holds_the_catalog_against_what_was_committed(history, tmp_path):
    """Its rows say which owner and mode a file gets, and nothing else vouches for them."""
    path = history.part(3, "catalog.db")
    flip(path, path.read_bytes().rindex(b"inside"))
    place = history.backup.path
    for _ in range(2):
        refused = run("restore", place, "latest", "--to", tmp_path / "out", expect=6)
        assert "catalog of version 000003" in refused.error
        assert not (tmp_path / "out").exists()
    run("restore", place, "2", "--to", tmp_path / "out", expect=0)
    # Whose record is lost, nothing is known of: its files are held against its rows all the same.
    delete(history.part(2, "version.toml"))
    run("restore", place, "2", "--to", tmp_path / "again", expect=0)
