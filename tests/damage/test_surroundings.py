"""What lies around the versions of a task is missing, damaged, or something else: made again, or said in one line."""

import os
import shutil

import pytest

from ssfs.errors import CorruptStore
from ssfs.store import verified
from ssfs.store.verified import VerifiedFiles
from tests.cli.support import run, ssfs_json
from tests.damage.damages import damaged, verify

COMMANDS = {
    "sync": ("sync", "{source}", "{store}::main/task", "--source-id", "history"),
    "versions": ("versions", "{store}"),
    "verify": ("verify", "{store}"),
    "expire": ("expire", "{store}::main", "--yes"),
    "delete": ("delete", "{store}", "1", "--yes"),
    "restore": ("restore", "{store}", "latest", "--to", "{out}"),
    "recover": ("recover", "{store}", "--yes"),
    "dry": ("recover", "{store}", "--dry-run"),
}


def command(history, tmp_path, name):
    words = COMMANDS[name]
    return run(
        *(
            word.format(source=history.source, store=history.backup.path, out=tmp_path / "out")
            for word in words
        )
    )


def check_said(outcome, path, code=6):
    """One line that names the path and says what to do."""
    assert outcome.code == code, outcome
    (line,) = [line for line in outcome.err.splitlines() if str(path) in line]
    assert "(" in line, line
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize("name", ["expire", "delete", "recover", "verify", "versions"])
def test_trash_that_is_missing_is_made_again(history, tmp_path, name):
    shutil.rmtree(history.task_path / "trash")
    outcome = command(history, tmp_path, name)
    assert outcome.code == 0, outcome
    if name in {"expire", "delete"}:
        assert (history.task_path / "trash").is_dir()
        assert not os.listdir(history.task_path / "trash")


def test_sync_makes_trash_again(history):
    shutil.rmtree(history.task_path / "trash")
    history.sync()
    history.check(*history.versions)
    assert (history.task_path / "trash").is_dir()


@pytest.mark.parametrize("name", ["expire", "delete"])
def test_file_in_place_of_trash_is_named(history, tmp_path, name):
    shutil.rmtree(history.task_path / "trash")
    (history.task_path / "trash").write_text("a file")
    check_said(command(history, tmp_path, name), history.task_path / "trash")
    assert (history.task_path / "trash").read_text() == "a file"
    history.check(*history.versions)


@pytest.mark.parametrize("what", ["missing", "a file"])
@pytest.mark.parametrize("name", ["versions", "expire", "delete", "restore"])
def test_versions_that_are_gone_are_named(history, tmp_path, name, what):
    versions = history.task_path / "versions"
    shutil.rmtree(versions)
    if what == "a file":
        versions.write_text(what)
    outcome = command(history, tmp_path, name)
    if name == "expire":
        # All tasks of the sync point were meant: this one is left out.
        assert outcome.code == 3, outcome
        assert "main/task is left out" in outcome.err
    else:
        check_said(outcome, versions)


def test_verify_says_that_versions_are_gone_and_reads_the_others(history, tmp_path):
    run("sync", history.source, f"{history.backup.path}::main/other", "--source-id", "x", expect=0)
    shutil.rmtree(history.task_path / "versions")
    report = ssfs_json("verify", history.backup.path, expect=6)
    assert [(item["task"], item["path"]) for item in report["damaged"]] == [
        ("main/task", "versions")
    ]
    assert report["files"] > 0


def test_recover_says_what_went_with_the_versions_and_makes_place_for_new_ones(history, tmp_path):
    ids = [str(version.id) for version in history.versions]
    shutil.rmtree(history.task_path / "versions")
    outcome = command(history, tmp_path, "dry")
    assert outcome.code == 3
    assert "tasks/task/versions: missing, with all versions" in outcome.err + outcome.out
    assert not (history.task_path / "versions").exists()
    outcome = command(history, tmp_path, "recover")
    assert outcome.code == 3
    assert all(f"{name}: the whole version is gone" in outcome.err for name in ids)
    history.sync()
    history.check(*history.versions)
    assert len(history.versions) == 1


@pytest.mark.parametrize("what", ["directory", "fifo", "symlink"])
@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("versions.toml", "expire"),
        ("versions.toml", "delete"),
        ("lock", "recover"),
        ("verify.db", "verify"),
        ("verify.lock", "verify"),
    ],
)
def test_something_else_in_place_of_a_file_is_named(history, tmp_path, place, name, what):
    path = history.task_path / place
    path.unlink(missing_ok=True)
    if what == "directory":
        path.mkdir()
        (path / "inside").write_text("somebody's")
    elif what == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to(tmp_path / "elsewhere")
    outcome = command(history, tmp_path, name)
    check_said(outcome, path)
    assert "move it away" in outcome.err
    assert not (tmp_path / "elsewhere").exists()
    assert what != "directory" or (path / "inside").exists()
    history.check(*history.versions)
    if what == "directory":
        shutil.rmtree(path)
    else:
        path.unlink()
    assert command(history, tmp_path, name).code == 0


@pytest.mark.parametrize("place", ["versions.toml", "lock"])
def test_sync_names_a_directory_in_place_of_a_file(history, place):
    path = history.task_path / place
    path.unlink(missing_ok=True)
    path.mkdir()
    with pytest.raises(CorruptStore) as caught:
        history.sync()
    assert caught.value.path == bytes(path)
    path.rmdir()
    history.sync()
    history.check(history.versions[-1])


# -- what was verified when ------------------------------------------------------------------------


def fill(path, count=20_000):
    """A verify.db of many pages, in the middle of a run."""
    files = VerifiedFiles(bytes(path))
    files.begin(1_000_000, None, is_whole=True)
    for ino in range(count):
        files.add(ino + 10**12, bytes(32), 1)
    files.close()


@pytest.mark.parametrize("page", [2, 3, 10, -1])
@pytest.mark.parametrize("how", ["zeros", "noise", "cut"])
def test_what_was_verified_is_found_out_again_where_its_list_is_damaged(history, page, how):
    verify(history.backup.path)
    fill(history.task_path)
    path = history.task_path / "verify.db"
    content = bytearray(path.read_bytes())
    at = (page - 1) * 4096 if page > 0 else len(content) - 4096
    if how == "cut":
        content = content[: at + 100]
    else:
        content[at : at + 4096] = bytes(4096) if how == "zeros" else b"\xa5" * 4096
    path.write_bytes(content)
    for _ in range(2):
        report = verify(history.backup.path)
        assert damaged(report) == {}
        assert report.versions == 3
    path.write_bytes(content)
    outcome = run("verify", history.backup.path, expect=0)
    assert "Nothing is damaged" in outcome.out


def test_list_of_what_was_verified_that_breaks_in_the_middle_is_begun_anew(tmp_path):
    fill(tmp_path)
    path = tmp_path / "verify.db"
    content = bytearray(path.read_bytes())
    content[3 * 4096 :] = b"\xa5" * (len(content) - 3 * 4096)
    path.write_bytes(content)
    files = VerifiedFiles(bytes(tmp_path))
    files.begin(2_000_000, None, is_whole=True)
    asked = [files.has(ino + 10**12, bytes(32)) for ino in range(0, 20_000, 100)]
    assert not all(asked)
    files.add(7, bytes(32), 1)
    assert files.has(7, bytes(32))
    files.close()
    again = VerifiedFiles(bytes(tmp_path))
    again.begin(3_000_000, None, is_whole=True)
    assert again.is_resumed
    assert again.has(7, bytes(32))
    again.finish()
    again.close()


def test_verify_goes_on_where_no_list_can_be_kept(history, monkeypatch):
    """The disk is full, say: then all is read, and no less is found."""
    real = verified._connect

    def full(path):
        if path:
            raise verified.sqlite3.OperationalError("database or disk is full")
        return real(path)

    verify(history.backup.path)
    monkeypatch.setattr(verified, "_connect", full)
    assert damaged(verify(history.backup.path)) == {}
