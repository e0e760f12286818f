"""Must hold 10: whatever is wrong, one clear line, the documented exit code, and nothing lost."""

import contextlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.cli.support import COMMAND, environment, run, ssfs, ssfs_json

# A command for each kind of access; {store} is where a store should be.
ON_A_STORE = (
    "sync {source} {store}",
    "versions {store}",
    "points {store}",
    "point {store}",
    "point {store} --days 3",
    "expire {store}",
    "delete {store} 1",
    "pin {store} 1",
    "unpin {store} 1",
    "restore {store} 1 --to {out}",
    "mount {store} {out}",
)
every_command = pytest.mark.parametrize("command", ON_A_STORE)


def words(command: str, **places: Path) -> list[str]:
    return [word.format(**places) for word in command.split()]


@every_command
def test_store_that_is_none(command: str, source: Path, tmp_path: Path):
    out = tmp_path / "out"
    arguments = words(command, source=source, store=source, out=out)
    assert "Not a store" in run(*arguments, expect=6).error
    assert not out.exists()


def test_store_that_is_a_file_or_absent(source: Path):
    for path in (source / "docs" / "letter.txt", source / "absent", "x" * 300):
        assert run("sync", source, path, expect=6).error


@every_command
def test_store_of_a_newer_format_is_left_alone(command: str, store: Path, source: Path):
    path = store / "store.toml"
    path.write_text(path.read_text().replace("format = 1", "format = 2"))
    before = tree_of(store)
    arguments = words(command, source=source, store=store, out=source)
    assert "Made by a newer ssfs" in run(*arguments, expect=6).error
    assert tree_of(store) == before


def tree_of(root: Path) -> str:
    """Every path, size and time below a directory."""
    listing = ["find", root, "-printf", "%P %s %T@ %i\\n"]
    return subprocess.run(listing, check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("text", ["", "garbage", "format = 1\n", "format = 'x'", "\xff\x00"])
def test_damaged_store_file(store: Path, text: str):
    (store / "store.toml").write_bytes(text.encode("latin-1"))
    assert "store.toml" in run("points", store, expect=6).error


def test_damaged_point_and_task_files(history: Path):
    point = history / "points" / "main" / "point.toml"
    task = history / "points" / "main" / "tasks" / "task" / "task.toml"
    content = task.read_bytes()
    task.write_bytes(b"garbage")
    lost = (
        "Task main/task is left out, its settings or its versions are lost: "
        "put them back if you can; `ssfs recover` makes them anew"
    )
    assert lost in run("points", history, expect=3).error
    assert task.name in run("versions", history, expect=6).error
    # It cannot be judged, so all of it stays.
    for command in (["expire"], ["find", "*"], ["du"]):
        words = [command[0], history, *command[1:]]
        assert run(*words, expect=3).error == f"ssfs: {lost}"
        report = json.loads(run(command[0], "--json", *words[1:], expect=3).out)
        assert report["lost"] == ["task"]
    task.write_bytes(content)
    assert ssfs_json("du", history)["lost"] == ssfs_json("find", history, "*")["lost"] == []
    point.write_bytes(b"garbage")
    # Nothing of its versions is lost, so they can be had, and all of them stay.
    assert "Everything is kept" in ssfs("versions", history)
    assert "Expired 0 versions" in ssfs("expire", history)
    assert point.name in run("point", history, "--days", "3", expect=6).error


def test_what_a_crash_leaves_of_a_new_point_disturbs_nobody(history: Path):
    (history / "points" / "half-made").mkdir()
    (history / "points" / "stray file").write_text("")
    (line,) = ssfs_json("points", history)
    assert line["point"] == "main"
    ssfs("point", "-q", f"{history}::half-made")
    assert len(ssfs_json("points", history)) == 2


def test_missing_source(store: Path, source: Path):
    for path in (source / "absent", source / "docs" / "letter.txt", "", "x" * 5000):
        error = run("sync", path, store, expect=7).error
        assert "The source cannot be read" in error
    assert os.listdir(store / "points") == []


def test_source_that_may_not_be_read(store: Path, source: Path):
    source.chmod(0)
    outcome = run("sync", source, store, expect=7, powerless=True)
    assert "permission denied" in outcome.error


def test_cache_directory_that_cannot_be_used(store: Path, source: Path, tmp_path: Path):
    (tmp_path / "file").write_text("")
    env = {"SSFS_CACHE_DIR": str(tmp_path / "file")}
    assert "cache" in run("sync", source, store, env=env, expect=2).error


@pytest.mark.parametrize(
    "location",
    [
        "::",
        "::main",
        "ssfs://nas/main",
        "ssh://nas",
        "ssh://-l/store",
        "{store}::a b",
        "{store}::main/a/b",
    ],
)
def test_bad_location(source: Path, store: Path, location: str):
    assert run("sync", source, location.format(store=store), expect=2).error


def test_location_of_any_bytes(source: Path, tmp_path: Path):
    odd = os.fsencode(tmp_path) + b"/st\xf6re\n"
    ssfs("init", "-q", odd)
    ssfs("sync", "-q", source, odd)
    assert len(ssfs_json("versions", odd)) == 1
    assert ssfs("sync", source, odd).count("\n") >= 3
    assert "Not a store" in run("versions", odd + b"\xff", expect=6).error
    run("versions", odd + b"::m\xe4in", expect=2)


@pytest.mark.parametrize(
    "version", ["2024-13-01", "2024-02-30", "yesterday", "99", "latest~99", "-"]
)
def test_wrong_date_or_unknown_version(read_only_history: Path, version: str):
    error = run("restore", read_only_history, version, "--to", "/nowhere", expect=2).error
    assert f"No version {version!r}" in error
    assert "2024-02-29" in error or "2024-01-01" in error


@pytest.mark.usefixtures("source", "store")
def test_commands_work_from_any_directory(tmp_path: Path):
    here = tmp_path
    run("sync", "source", "store", cwd=here, expect=0)
    run("versions", "store/", cwd=here, expect=0)
    run("pin", "../" + here.name + "/store", "1", cwd=here, expect=0)
    run("restore", "store", "1", "--to", "out", cwd=here, expect=0)
    assert (here / "out" / "docs" / "letter.txt").exists()


@pytest.mark.needs_root
def test_root_writes_as_the_stores_owner(store: Path, source: Path):
    subprocess.run(["chown", "-R", "daemon:", store], check=True)
    for parent in store.parents:
        parent.chmod(parent.stat().st_mode | 0o11)
    ssfs("sync", "-q", source, store)
    ssfs("pin", "-q", store, "1")
    ssfs("point", "-q", store, "--days", "3")
    ssfs("sync", "-q", source, store)
    ssfs("unpin", "-q", store, "1")
    ssfs("expire", "-q", store)
    ssfs("delete", "-q", store, *ssfs("versions", "-q", store).split())
    found = subprocess.run(
        ["find", store, "!", "-user", "daemon"], check=True, capture_output=True, text=True
    )
    assert found.stdout == ""


@pytest.mark.needs_root
def test_full_disk_keeps_old_versions_whole(tiny_disk: Path, tmp_path: Path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "kept").write_bytes(os.urandom(2 << 20))
    store = tiny_disk / "store"
    ssfs("init", "-q", store)
    ssfs("sync", "-q", source, store)
    (source / "large").write_bytes(os.urandom(20 << 20))
    error = run("sync", source, store, expect=6).error
    assert "No space" in error
    assert "`ssfs delete`" in error
    assert len(ssfs_json("versions", store)) == 1
    ssfs("restore", "-q", store, "latest", "--to", tmp_path / "out")
    assert (tmp_path / "out" / "kept").read_bytes() == (source / "kept").read_bytes()
    (source / "large").unlink()
    ssfs("sync", "-q", source, store)


def fill(disk: Path) -> None:
    """Leave not a single block."""
    with open(disk / "filler", "wb", buffering=0) as filler:
        for size in (1 << 16, 1 << 10):
            with contextlib.suppress(OSError):
                while True:
                    filler.write(bytes(size))
                    os.fsync(filler.fileno())


@pytest.mark.needs_root
def test_full_disk_does_not_keep_from_freeing_space(tiny_disk: Path, tmp_path: Path):
    source = tmp_path / "source"
    source.mkdir()
    store = tiny_disk / "store"
    ssfs("init", "-q", "--keep-last", "9", store)
    for _ in range(3):
        (source / "file").write_bytes(os.urandom(3 << 20))
        ssfs("sync", "-q", source, store)
    fill(tiny_disk)
    assert "No space" in run("point", store, "--days", "1", expect=6).error
    free = shutil.disk_usage(tiny_disk).free
    ssfs("delete", "-q", store, "1")
    assert shutil.disk_usage(tiny_disk).free - free > 2 << 20


@pytest.mark.needs_root
def test_read_only_store(tiny_disk: Path, source: Path, tmp_path: Path):
    store = tiny_disk / "store"
    ssfs("init", "-q", "--keep-last", "2", store)
    ssfs("sync", "-q", source, store)
    ssfs("sync", "-q", source, store)
    run("point", store, "--keep-last", "1", expect=0)
    first = ssfs("versions", "-q", store).split()[0]
    subprocess.run(["mount", "-o", "remount,ro", tiny_disk], check=True)
    for command in (
        f"sync {source} {store}",
        f"point {store} --days 1",
        f"point {store}::new",
        f"expire {store}",
        f"pin {store} 1",
        f"delete {store} {first}",
    ):
        error = run(*command.split(), expect=6).error
        assert "read-only" in error
    assert "read-only" in run("init", tiny_disk / "other", expect=6).error
    ssfs("versions", store)
    ssfs("points", store)
    assert "entries" in ssfs("sync", "--dry-run", source, store)
    ssfs("restore", "-q", store, "latest", "--to", tmp_path / "out")
    assert (tmp_path / "out" / "docs" / "letter.txt").exists()


def test_file_system_without_hard_links(tmp_path: Path):
    # What FAT answers; mkfs.vfat and a kernel with vfat are not everywhere.
    command = ["strace", "-f", "-qq", "-o", os.devnull, "-e", "inject=link,linkat:error=EPERM"]
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    done = subprocess.run(
        [*command, *COMMAND, "init", tmp_path / "store"],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (6, "", 1)
    assert "cannot hard-link" in done.stderr
    assert "ext4" in done.stderr
    assert not (tmp_path / "store" / "store.toml").exists()
