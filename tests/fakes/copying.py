"""Plain copies of trees: everything that `tests.fakes.comparing` compares, made with system calls alone."""

import os
import stat
from pathlib import Path

from tests.fakes.comparing import data_extents


def copy_tree(source: Path, target: Path) -> None:
    """Copy a tree of short paths and small files into the new directory `target`; sockets are left out."""
    _Copier().directory(os.fsencode(source), os.fsencode(target))


class _Copier:
    def __init__(self) -> None:
        self._copies: dict[int, bytes] = {}

    def directory(self, source: bytes, target: bytes) -> None:
        os.mkdir(target)
        for name in sorted(os.listdir(source)):
            self._entry(os.path.join(source, name), os.path.join(target, name))
        # After what is in it, or its time and default ACL would be another's.
        _dress(source, target, os.lstat(source))

    def _entry(self, source: bytes, target: bytes) -> None:
        status = os.lstat(source)
        if stat.S_ISDIR(status.st_mode):
            self.directory(source, target)
        elif status.st_ino in self._copies:
            os.link(self._copies[status.st_ino], target, follow_symlinks=False)
        elif not stat.S_ISSOCK(status.st_mode):
            self._copies[status.st_ino] = target
            if stat.S_ISLNK(status.st_mode):
                os.symlink(os.readlink(source), target)
            elif stat.S_ISREG(status.st_mode):
                _copy_data(source, target, status.st_size)
            else:
                os.mknod(target, status.st_mode, status.st_rdev)
            _dress(source, target, status)


def _copy_data(source: bytes, target: bytes, size: int) -> None:
    with open(source, "rb") as ours, open(target, "xb") as theirs:
        os.truncate(theirs.fileno(), size)
        for start, end in data_extents(ours.fileno(), size):
            os.pwrite(theirs.fileno(), os.pread(ours.fileno(), end - start, start), start)


def _dress(source: bytes, target: bytes, status: os.stat_result) -> None:
    """Owner, mode, attributes, time: in the order in which none spoils another."""
    os.chown(target, status.st_uid, status.st_gid, follow_symlinks=False)
    if not stat.S_ISLNK(status.st_mode):
        os.chmod(target, stat.S_IMODE(status.st_mode))
    for key in os.listxattr(source, follow_symlinks=False):
        value = os.getxattr(source, key, follow_symlinks=False)
        os.setxattr(target, key, value, follow_symlinks=False)
    os.utime(target, ns=(status.st_mtime_ns, status.st_mtime_ns), follow_symlinks=False)
