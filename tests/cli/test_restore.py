"""`ssfs restore`, as a command; what a restore does with metadata is tests/engine/test_restore.py."""

import os
from pathlib import Path

import pytest

from tests.cli.support import run, ssfs, ssfs_json

KEYS = {
    *("version", "mount_name", "to", "entries", "bytes", "seconds", "owners_not_set"),
    *("xattrs_not_set", "problems"),
}


@pytest.fixture
def backed_up(source: Path, store: Path) -> Path:
    ssfs("sync", "-q", source, store)
    return store


def test_whole_version_goes_into_the_directory_itself(backed_up: Path, tmp_path: Path):
    out = tmp_path / "out"
    text = ssfs("restore", backed_up, "latest", "--to", out)
    assert text.splitlines()[-1] == f"Find it in {out}"
    assert text.startswith("Restored 6 entries, 102.4 kB, of 20")
    assert sorted(os.listdir(out)) == ["docs", "to-letter"]
    assert (out / "to-letter").read_text() == "Dear reader\n"
    assert (out / "docs" / "big.bin").stat().st_size == 102_400


def test_json_has_exactly_the_documented_keys(backed_up: Path, tmp_path: Path):
    report = ssfs_json("restore", backed_up, "1", "--to", tmp_path / "out")
    assert set(report) == KEYS
    assert report["version"].startswith("000001-")
    assert report["mount_name"] == report["version"][7:17]
    assert (report["to"], report["entries"], report["bytes"]) == (
        *(str(tmp_path / "out"), 6, 102_412),
    )
    assert (report["owners_not_set"], report["problems"]) == (0, [])


def test_paths_appear_under_their_own_names(backed_up: Path, tmp_path: Path):
    out = tmp_path / "out"
    assert (
        ssfs("restore", "-q", backed_up, "1", "docs/letter.txt", "/docs/empty/", "--to", out) == ""
    )
    assert sorted(os.listdir(out)) == ["empty", "letter.txt"]
    assert "Restored 4 entries" in ssfs("restore", "-v", backed_up, "1", "docs", "--to", out)
    assert sorted(os.listdir(out / "docs")) == ["big.bin", "empty", "letter.txt"]


def test_unknown_path_writes_nothing(backed_up: Path, tmp_path: Path):
    out = tmp_path / "out"
    for path in ("nowhere", "docs/letter.txt/below", "../docs", "to-letter/x", b"\xff"):
        error = run("restore", backed_up, "latest", "docs", path, "--to", out, expect=2).error
        assert "Not in the version" in error
    assert not out.exists()


def test_two_paths_of_one_name_are_refused(source: Path, store: Path, tmp_path: Path):
    (source / "letter.txt").write_text("another")
    ssfs("sync", "-q", source, store)
    arguments = [
        "restore",
        store,
        "latest",
        "letter.txt",
        "docs/letter.txt",
        "--to",
        tmp_path / "out",
    ]
    assert "Another PATH has the same name" in run(*arguments, expect=2).error
    assert not (tmp_path / "out").exists()


def test_unusable_targets_are_refused(backed_up: Path, tmp_path: Path):
    (tmp_path / "file").write_text("")
    for target in (tmp_path / "file", tmp_path / "no" / "where", tmp_path / "file" / "x"):
        error = run("restore", backed_up, "latest", "--to", target, expect=2).error
        assert "target directory cannot be used" in error
    for target in (backed_up, backed_up / "points", backed_up / "new"):
        error = run("restore", backed_up, "latest", "--to", target, expect=2).error
        assert "inside the store" in error


def test_unknown_version_is_refused(backed_up: Path, tmp_path: Path):
    assert "No version" in run("restore", backed_up, "9", "--to", tmp_path / "x", expect=2).error
    assert not (tmp_path / "x").exists()


def damage(store: Path, name: str) -> None:
    (path,) = store.glob(f"points/main/tasks/*/versions/*/tree/{name}")
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.chmod(0o600)
    path.write_bytes(content)


def test_damaged_file_is_a_problem_and_not_left_there(backed_up: Path, tmp_path: Path):
    damage(backed_up, "docs/letter.txt")
    out = tmp_path / "out"
    outcome = run("restore", backed_up, "latest", "--to", out, expect=3)
    assert outcome.error == (
        "ssfs: docs/letter.txt: not restored: its content in the store is damaged"
    )
    assert sorted(os.listdir(out / "docs")) == ["big.bin", "empty"]
    (out / "docs" / "letter.txt").write_text("what I have is better than that")
    report = ssfs_json("restore", backed_up, "latest", "--to", out, expect=3)
    assert [problem["path"] for problem in report["problems"]] == ["docs/letter.txt"]
    assert (out / "docs" / "letter.txt").read_text() == "what I have is better than that"
    verbose = run("restore", "-v", backed_up, "latest", "--to", out, expect=3).err.splitlines()
    assert len(verbose) == 2


def test_older_version_is_restored_as_it_was(history: Path, tmp_path: Path):
    for version, content in (("2024-01-31", "30"), ("latest~1", "59"), ("latest", "afternoon")):
        ssfs("restore", "-q", history, version, "day", "--to", tmp_path)
        assert (tmp_path / "day").read_text() == f"{content}\n"


@pytest.mark.needs_root
def test_full_target_stops_with_a_clear_line(history: Path, tmp_path: Path, tiny_disk: Path):
    source = tmp_path / "large"
    source.mkdir()
    (source / "large").write_bytes(os.urandom(24 << 20))
    ssfs("sync", "-q", source, f"{history}::main/large")
    error = run("restore", f"{history}::main/large", "latest", "--to", tiny_disk, expect=6).error
    assert "No space or no inodes left in the target" in error
    assert os.listdir(tiny_disk) == ["lost+found"]
