"""Durable disk calls by directory descriptor.

Whoever changes a store goes through here, so that the order in which things become durable (FORMAT.md,
"Durability") can be read in one place and recorded or broken in tests. Names are single path components;
nothing here follows a symlink.
"""

import contextlib
import ctypes
import errno
import os
import resource
import stat
from collections.abc import Iterator

from ssfs.errors import StoreError, StoreFull
from ssfs.fsio.sparse import digest_stream, find_layout, read_at, write_at
from ssfs.model.layout import Layout

DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
COPY_BYTES = 1 << 20

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syncfs.argtypes = (ctypes.c_int,)
_libc.syncfs.restype = ctypes.c_int
_libc.sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
_libc.sync_file_range.restype = ctypes.c_int
_SYNC_FILE_RANGE_WRITE = 2


def open_directory(name: bytes, *, dir_fd: int | None = None) -> int:
    """A descriptor of the directory; the caller closes it."""
    return os.open(name, DIRECTORY_FLAGS, dir_fd=dir_fd)


def make_directory(name: bytes, *, dir_fd: int, mode: int = 0o700) -> int:
    """Make a directory unless it is there, and open it."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, mode, dir_fd=dir_fd)
    return open_directory(name, dir_fd=dir_fd)


def link_file(name: bytes, source_fd: int, target: bytes, target_fd: int) -> None:
    """Hard-link `name` of one directory as `target` of another; a symlink is linked itself."""
    os.link(name, target, src_dir_fd=source_fd, dst_dir_fd=target_fd, follow_symlinks=False)


def copy_file(
    name: bytes, source_fd: int, target: bytes, target_fd: int, *, mode: int = 0o400
) -> int:
    """Make `target` a fresh inode with the content of `name`, not synced; returns its bytes."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(target, dir_fd=target_fd)
    if stat.S_ISLNK(os.stat(name, dir_fd=source_fd, follow_symlinks=False).st_mode):
        os.symlink(os.readlink(name, dir_fd=source_fd), target, dir_fd=target_fd)
        return 0
    copied = 0
    with (
        open_fd(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=source_fd) as source,
        open_fd(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, dir_fd=target_fd, mode=mode) as copy,
    ):
        layout = find_layout(source, os.fstat(source))
        buffer = memoryview(bytearray(min(COPY_BYTES, layout.data_bytes)))
        while buffer and (count := read_at(source, layout, buffer, copied)):
            write_at(copy, layout, buffer[:count], copied)
            copied += count
        if layout.is_sparse:
            os.ftruncate(copy, layout.size)
    return copied


def digest_content(fd: int) -> bytes:
    """BLAKE3 of a whole file, whatever is in it."""
    digest, _ = digest_stream(fd, Layout(os.fstat(fd).st_size))
    return digest


def forget_cached(fd: int) -> None:
    """Let the kernel drop what it holds of a file that was read, or is to be read from the disk."""
    with contextlib.suppress(OSError):
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)


def rename(name: bytes, source_fd: int, target: bytes, target_fd: int) -> None:
    """Rename, over whatever `target` is."""
    os.rename(name, target, src_dir_fd=source_fd, dst_dir_fd=target_fd)


def write_all(fd: int, content: bytes | memoryview) -> None:
    """Write every byte, however many calls that takes."""
    left = content
    while left:
        written = os.write(fd, left)
        if written == len(left):
            return
        left = memoryview(left)[written:]


@contextlib.contextmanager
def open_fd(
    name: bytes, flags: int, *, dir_fd: int | None = None, mode: int = 0o600
) -> Iterator[int]:
    """A descriptor, closed on the way out."""
    fd = os.open(name, flags | os.O_CLOEXEC, mode, dir_fd=dir_fd)
    try:
        yield fd
    finally:
        os.close(fd)


def fsync(fd: int) -> None:
    """Make the file or directory durable."""
    os.fsync(fd)


def syncfs(fd: int) -> None:
    """Make the whole file system durable.

    Reports write errors that happened since `fd` was opened: open it before the first write.
    """
    while _libc.syncfs(fd) != 0:
        number = ctypes.get_errno()
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number))


def start_write_back(fd: int, offset: int, count: int) -> None:
    """Let the disk begin with a part of a file, so that a later syncfs finds less to do.

    Promises nothing, and reports nothing: syncfs does both.
    """
    _libc.sync_file_range(fd, offset, count, _SYNC_FILE_RANGE_WRITE)


def replace_file(name: bytes, content: bytes, *, dir_fd: int) -> None:
    """Put a small file in place, durably: after this call the old or the new one is there whole."""
    beside = b"." + name + b".new"
    with open_fd(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, dir_fd=dir_fd) as fd:
        write_all(fd, content)
        os.fsync(fd)
    os.rename(beside, name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
    os.fsync(dir_fd)


def read_file(name: bytes, *, dir_fd: int, limit: int = 1 << 20) -> bytes:
    """The content of a small file; a FIFO in its place is not waited for, and holds nothing."""
    with open_fd(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=dir_fd) as fd:
        return os.read(fd, limit)


def needs_fsync_per_file(fd: int) -> bool:
    """Whether syncfs does nothing on this file system (FUSE: GlusterFS, mergerfs; DESIGN.md 3.7)."""
    device = os.fstat(fd).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            left, _, right = line.partition(" - ")
            if left.split()[2] == wanted:
                return right.split()[0].startswith("fuse")
    return False


def mount_of(fd: int) -> int:
    """The number of the mount an open directory is reached through: bind mounts have their own."""
    with open(f"/proc/self/fdinfo/{fd}", "rb") as lines:
        for line in lines:
            if line.startswith(b"mnt_id:"):
                return int(line.split()[1])
    return os.fstat(fd).st_dev


@contextlib.contextmanager
def store_errors(path: bytes) -> Iterator[None]:
    """Translate what the operating system says about a store into what a person can act on."""
    try:
        yield
    except OSError as error:
        raise store_error(error, path) from error


def store_error(error: OSError, path: bytes) -> StoreError:
    """The store error that an OSError at `path` means."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreFull(
            "No space or no inodes left in the store",
            path=path,
            remedy="old versions are whole; `ssfs point` with fewer days, weeks or months, "
            "`ssfs delete` or more disk frees space",
        )
    remedies = {
        errno.EROFS: "the file system is mounted read-only",
        errno.EACCES: "run as the store's owner",
        errno.EPERM: "run as the store's owner",
        errno.EIO: "the disk reports an error: look at the kernel's log",
    }
    number = error.errno or 0
    return StoreError(
        f"The store cannot be used: {os.strerror(number).lower()}",
        path=path,
        remedy=remedies.get(number, ""),
    )


def raise_descriptor_limit() -> None:
    """Allow this process as many descriptors as it may have: one per level of a deep tree."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
