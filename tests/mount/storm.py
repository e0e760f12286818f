"""Readers of a mount while real syncs, expiries and deletes go on under it.

Each reader takes a version by a name that the mount shows, asks which version that is, and holds all that it reads to what the
version's catalog said when it was made. What may fail is only what is in a version that has gone meanwhile, and only as something that is
not there any more.
"""

import contextlib
import errno
import mmap
import os
import random
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import blake3

from ssfs.store.catalog.reader import CatalogReader
from ssfs.store.store import Store, Task
from tests.mount.mounts import mounted
from tests.system.programs import ssfs, sync

READERS_OF_A_KIND = 4
_FILES = 150
_IDLE_S = 5
_LARGE_BYTES = 3_000_000
_ALLOWED = ("No such file or directory", "Stale file handle")
_GONE = (errno.ENOENT, errno.ESTALE)

Contents = dict[bytes, bytes]
"""Digest by path, of a version's files."""


class Storm:
    """Sixteen readers, one writer.

    Attributes:
        faults: What went wrong; must stay empty.
        reads: How many versions were read to their end, by kind of reader.
        versions: How many versions were made.
        gone: Version ids that have been expired or deleted.
        memory_kb: Resident memory of the mount's process over time.
    """

    def __init__(self, directory: Path) -> None:
        self.faults: list[str] = []
        self.reads = dict.fromkeys(("cp", "tar", "find", "random"), 0)
        self.versions = 0
        self.given_up = 0
        self.gone: set[str] = set()
        self.memory_kb: list[int] = []
        self._contents: dict[str, Contents] = {}
        self._directory = directory
        self._source = directory / "source"
        self._store = directory / "store"
        self._mountpoint = directory / "mnt"
        self._rng = random.Random(5)
        self._is_over = threading.Event()
        self._lock = threading.Lock()

    def run(self, is_enough: Callable[[], bool]) -> None:
        """Let it blow until that is so, or something is wrong; it is asked after each round of the writer's."""
        ssfs(
            "init", self._store, "--keep-last", "3", "--days", "1", "--weeks", "0", "--months", "0"
        )
        self._make_source()
        self._sync()
        with mounted(self._task, self._mountpoint, f"idle={_IDLE_S}", is_fresh=True) as process:
            kinds = (self._copy, self._archive, self._find, self._look_around)
            threads = [
                threading.Thread(target=self._repeat, args=(kind, number))
                for number in range(READERS_OF_A_KIND)
                for kind in kinds
            ]
            threads.append(threading.Thread(target=self._watch, args=(process.pid,)))
            for thread in threads:
                thread.start()
            try:
                while not self.faults and not is_enough():
                    self._change_source()
                    self._sync()
                    self._delete_one()
            finally:
                self._is_over.set()
                for thread in threads:
                    thread.join()
            assert process.poll() is None, "the mount has ended"
            self.memory_kb.append(resident_kb(process.pid))

    # -- the writer --------------------------------------------------------------------------------

    @property
    def _task(self) -> Task:
        (task,) = Store.open(os.fsencode(self._store)).point("main").tasks()
        return task

    def _make_source(self) -> None:
        for number in range(_FILES):
            path = self._source / f"d{number % 7}" / f"e{number % 3}" / f"file {number}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self._rng.randbytes(self._rng.randrange(1, 20_000)))
        (self._source / "large").write_bytes(self._rng.randbytes(_LARGE_BYTES))

    def _change_source(self) -> None:
        files = sorted(path for path in self._source.rglob("*/*/*") if path.is_file())
        for path in self._rng.sample(files, 20):
            match self._rng.randrange(5):
                case 0:
                    path.rename(path.with_name(f"moved {self._rng.randrange(10**6)}"))
                case 1:
                    # As long as before: only the bytes say which version it is of.
                    path.write_bytes(self._rng.randbytes(path.stat().st_size))
                case 2:
                    path.write_bytes(self._rng.randbytes(self._rng.randrange(1, 20_000)))
                case 3:
                    path.unlink()
                case _:
                    path.with_name(f"new {self._rng.randrange(10**6)}").write_bytes(b"new")
        with open(self._source / "large", "r+b") as file:
            file.seek(self._rng.randrange(_LARGE_BYTES))
            file.write(self._rng.randbytes(1000))

    def _sync(self) -> None:
        made = sync(self._source, self._store)
        path = os.path.join(self._task.path, b"versions", made["version"].encode())
        contents = contents_of(path)
        with self._lock:
            self._contents[made["version"]] = contents
            self.gone |= set(made["expired"])
            self.versions += 1

    def _delete_one(self) -> None:
        names = [str(version.id) for version in self._task.versions()]
        if len(names) > 2:
            victim = self._rng.choice(names[:-1])
            with self._lock:
                self.gone.add(victim)
            ssfs("delete", f"{self._store}::main/{self._task.name}", victim, "--yes")

    # -- readers -----------------------------------------------------------------------------------

    def _repeat(
        self, read: Callable[[Path, Contents, random.Random, int], str], number: int
    ) -> None:
        rng = random.Random(f"{read.__name__} {number}")
        while not self._is_over.is_set() and not self.faults:
            version = ""
            try:
                name = rng.choice([n for n in os.listdir(self._mountpoint) if n != "yesterday"])
                path = self._mountpoint / name
                if path.is_symlink():
                    path = self._mountpoint / os.readlink(path)
                version = version_at(path)
                began_s = time.monotonic()
                contents = self._expected(version)
                # Only a name that nobody may have used for so long may lead elsewhere by now.
                has_idled = time.monotonic() - began_s >= _IDLE_S
                if has_idled and version_at(path) != version:
                    continue
                kind = read(path, contents, rng, number)
                with self._lock:
                    self.reads[kind] += 1
            except Exception as error:
                if not self._is_excused(error, version):
                    self.faults.append(f"{read.__name__} of {version!r}: {error!r}")

    def _is_excused(self, error: Exception, version: str) -> bool:
        """Whether only what has gone could not be read."""
        if not isinstance(error, Gone) and getattr(error, "errno", 0) not in _GONE:
            return False
        if version and not self._is_gone(version):
            return False
        with self._lock:
            self.given_up += 1
        return True

    def _is_gone(self, version: str) -> bool:
        """Whether a version has gone; a sync that lets it go may not have said so yet."""
        deadline_s = time.monotonic() + 30
        while time.monotonic() < deadline_s:
            if version in self.gone or not os.path.exists(
                os.path.join(self._task.path, b"versions", version.encode())
            ):
                return True
            time.sleep(0.1)
        return False

    def _expected(self, version: str) -> Contents:
        deadline_s = time.monotonic() + 60
        while version not in self._contents:
            assert time.monotonic() < deadline_s, f"nobody made {version}"
            time.sleep(0.02)
        return self._contents[version]

    def _copy(self, path: Path, contents: Contents, rng: random.Random, number: int) -> str:
        with self._out("cp", number) as out:
            check_tool(["cp", "-a", path, out / "copy"])
            compare(out / "copy", contents)
        return "cp"

    def _archive(self, path: Path, contents: Contents, rng: random.Random, number: int) -> str:
        with self._out("tar", number) as out:
            check_tool(["tar", "-C", path, "-cf", out / "tar", "."])
            (out / "tree").mkdir()
            check_tool(["tar", "-C", out / "tree", "-xf", out / "tar"])
            compare(out / "tree", contents)
        return "tar"

    def _find(self, path: Path, contents: Contents, rng: random.Random, number: int) -> str:
        listed = check_tool(["find", path, "-type", "f", "-printf", "%P\\0"])
        found = listed.split(b"\0")[:-1]
        if sorted(found) != sorted(contents):
            raise AssertionError(self._said(found, contents))
        return "find"

    def _said(self, found: list[bytes], contents: Contents) -> str:
        """What is wrong with a list of files; whether it is that of another version."""
        missing, more = contents.keys() - set(found), set(found) - contents.keys()
        others = [name for name, of in self._contents.items() if sorted(of) == sorted(found)]
        return (
            f"find saw other files: {len(missing)} missing ({sorted(missing)[:3]}), "
            f"{len(more)} more ({sorted(more)[:3]}), {len(found) - len(set(found))} twice; "
            f"as in {others or 'no version'}"
        )

    def _look_around(self, path: Path, contents: Contents, rng: random.Random, number: int) -> str:
        """Whole files by path, by mmap, and single pages of them."""
        for name in rng.sample(sorted(contents), min(20, len(contents))):
            with open(os.path.join(os.fsencode(path), name), "rb", buffering=0) as file:
                size = os.fstat(file.fileno()).st_size
                offset = rng.randrange(max(size, 1))
                page = os.pread(file.fileno(), 4096, offset)
                if size and rng.random() < 0.5:
                    with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
                        content = bytes(mapped)
                else:
                    content = file.read()
            assert blake3.blake3(content).digest() == contents[name], f"other bytes in {name!r}"
            assert page == content[offset : offset + 4096]
        return "random"

    @contextlib.contextmanager
    def _out(self, kind: str, number: int) -> Iterator[Path]:
        out = self._directory / f"out-{kind}-{number}"
        out.mkdir()
        try:
            yield out
        finally:
            shutil.rmtree(out)

    def _watch(self, pid: int) -> None:
        while not self._is_over.wait(0.5):
            self.memory_kb.append(resident_kb(pid))


class Gone(Exception):
    """A tool says that something is not there any more, and nothing else."""


def check_tool(words: list[str | Path]) -> bytes:
    """Run a tool; what it printed.

    Raises:
        Gone: It failed, and did so in the one way that is allowed.
    """
    done = subprocess.run(
        [str(word) for word in words],
        check=False,
        capture_output=True,
        env={**os.environ, "LC_ALL": "C"},
    )
    if done.returncode == 0:
        return done.stdout
    lines = done.stderr.decode(errors="replace").splitlines()
    bad = [line for line in lines if not line.endswith(_ALLOWED) and "Exiting with" not in line]
    if bad or not lines:
        raise AssertionError(f"{words[0]}: {bad or done.returncode}")
    raise Gone(lines[0])


def compare(top: Path, contents: Contents) -> None:
    """Whether a tree is a version, no file more and no file less."""
    found = {
        os.fsencode(path.relative_to(top)): blake3.blake3(path.read_bytes()).digest()
        for path in top.rglob("*")
        if path.is_file()
    }
    other = [path for path, digest in contents.items() if found.get(path) != digest]
    more = found.keys() - contents.keys()
    if other or more:
        raise AssertionError(f"{len(other)} other files ({other[:3]}), {len(more)} more")


def version_at(path: Path) -> str:
    """The id of the version that a dated directory shows."""
    return os.getxattr(path, "user.ssfs.version").decode()


def contents_of(version: bytes) -> Contents:
    """What a catalog promises."""
    with CatalogReader.open(os.path.join(version, b"catalog.db")) as catalog:
        return {
            b"/".join(catalog.path_names(entry.id) or []): entry.digest
            for entry in catalog.entries()
            if entry.kind == 1
        }


def resident_kb(pid: int) -> int:
    """Resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError("no such process")
