"""Questions to a task of 500,000 entries and 22 versions: seconds, and little memory.

`pytest -m bench -s tests/bench/test_questions.py -n 0`. Each command is a process of its own, as a person starts it; printed are
its time and its largest resident memory. `SSFS_BENCH_STORE` may name a directory where the store is made once and
kept (2.5 GB).
"""

import os
import random
import resource
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ssfs.store.store import Store
from tests.cli.support import COMMAND, environment
from tests.fakes.catalogs import Catalogs
from tests.fakes.histories import make_store, make_task

pytestmark = pytest.mark.bench

ENTRIES = 500_000
VERSIONS = 22
FILES_PER_DIRECTORY = 12
CHANGED = 3_000
MOST_BYTES = 250 << 20
MOST_SECONDS = 30
_SUFFIXES = (b".c", b".h", b".odt", b".jpg", b".txt", b".log", b"")


def build(path: Path) -> None:
    store = make_store(path)
    catalogs = Catalogs(make_task(store, "home"))
    rng = random.Random(1)
    with catalogs.next_version() as version:
        tops = [version.directory(f"user-{number}") for number in range(20)]
        directories = list(tops)
        made = len(directories) + 1
        while made < ENTRIES:
            parent = rng.choice(directories[-2000:] + tops)
            directory = version.directory_in(parent, b"directory-%d" % made)
            directories.append(directory)
            for number in range(FILES_PER_DIRECTORY):
                name = b"file-%d-%d%s" % (made, number, rng.choice(_SUFFIXES))
                version.file_in(directory, name, rng.randrange(1, 100_000), made * 100 + number)
            made += 1 + FILES_PER_DIRECTORY
    last_id = made
    for night in range(1, VERSIONS):
        with catalogs.next_version() as version:
            for number in range(CHANGED):
                entry = version.catalog.entry(rng.randrange(2, last_id))
                if entry is None or entry.kind != 1:
                    continue
                if number % 10 == 0:
                    version.catalog.remove(entry.id)
                elif number % 10 == 1:
                    version.file_in(entry.parent, b"new-%d-%d.odt" % (night, number), 5000, number)
                else:
                    changed = entry._replace(size=entry.size + 1, mtime_s=entry.mtime_s + night)
                    version.catalog.put(changed, version.catalog.take_content())
            if night in (5, 10, 15):
                version.move(f"user-{night}", f"user-{night}-moved")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    kept = os.environ.get("SSFS_BENCH_STORE")
    path = Path(kept) / "store" if kept else tmp_path_factory.mktemp("questions") / "store"
    if not path.exists():
        started = time.monotonic()
        build(path)
        print(f"\nmade {path} in {time.monotonic() - started:.0f} s")
    assert len(Store.open(os.fsencode(path)).point("main").task("home").versions()) == VERSIONS
    yield path
    if not kept:
        subprocess.run(["rm", "-r", path], check=True)


@pytest.mark.parametrize(
    "command",
    [
        "find {store} file-21-3*",
        "find {store} *.odt",
        "find {store} *.odt --limit 50000",
        "find -i {store} FILE-21-3*",
        "find {store} *",
        "find {store} user-3/**/*.odt",
        "find {store} user-3/directory-*/file*",
        "find {store} *.odt --deleted",
        "find {store} * --deleted",
        "find {store} * --deleted --from 2024-01-20",
        "history {store} {path}",
        "diff {store} latest~1 latest",
        "diff {store} 1 latest",
        "diff {store} 1 latest user-3",
        "du {store}",
    ],
)
def test_question_takes_seconds_and_little_memory(store: Path, command: str):
    listed = [word.format(store=store, path=first_path(store)) for word in command.split()]
    started = time.monotonic()
    process = subprocess.Popen(
        [*COMMAND, listed[0], "--json", *listed[1:]],
        stdout=subprocess.PIPE,
        env=environment(),
    )
    assert process.stdout is not None
    with process.stdout as stream:
        out = stream.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.monotonic() - started
    peak = used.ru_maxrss * 1024
    cpu = used.ru_utime + used.ru_stime
    print(
        f"\n{command:45} {seconds:6.2f} s, {cpu:6.2f} of CPU, {peak / 1e6:6.0f} MB {len(out):12,} bytes of answer"
    )
    assert process.returncode == 0
    assert peak < MOST_BYTES
    # Of this process alone: a machine may be busy with something else.
    assert cpu < MOST_SECONDS


def first_path(store: Path) -> str:
    """Some file's path that all versions have."""
    version = Store.open(os.fsencode(store)).point("main").task("home").versions()[-1]
    with version.catalog() as catalog:
        names = catalog.path_names(next(e.id for e in catalog.entries() if e.kind == 1))
    return os.fsdecode(b"/".join(names))


def test_memory_is_measured_in_kilobytes():
    assert 1000 < resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 10_000_000
