"""The directory that is restored into: how anything gets there, and its metadata.

Everything is reached by directory descriptors with O_NOFOLLOW: neither a symlink in the target nor a name
in the catalog leads out of it. A file is written beside its place under a name of its own, then renamed:
under its name there is only ever what was there before, or the right content. A run that dies
leaves at most one file named `.ssfs-restore-*`, which the next one removes (`ssfs.engine.restore.deletion`).
"""

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterator

from ssfs.engine.restore.deletion import name_beside
from ssfs.engine.restore.options import OwnerMap
from ssfs.engine.restore.owners import Owners
from ssfs.engine.restore.xattrs import RestoredXattrs
from ssfs.errors import ConfigError
from ssfs.fsio.disk import DIRECTORY_FLAGS, link_file, open_fd, rename, write_all
from ssfs.model.entry import Entry, Kind, mtime_ns_of, st_mode
from ssfs.source.xattrs import path_of
from ssfs.store.catalog.reader import CatalogReader

IN_THE_WAY = (errno.EISDIR, errno.ENOTEMPTY, errno.EEXIST)
"""What a rename fails with where a directory has the place."""
_HELD_BACK = 0o7022
"""What a file does not have while it is written: special bits, and being written to by others."""
_SET_ID = stat.S_ISUID | stat.S_ISGID
_PART_MIN_BYTES = 8 << 20
"""From this size on, what was written of a file when the run broke off is kept for the next run."""
_TARGET_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def open_target(target: bytes, *, in_place: bool, dry_run: bool) -> tuple[int, bool]:
    """The target directory, open, and whether it is new.

    A dry run makes none: where there is none, the descriptor is that of the directory above.

    Raises:
        ConfigError: It cannot be used.
    """
    path = os.path.abspath(target)
    above, name = os.path.split(path)
    try:
        if not name:
            return os.open(path, _TARGET_FLAGS), False
        with _open_above(above, is_plain=in_place) as above_fd:
            return _open_below(above_fd, name, in_place=in_place, dry_run=dry_run)
    except OSError as error:
        reason = (error.strerror or "unknown error").lower()
        remedy = "name a directory that exists, or a new one in a directory that does"
        if in_place:
            remedy = "the source must be where it was, without symlinks on the way; or use --to"
        raise ConfigError(
            f"The target directory cannot be used: {reason}", path=target, remedy=remedy
        ) from error


def _open_below(above_fd: int, name: bytes, *, in_place: bool, dry_run: bool) -> tuple[int, bool]:
    flags = _TARGET_FLAGS | (os.O_NOFOLLOW if in_place else 0)
    if dry_run:
        try:
            return os.open(name, flags, dir_fd=above_fd), False
        except FileNotFoundError:
            return os.dup(above_fd), True
    is_new = False
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=above_fd)
        is_new = True
    return os.open(name, flags, dir_fd=above_fd), is_new


@contextlib.contextmanager
def _open_above(path: bytes, *, is_plain: bool) -> Iterator[int]:
    """A directory, which if it is to be plain is reached through no symlink."""
    # One need not be able to read it.
    flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
    fd = os.open(b"/" if is_plain else path, flags)
    try:
        for name in path.split(b"/") if is_plain else ():
            if name:
                above = fd
                fd = os.open(name, flags | os.O_NOFOLLOW, dir_fd=above)
                os.close(above)
        yield fd
    finally:
        os.close(fd)


class Target:
    """Puts entries into open directories.

    Attributes:
        owners_not_set: How many entries kept us as their owner.
    """

    def __init__(self, catalog: CatalogReader, owner_map: OwnerMap, now_ns: int) -> None:
        """A target for the entries of a catalog.

        They get `now_ns` as their access time, which no catalog has.
        """
        self.owners_not_set = 0
        owners = Owners(catalog, owner_map)
        self._xattrs = RestoredXattrs(catalog, owners)
        self._problem = ""
        self._owners = owners
        self._now_ns = now_ns
        self._beside_us = name_beside(secrets.token_hex(8).encode())
        self._beside = self._beside_us
        # What an ordinary user may give a file to.
        self._us = (os.geteuid(), os.getegid())
        self._groups = frozenset((*os.getgroups(), os.getegid()))

    def make_directory(self, name: bytes, parent_fd: int, *, is_likely: bool) -> tuple[int, bool]:
        """Make the directory, or take the one that is there, which may be likely; a descriptor of it, and whether it is new."""
        if is_likely:
            with contextlib.suppress(FileNotFoundError):
                return os.open(name, DIRECTORY_FLAGS, dir_fd=parent_fd), False
        is_new = False
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=parent_fd)
            is_new = True
        return os.open(name, DIRECTORY_FLAGS, dir_fd=parent_fd), is_new

    def put_small(
        self,
        entry: Entry,
        parent_fd: int,
        content: bytes,
        make_room: Callable[[], bool],
        *,
        has_no_xattrs: bool,
    ) -> None:
        """As `put`, for a file whose whole content is here and has the right digest.

        Args:
            entry: Its row.
            parent_fd: Its directory.
            content: All of it; the file has no holes.
            make_room: As for `put`.
            has_no_xattrs: Nothing gives a new file in that directory extended attributes.

        Raises:
            OSError: It is not there; what was there before still is.
        """
        self._beside = beside = b"%s%d" % (self._beside_us, entry.id)
        fd = os.open(beside, _FILE_FLAGS, self._first_mode(entry), dir_fd=parent_fd)
        try:
            try:
                write_all(fd, content)
                self.set_metadata(entry, fd, has_no_xattrs=has_no_xattrs)
            finally:
                os.close(fd)
            self._rename(entry.name, parent_fd, make_room)
        except BaseException:
            self._unlink_beside(parent_fd)
            raise

    def _first_mode(self, entry: Entry) -> int:
        """The mode a file is made with: the one it is to have, where that gives nobody more than he gets anyway.

        It may get another owner, or the group of its directory first: then only its owner may do anything.
        """
        mode = entry.mode
        if mode & _HELD_BACK or (mode >> 3) & ~mode & 0o7 or self._owners.of(entry) != self._us:
            return 0o600
        return mode

    def put(
        self,
        entry: Entry,
        parent_fd: int,
        fill: Callable[[int], bool],
        make_room: Callable[[], bool],
    ) -> bool:
        """Write an entry that is no directory beside its place, then put it there.

        Args:
            entry: Its row.
            parent_fd: Its directory.
            fill: Writes a file's content to the descriptor it is given; False if that is not to be had.
            make_room: Removes a directory that has its place; False if it stays.

        Returns:
            Whether it is there; if not, what was there before still is.
        """
        self._beside = b"%s%d" % (self._beside_us, entry.id)
        try:
            is_there = self._write_beside(entry, parent_fd, fill)
            if is_there:
                self._rename(entry.name, parent_fd, make_room)
        except OSError:
            self._unlink_beside(parent_fd)
            raise
        except BaseException:
            # The end of the whole run. The next one goes on with what is worth it.
            if not self._is_beside_large(parent_fd):
                self._unlink_beside(parent_fd)
            raise
        return is_there

    def _unlink_beside(self, parent_fd: int) -> None:
        with contextlib.suppress(OSError):
            os.unlink(self._beside, dir_fd=parent_fd)

    def _is_beside_large(self, parent_fd: int) -> bool:
        with contextlib.suppress(OSError):
            status = os.stat(self._beside, dir_fd=parent_fd, follow_symlinks=False)
            return status.st_size >= _PART_MIN_BYTES
        return False

    def _rename(self, name: bytes, parent_fd: int, make_room: Callable[[], bool]) -> None:
        """Give what was written beside its name."""
        try:
            rename(self._beside, parent_fd, name, parent_fd)
        except OSError as error:
            if error.errno not in IN_THE_WAY or not make_room():
                raise
            rename(self._beside, parent_fd, name, parent_fd)

    def link(
        self,
        source: tuple[int, bytes],
        entry: Entry,
        parent_fd: int,
        make_room: Callable[[], bool],
    ) -> None:
        """Make an entry another name of a file that is there: its directory and name."""
        source_fd, source_name = source
        self._beside = b"%s%d" % (self._beside_us, entry.id)
        try:
            link_file(source_name, source_fd, self._beside, parent_fd)
            self._rename(entry.name, parent_fd, make_room)
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

    def gives_xattrs(self, directory_fd: int) -> bool:
        """Whether a file that is made in an open directory may have extended attributes at once: by a default ACL."""
        return self._xattrs.may_be_inherited(directory_fd)

    def is_ours(self, entry: Entry, status: os.stat_result) -> bool:
        """Whether a file that is there can become this entry without another one seeing it.

        It has no other name, and it already belongs to us or (where we are root) to the owner it
        is to have: whoever else has it open for writing could change it afterwards.
        """
        uid = os.geteuid()
        is_owned = status.st_uid == uid or (uid == 0 and status.st_uid == self._owners.of(entry)[0])
        return is_owned and status.st_nlink == 1

    def is_like(self, entry: Entry, status: os.stat_result) -> bool:
        """Whether this is how a file looks that has all of an entry's metadata, extended attributes left aside."""
        return (
            status.st_mtime_ns == mtime_ns_of(entry)
            and status.st_mode == entry.mode | stat.S_IFREG
            and (status.st_uid, status.st_gid) == self._owners.of(entry)
        )

    def lacks(self, entry: Entry, status: os.stat_result, there: int | bytes) -> bool:
        """Whether what is there lacks some of the metadata that we can give it.

        Args:
            entry: Its row.
            status: How it looks.
            there: It, open; or a path that is not followed.
        """
        if status.st_mtime_ns != mtime_ns_of(entry):
            return True
        uid, gid = self._owners.of(entry)
        us = self._us[0]
        if us != 0:
            # Made anew it would be ours; whoever else it may belong to now is not for us to say.
            uid = uid if uid == us else status.st_uid
            gid = gid if gid in self._groups and uid == us else status.st_gid
        mode = stat.S_IMODE(status.st_mode)
        is_mode_right = entry.kind == Kind.SYMLINK or mode == self._mode(entry, uid, gid)
        return not (
            (status.st_uid, status.st_gid) == (uid, gid)
            and is_mode_right
            and not self._xattrs.lacks(entry, there)
        )

    def count_unset(self, entry: Entry, status: os.stat_result, there: int | bytes) -> None:
        """Count what an entry that is left as it is lacks, since we cannot set it."""
        self.owners_not_set += (status.st_uid, status.st_gid) != self._owners.of(entry)
        self._xattrs.count_unset(entry, there)

    def set_metadata(self, entry: Entry, fd: int, *, has_no_xattrs: bool = False) -> None:
        """Owner, mode (giving a file away clears bits), extended attributes, times; what is right is not set.

        With `has_no_xattrs` it is known that there are none yet.
        """
        status = os.fstat(fd)
        uid, gid = self._owners.of(entry)
        if (uid, gid) != (status.st_uid, status.st_gid):
            try:
                os.fchown(fd, uid, gid)
            except OSError as error:
                if error.errno not in (errno.EPERM, errno.EINVAL):
                    raise
                self.owners_not_set += 1
                with contextlib.suppress(OSError):
                    os.fchown(fd, -1, gid)
            status = os.fstat(fd)
        mode = self._mode(entry, status.st_uid, status.st_gid)
        if stat.S_IMODE(status.st_mode) != mode:
            os.fchmod(fd, mode)
        if entry.xattrs or not has_no_xattrs:
            self._problem = self._xattrs.set(entry, fd)
        mtime_ns = mtime_ns_of(entry)
        if status.st_mtime_ns != mtime_ns:
            os.utime(fd, ns=(self._now_ns, mtime_ns))

    def _mode(self, entry: Entry, uid: int, gid: int) -> int:
        """The mode for a file with this owner: what ran as somebody else must not run as us."""
        if not entry.mode & _SET_ID:
            return entry.mode
        is_right = entry.kind == Kind.DIRECTORY or (uid, gid) == self._owners.of(entry)
        return entry.mode if is_right else entry.mode & ~_SET_ID

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
        times = (self._now_ns, mtime_ns_of(entry))
        os.utime(self._beside, ns=times, dir_fd=parent_fd, follow_symlinks=False)
