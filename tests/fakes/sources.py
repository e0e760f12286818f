"""A source file system that misbehaves: a real directory, shown through FUSE, with faults put into it.

    with serve(real, mountpoint, Faults(...)) as faults: ...

The faults are in a JSON file that the serving process reads at each request, so a test can change them while
the file system is mounted; `Faults.set` writes it. Nothing is cached by the kernel.
"""

import contextlib
import errno
import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyfuse3
import trio

from tests.mount import mounts

_WRAP = 1 << 64


class Faults:
    """What is wrong with a source; paths are relative to its root.

    Keys of `set`:
        stat, list, open, read: path to errno: how that fails.
        shift: added to each inode number that is shown (modulo 2^64).
        times: path to [mtime_ns, ctime_ns].
    """

    def __init__(self, file: Path):
        self.file = file
        self.process: subprocess.Popen | None = None
        self.set()

    def set(self, **faults) -> None:
        fresh = self.file.with_suffix(".new")
        fresh.write_text(json.dumps(faults))
        fresh.rename(self.file)

    def end(self) -> None:
        """Let the file system die, mounted as it is."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def serve(real: Path, mountpoint: Path, **faults) -> Iterator[Faults]:
    """Show `real` at `mountpoint` as long as the block lasts."""
    mountpoint.mkdir(exist_ok=True)
    found = Faults(mountpoint.with_suffix(".faults"))
    found.set(**faults)
    command = [sys.executable, "-m", "tests.fakes.sources", real, mountpoint, found.file]
    process = subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True)
    found.process = process
    try:
        mounts.wait_until(lambda: process.poll() is not None or mounts.is_mounted(mountpoint))
        assert process.poll() is None, process.communicate()[1]
        yield found
    finally:
        mounts.end(mountpoint, process)


class _Source(pyfuse3.Operations):
    """Inode numbers of requests are ours; those that are shown are the real ones, shifted."""

    def __init__(self, real: bytes, faults: bytes) -> None:
        super().__init__()
        self._paths = {pyfuse3.ROOT_INODE: b""}
        self._real = real
        self._file = faults

    def _faults(self) -> dict:
        with open(self._file, encoding="utf-8") as stream:
            return json.load(stream)

    def _fail(self, what: str, path: bytes) -> None:
        number = self._faults().get(what, {}).get(os.fsdecode(path))
        if number:
            raise pyfuse3.FUSEError(number)

    def _place(self, path: bytes) -> bytes:
        return os.path.join(self._real, path) if path else self._real

    def _attributes(self, path: bytes) -> pyfuse3.EntryAttributes:
        self._fail("stat", path)
        try:
            status = os.lstat(self._place(path))
        except OSError as error:
            raise pyfuse3.FUSEError(error.errno or errno.EIO) from None
        faults = self._faults()
        shown = pyfuse3.EntryAttributes()
        for name in ("st_mode", "st_nlink", "st_uid", "st_gid", "st_rdev", "st_size"):
            setattr(shown, name, getattr(status, name))
        shown.st_ino = (status.st_ino + faults.get("shift", 0)) % _WRAP
        mtime_ns, ctime_ns = faults.get("times", {}).get(
            os.fsdecode(path), (status.st_mtime_ns, status.st_ctime_ns)
        )
        shown.st_mtime_ns, shown.st_ctime_ns, shown.st_atime_ns = mtime_ns, ctime_ns, mtime_ns
        shown.attr_timeout = shown.entry_timeout = 0
        return shown

    async def getattr(self, inode, ctx=None):
        return self._attributes(self._paths[inode])

    async def lookup(self, parent, name, ctx=None):
        above = self._paths[parent]
        path = above + b"/" + name if above else name
        shown = self._attributes(path)
        # The number that is shown is the one that requests name: keep both.
        self._paths[shown.st_ino] = path
        return shown

    async def readlink(self, inode, ctx):
        path = self._paths[inode]
        self._fail("read", path)
        return os.readlink(self._place(path))

    async def opendir(self, inode, ctx):
        self._fail("open", self._paths[inode])
        return inode

    async def readdir(self, handle, start, token):
        path = self._paths[handle]
        self._fail("list", path)
        for number, name in enumerate(sorted(os.listdir(self._place(path)))):
            if number < start:
                continue
            attributes = pyfuse3.EntryAttributes()
            attributes.st_ino, attributes.st_mode = 1, stat.S_IFREG
            if not pyfuse3.readdir_reply(token, name, attributes, number + 1):
                return

    async def open(self, inode, flags, ctx):
        self._fail("open", self._paths[inode])
        return pyfuse3.FileInfo(fh=os.open(self._place(self._paths[inode]), os.O_RDONLY))

    async def read(self, handle, offset, size):
        place = os.readlink(b"/proc/self/fd/%d" % handle)
        self._fail("read", place.removeprefix(self._real + b"/"))
        return os.pread(handle, size, offset)

    async def release(self, handle):
        os.close(handle)

    async def forget(self, inodes):
        pass  # a test's tree is small


def _main() -> None:
    real, mountpoint, faults = map(os.fsencode, sys.argv[1:])
    options = {*pyfuse3.default_options, "fsname=misbehaving", "default_permissions"}
    if os.geteuid() == 0:
        options.add("allow_other")
    pyfuse3.init(_Source(os.path.realpath(real), faults), os.fsdecode(mountpoint), options)
    try:
        trio.run(pyfuse3.main)
    finally:
        pyfuse3.close()


if __name__ == "__main__":
    _main()
