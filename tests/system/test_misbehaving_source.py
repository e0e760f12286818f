"""Real programs on sources that misbehave: live databases, growing logs, closed doors, bad disks, FIFOs."""

import contextlib
import errno
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ssfs.engine.plan import RACY_S
from ssfs.model.entry import Flag
from ssfs.store.store import Store
from ssfs.store.version import Version
from tests.cli.support import run, ssfs_json
from tests.fakes.sources import serve
from tests.fakes.syncs import row
from tests.fakes.trees import verify_version
from tests.system.programs import run as run_program
from tests.system.programs import ssfs

pytestmark = pytest.mark.slow

_PAYLOAD_BYTES = 12 << 20
_WRITER = """
import os, sqlite3, sys, time
directory, mode = sys.argv[1:]
database = sqlite3.connect(os.path.join(directory, "live.db"), isolation_level=None)
database.execute(f"PRAGMA journal_mode = {mode}")
database.execute("PRAGMA synchronous = OFF")
# Each transaction reaches the database file, as a busy server's checkpoints do.
database.execute("PRAGMA wal_autocheckpoint = 1")
logs = [open(os.path.join(directory, name), "ab", buffering=0) for name in ("small.log", "large.log")]
number = 0
while True:
    number += 1
    with database:
        database.execute("BEGIN")
        database.execute("UPDATE t SET n = ? WHERE id = 1", (number,))
        database.execute("UPDATE t SET n = ? WHERE id = 2", (number,))
    for log in logs:
        log.write(b"line %d of a log that grows while it is read\\n" % number)
    if number == 10:
        print("writing", flush=True)
    time.sleep(0.0005)
"""


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "store"
    ssfs("init", path, "--keep-last", "30", "--timezone", "UTC")
    return path


def versions(store: Path) -> list[Version]:
    (task,) = Store.open(os.fsencode(store)).point("main").tasks()
    return task.versions()


def tree(version: Version) -> Path:
    return Path(os.fsdecode(version.path)) / "tree"


@contextlib.contextmanager
def writing(directory: Path, mode: str) -> Iterator[None]:
    """A database and two logs that another process keeps writing to."""
    directory.mkdir()
    with contextlib.closing(sqlite3.connect(directory / "live.db")) as database:
        database.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, n, payload)")
        piece = os.urandom(1 << 20)
        rows = [(number, 0, piece) for number in range(1, 1 + (_PAYLOAD_BYTES >> 20))]
        database.executemany("INSERT INTO t VALUES (?, ?, ?)", rows)
        database.commit()
    (directory / "large.log").write_bytes(os.urandom(_PAYLOAD_BYTES))
    command = [sys.executable, "-c", _WRITER, directory, mode]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "writing\n"
            yield
        finally:
            process.terminate()


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_live_database_and_growing_logs(store: Path, tmp_path: Path, mode: str) -> None:
    source = tmp_path / "source"
    with writing(source, mode):
        first = ssfs_json("sync", source, store, expect=3)
    unstable = [problem["path"] for problem in first["problems"]]
    assert len(unstable) == len(set(unstable))
    assert {"live.db", "large.log"} <= set(unstable)
    assert set(unstable) <= {
        *("live.db", "live.db-wal", "live.db-shm", "live.db-journal", "small.log", "large.log")
    }
    assert {problem["problem"] for problem in first["problems"]} == {
        "changed while it was read; stored as read"
    }
    # Both were read again before they were given up.
    assert first["bytes_read"] > 4 * _PAYLOAD_BYTES
    (version,) = versions(store)
    verify_version(version)
    assert row(version, "live.db").flags & Flag.UNSTABLE
    # What is only appended to is stored as it was at one time.
    for name in ("small.log", "large.log"):
        content = (tree(version) / name).read_bytes()
        assert (source / name).read_bytes().startswith(content)

    second = ssfs_json("sync", source, store)
    assert second["problems"] == []
    version = versions(store)[-1]
    verify_version(version)
    assert not row(version, "live.db").flags & Flag.UNSTABLE
    ssfs("restore", f"{store}", "latest", "--to", tmp_path / "back")
    assert (tmp_path / "back" / "large.log").read_bytes() == (source / "large.log").read_bytes()
    with contextlib.closing(sqlite3.connect(tmp_path / "back" / "live.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        ((one, other),) = database.execute("SELECT a.n, b.n FROM t a, t b WHERE a.id=1 AND b.id=2")
        assert one == other >= 10


@pytest.mark.needs_root
def test_closed_doors_for_who_is_not_root(store: Path, tmp_path: Path) -> None:
    """All was readable once; then a file, a directory and a directory's names are closed."""
    source = tmp_path / "source"
    for name in ("file", "shut/below/deep", "listed/inside", "open/f"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(name)
    os.mkfifo(source / "fifo")
    assert ssfs_json("sync", source, store)["problems"] == []
    for name, mode in (("file", 0), ("shut", 0), ("listed", 0o444)):
        os.chown(source / name, 65534, 65534)
        (source / name).chmod(mode)
    (source / "open" / "f").write_text("changed")
    (source / "new").write_text("new")
    outcome = run("sync", source, store, expect=3, powerless=True)
    told = sorted(line.removeprefix("ssfs: ") for line in outcome.err.splitlines())
    assert told == [
        "file: cannot be read: permission denied; kept as in the version before",
        "listed/inside: cannot be looked at: permission denied; kept as in the version before",
        "shut: directory cannot be read: permission denied; kept as in the version before",
    ]
    first, second = versions(store)
    verify_version(second)
    flagged = ["file", "shut", "shut/below", "shut/below/deep", "listed/inside"]
    assert all(row(second, name).flags & Flag.STALE for name in flagged)
    for name in ("file", "shut/below/deep", "listed/inside"):
        assert (tree(second) / name).stat().st_ino == (tree(first) / name).stat().st_ino
    assert (tree(second) / "open" / "f").read_text() == "changed"
    # Root may read them all.
    assert ssfs_json("sync", source, store)["problems"] == []
    assert not any(row(versions(store)[-1], name).flags & Flag.STALE for name in flagged)
    verify_version(versions(store)[-1])


@pytest.mark.needs_fuse
def test_bad_disk_and_changing_inode_numbers(store: Path, tmp_path: Path) -> None:
    real, shown = tmp_path / "real", tmp_path / "shown"
    (real / "d").mkdir(parents=True)
    for number in range(20):
        (real / "d" / f"f{number}").write_bytes(os.urandom(5000))
    (real / "large").write_bytes(os.urandom(3_000_000))
    with serve(real, shown) as faults:
        assert ssfs_json("sync", shown, store)["problems"] == []
        (real / "large").write_bytes(os.urandom(3_000_000))
        faults.set(list={"d": errno.EIO}, read={"large": errno.EIO})
        result = ssfs_json("sync", shown, store, expect=3)
        assert {problem["path"]: problem["problem"] for problem in result["problems"]} == {
            "d": "directory cannot be read: input/output error; kept as in the version before",
            "large": "cannot be read: input/output error; kept as in the version before",
        }
        assert (result["removed"], result["shrunk"]) == (0, None)
        verify_version(versions(store)[-1])
        assert row(versions(store)[-1], "d/f7").flags & Flag.STALE
        _let_times_prove_something(real)
        faults.set(shift=5_000)
        outcome = run("sync", "-q", shown, store, expect=0)
        assert "inode numbers have changed" in outcome.error
        faults.set(shift=9_000)
        result = ssfs_json("sync", shown, store, "--ignore-inode")
        assert (result["notes"], result["bytes_read"]) == ([], 0)
    verify_version(versions(store)[-1])


def _let_times_prove_something(root: Path) -> None:
    """Wait until what was written last was written so long ago that it is not read again for that."""
    newest = max(path.stat().st_ctime for path in root.rglob("*"))
    while time.time() - newest < RACY_S + 1:
        time.sleep(0.05)


def test_fifos_and_sockets_block_nothing(store: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    os.mkfifo(source / "fifo")
    run_program(
        sys.executable,
        "-c",
        "import os, socket, sys; os.chdir(sys.argv[1]); socket.socket(socket.AF_UNIX).bind('sock')",
        source,
    )
    result = ssfs_json("sync", source, store)
    assert (result["sockets"], result["entries"], result["problems"]) == (1, 2, [])
    assert "1 socket left out" in ssfs("sync", source, store)
