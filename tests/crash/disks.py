"""Small file systems of their own, on loop devices, and the power switch of their disk.

The ioctl behind `xfs_io -x -c shutdown` (ext4 has it too) throws away what the file system has not
written: its log is not flushed, dirty pages never reach the disk, every later call fails. After that,
unmounting and mounting again is what a machine does when the power comes back: the log is replayed up
to its last complete transaction.
"""

import contextlib
import fcntl
import os
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

_MAKE = {
    "ext4": ["mkfs.ext4", "-q", "-F", "-m", "0"],
    "xfs": ["mkfs.xfs", "-q", "-f"],
}
_SHUTDOWN = 0x8004587D
_NO_LOG_FLUSH = 2
_COPIED_S = 240
_XFS_MINIMUM_BYTES = 300 << 20


class Disk:
    """A mounted file system in an image file.

    Attributes:
        mountpoint: Where it is mounted.
    """

    def __init__(self, directory: Path, kind: str, size_bytes: int, options: list[str]) -> None:
        """Make it; `mount` mounts it."""
        self.mountpoint = directory / "disk"
        self._image = directory / "disk.img"
        self.mountpoint.mkdir(parents=True)
        with self._image.open("wb") as image:
            image.truncate(max(size_bytes, _XFS_MINIMUM_BYTES if kind == "xfs" else 0))
        subprocess.run([*_MAKE[kind], *options, self._image], check=True, capture_output=True)

    def mount(self) -> None:
        subprocess.run(
            ["mount", "-o", "loop", self._image, self.mountpoint], check=True, capture_output=True
        )

    def cut_power(self) -> None:
        """Nothing that is not on the disk by now will ever be."""
        # What `xfs_io -x -c shutdown` does, which first looks at every mount of the machine, and
        # so waits for any that hangs.
        fd = os.open(self.mountpoint, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(fd, _SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
        finally:
            os.close(fd)

    def unmount(self) -> None:
        """Unmount it; waits for those who still use it."""
        for attempt in range(100):
            ended = subprocess.run(
                ["umount", self.mountpoint], capture_output=True, text=True, check=False
            )
            if ended.returncode == 0 or "not mounted" in ended.stderr:
                self._wait_until_gone()
                return
            time.sleep(0.01 * attempt)
        # It goes when the last one lets go of it.
        subprocess.run(["umount", "--lazy", self.mountpoint], check=False)
        raise AssertionError(f"{self.mountpoint} stays in use")

    def _wait_until_gone(self) -> None:
        """A mount namespace that another test made meanwhile has a copy of the mount, which would be mounted again."""
        give_up_at = time.monotonic() + _COPIED_S
        while any(self._is_behind(path) for path in Path("/sys/block").glob("loop*/loop")):
            assert time.monotonic() < give_up_at, f"{self.mountpoint} stays mounted elsewhere"
            time.sleep(0.005)

    def _is_behind(self, loop: Path) -> bool:
        with contextlib.suppress(OSError):
            return (loop / "backing_file").read_text().rstrip("\n") == str(self._image)
        return False


@contextlib.contextmanager
def mounted_disk(
    directory: Path, kind: str, size_bytes: int, options: list[str] | None = None
) -> Iterator[Disk]:
    """A mounted disk, unmounted and gone on the way out."""
    disk = Disk(directory, kind, size_bytes, options or [])
    disk.mount()
    try:
        yield disk
    finally:
        disk.unmount()
        # Not to be kept with a failed test's files: it is of no use without the mount.
        (directory / "disk.img").unlink()
