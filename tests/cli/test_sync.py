"""`ssfs sync`."""

import fcntl
import json
import os
import shutil
import socket
from pathlib import Path

import pytest

from tests.cli.support import run, run_on_terminal, ssfs, ssfs_json

KEYS = {
    *("version", "mount_name", "entries", "bytes", "new", "changed", "moved", "metadata_only"),
    *("removed", "linked", "bytes_read", "bytes_sent", "bytes_received", "new_bytes", "seconds"),
    "sockets",
    *("problems", "expired", "expiry_held", "shrunk", "notes"),
    "post_command_failed",
}


def task_directory(store: Path) -> Path:
    (task,) = (store / "points" / "main" / "tasks").iterdir()
    return task


def names_in_newest(store: Path) -> set[str]:
    """Paths in the tree of the newest version."""
    tree = max((task_directory(store) / "versions").iterdir()) / "tree"
    return {str(path.relative_to(tree)) for path in tree.rglob("*")}


def test_json_has_exactly_the_documented_keys(source: Path, store: Path):
    first = ssfs_json("sync", source, store)
    assert set(first) == KEYS
    assert first["version"].startswith("000001-")
    assert first["mount_name"] == first["version"][7:17]
    assert (first["entries"], first["new"]) == (6, 6)
    assert first["bytes"] == first["bytes_read"] == first["new_bytes"] == 102_412
    assert (first["problems"], first["expired"], first["expiry_held"]) == ([], [], None)
    (source / "docs" / "letter.txt").write_text("Dear readers\n")
    (source / "docs" / "empty").rmdir()
    (source / "to-letter").rename(source / "letter")
    second = ssfs_json("sync", source, store)
    assert (second["changed"], second["removed"], second["moved"]) == (1, 1, 1)
    assert second["expired"] == [first["version"]]


def test_summary_ends_with_where_to_find_it(source: Path, store: Path):
    lines = ssfs("sync", source, store).splitlines()
    assert 3 <= len(lines) <= 6
    assert lines[0].startswith("Version 000001-")
    assert lines[-1].startswith("Find it as ")
    task = task_directory(store).name
    assert f"ssfs mount {store}::main/{task} MOUNTPOINT" in lines[-1]
    assert len(ssfs("sync", source, store).splitlines()) <= 6


def test_task_is_named_after_machine_and_source(source: Path, store: Path):
    ssfs("sync", "-q", source, store)
    host = socket.gethostname().partition(".")[0]
    assert task_directory(store).name == f"{host}-" + str(source).strip("/").replace("/", "-")


def test_named_point_and_task_are_made(source: Path, store: Path):
    ssfs("sync", "-q", source, f"{store}::weekly/docs")
    assert (store / "points" / "weekly" / "tasks" / "docs" / "versions").is_dir()


def test_exclude_options(source: Path, store: Path, tmp_path: Path):
    cache = source / "cache"
    cache.mkdir()
    (cache / "CACHEDIR.TAG").write_text("Signature: 8a477f597d28d172789f06886806bc55\n")
    (cache / "junk").write_text("junk")
    for name in ("a.tmp", "b.tmp", "c.log", "keep.log"):
        (source / name).write_text(name)
    patterns = tmp_path / "patterns"
    patterns.write_text("# no logs\n\n*.log\n!b.tmp\n")
    ssfs(
        *("sync", source, store, "--exclude", "*.tmp", "--exclude", "!keep.log"),
        *("--exclude-from", patterns, "--exclude-caches"),
    )
    assert names_in_newest(store) == {
        *("docs", "docs/empty", "docs/letter.txt", "docs/big.bin", "to-letter"),
        *("cache", "cache/CACHEDIR.TAG", "keep.log"),
    }


def test_missing_pattern_file_is_refused(source: Path, store: Path, tmp_path: Path):
    error = run("sync", source, store, "--exclude-from", tmp_path / "none", expect=2).error
    assert "Pattern file cannot be read" in error


def test_bad_pattern_is_refused(source: Path, store: Path):
    assert "pattern" in run("sync", source, store, "--exclude", "!", expect=2).error


def test_source_id_that_is_empty_is_refused(source: Path, store: Path):
    outcome = run("sync", source, store, "--source-id", "", expect=2)
    assert "--source-id names nothing" in outcome.error


def test_source_id_lets_the_path_change(source: Path, store: Path):
    location = f"{store}::main/docs"
    ssfs("sync", "-q", source, location, "--source-id", "the-docs")
    moved = source.with_name("snapshot-2")
    source.rename(moved)
    again = ssfs_json("sync", moved, location, "--source-id", "the-docs")
    assert (again["new"], again["bytes_sent"] < 2000) == (0, True)
    assert "backs up 'the-docs'" in run("sync", moved, location, expect=2).error


def test_dry_run_changes_nothing(source: Path, store: Path):
    planned = ssfs_json("sync", source, store, "--dry-run")
    assert set(planned) == KEYS
    assert (planned["version"], planned["mount_name"], planned["new"]) == (None, None, 6)
    assert (planned["entries"], planned["bytes"]) == (6, 102_412)
    assert not (store / "points" / "main").exists()
    ssfs("sync", "-q", source, store)
    (source / "new").write_text("new")
    text = ssfs("sync", source, store, "--dry-run")
    assert text.startswith("Dry run, nothing was written")
    assert "  1 new, " in text
    assert "would hold 7 entries" in text
    assert len(list((task_directory(store) / "versions").iterdir())) == 1


def test_two_sources_make_two_tasks_by_default(tmp_path: Path, source: Path, store: Path):
    # Must hold 9.
    other = tmp_path / "other"
    other.mkdir()
    first, second = ssfs_json("sync", source, store), ssfs_json("sync", other, store)
    third = ssfs_json("sync", source, store)
    assert first["version"][:6] == second["version"][:6] == "000001"
    assert (third["expired"], third["new"]) == ([first["version"]], 0)
    assert len(list((store / "points" / "main" / "tasks").iterdir())) == 2


def test_second_source_into_one_task_is_refused(tmp_path: Path, source: Path, store: Path):
    # Must hold 9.
    other = tmp_path / "other"
    other.mkdir()
    ssfs("sync", "-q", source, f"{store}::main/docs")
    error = run("sync", other, f"{store}::main/docs", expect=2).error
    assert repr(str(source)) in error
    assert len(list((task_directory(store) / "versions").iterdir())) == 1


def test_store_inside_its_source_is_left_out(source: Path):
    inner = source / "backup"
    ssfs("init", "-q", inner)
    ssfs("sync", "-q", source, inner)
    ssfs("sync", "-q", source, inner)
    assert "backup" not in names_in_newest(inner)


def test_source_inside_the_store_is_refused(store: Path, tmp_path: Path):
    (tmp_path / "way").symlink_to(store / "points")
    for inside in (store, store / "points", tmp_path / "way"):
        assert "inside the store" in run("sync", inside, store, expect=2).error


def test_second_sync_of_a_task_says_who_runs(source: Path, store: Path):
    ssfs("sync", "-q", source, store)
    lock = task_directory(store) / "lock"
    lock.write_text("process 4711 for nas1")
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert "process 4711 for nas1" in run("sync", source, store, expect=6).error
    ssfs("sync", "-q", source, store)


@pytest.fixture
def secretive(source: Path) -> Path:
    """A source with 26 files that cannot be read."""
    names = [f"secret-{index:02}".encode() for index in range(25)] + [b"zaf\xe9\x1b"]
    for name in names:
        with open(os.path.join(os.fsencode(source), name), "wb") as file:
            os.fchmod(file.fileno(), 0)
    return source


def test_problems_are_listed_and_exit_3(secretive: Path, store: Path):
    outcome = run("sync", secretive, store, expect=3, powerless=True)
    lines = outcome.err.splitlines()
    assert len(lines) == 21
    assert lines[-1] == "ssfs: ... and 6 more problems (-v or --json lists all)"
    assert all("cannot be read: permission denied" in line for line in lines[:-1])
    assert "Find it as" in outcome.out


def test_all_problems_are_listed_with_verbose(secretive: Path, store: Path):
    outcome = run("sync", "-v", secretive, store, expect=3, powerless=True)
    assert outcome.err.count("cannot be read") == 26
    assert "zaf\\xe9\\x1b: cannot" in outcome.err


def test_quiet_sync_lists_problems_too(secretive: Path, store: Path):
    outcome = run("sync", "-q", secretive, store, expect=3, powerless=True)
    assert (outcome.out, len(outcome.err.splitlines())) == ("", 21)


def test_problems_in_json(secretive: Path, store: Path):
    outcome = run("sync", "--json", secretive, store, expect=3, powerless=True)
    assert outcome.err == ""
    problems = json.loads(outcome.out)["problems"]
    assert len(problems) == 26
    assert set(problems[0]) == {"path", "problem"}
    assert problems[-1]["path"] == "zaf\\xe9\x1b"


def test_verbose_and_quiet_without_problems(source: Path, store: Path):
    assert ssfs("sync", "-q", source, store) == ""
    assert "Version 000002" in ssfs("sync", "-v", source, store)


def test_source_of_any_bytes(tmp_path: Path, store: Path):
    source = os.fsencode(tmp_path) + b"/caf\xe9 $(x)"
    os.mkdir(source)
    with open(source + b"/\xff\n", "w") as file:
        file.write("x")
    assert ssfs_json("sync", source, store)["new"] == 2
    assert "caf\\xe9" in ssfs("points", store)
    assert "caf\\xe9" in ssfs_json("points", store)[0]["tasks"][0]["source"]


def test_one_file_system(store: Path):
    # /proc and /sys are other file systems everywhere: seen, not entered.
    if not os.path.ismount("/dev/shm"):
        pytest.skip("/dev/shm is no file system of its own")
    report = ssfs_json("sync", "/dev", store, "--one-file-system", "--dry-run")
    assert report["entries"] < ssfs_json("sync", "/dev", store, "--dry-run")["entries"]


def test_terminal_sees_progress_of_a_long_run(source: Path, store: Path, tmp_path: Path):
    # Long is what takes a second; here, to save that time, whatever takes none.
    (tmp_path / "sitecustomize.py").write_text(
        "import ssfs.cli.progress\nssfs.cli.progress._QUIET_START_S = 0.0\n"
    )
    outcome = run_on_terminal(["sync", source, store], python_path=tmp_path)
    assert outcome.code == 0
    assert "entries, 1" in outcome.err
    assert outcome.out.startswith("Version 000001-")
    outcome = run_on_terminal(["sync", "-q", source, store], python_path=tmp_path)
    assert (outcome.out, outcome.err) == ("", "")


def test_source_that_is_suddenly_empty_is_said_and_flagged(source: Path, store: Path):
    ssfs("sync", "-q", source, store)
    before = sum(path.is_file() and not path.is_symlink() for path in source.rglob("*"))
    shutil.rmtree(source)
    source.mkdir()
    planned = run("sync", "-q", source, store, "--dry-run", expect=3)
    assert f"The source has 0 of {before} files that it had: its version would be" in planned.error
    outcome = run("sync", "-q", source, store, expect=3)
    assert f"The source has 0 of {before} files that it had" in outcome.error
    assert "--allow-shrink" in outcome.error
    result = ssfs_json("sync", source, store, expect=3)
    assert result["shrunk"] == {"before": before, "after": 0}
    assert "--allow-shrink" in result["expiry_held"]
    listed = ssfs_json("versions", store)
    assert [line["shrunk"] for line in listed] == [None, result["shrunk"], result["shrunk"]]
    text = ssfs("versions", store)
    assert f"flagged: 0 of {before} files" in text.splitlines()[-2]
    assert "Expiry holds: version 3" in text.splitlines()[-1]
    assert ssfs_json("sync", source, store, "--allow-shrink")["expiry_held"] is None
    assert ssfs_json("versions", store)[-1]["shrunk"] is None
