"""The way out: a rename to trash/, then deletion once nobody reads it (FORMAT.md, "Versions").

A crash leaves a version in versions/ or in trash/, never half of one in sight; whatever is in trash/ is
deleted by the next call that empties it. Trash is emptied without any lock of the task, so that no
sync waits for a deletion.
"""

import contextlib
import os
from collections.abc import Iterator

from ssfs.errors import CorruptStore
from ssfs.fsio.disk import fsync, make_directory, open_directory, rename
from ssfs.fsio.lock import DirectoryLock, FileLock
from ssfs.fsio.removal import remove_tree
from ssfs.store.version import Version


@contextlib.contextmanager
def _not_a_directory(path: bytes) -> Iterator[None]:
    try:
        yield
    except NotADirectoryError as error:
        raise CorruptStore(
            "There is something else in the place of a directory of the store",
            path=path,
            remedy="move it away: the directory is made again",
        ) from error


def move_to_trash(version: Version, guard: DirectoryLock) -> None:
    """Take a version out of sight, durably; the caller holds the task's guard."""
    name = str(version.id).encode()
    with _not_a_directory(os.path.join(os.path.dirname(os.path.dirname(version.path)), b"trash")):
        trash = make_directory(b"trash", dir_fd=guard.fd)
    versions = open_directory(b"versions", dir_fd=guard.fd)
    try:
        rename(name, versions, name, trash)
        fsync(versions)
        fsync(trash)
    finally:
        os.close(versions)
        os.close(trash)


def discard(name: bytes, task_fd: int) -> None:
    """Take something else of a task (a staging that is of no use) out of sight."""
    trash = make_directory(b"trash", dir_fd=task_fd)
    try:
        rename(name, task_fd, b"%s-%s" % (name, os.urandom(8).hex().encode()), trash)
    finally:
        os.close(trash)


def empty_trash(task_path: bytes) -> int:
    """Delete what nobody reads any more; how many things were deleted.

    Returns at once when another process is at it.
    """
    deleted = 0
    path = os.path.join(task_path, b"trash")
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
    with _not_a_directory(path), DirectoryLock(path) as trash:
        if not trash.exclusive_nowait():
            return 0
        for name in os.listdir(trash.fd):
            item = os.fsencode(name)
            try:
                lock = FileLock(item + b"/lock", dir_fd=trash.fd, create=False)
            except OSError:
                # No lock file: never was a version, or its deletion got far enough.
                remove_tree(item, dir_fd=trash.fd)
                deleted += 1
                continue
            with lock:
                if lock.exclusive_nowait():
                    remove_tree(item, dir_fd=trash.fd)
                    deleted += 1
    return deleted
