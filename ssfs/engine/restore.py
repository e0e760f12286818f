"""Restore: a version, or parts of it, copied out with metadata.

Walks the catalog one directory at a time, depth first, memory flat. On both sides everything is reached by
directory descriptors with O_NOFOLLOW: neither a symlink in the target nor a name in the catalog leads
out of the target. A file is written beside its place under a name of its own, its digest compared with the catalog's
while it is copied, then renamed: under its name there is only ever what was there before, or the right
content. A directory gets its metadata when it is left, deepest first, so that nothing disturbs its times.

What fails for one entry is an `EntryProblem`, and the run goes on; a full or read-only target ends it. A run
that dies leaves at most one file named `.ssfs-restore-*` in the target.
"""

import contextlib
import errno
import grp
import os
import pwd
import secrets
import stat
from collections.abc import Iterator

import blake3
import msgspec

from ssfs.clock import Clock
from ssfs.errors import ConfigError, CorruptStore, StoreError, StoreFull
from ssfs.fsio.disk import (
    COPY_BYTES,
    DIRECTORY_FLAGS,
    open_directory,
    open_fd,
    raise_descriptor_limit,
    rename,
    store_errors,
    write_all,
)
from ssfs.model.entry import GROUP, USER, Entry, Kind, st_mode
from ssfs.model.problem import EntryProblem
from ssfs.monitor import Monitor
from ssfs.store.catalog.reader import CatalogReader
from ssfs.store.tree import Tree
from ssfs.store.version import Version

_NS = 1_000_000_000
_FULL = (errno.ENOSPC, errno.EDQUOT)
_IN_THE_WAY = (errno.EISDIR, errno.ENOTEMPTY, errno.EEXIST)
_NOT_A_DIRECTORY = (errno.ENOTDIR, errno.ELOOP)
_SET_ID = stat.S_ISUID | stat.S_ISGID


class RestoreResult(msgspec.Struct, frozen=True):
    """What became of a restore.

    Attributes:
        entries: Entries that are in the target now.
        size_bytes: Content of its files.
        owners_not_set: Entries that belong to us because only root may give files away.
        seconds: How long it took.
        problems: What could not be restored as it is.
    """

    entries: int
    size_bytes: int
    owners_not_set: int
    seconds: float
    problems: list[EntryProblem]


def restore_version(
    version: Version, paths: tuple[bytes, ...], target: bytes, monitor: Monitor, clock: Clock
) -> RestoreResult:
    """Copy a version's content into the directory `target`.

    Args:
        version: What to restore; it cannot be deleted meanwhile.
        paths: Entries that appear in `target` under their own names; none, or the root among them:
            the whole content of the version.
        target: Made if it does not exist; merged with what it holds.
        monitor: Hears of progress and problems.
        clock: For the duration, and for access times, which no catalog has.

    Raises:
        ConfigError: A path is not in the version, two have the same name, or the target cannot
            be used; nothing was written.
        StoreError: The version is damaged or gone, or the target is full.
    """
    started_s = clock.monotonic_s()
    raise_descriptor_limit()
    with contextlib.ExitStack() as stack:
        with store_errors(version.path):
            stack.enter_context(version.share())
            catalog = stack.enter_context(version.catalog())
            tree = Tree(catalog, open_directory(os.path.join(version.path, b"tree")))
        stack.callback(tree.close)
        wanted = _find(catalog, paths)
        target_fd, is_new = _open_target(target)
        stack.callback(os.close, target_fd)
        restorer = _Restorer(catalog, tree, monitor, int(clock.now().timestamp() * _NS))
        try:
            if wanted:
                for path, entry in wanted.items():
                    restorer.restore(entry, target_fd, path)
            else:
                _expect(version, monitor)
                restorer.restore_root(target_fd, is_new=is_new)
        except OSError as error:
            raise _target_error(error, target) from error
    return RestoreResult(
        restorer.entries,
        restorer.size_bytes,
        restorer.owners.not_set,
        clock.monotonic_s() - started_s,
        restorer.problems,
    )


def _expect(version: Version, monitor: Monitor) -> None:
    with contextlib.suppress(CorruptStore):
        counts = version.record().counts
        monitor.expect(counts.entries, counts.bytes)


def _find(catalog: CatalogReader, paths: tuple[bytes, ...]) -> dict[bytes, Entry]:
    """The entries at some paths; nothing if the whole version is wanted."""
    found: dict[bytes, Entry] = {}
    names: dict[bytes, bytes] = {}
    is_whole = False
    for given in paths:
        path = b"/".join(name for name in given.split(b"/") if name not in (b"", b"."))
        entry = catalog.resolve(path)
        if entry is None:
            raise ConfigError(
                "Not in the version", path=given, remedy="paths are those below its root"
            )
        if names.setdefault(entry.name, path) != path:
            raise ConfigError(
                f"Another PATH has the same name, {os.fsdecode(entry.name)!r}",
                path=given,
                remedy="restore them into different directories",
            )
        is_whole = is_whole or not path
        found[path] = entry
    return {} if is_whole else found


def _open_target(target: bytes) -> tuple[int, bool]:
    """The target directory, open, and whether it was made now."""
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


def _target_error(error: OSError, target: bytes) -> StoreError:
    """What ends a restore half-way."""
    if error.errno in _FULL:
        return StoreFull(
            "No space or no inodes left in the target",
            path=target,
            remedy="what was restored so far is right; free space there and run it again",
        )
    reason = (error.strerror or "unknown error").lower()
    return StoreError(f"The restore cannot go on: {reason}", path=target)


class _Owners:
    """Who owns what on this machine: the recorded name decides, the number without one.

    Attributes:
        not_set: How many entries kept us as their owner.
    """

    def __init__(self, catalog: CatalogReader) -> None:
        self.not_set = 0
        self._names = {
            (principal.kind, principal.number): os.fsdecode(principal.name)
            for principal in catalog.principals()
        }
        self._local: dict[tuple[int, int], int] = {}

    def of(self, entry: Entry) -> tuple[int, int]:
        """User and group number of an entry."""
        return self._number(USER, entry.uid), self._number(GROUP, entry.gid)

    def _number(self, kind: int, number: int) -> int:
        key = (kind, number)
        if key not in self._local:
            self._local[key] = self._find(kind, number)
        return self._local[key]

    def _find(self, kind: int, number: int) -> int:
        name = self._names.get((kind, number), "")
        try:
            return pwd.getpwnam(name).pw_uid if kind == USER else grp.getgrnam(name).gr_gid
        except (KeyError, ValueError, OSError):
            return number


class _Level:
    """A directory that is being restored."""

    def __init__(self, entry: Entry, fd: int, path: bytes, children: Iterator[Entry]) -> None:
        self.entry = entry
        self.fd = fd
        self.path = path
        self.children = children


class _Restorer:
    """One run.

    Attributes:
        entries: What is in the target so far.
        size_bytes: Content of its files.
        owners: Who gets what.
        problems: What went wrong so far.
    """

    def __init__(self, catalog: CatalogReader, tree: Tree, monitor: Monitor, now_ns: int) -> None:
        self.entries = 0
        self.size_bytes = 0
        self.owners = _Owners(catalog)
        self.problems: list[EntryProblem] = []
        self._catalog = catalog
        self._tree = tree
        self._monitor = monitor
        self._now_ns = now_ns
        self._beside = b".ssfs-restore-" + secrets.token_hex(8).encode()

    def restore_root(self, target_fd: int, *, is_new: bool) -> None:
        """Put the whole version's content into the target.

        A target that was there keeps its own owner, mode and times: nobody wants /home to
        become what somebody's backup says.
        """
        root = self._catalog.root()
        if root is None:
            raise CorruptStore("The catalog is empty", path=self._catalog.path)
        self._directory(root, os.dup(target_fd), b"", sets_metadata=is_new)

    def restore(self, entry: Entry, parent_fd: int, path: bytes) -> None:
        """Put an entry, with all below it, into the open directory `parent_fd`."""
        if entry.kind != Kind.DIRECTORY:
            self._leaf(entry, parent_fd, path)
            return
        fd = self._make_directory(entry, parent_fd, path)
        if fd is not None:
            self._directory(entry, fd, path, sets_metadata=True)

    def _report(self, path: bytes, text: str) -> None:
        problem = EntryProblem(path, text)
        self.problems.append(problem)
        self._monitor.problem(problem)

    def _report_error(self, path: bytes, error: OSError) -> None:
        """Report what failed for one entry; what will fail for all of them is raised."""
        if error.errno in (*_FULL, errno.EROFS):
            raise error
        self._report(path, f"not restored: {(error.strerror or 'unknown error').lower()}")

    # -- directories -----------------------------------------------------------------------------

    def _directory(self, entry: Entry, fd: int, path: bytes, *, sets_metadata: bool) -> None:
        """Restore what is in a directory, and its metadata; takes over `fd`."""
        top = _Level(entry, fd, path, self._catalog.children(entry.id))
        stack = [top]
        try:
            while stack:
                level = stack[-1]
                child = next(level.children, None)
                if child is None:
                    if level is not top or sets_metadata:
                        self._finish_directory(level)
                    self.entries += 1
                    self._monitor.advance(1, 0, level.path)
                    os.close(stack.pop().fd)
                    continue
                child_path = level.path + b"/" + child.name if level.path else child.name
                if child.kind != Kind.DIRECTORY:
                    self._leaf(child, level.fd, child_path)
                    continue
                child_fd = self._make_directory(child, level.fd, child_path)
                if child_fd is not None:
                    children = self._catalog.children(child.id)
                    stack.append(_Level(child, child_fd, child_path, children))
        finally:
            for level in stack:
                os.close(level.fd)

    def _make_directory(self, entry: Entry, parent_fd: int, path: bytes) -> int | None:
        """Make the directory, or take the one that is there; None if it cannot be had."""
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(entry.name, 0o700, dir_fd=parent_fd)
            return os.open(entry.name, DIRECTORY_FLAGS, dir_fd=parent_fd)
        except OSError as error:
            if error.errno in _NOT_A_DIRECTORY:
                self._report(path, "not restored, nor what is in it: something else has its place")
            else:
                self._report_error(path, error)
            return None

    def _finish_directory(self, level: _Level) -> None:
        try:
            self._set_metadata(level.entry, level.fd)
        except OSError as error:
            self._report_metadata(level.path, error)

    def _report_metadata(self, path: bytes, error: OSError) -> None:
        if error.errno in (*_FULL, errno.EROFS):
            raise error
        reason = (error.strerror or "unknown error").lower()
        self._report(path, f"restored, but not its mode and times: {reason}")

    # -- everything else -------------------------------------------------------------------------

    def _leaf(self, entry: Entry, parent_fd: int, path: bytes) -> None:
        """Write an entry beside its place, then put it there."""
        try:
            try:
                if self._write_beside(entry, parent_fd, path):
                    rename(self._beside, parent_fd, entry.name, parent_fd)
                    self.entries += 1
                    self.size_bytes += entry.size
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(self._beside, dir_fd=parent_fd)
                raise
        except OSError as error:
            if error.errno in _IN_THE_WAY:
                self._report(path, "not restored: a directory has its place")
            else:
                self._report_error(path, error)
        self._monitor.advance(1, 0, path)

    def _write_beside(self, entry: Entry, parent_fd: int, path: bytes) -> bool:
        match entry.kind:
            case Kind.FILE:
                return self._write_file(entry, parent_fd, path)
            case Kind.SYMLINK:
                os.symlink(entry.target, self._beside, dir_fd=parent_fd)
            case _:
                if entry.kind != Kind.FIFO and os.geteuid() != 0:
                    self._report(path, "not restored: only root may make devices")
                    return False
                # The bits above 0o777 mean nothing here, and none is taken away by what follows.
                os.mknod(self._beside, st_mode(entry) & ~0o777, entry.rdev, dir_fd=parent_fd)
        self._set_metadata_of_name(entry, parent_fd)
        return True

    def _write_file(self, entry: Entry, parent_fd: int, path: bytes) -> bool:
        """Copy a file's content, if it is the right one, and set its metadata."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with open_fd(self._beside, flags, dir_fd=parent_fd) as copy:
            fault = self._copy_content(entry, copy, path)
            if fault:
                self._report(path, f"not restored: {fault}")
                os.unlink(self._beside, dir_fd=parent_fd)
                return False
            self._set_metadata(entry, copy)
        return True

    def _copy_content(self, entry: Entry, copy: int, path: bytes) -> str:
        """Copy a file's content; what is wrong with it in the store, or nothing."""
        try:
            source = self._open_content(entry)
        except OSError as error:
            return f"its content in the store cannot be opened: {(error.strerror or '').lower()}"
        except CorruptStore as error:
            return f"its content in the store cannot be found: {error.problem}"
        hasher = blake3.blake3()
        try:
            while True:
                try:
                    content = os.read(source, COPY_BYTES)
                except OSError as error:
                    return f"its content cannot be read: {(error.strerror or '').lower()}"
                if not content:
                    break
                hasher.update(content)
                write_all(copy, content)
                self._monitor.advance(0, len(content), path)
        finally:
            os.close(source)
        if hasher.digest() != entry.digest:
            return "its content in the store is damaged"
        return ""

    def _open_content(self, entry: Entry) -> int:
        """The open data file of an entry."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        return os.open(entry.name, flags, dir_fd=self._tree.directory(entry.parent))

    # -- metadata --------------------------------------------------------------------------------

    def _set_metadata(self, entry: Entry, fd: int) -> None:
        """Owner, then mode (giving a file away clears bits), then times."""
        uid, gid = self.owners.of(entry)
        try:
            os.fchown(fd, uid, gid)
            mode = entry.mode
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EINVAL):
                raise
            mode = self._mode_without_owner(entry, fd, gid)
        os.fchmod(fd, mode)
        os.utime(fd, ns=(self._now_ns, _mtime_ns(entry)))

    def _mode_without_owner(self, entry: Entry, fd: int, gid: int) -> int:
        """The mode for a file that stays ours: it must not run as us what ran as somebody else."""
        self.owners.not_set += 1
        with contextlib.suppress(OSError):
            os.fchown(fd, -1, gid)
        return entry.mode if entry.kind == Kind.DIRECTORY else entry.mode & ~_SET_ID

    def _set_metadata_of_name(self, entry: Entry, parent_fd: int) -> None:
        """Likewise for what cannot be opened, under its name beside its place."""
        uid, gid = self.owners.of(entry)
        try:
            os.chown(self._beside, uid, gid, dir_fd=parent_fd, follow_symlinks=False)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EINVAL):
                raise
            self.owners.not_set += 1
        if entry.kind != Kind.SYMLINK:
            # There is no chmod that does not follow symlinks, and who owns the target directory could
            # put one here now; an O_PATH descriptor cannot be deceived.
            with open_fd(self._beside, os.O_PATH | os.O_NOFOLLOW, dir_fd=parent_fd) as fd:
                if not stat.S_ISLNK(os.fstat(fd).st_mode):
                    os.chmod(f"/proc/self/fd/{fd}", entry.mode)
        times = (self._now_ns, _mtime_ns(entry))
        os.utime(self._beside, ns=times, dir_fd=parent_fd, follow_symlinks=False)


def _mtime_ns(entry: Entry) -> int:
    return entry.mtime_s * _NS + entry.mtime_ns
