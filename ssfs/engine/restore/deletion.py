"""Removing what the version does not have: `--delete`, what is in the way, and what a killed restore left.

Nothing is removed through a symlink, in another mounted file system, or of what a pattern excludes; sockets
stay, since no version has any, and so does the store that is restored from. Descriptors and names lead
the way, level by level, so no depth is too deep.
"""

import contextlib
import os
import re
import stat
from collections.abc import Iterator

from ssfs.engine.restore.failures import Failures
from ssfs.engine.restore.options import Action, Actions, RestoreOptions
from ssfs.fsio.disk import mount_of, open_directory
from ssfs.model.entry import Entry
from ssfs.source.exclude import ExcludeOptions, Excluder
from ssfs.store.catalog.reader import CatalogReader

BESIDE = b".ssfs-restore-"
_BESIDE_TEXT = os.fsdecode(BESIDE)
_LEFTOVER = re.compile(rb"\.ssfs-restore-(\d+)-(\d+)-[0-9a-f]{16}-(\d+)")
_START_FIELD = 19  # of /proc/PID/stat, counted behind the name


class _Frame:
    """A directory that is being emptied."""

    def __init__(self, name: bytes, parent_fd: int, fd: int, path: bytes) -> None:
        self.name = name
        self.parent_fd = parent_fd
        self.fd = fd
        self.path = path
        self.names = [os.fsencode(name) for name in os.listdir(fd)]
        self.is_empty = True


class Deletion:
    """What one restore removes."""

    def __init__(
        self,
        catalog: CatalogReader,
        options: RestoreOptions,
        actions: Actions,
        failures: Failures,
    ) -> None:
        self._catalog = catalog
        self._dry_run = options.dry_run
        self._actions = actions
        self._failures = failures
        self._excluder = Excluder(ExcludeOptions(options.exclude))
        self._spared = {(found.st_dev, found.st_ino) for found in map(os.stat, options.spared)}

    @property
    def has_patterns(self) -> bool:
        """Whether a pattern may leave out anything."""
        return self._excluder.has_patterns

    def is_excluded(self, path: bytes, *, is_directory: bool) -> bool:
        """Whether a pattern leaves out this path (below the version's root)."""
        excluder = self._excluder
        return excluder.has_patterns and excluder.is_excluded(path, is_directory=is_directory)

    # -- what the version does not have ----------------------------------------------------------

    def remove_extras(self, entry: Entry, fd: int, path: bytes) -> None:
        """Remove from the open directory of an entry what the version does not have in it."""
        mount = mount_of(fd)
        for name in self._extras(entry, fd):
            self._remove(name, fd, path + b"/" + name if path else name, mount)

    def _extras(self, entry: Entry, fd: int) -> Iterator[bytes]:
        """The names in a directory that are not among its rows."""
        rows = self._catalog.children(entry.id)
        row = next(rows, None)
        for name in sorted(map(os.fsencode, os.listdir(fd))):
            while row is not None and row.name < name:
                row = next(rows, None)
            if row is None or row.name != name:
                yield name

    def make_room(self, name: bytes, parent_fd: int, path: bytes) -> bool:
        """Remove what has the place of an entry of another kind; whether all of it is gone."""
        return self._remove(name, parent_fd, path, mount_of(parent_fd))

    def _remove(self, name: bytes, parent_fd: int, path: bytes, mount: int) -> bool:
        """Remove a name and all below it, as far as that may be; whether it is gone."""
        stack: list[_Frame] = []
        try:
            is_gone = self._unlink_or_enter(name, parent_fd, path, mount, stack)
            while stack:
                frame = stack[-1]
                if frame.names:
                    below = frame.names.pop()
                    there = frame.path + b"/" + below
                    frame.is_empty &= self._unlink_or_enter(below, frame.fd, there, mount, stack)
                    continue
                stack.pop()
                os.close(frame.fd)
                is_gone = frame.is_empty and self._remove_directory(frame)
                if stack:
                    stack[-1].is_empty &= is_gone
        finally:
            for frame in stack:
                os.close(frame.fd)
        return is_gone

    def _unlink_or_enter(
        self, name: bytes, parent_fd: int, path: bytes, mount: int, stack: list[_Frame]
    ) -> bool:
        """Unlink what is no directory, else go on with it; False if it stays."""
        try:
            status = os.stat(name, dir_fd=parent_fd, follow_symlinks=False)
            is_directory = stat.S_ISDIR(status.st_mode)
            if stat.S_ISSOCK(status.st_mode) or _is_being_written(name):
                return False
            if self.is_excluded(path, is_directory=is_directory):
                return False
            if not is_directory:
                if not self._dry_run:
                    os.unlink(name, dir_fd=parent_fd)
                self._actions.add(Action.DELETE, path)
                return True
            if (status.st_dev, status.st_ino) in self._spared:
                return False
            fd = open_directory(name, dir_fd=parent_fd)
            if mount_of(fd) != mount:
                os.close(fd)
                return False
            stack.append(_Frame(name, parent_fd, fd, path))
        except FileNotFoundError:
            return True
        except OSError as error:
            self._complain(path, error)
            return False
        return True

    def _remove_directory(self, frame: _Frame) -> bool:
        try:
            if not self._dry_run:
                os.rmdir(frame.name, dir_fd=frame.parent_fd)
        except FileNotFoundError:
            return True
        except OSError as error:
            self._complain(frame.path, error)
            return False
        self._actions.add(Action.DELETE, frame.path)
        return True

    def _complain(self, path: bytes, error: OSError) -> None:
        self._failures.report(path, f"not deleted: {(error.strerror or 'unknown error').lower()}")

    # -- what a killed restore left --------------------------------------------------------------

    def sweep(self, leftovers: list[tuple[int, bytes]], directory: int, fd: int) -> None:
        """Remove such files from an open directory, but for those that the version has itself."""
        for _, name in leftovers:
            if not self._dry_run and self._catalog.child(directory, name) is None:
                with contextlib.suppress(OSError):
                    os.unlink(name, dir_fd=fd)


def find_leftovers(fd: int) -> list[tuple[int, bytes]]:
    """The names under which restores that live no more were writing here, with the entry's id."""
    found = []
    with os.scandir(fd) as entries:
        for entry in entries:
            if entry.name.startswith(_BESIDE_TEXT):
                match = _LEFTOVER.fullmatch(os.fsencode(entry.name))
                if match and not _is_alive(int(match[1]), int(match[2])):
                    found.append((int(match[3]), match[0]))
    return found


def name_beside(secret: bytes) -> bytes:
    """The beginning of the names that this process writes under; what follows is an entry's id.

    It says which process that is, so that the next restore can tell what is left of one that died.
    """
    process = os.getpid()
    return b"%s%d-%d-%s-" % (BESIDE, process, _started(process), secret)


def _is_being_written(name: bytes) -> bool:
    """Whether another restore, which lives, is writing a file under this name."""
    match = _LEFTOVER.fullmatch(name)
    return match is not None and _is_alive(int(match[1]), int(match[2]))


def _is_alive(process: int, started: int) -> bool:
    return _started(process) == started


def _started(process: int) -> int:
    """When a process was started, in the kernel's ticks; -1 if there is none."""
    try:
        with open(f"/proc/{process}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[_START_FIELD])
    except (OSError, IndexError, ValueError):
        return -1
