"""The recipe of FORMAT.md, run as it is written, restores a version without ssfs."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import ssfs.store
from ssfs.clock import SystemClock
from ssfs.engine.local import sync_local
from ssfs.engine.sender import SyncRequest
from ssfs.model.policy import Policy
from ssfs.monitor import NullMonitor
from ssfs.source.exclude import ExcludeOptions
from ssfs.store.store import Store
from tests.fakes.trees import remember

FORMAT_PAGE = Path(ssfs.store.__file__).with_name("FORMAT.md")

SQLITE3 = f"""#!{sys.executable}
# What the recipe needs of the sqlite3 program.
import os, sqlite3, sys
assert sys.argv[1] == "-readonly"
database = sqlite3.connect(f"file:{{sys.argv[2]}}?mode=ro", uri=True)
database.text_factory = bytes
for row in database.execute(sys.argv[3]):
    os.write(1, b"|".join(row) + b"\\n")
"""


def recipe() -> list[str]:
    section = FORMAT_PAGE.read_text().split("## Restore without ssfs")[1]
    blocks = re.findall(r"(?:^    .*\n)+", section, re.MULTILINE)
    assert len(blocks) == 2
    return ["\n".join(line[4:] for line in block.splitlines()) for block in blocks]


def make_source(root: Path) -> None:
    (root / "d" / "e" / "f").mkdir(parents=True)
    (root / "d" / "with space").write_bytes(b"1")
    (root / "d" / " leading").write_bytes(b"2")
    (root / "d" / "trailing ").write_bytes(b"3")
    (root / "d" / "back\\slash").write_bytes(b"4")
    (root / "d" / "-dash").write_bytes(b"5")
    (root / "d" / "grüße").write_bytes(b"6")
    Path(os.fsdecode(bytes(root / "d") + b"/caf\xe9")).write_bytes(b"7")
    (root / "d" / "setuid").write_bytes(b"8")
    (root / "d" / "old").write_bytes(b"9")
    (root / "link").symlink_to("d/old")
    for number, (place, below, names) in enumerate(os.walk(root, topdown=False)):
        for name in [*names, *below]:
            path = os.path.join(place, name)
            if os.geteuid() == 0:
                os.chown(path, 1000 + number, 2000 + number, follow_symlinks=False)
            if not os.path.islink(path):
                os.chmod(path, 0o555 if name in below else 0o640)
    os.chmod(root / "d" / "setuid", 0o4755)
    os.utime(root / "d" / "old", ns=(0, -1_500_000_000))
    os.utime(root / "d" / "e", ns=(0, 1_700_000_000_123_456_789))
    os.utime(root / "d", ns=(0, 5_000_000_000))
    os.utime(root, ns=(0, 7_000_000_001))


@pytest.mark.slow
@pytest.mark.needs_root
def test_recipe_restores_data_and_metadata(tmp_path):
    source = tmp_path / "source"
    make_source(source)
    store = Store.create(bytes(tmp_path / "store"), Policy(), "UTC", SystemClock())
    request = SyncRequest(bytes(source), "main", "task", "nas1", "/docs", ExcludeOptions())
    sync_local(store, request, NullMonitor(), SystemClock())
    (version,) = store.point("main").task("task").versions()
    out, tools = tmp_path / "out", tmp_path / "bin"
    out.mkdir()
    tools.mkdir()
    (tools / "sqlite3").write_text(SQLITE3)
    (tools / "sqlite3").chmod(0o755)
    environment = {
        "PATH": f"{tools}:{os.environ['PATH']}",
        "V": os.fsdecode(version.path),
        "OUT": str(out),
        "LC_ALL": "C.UTF-8",
    }
    for block in recipe():
        done = subprocess.run(
            ["sh", "-e", "-c", block],
            cwd=out,
            env=environment,
            capture_output=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, b"")
    restored, original = remember(out), remember(source)
    # The recipe leaves symlinks as they are.
    for image in (restored, original):
        for path, seen in image.items():
            if seen.target:
                image[path] = seen._replace(uid=0, gid=0, mtime_ns=0)
    assert restored == original


@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="no sqlite3 program here")
def test_real_program_understands_the_options():
    subprocess.run(["sqlite3", "-readonly", ":memory:", "SELECT 1"], check=True)
