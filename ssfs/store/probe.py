"""Whether a file system is one that a store can be on."""

import contextlib
import os

from ssfs.errors import StoreError
from ssfs.fsio.disk import link_file, write_all


def check_hard_links(path: bytes, fd: int) -> None:
    """Refuse a file system that only pretends to link (CIFS, some FUSE), or cannot.

    Args:
        path: A directory, for the message.
        fd: The same, open; nothing is left in it.

    Raises:
        StoreError: Hard links are not to be had there.
    """
    first, second = b".ssfs-probe-1", b".ssfs-probe-2"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(second, dir_fd=fd)
    probe = os.open(first, os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=fd)
    try:
        write_all(probe, b"probe")
        try:
            link_file(first, fd, second, fd)
            status = os.stat(second, dir_fd=fd)
            is_real = os.fstat(probe).st_ino == status.st_ino and status.st_nlink == 2
        except OSError:
            is_real = False
    finally:
        os.close(probe)
        for name in (first, second):
            try:
                os.unlink(name, dir_fd=fd)
            except FileNotFoundError:
                continue
    if not is_real:
        raise StoreError(
            "The file system cannot hard-link",
            path=path,
            remedy="use a Linux file system such as ext4, xfs, btrfs or zfs",
        )
