"""Stores with a history to damage, ways to damage them, and what must hold afterwards."""

import os
import shutil
import subprocess
from pathlib import Path

from ssfs.clock import SystemClock
from ssfs.engine.verify import Verification, VerifyOptions
from ssfs.monitor import NullMonitor
from ssfs.protocol.verification import VerifyReport
from ssfs.store.store import Store
from ssfs.store.version import Version
from tests.fakes.syncs import Backup
from tests.fakes.trees import compare_with_version, remember, verify_version


class History:
    """A source, and a store with three versions of it.

    Of the files, `old` is in the first version only, `kept` the same in all, `large` too; `grows` is another in each.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.source = path / "source"
        self.backup = Backup(path / "store")
        self.backup.identity = "history"
        self.images = {}

    @classmethod
    def make(cls, path: Path, versions: int = 3) -> "History":
        made = cls(path)
        made._make(versions)
        return made

    def copy(self, path: Path) -> "History":
        """The same once more, to be damaged."""
        subprocess.run(["cp", "-a", f"{self.path}/.", path], check=True)
        copied = History(path)
        copied.images = dict(self.images)
        return copied

    def _make(self, versions: int) -> None:
        (self.source / "deep" / "er").mkdir(parents=True)
        (self.source / "old").write_bytes(b"old")
        (self.source / "kept").write_bytes(b"kept" * 2000)
        (self.source / "small").write_bytes(b"small")
        (self.source / "large").write_bytes(os.urandom(300_000))
        (self.source / "deep" / "er" / "inside").write_bytes(b"inside" * 100)
        (self.source / "deep" / "link").symlink_to("er/inside")
        (self.source / "copy of kept").write_bytes(b"kept" * 2000)
        for number in range(versions):
            (self.source / "grows").write_bytes(b"g" * (5000 + number))
            if number == 1:
                (self.source / "old").unlink()
            self.sync()

    def sync(self):
        result = self.backup.sync(self.source)
        self.images[result.version] = remember(self.source)
        return result

    @property
    def versions(self) -> list[Version]:
        return self.backup.versions()

    def stored(self, number: int, path: str) -> Path:
        """A file in the tree of a version, counted from 1."""
        return self.part(number, "tree") / path

    def part(self, number: int, name: str = "") -> Path:
        return Path(os.fsdecode(self.versions[number - 1].path)) / name

    @property
    def task_path(self) -> Path:
        return Path(os.fsdecode(self.backup.task().path))

    def check(self, *versions: Version) -> None:
        """These versions are whole, in themselves and as what their source was."""
        for version in versions:
            verify_version(version)
            compare_with_version(self.images[str(version.id)], version)


def verify(
    store: Path, options: VerifyOptions | None = None, *, records: bool = True
) -> VerifyReport:
    """Verify all of a store, in this process."""
    opened = Store.open(os.fsencode(store))
    run = Verification(
        opened, options or VerifyOptions(), NullMonitor(), SystemClock(), records=records
    )
    run.run_store()
    return run.report


def damaged(report: VerifyReport) -> dict[str, int]:
    """What is damaged: the paths, and in how many versions each."""
    return {item.path: len(item.versions) for item in report.left}


def flip(path: Path, at: int | None = None) -> None:
    """Flip one bit, in the middle unless said otherwise; the file's times stay as they are."""
    status = path.stat()
    mode = status.st_mode
    path.chmod(0o600)
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if at is None else at] ^= 4
    # In place: all links of the inode have it, as when a disk goes bad.
    with open(path, "r+b") as file:
        file.write(content)
    path.chmod(mode & 0o7777)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def truncate(path: Path) -> None:
    """Cut a file in half, or empty a directory."""
    if path.is_dir():
        shutil.rmtree(path)
        path.mkdir()
        return
    mode = path.stat().st_mode & 0o7777
    path.chmod(0o600)
    os.truncate(path, path.stat().st_size // 2)
    path.chmod(mode)


def delete(path: Path) -> None:
    """Delete a file or a directory."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def flip_name(path: Path) -> None:
    """Flip one bit in the name of a directory."""
    name = path.name
    path.rename(path.with_name(name[:5] + chr(ord(name[5]) ^ 8) + name[6:]))
