"""A mount against the raw tree of the same version, and against `borg mount` and `restic mount` of the same source.

`pytest -m bench -s tests/bench/test_mount.py -n 0`, as root. Everything is measured in turn, the store's files in the page cache; a
*cold* mount is one that was just made, so that the kernel knows nothing of it. Copies go to the disk the store is on.
`SSFS_BENCH_ENTRIES` and `SSFS_BENCH_BYTES` make it smaller. The bounds are those an issue asks for; borg and
restic are fetched from Debian, and left out with a word where that cannot be done.
"""

import concurrent.futures
import os
import random
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ssfs.store.store import Store, Task
from tests.bench.rivals import NotFetched, Rival
from tests.mount.mounts import mounted
from tests.system.programs import ssfs, sync

pytestmark = [
    pytest.mark.bench,
    pytest.mark.needs_fuse,
    pytest.mark.needs_root,
    pytest.mark.timeout(3600),
]

ENTRIES = int(os.environ.get("SSFS_BENCH_ENTRIES", "100000"))
LARGE_BYTES = int(os.environ.get("SSFS_BENCH_BYTES", str(1 << 30)))
FILES_PER_DIRECTORY = 98
ROUNDS = 3
PAGE = 4096
RANDOM_READS = 4000


class Place:
    """A store with one version, where it lies in the store and where it is mounted."""

    def __init__(self, directory: Path) -> None:
        self.source = directory / "source"
        self.mountpoint = directory / "mnt"
        self.out = directory / "out"
        self.store = directory / "store"
        for number in range(ENTRIES // (FILES_PER_DIRECTORY + 1)):
            path = self.source / f"dir{number // 50:02d}" / f"sub{number % 50:02d}"
            path.mkdir(parents=True)
            for file in range(FILES_PER_DIRECTORY):
                (path / f"file-{file:04d}.txt").write_bytes(b"%d %d" % (number, file) * 40)
        with open(self.source / "large", "wb") as large:
            large.writelines(os.urandom(1 << 20) for _ in range(LARGE_BYTES >> 20))
        ssfs("init", self.store)
        sync(self.source, self.store)
        self.raw = Path(os.fsdecode(self.task.versions()[0].path)) / "tree"
        subprocess.run(
            f"find {self.raw} -type f -print0 | xargs -0 cat >/dev/null", shell=True, check=True
        )

    @property
    def task(self) -> Task:
        (task,) = Store.open(os.fsencode(self.store)).point("main").tasks()
        return task

    @property
    def shown(self) -> Path:
        return self.mountpoint / "latest"


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Iterator[Place]:
    directory = tmp_path_factory.mktemp("bench")
    yield Place(directory)
    shutil.rmtree(directory)


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def find(top: Path) -> float:
    return seconds(
        lambda: subprocess.run(["find", f"{top}/", "-ls"], check=True, stdout=subprocess.DEVNULL)
    )


def read_through(path: Path) -> float:
    """Seconds to read a file in pieces of 128 KiB, as cp does."""

    def read() -> None:
        buffer = bytearray(128 << 10)
        with open(path, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass

    return seconds(read)


def told(what: str, ours: list[float], theirs: list[float], least: float) -> float:
    """Print a line of the table; the ratio of the medians, by which one number is over the other."""
    ratio = statistics.median(ours) / statistics.median(theirs)
    print(
        f"{what:<44} {statistics.median(theirs):9.3f} {statistics.median(ours):9.3f} "
        f"{ratio:7.2f}  (asked for: {least})"
    )
    return ratio


def test_find(place):
    print(f"\n{'seconds, median of ' + str(ROUNDS):<44} {'raw':>9} {'mount':>9} {'ratio':>7}")
    raw, cold, again = [], [], []
    for _ in range(ROUNDS):
        raw.append(find(place.raw))
        with mounted(place.task, place.mountpoint):
            cold.append(find(place.shown))
            again.append(find(place.shown))
    ratio = told(f"find -ls, {ENTRIES:,} entries, cold", cold, raw, 1.6)
    repeated = told("find -ls, repeated", again, raw, 1.4)
    assert ratio <= 1.6
    assert repeated <= 1.4


@pytest.mark.parametrize("files", [2_000, 20_000])
def test_copies_of_small_files(place, files):
    raw, cold = [], []
    for _ in range(ROUNDS):
        raw.append(copy(place.raw, place.out, files))
        with mounted(place.task, place.mountpoint):
            cold.append(copy(place.shown, place.out, files))
    assert told(f"cp -a, {files:,} small files, cold", cold, raw, 2.0) <= 2.0


def copy(top: Path, out: Path, files: int) -> float:
    directories = sorted(top.glob("dir*/sub*"))[: files // FILES_PER_DIRECTORY + 1]
    out.mkdir(exist_ok=True)
    # Anew each time: who makes files waits for ext4 to go around each inode that was deleted in the last minutes.
    out = out / str(len(os.listdir(out)))
    out.mkdir()
    subprocess.run(["sync", "-f", out], check=True)
    targets = {}
    for path in directories:
        targets.setdefault(path.parent.name, []).append(path)

    def run() -> None:
        for name, paths in targets.items():
            (out / name).mkdir()
            subprocess.run(["cp", "-a", *paths, out / name], check=True)

    return seconds(run)


def test_reads_of_a_large_file(place):
    raw, first, again = [], [], []
    for _ in range(ROUNDS):
        raw.append(read_through(place.raw / "large"))
        with mounted(place.task, place.mountpoint):
            first.append(read_through(place.shown / "large"))
            again.append(read_through(place.shown / "large"))
    print(f"{'GB/s':<44} {LARGE_BYTES / 1e9 / statistics.median(raw):9.2f}")
    ratio = told("first sequential read, 1 GiB", first, raw, 4.0)
    told("repeated read", again, raw, 1.3)
    assert ratio <= 4.0


def test_reads_that_the_mount_answers_itself(place):
    """Without root or on an older kernel the kernel does not read by itself, nor with `damaged_ok`. Reported only."""
    raw, first, again = [], [], []
    for _ in range(ROUNDS):
        raw.append(read_through(place.raw / "large"))
        with mounted(place.task, place.mountpoint, "damaged_ok"):
            first.append(read_through(place.shown / "large"))
            again.append(read_through(place.shown / "large"))
    told("first sequential read, by the mount", first, raw, 4.0)
    told("repeated read, from the kernel's cache", again, raw, 1.3)


@pytest.mark.parametrize("options", ["", "damaged_ok"])
def test_random_reads(place, options):
    raw, ours = [], []
    for number in range(ROUNDS):
        raw.append(random_reads(place.raw / "large", number))
        with mounted(place.task, place.mountpoint, options):
            ours.append(random_reads(place.shown / "large", number))
    who = "by the mount" if options else "passed through"
    told(f"{RANDOM_READS:,} reads of 4 KiB, 8 at a time, {who}", ours, raw, 0)


def random_reads(path: Path, seed: int) -> float:
    rng = random.Random(seed)
    offsets = [rng.randrange(LARGE_BYTES // PAGE) * PAGE for _ in range(RANDOM_READS)]
    fd = os.open(path, os.O_RDONLY)
    try:
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            return seconds(lambda: list(pool.map(lambda at: os.pread(fd, PAGE, at), offsets)))
    finally:
        os.close(fd)


@pytest.mark.parametrize("name", ["borg", "restic"])
def test_against(place, name, tmp_path):
    try:
        rival = Rival(name, tmp_path)
    except NotFetched as error:
        pytest.skip(str(error))
    rival.back_up(place.source)
    with rival.mounted(place.mountpoint) as top:
        their_find = find(top)
    with rival.mounted(place.mountpoint) as top:
        their_read = read_through(top / "large")
    with mounted(place.task, place.mountpoint):
        our_find = find(place.shown)
    with mounted(place.task, place.mountpoint):
        our_read = read_through(place.shown / "large")
    print(
        f"cold find: {name} {their_find:.2f} s, ssfs {our_find:.2f} s: {their_find / our_find:.1f} times (4)"
    )
    print(
        f"cold read: {name} {their_read:.2f} s, ssfs {our_read:.2f} s: {their_read / our_read:.1f} times (8)"
    )
    assert their_find >= 4 * our_find
    assert their_read >= 8 * our_read
