"""The directory that is restored into: how anything gets there, and its metadata.

Everything is reached by directory descriptors with O_NOFOLLOW: neither a symlink in the target nor a name
in the catalog leads out of it. A file is written beside its place under a name of its own, then renamed:
under its name there is only ever what was there before, or the right content. A run that dies
leaves at most one file named `.ssfs-restore-*`.
"""

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Callable

from ssfs.engine.restore.owners import Owners
from ssfs.engine.restore.xattrs import RestoredXattrs
from ssfs.errors import ConfigError, StoreError, StoreFull
from ssfs.fsio.disk import DIRECTORY_FLAGS, link_file, open_fd, rename
from ssfs.model.entry import Entry, Kind, st_mode
from ssfs.source.xattrs import path_of
from ssfs.store.catalog.reader import CatalogReader

_FULL = (errno.ENOSPC, errno.EDQUOT)
ENDS_RUN = (*_FULL, errno.EROFS)
"""What fails for all entries once it has failed for one."""
_NS = 1_000_000_000
_SET_ID = stat.S_ISUID | stat.S_ISGID
_FILE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW


def open_target(target: bytes) -> tuple[int, bool]:
    """The target directory, open, and whether it was made now.

    Raises:
        ConfigError: It cannot be used.
    """
    is_new = False
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(target, 0o700)
            is_new = True
        return os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), is_new
    except OSError as error:
        reason = (error.strerror or "unknown error").lower()
        raise ConfigError(
            f"The target directory cannot be used: {reason}",
            path=target,
            remedy="name a directory that exists, or a new one in a directory that does",
        ) from error


def target_error(error: OSError, target: bytes) -> StoreError:
    """What ends a restore half-way."""
    if error.errno in _FULL:
        return StoreFull(
            "No space or no inodes left in the target",
            path=target,
            remedy="what was restored so far is right; free space there and run it again",
        )
    reason = (error.strerror or "unknown error").lower()
    return StoreError(f"The restore cannot go on: {reason}", path=target)


class Target:
    """Puts entries into open directories.

    Attributes:
        owners_not_set: How many entries kept us as their owner.
    """

    def __init__(self, catalog: CatalogReader, now_ns: int) -> None:
        """A target for the entries of a catalog.

        They get `now_ns` as their access time, which no catalog has.
        """
        self.owners_not_set = 0
        owners = Owners(catalog)
        self._xattrs = RestoredXattrs(catalog, owners)
        self._problem = ""
        self._owners = owners
        self._now_ns = now_ns
        self._beside = b".ssfs-restore-" + secrets.token_hex(8).encode()

    def make_directory(self, name: bytes, parent_fd: int) -> int:
        """Make the directory, or take the one that is there; a descriptor of it."""
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=parent_fd)
        return os.open(name, DIRECTORY_FLAGS, dir_fd=parent_fd)

    def put(self, entry: Entry, parent_fd: int, fill: Callable[[int], bool]) -> bool:
        """Write an entry that is no directory beside its place, then put it there.

        Args:
            entry: Its row.
            parent_fd: Its directory.
            fill: Writes a file's content to the descriptor it is given; False if that is not to be had.

        Returns:
            Whether it is there; if not, what was there before still is.
        """
        try:
            is_there = self._write_beside(entry, parent_fd, fill)
            if is_there:
                rename(self._beside, parent_fd, entry.name, parent_fd)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(self._beside, dir_fd=parent_fd)
            raise
        return is_there

    def link(self, source: tuple[int, bytes], entry: Entry, parent_fd: int) -> None:
        """Make an entry another name of a file that is there: its directory and name."""
        source_fd, source_name = source
        try:
            link_file(source_name, source_fd, self._beside, parent_fd)
            rename(self._beside, parent_fd, entry.name, parent_fd)
        finally:
            # rename() does nothing at all when both names are links of one inode already.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._beside, dir_fd=parent_fd)

    def _write_beside(self, entry: Entry, parent_fd: int, fill: Callable[[int], bool]) -> bool:
        match entry.kind:
            case Kind.FILE:
                with open_fd(self._beside, _FILE_FLAGS, dir_fd=parent_fd) as fd:
                    if not fill(fd):
                        os.unlink(self._beside, dir_fd=parent_fd)
                        return False
                    self.set_metadata(entry, fd)
                return True
            case Kind.SYMLINK:
                os.symlink(entry.target, self._beside, dir_fd=parent_fd)
            case _:
                # The bits above 0o777 mean nothing here, and none is taken away by what follows.
                os.mknod(self._beside, st_mode(entry) & ~0o777, entry.rdev, dir_fd=parent_fd)
        self._set_metadata_of_name(entry, parent_fd)
        return True

    @property
    def xattrs_not_set(self) -> int:
        """How many extended attributes are not there, because we may not set them or nobody can."""
        return self._xattrs.not_set

    def take_problem(self) -> str:
        """What is missing of the metadata set last; "" if it is all there."""
        problem, self._problem = self._problem, ""
        return problem

    # -- metadata --------------------------------------------------------------------------------

    def is_ours(self, entry: Entry, status: os.stat_result) -> bool:
        """Whether a file that is there can become this entry without another one seeing it.

        It has no other name, and it already belongs to us or (where we are root) to the owner it
        is to have: whoever else has it open for writing could change it afterwards.
        """
        uid = os.geteuid()
        is_owned = status.st_uid == uid or (uid == 0 and status.st_uid == self._owners.of(entry)[0])
        return is_owned and status.st_nlink == 1

    def set_metadata(self, entry: Entry, fd: int) -> None:
        """Owner, then mode (giving a file away clears bits), extended attributes, times."""
        uid, gid = self._owners.of(entry)
        try:
            os.fchown(fd, uid, gid)
            mode = entry.mode
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EINVAL):
                raise
            mode = self._mode_without_owner(entry, fd, gid)
        os.fchmod(fd, mode)
        self._problem = self._xattrs.set(entry, fd)
        os.utime(fd, ns=(self._now_ns, _mtime_ns(entry)))

    def _mode_without_owner(self, entry: Entry, fd: int, gid: int) -> int:
        """The mode for a file that stays ours: it must not run as us what ran as somebody else."""
        self.owners_not_set += 1
        with contextlib.suppress(OSError):
            os.fchown(fd, -1, gid)
        return entry.mode if entry.kind == Kind.DIRECTORY else entry.mode & ~_SET_ID

    def _set_metadata_of_name(self, entry: Entry, parent_fd: int) -> None:
        """Likewise for what cannot be opened, under its name beside its place."""
        uid, gid = self._owners.of(entry)
        try:
            os.chown(self._beside, uid, gid, dir_fd=parent_fd, follow_symlinks=False)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EINVAL):
                raise
            self.owners_not_set += 1
        if entry.kind != Kind.SYMLINK:
            # There is no chmod that does not follow symlinks, and who owns the target directory could
            # put one here now; an O_PATH descriptor cannot be deceived.
            with open_fd(self._beside, os.O_PATH | os.O_NOFOLLOW, dir_fd=parent_fd) as fd:
                if not stat.S_ISLNK(os.fstat(fd).st_mode):
                    os.chmod(f"/proc/self/fd/{fd}", entry.mode)
        self._problem = self._xattrs.set(entry, path_of(self._beside, parent_fd))
        times = (self._now_ns, _mtime_ns(entry))
        os.utime(self._beside, ns=times, dir_fd=parent_fd, follow_symlinks=False)


def _mtime_ns(entry: Entry) -> int:
    return entry.mtime_s * _NS + entry.mtime_ns
