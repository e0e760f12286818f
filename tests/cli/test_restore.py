"""`ssfs restore`, as a command; what a restore does with metadata is tests/engine/test_restore.py."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.support import run, run_on_terminal, ssfs, ssfs_json

KEYS = {
    *("version", "mount_name", "to", "dry_run", "entries", "bytes", "created", "replaced"),
    *("metadata_only", "unchanged", "kept", "deleted", "seconds", "owners_not_set"),
    *("xattrs_not_set", "problems", "actions"),
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
    assert (report["dry_run"], report["actions"], report["created"]) == (False, None, 6)


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
def test_full_target_is_a_problem_of_what_does_not_fit(
    history: Path, tmp_path: Path, tiny_disk: Path
):
    source = tmp_path / "large"
    source.mkdir()
    (source / "large").write_bytes(os.urandom(24 << 20))
    (source / "small").write_text("small")
    ssfs("sync", "-q", source, f"{history}::main/large")
    error = run("restore", f"{history}::main/large", "latest", "--to", tiny_disk, expect=3).error
    assert error == "ssfs: large: not restored: no space left on device"
    assert sorted(os.listdir(tiny_disk)) == ["lost+found", "small"]


# -- in place --------------------------------------------------------------------------------------


def damage_source(source: Path) -> None:
    (source / "docs" / "letter.txt").write_text("Dear Reader\n")
    (source / "to-letter").unlink()
    (source / "docs" / "stray").write_text("stray")


def is_mended(source: Path) -> bool:
    letter = (source / "docs" / "letter.txt").read_text()
    return letter == "Dear reader\n" and os.readlink(source / "to-letter") == "docs/letter.txt"


def test_restore_in_place_mends_the_source(backed_up: Path, source: Path):
    damage_source(source)
    text = ssfs("restore", backed_up, "latest", "--in-place")
    assert text.splitlines()[1:] == [
        "  1 created, 1 replaced, 2 metadata only, 2 unchanged",
        f"Find it in {source}",
    ]
    assert is_mended(source)
    assert (source / "docs" / "stray").exists()


def test_path_in_place_goes_back_to_its_own_place(backed_up: Path, source: Path):
    damage_source(source)
    ssfs("restore", "-q", backed_up, "latest", "docs/letter.txt", "--in-place")
    assert (source / "docs" / "letter.txt").read_text() == "Dear reader\n"
    assert sorted(os.listdir(source)) == ["docs"]


def test_where_to_is_said_exactly_once(backed_up: Path, tmp_path: Path):
    for arguments in ([], ["--to", tmp_path / "out", "--in-place"]):
        error = run("restore", backed_up, "latest", *arguments, expect=2).error
        assert "either --to DIR or --in-place" in error
    assert not (tmp_path / "out").exists()


def test_quick_check_believes_size_and_time_and_contradicts_always(backed_up: Path, tmp_path: Path):
    out = tmp_path / "out"
    ssfs("restore", "-q", backed_up, "1", "--to", out)
    times = (out / "to-letter").stat()
    (out / "to-letter").write_text("Dear writer\n")
    os.utime(out / "to-letter", ns=(times.st_atime_ns, times.st_mtime_ns))
    arguments = ("restore", backed_up, "1", "--to", out)
    assert ssfs_json(*arguments, "--quick-check")["unchanged"] == 6
    error = run(*arguments, "--quick-check", "--overwrite", "always", expect=2).error
    assert "--overwrite always does not" in error
    assert (out / "to-letter").read_text() == "Dear writer\n"
    assert ssfs_json(*arguments)["replaced"] == 1


def test_source_without_a_path_of_its_own_has_no_place(source: Path, store: Path):
    ssfs("sync", "-q", source, store, "--source-id", "snapshot")
    error = run("restore", store, "latest", "--in-place", expect=2).error
    assert "names no directory" in error
    assert "--to DIR" in error


def test_backup_of_another_machine_is_not_restored_in_place(history: Path):
    # Its client is called "client".
    error = run("restore", history, "latest", "--in-place", expect=2).error
    assert "a backup of 'client'" in error


@pytest.fixture
def over_ssh(backed_up: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The location of that store over an ssh that stays on this machine."""
    script = tmp_path / "ssh"
    script.write_text('#!/bin/sh\nfor last; do :; done\nexec sh -c "$last"\n')
    script.chmod(0o755)
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "ssfs"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m ssfs "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("SSFS_SSH", str(script))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return f"ssh://nas2{backed_up}"


def test_servers_word_for_the_place_is_believed_if_the_tasks_name_says_it(
    over_ssh: str, backed_up: Path, source: Path
):
    damage_source(source)
    (task,) = os.listdir(backed_up / "points" / "main" / "tasks")
    ssfs("restore", "-q", f"{over_ssh}::main/{task}", "latest", "--in-place")
    assert is_mended(source)


def test_servers_word_alone_must_be_agreed_to(over_ssh: str, source: Path):
    damage_source(source)
    command = ["restore", "-q", over_ssh, "latest", "--in-place"]
    error = run(*command, expect=2).error
    assert f"a backup of '{source}'" in error
    assert "--yes" in error
    assert run_on_terminal(command, answer="n\n").code == 130
    assert not is_mended(source)
    assert run_on_terminal(command, answer="y\n").code == 0
    assert is_mended(source)
    damage_source(source)
    ssfs(*command, "--yes")
    assert is_mended(source)


# -- what may happen to what is there --------------------------------------------------------------


def test_deletion_is_asked_about_on_a_terminal(backed_up: Path, source: Path):
    damage_source(source)
    command = ["restore", "-q", backed_up, "latest", "--in-place", "--delete"]
    outcome = run_on_terminal(command, answer="n\n")
    assert outcome.code == 130
    assert f"Delete what the version does not have, in {source}?" in " ".join(outcome.err.split())
    assert (source / "docs" / "stray").exists()
    assert not is_mended(source)
    ssfs(*command)
    assert not (source / "docs" / "stray").exists()
    assert is_mended(source)


def test_dry_run_lists_what_would_be_done_and_does_nothing(backed_up: Path, source: Path):
    damage_source(source)
    command = ["restore", backed_up, "latest", "--in-place", "--delete", "--dry-run"]
    lines = ssfs(*command).splitlines()
    assert sorted(lines[:-1]) == [
        "create    to-letter",
        "delete    docs/stray",
        "metadata  .",
        "metadata  docs",
        "replace   docs/letter.txt",
    ]
    assert lines[-1].startswith("Dry run, nothing was changed. Of 20")
    assert lines[-1].endswith(
        "would be: 1 created, 1 replaced, 2 metadata only, 2 unchanged, 1 deleted"
    )
    report = ssfs_json(*command)
    assert set(report) == KEYS
    assert (report["dry_run"], report["deleted"], len(report["actions"])) == (True, 1, 5)
    assert {"action": "delete", "path": "docs/stray"} in report["actions"]
    assert not is_mended(source)
    assert (source / "docs" / "stray").exists()


def test_dry_run_into_nothing_makes_nothing(backed_up: Path, tmp_path: Path):
    report = ssfs_json("restore", backed_up, "latest", "--to", tmp_path / "out", "--dry-run")
    assert (report["created"], report["problems"]) == (6, [])
    assert not (tmp_path / "out").exists()


def test_overwrite_never_keeps_what_is_there(backed_up: Path, source: Path):
    damage_source(source)
    text = ssfs("restore", backed_up, "latest", "--in-place", "--overwrite", "never")
    assert "1 created, 3 unchanged, 2 kept" in text
    assert (source / "docs" / "letter.txt").read_text() == "Dear Reader\n"
    assert (source / "to-letter").is_symlink()


def test_order_of_patterns_counts(backed_up: Path, tmp_path: Path):
    def restored(*patterns: str) -> list[str]:
        out = tmp_path / "out"
        subprocess.run(["rm", "-rf", out], check=True)
        ssfs("restore", "-q", backed_up, "latest", "--to", out, *patterns)
        return sorted(path.name for path in out.rglob("*"))

    whole = ["big.bin", "docs", "empty", "letter.txt", "to-letter"]
    assert restored() == whole
    assert restored("--exclude", "*.bin") == ["docs", "empty", "letter.txt", "to-letter"]
    assert restored("--exclude", "*.bin", "--include=big.*") == whole
    assert restored("--exclude=b*", "--include", "big.bin", "--exclude", "big*") == (
        ["docs", "empty", "letter.txt", "to-letter"]
    )
    assert restored("--exclude", "docs/*", "--include", "docs/*.txt") == (
        ["docs", "letter.txt", "to-letter"]
    )
    error = run(
        *("restore", backed_up, "latest", "--to", tmp_path / "new", "--include", "*.txt"), expect=2
    ).error
    assert "before any --exclude" in error
    assert not (tmp_path / "new").exists()


@pytest.mark.needs_root
def test_owners_are_mapped(backed_up: Path, source: Path, tmp_path: Path):
    out = tmp_path / "out"
    ssfs(
        *("restore", "-q", backed_up, "latest", "--to", out),
        *("--map-user", "root:daemon", "--map-user", "4711:4712", "--map-group", "0:4713"),
    )
    status = (out / "docs" / "letter.txt").stat()
    assert (status.st_uid, status.st_gid) == (1, 4713)
    ssfs("restore", "-q", backed_up, "latest", "--to", out, "--numeric-ids")
    assert (out / "docs" / "letter.txt").stat().st_uid == 0


@pytest.mark.parametrize(
    ("pair", "problem"),
    [
        ("root:no-such-user", "has no user 'no-such-user'"),
        ("root", "not of the form A:B"),
        ("root:", "not of the form A:B"),
        (":root", "not of the form A:B"),
        ("root:4294967295", "there is no user 4294967295"),
        pytest.param(f"root:{'9' * 5000}", "there is no user 999", id="more digits than an int"),
    ],
)
def test_unknown_owner_is_refused(backed_up: Path, tmp_path: Path, pair: str, problem: str):
    out = tmp_path / "out"
    error = run("restore", backed_up, "latest", "--to", out, "--map-user", pair, expect=2).error
    assert problem in error
    assert not out.exists()


def test_owner_mapped_twice_is_refused(backed_up: Path, tmp_path: Path):
    pairs = ("--map-group", "a:1", "--map-group", "a:2")
    error = run("restore", backed_up, "latest", "--to", tmp_path / "out", *pairs, expect=2).error
    assert "mapped twice" in error
