"""The directories of a restore: made or taken on the way down, finished on the way up.

What the version does not have is removed from a directory, and its metadata set, when nothing is left to do
in it: what could not be restored has taken nothing with it.
"""

import errno
import os
from collections.abc import Iterator

from ssfs.engine.restore.deletion import find_leftovers
from ssfs.engine.restore.options import Action, Overwrite
from ssfs.engine.restore.run import Run
from ssfs.engine.restore.walk import Level
from ssfs.errors import CorruptStore
from ssfs.fsio.disk import mount_of, open_directory
from ssfs.model.entry import Entry, Flag

_NOT_A_DIRECTORY = (errno.ENOTDIR, errno.ELOOP)


class Directories:
    """Makes and finishes the directories of one restore."""

    def __init__(
        self, run: Run, wanted: dict[bytes, Entry], target_fd: int, *, is_new: bool
    ) -> None:
        """Below the open target.

        Args:
            run: The restore.
            wanted: What is wanted, by path; nothing: the whole version.
            target_fd: The target; in a dry run the directory above if it does not exist.
            is_new: Whether it was made now, or in a dry run would be.
        """
        self._run = run
        self._wanted = wanted
        self._fd = target_fd
        self._is_new = is_new
        self._mount = -1 if is_new else mount_of(target_fd)
        self._above: dict[int, dict[bytes, Entry]] = {}

    # -- where it begins -------------------------------------------------------------------------

    def tops(self) -> Iterator[Level]:
        """The target as the root of the version, or as the place of each wanted entry in turn."""
        if not self._wanted or self._run.options.in_place:
            yield self._root()
            return
        leftovers = self._leftovers(self._fd, is_new=self._is_new)
        for path, entry in self._wanted.items():
            top = Level(None, os.dup(self._fd), os.path.dirname(path), iter([entry]))
            top.is_new = self._is_new
            top.leftovers = leftovers
            yield top
        names = {entry.name for entry in self._wanted.values()}
        self._run.deletion.sweep([one for one in leftovers if one[1] not in names], 0, self._fd)

    def _root(self) -> Level:
        """The target as the version's root.

        One that was there keeps its own owner, mode and times, unless it is restored in place: nobody wants
        /home to become what somebody's backup says.
        """
        catalog, options = self._run.catalog, self._run.options
        root = catalog.root()
        if root is None:
            raise CorruptStore("The catalog is empty", path=catalog.path)
        if self._wanted:
            self._find_above(root)
        level = self._level(root, (os.dup(self._fd), self._is_new), b"", None)
        level.sets_metadata = self._is_new or (options.in_place and level.sets_metadata)
        return level

    def _find_above(self, root: Entry) -> None:
        """Note what is restored of the directories above what is wanted."""
        for path, entry in self._wanted.items():
            parents = [path[:end] for end, byte in enumerate(path) if byte == ord("/")]
            if any(parent in self._wanted for parent in parents):
                continue  # it comes with a directory that is wanted as a whole
            above = root
            for parent in parents:
                child = self._run.catalog.resolve(parent)
                if child is None:
                    raise CorruptStore("Catalog has lost a directory", path=self._run.catalog.path)
                self._above.setdefault(above.id, {})[child.name] = child
                above = child
            self._above.setdefault(above.id, {})[entry.name] = entry

    # -- on the way down -------------------------------------------------------------------------

    def make(self, entry: Entry, path: bytes, above: Level) -> Level | None:
        """Make the directory, or take the one that is there; None if it cannot be had."""
        if self._run.deletion.is_excluded(path, is_directory=True):
            return None
        try:
            if self._run.options.dry_run:
                return self._foresee(entry, path, above)
            return self._level(entry, self._make(entry, path, above), path, above)
        except OSError as error:
            if error.errno in _NOT_A_DIRECTORY:
                text = "not restored, nor what is in it: something else has its place"
                self._run.failures.report(path, text)
            else:
                self._run.failures.fail_in(above.fd, path, 0, error)
            return None

    def _make(self, entry: Entry, path: bytes, above: Level) -> tuple[int, bool]:
        target = self._run.target
        try:
            return target.make_directory(entry.name, above.fd, is_likely=not above.is_new)
        except OSError as error:
            if error.errno not in _NOT_A_DIRECTORY or not self._may_make_room(entry, path, above):
                raise
            return target.make_directory(entry.name, above.fd, is_likely=not above.is_new)

    def _may_make_room(self, entry: Entry, path: bytes, above: Level) -> bool:
        """Remove what has the place of a directory, if that is wished."""
        options = self._run.options
        if not options.deletes or options.overwrite is Overwrite.NEVER:
            return False
        return self._run.deletion.make_room(entry.name, above.fd, path)

    def _foresee(self, entry: Entry, path: bytes, above: Level) -> Level | None:
        """The directory that is there, or a level that stands for the one that would be."""
        is_new = above.is_new
        fd = -1
        if not is_new:
            try:
                fd = open_directory(entry.name, dir_fd=above.fd)
            except FileNotFoundError:
                is_new = True
            except OSError as error:
                if error.errno not in _NOT_A_DIRECTORY:
                    raise
                if not self._may_make_room(entry, path, above):
                    raise
                is_new = True
        if is_new:
            fd = os.dup(above.fd)
        return self._level(entry, (fd, is_new), path, above)

    def _level(
        self, entry: Entry, opened: tuple[int, bool], path: bytes, above: Level | None
    ) -> Level:
        """The level of a directory: its descriptor, and whether it is new."""
        run = self._run
        fd, is_new = opened
        chosen = self._above.get(entry.id)
        children = run.catalog.children(entry.id) if chosen is None else iter(_sorted(chosen))
        level = Level(entry, fd, path, children, above)
        level.is_new = is_new
        level.is_partial = chosen is not None
        if not is_new:
            status = os.fstat(fd)
            level.lacks_metadata = run.target.lacks(entry, status, fd)
            level.sets_metadata = not (level.is_partial or run.options.keeps(entry, status))
            level.leftovers = self._leftovers(fd, is_new=is_new)
        return level

    def _leftovers(self, fd: int, *, is_new: bool) -> list[tuple[int, bytes]]:
        if is_new:
            return []
        try:
            return find_leftovers(fd)
        except OSError:
            return []

    # -- on the way up ---------------------------------------------------------------------------

    def finish(self, level: Level, entry: Entry) -> None:
        """Nothing is left to do in a directory."""
        run = self._run
        if not level.is_new:
            run.deletion.sweep(level.leftovers, entry.id, level.fd)
            if run.options.deletes and not level.is_partial:
                self._remove_extras(level, entry)
        is_set = not level.sets_metadata or run.options.dry_run
        is_set = is_set or run.set_metadata(entry, level.fd, level.path)
        if level.is_new:
            run.actions.add(Action.CREATE, level.path)
        elif is_set and not level.is_partial:
            is_changed = level.sets_metadata and level.lacks_metadata
            run.actions.add(Action.METADATA if is_changed else None, level.path)
        if level.is_new or not level.is_partial:
            run.actions.entries += 1
        run.monitor.advance(1, 0, level.path)

    def _remove_extras(self, level: Level, entry: Entry) -> None:
        """Remove what the version does not have, if this is still the file system of the target.

        Of a directory that could not be seen when the version was made, nobody knows what it lacked.
        """
        if entry.flags & (Flag.STALE | Flag.INCOMPLETE):
            what = "Not seen" if entry.flags & Flag.STALE else "Not all of it was seen"
            where = os.fsdecode(level.path)
            self._run.monitor.note(f"{what} by that backup: nothing is deleted in {where}")
            return
        try:
            if self._is_here(level):
                self._run.deletion.remove_extras(entry, level.fd, level.path)
            elif level.above is None or self._is_here(level.above):
                where = os.fsdecode(level.path)
                self._run.monitor.note(f"Another file system: nothing is deleted in {where}")
        except OSError as error:
            reason = (error.strerror or "unknown error").lower()
            self._run.failures.report(level.path, f"nothing deleted in it: {reason}")

    def _is_here(self, level: Level) -> bool:
        if self._mount < 0:
            self._mount = mount_of(self._fd)
        return mount_of(level.fd) == self._mount


def _sorted(chosen: dict[bytes, Entry]) -> list[Entry]:
    return [chosen[name] for name in sorted(chosen)]
