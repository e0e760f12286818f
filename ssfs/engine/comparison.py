"""The walk: the source merged with the compared catalog, one directory at a time.

Holds one descriptor per level of depth and the names of one directory. What a look means is decided in
`ssfs.engine.plan`; what is sent goes through `ssfs.engine.outgoing`; file content is read by `ssfs.engine.content`. Entries of the
compared catalog that were not met are gone only when the walk is over: until then each may still turn
up under another path.
"""

import array
import errno
import os
import stat as stat_module
from typing import NamedTuple

from ssfs.clock import Clock
from ssfs.engine.attributes import Attributes
from ssfs.engine.content import ContentSender, Found
from ssfs.engine.moves import Catalogs, MoveFinder, Source
from ssfs.engine.outgoing import Outgoing
from ssfs.engine.plan import (
    Verdict,
    is_only_bookkeeping,
    is_renumbered,
    is_untouched,
    judge_content,
    lacks_link_group,
    renumbered,
)
from ssfs.engine.resending import Resending
from ssfs.engine.unseen import keep_as_before
from ssfs.fsio.disk import open_directory
from ssfs.model.entry import ROOT_ID, Entry, Kind, changed, kind_of_mode
from ssfs.model.problem import EntryProblem
from ssfs.model.version import Counts
from ssfs.monitor import Monitor
from ssfs.source.exclude import Excluder
from ssfs.store.catalog.schema import PARKED

_FILES_WORTH_A_WORD = 10
_VANISHED = (errno.ENOENT, errno.EINVAL)
"""What readlink says of a symlink that is gone, or is something else by now."""


class _Level(NamedTuple):
    """A directory that the walk is in.

    Attributes:
        fd: Its descriptor.
        path: Where it is.
        number: Its device and inode number.
        below: (id, name) of the directories to go into from here, last one first.
    """

    fd: int
    path: bytes
    number: tuple[int, int]
    below: list[tuple[int, bytes]]


class Comparison:
    """One walk over a source.

    Attributes:
        counts: What was found so far.
        problems: What could not be backed up as it is.
        notes: What is odd about the source, in a line each.
    """

    def __init__(
        self,
        source: Source,
        catalogs: Catalogs,
        outgoing: Outgoing,
        excluder: Excluder,
        monitor: Monitor,
        clock: Clock,
    ) -> None:
        self.counts = Counts()
        self.problems: list[EntryProblem] = []
        self.notes: list[str] = []
        self._source = source
        self._compared = catalogs.compared
        self._working = catalogs.working
        self._moves = MoveFinder(source, catalogs)
        self._outgoing = outgoing
        self._excluder = excluder
        self._monitor = monitor
        self._clock = clock
        self._missing = array.array("q")
        self._attributes = Attributes(outgoing, self.report)
        self._content = ContentSender(source, catalogs, outgoing, self.counts, monitor, self.report)
        self._resending = Resending(source, catalogs.working, outgoing, self._content, self.report)
        self._now_s = 0.0
        self._above: set[tuple[int, int]] = set()
        self._renumbered = 0

    def report(self, path: bytes, problem: str) -> None:
        """Note a problem and go on."""
        found = EntryProblem(path, problem)
        self.problems.append(found)
        self.counts.problems += 1
        self._monitor.problem(found)

    def run(self, *, dry_run: bool) -> None:
        """Walk, send what differs, remove what is gone."""
        self._content.dry_run = dry_run
        self._missing.extend(row.id for row in self._compared.children(PARKED))
        self._now_s = self._clock.now().timestamp()
        self._root()
        stack = [_Level(os.dup(self._source.fd), b"", self._source.number, [])]
        self._above = {self._source.number}
        try:
            stack[0].below.extend(self._directory(self._source.fd, ROOT_ID, b""))
            while stack:
                level = stack[-1]
                if not level.below:
                    os.close(level.fd)
                    self._above.discard(level.number)
                    stack.pop()
                    continue
                entry_id, name = level.below.pop()
                entered = self._enter(level, entry_id, name)
                if entered is not None:
                    stack.append(entered)
                    self._above.add(entered.number)
                    entered.below.extend(self._directory(entered.fd, entry_id, entered.path))
        finally:
            for level in stack:
                os.close(level.fd)
        self._content.finish_deltas()
        self._remove_missing()
        if self._renumbered >= _FILES_WORTH_A_WORD and (
            2 * self._renumbered > self._compared.number("files")
        ):
            self.notes.append(
                f"The source's inode numbers have changed ({self._renumbered:,} files are as they "
                "were but for that), so files had to be read again: if this is so each time, "
                "use --ignore-inode"
            )

    def _root(self) -> None:
        status = self._source.look()
        now = self._source.seen(ROOT_ID, 0, b"", status)
        record = self._compared.root()
        if record is not None and is_untouched(record, status):
            return
        now = now._replace(xattrs=self._attributes.of_open(self._source.fd, record, b""))
        if record is None:
            self._outgoing.make(now)
            self.counts.new += 1
        else:
            self._metadata(record, now)

    def _enter(self, level: _Level, entry_id: int, name: bytes) -> _Level | None:
        """Open a directory for the walk; None for one that cannot be walked."""
        path = level.path + b"/" + name if level.path else name
        fd = -1
        try:
            fd = open_directory(name, dir_fd=level.fd)
            status = os.fstat(fd)
        except FileNotFoundError:
            self._vanished(entry_id)
        except OSError as error:
            self._unreadable_directory(entry_id, path, error)
        else:
            number = (status.st_dev, status.st_ino)
            if number in self._above:
                # Mounted inside itself. What is recorded here is hidden, not gone.
                self._unseen(entry_id, path, "is one of the directories above it, not entered")
            elif self._below(entry_id, status):  # else mounted only now, by being opened
                return _Level(fd, path, number, [])
        if fd >= 0:
            os.close(fd)
        return None

    def _vanished(self, entry_id: int) -> None:
        """A directory is gone again: as if it had not been met, it may turn up elsewhere."""
        self._missing.append(entry_id)
        entry = self._working.entry(entry_id)
        if entry is not None:
            self._moves.release(entry)

    def _unreadable_directory(self, entry_id: int, path: bytes, error: OSError) -> None:
        self._unseen(entry_id, path, f"directory cannot be read: {_reason(error)}")

    def _unseen(self, entry_id: int, path: bytes, problem: str, parent: int = 0) -> None:
        """Keep what the version before has there: nothing may look deleted that was not seen.

        What the version before does not have gets a mark, by which a restore knows not to delete it.

        Args:
            entry_id: Entry id; 0 for what has no record.
            path: Where it is.
            problem: What is wrong.
            parent: Id of its directory, where it may have no row.
        """
        entry = self._working.entry(entry_id) if entry_id else None
        if entry is None or self._compared.entry(entry_id) is None:
            self.report(path, f"{problem}; not backed up")
            if entry is None:
                self._outgoing.mark_incomplete(parent)
            else:
                keep_as_before(entry, self._working, self._outgoing)
            return
        self.report(path, f"{problem}; kept as in the version before")
        keep_as_before(entry, self._working, self._outgoing)

    def _directory(self, fd: int, entry_id: int, path: bytes) -> list[tuple[int, bytes]]:
        """Merge one directory; (id, name) of the directories to go into, last one first."""
        try:
            names = [os.fsencode(name) for name in os.listdir(fd)]
        except OSError as error:
            if isinstance(error, FileNotFoundError) and entry_id != ROOT_ID:
                self._vanished(entry_id)
                return []
            self._unreadable_directory(entry_id, path, error)
            return []
        names.sort()
        names = self._excluder.keep_in_cache(names, fd)
        self._now_s = self._clock.now().timestamp()
        read_before = self.counts.bytes_read
        records = self._compared.children(entry_id)
        record = next(records, None)
        below: list[tuple[int, bytes]] = []
        for name in names:
            while record is not None and record.name < name:
                self._missing.append(record.id)
                record = next(records, None)
            known = None
            if record is not None and record.name == name:
                known = None if self._moves.is_claimed(record.id) else record
                record = next(records, None)
            directory_id = self._entry(fd, entry_id, name, known, path)
            if directory_id:
                below.append((directory_id, name))
        while record is not None:
            self._missing.append(record.id)
            record = next(records, None)
        self._monitor.advance(len(names) + 1, self.counts.bytes_read - read_before, path)
        self._content.work_on_deltas()
        self._outgoing.listen()
        below.reverse()
        return below

    def _entry(
        self, fd: int, parent: int, name: bytes, record: Entry | None, parent_path: bytes
    ) -> int:
        """Handle one name; the entry id if it is a directory to go into, else 0."""
        path = parent_path + b"/" + name if parent_path else name
        status = self._look(fd, parent, name, record, path)
        if status is None:
            return 0
        is_directory = stat_module.S_ISDIR(status.st_mode)
        if record is not None and self._source.ignore_inode:
            record = renumbered(record, status)
        if record is not None and is_untouched(record, status):
            kind = Kind.DIRECTORY if is_directory else record.kind
            if record.kind == kind and (is_directory or self._is_same_leaf(record, status)):
                return self._below(record.id, status) if is_directory else 0
        now = self._source.seen(0, parent, name, status)
        if record is not None and record.kind != now.kind:
            self._missing.append(record.id)
            record = None
        if now.kind == Kind.DIRECTORY:
            if (status.st_dev, status.st_ino) in self._source.skip:
                self._forget(record)
                return 0
            return self._below(self._directory_row(fd, now, record, path), status)
        if record is not None and is_renumbered(record, status):
            self._renumbered += 1
        if now.kind == Kind.FILE:
            self._file(fd, now, record, path, status)
        else:
            self._leaf(fd, now, record, path)
        return 0

    def _is_same_leaf(self, record: Entry, status: os.stat_result) -> bool:
        """Whether something untouched is of the recorded kind, and a hard link if it is one now."""
        return kind_of_mode(status.st_mode) == record.kind and (
            self._source.ignore_inode or not lacks_link_group(record, status)
        )

    def _look(
        self, fd: int, parent: int, name: bytes, record: Entry | None, path: bytes
    ) -> os.stat_result | None:
        """The status of a name; None if there is nothing to be backed up as it is."""
        try:
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            self._forget(record)
            return None
        except OSError as error:
            entry_id = record.id if record else 0
            self._unseen(entry_id, path, f"cannot be looked at: {_reason(error)}", parent)
            return None
        if self._excluder.has_patterns and self._excluder.is_excluded(
            path, is_directory=stat_module.S_ISDIR(status.st_mode)
        ):
            self._forget(record)
            return None
        return status

    def _forget(self, record: Entry | None) -> None:
        """What was recorded here is not to be in the version, unless it turns up elsewhere."""
        if record is not None:
            self._missing.append(record.id)

    def _below(self, entry_id: int, status: os.stat_result) -> int:
        """The id of a directory to go into; 0 if it is left out, with all that is recorded in it."""
        is_elsewhere = status.st_dev != self._source.device
        if not (is_elsewhere and self._excluder.options.one_file_system) and (
            (status.st_dev, status.st_ino) not in self._source.skip
        ):
            return entry_id
        self._missing.extend(row.id for row in self._compared.children(entry_id))
        return 0

    # -- rows ------------------------------------------------------------------------------------

    def _directory_row(self, fd: int, now: Entry, record: Entry | None, path: bytes) -> int:
        """Send what changed about a directory itself; its id."""
        now = changed(now, xattrs=self._attributes.of_name(now.name, fd, record, path))
        if record is not None:
            self._metadata(record, changed(now, id=record.id))
            return record.id
        moved = self._moves.moved_here(now)
        if moved is not None:
            self._moves.claim(moved)
            self._outgoing.keep(now._replace(id=moved.id))
            self.counts.moved += 1
            return moved.id
        entry = changed(now, id=self._working.take_id())
        self._outgoing.make(entry)
        self.counts.new += 1
        return entry.id

    def _metadata(self, record: Entry, now: Entry) -> None:
        """Another row for the same content at the same path."""
        self._outgoing.keep(now)
        if not is_only_bookkeeping(record, now):
            self.counts.metadata_only += 1

    def _leaf(self, fd: int, now: Entry, record: Entry | None, path: bytes) -> None:
        """Handle what is neither a directory nor a file."""
        if now.kind:
            now = now._replace(xattrs=self._attributes.of_name(now.name, fd, record, path))
            if now.kind == Kind.SYMLINK:
                self._symlink(fd, now, record, path)
            else:
                self._special(now, record)
        else:
            self.counts.sockets += 1  # nothing that could be backed up

    def _symlink(self, fd: int, now: Entry, record: Entry | None, path: bytes) -> None:
        try:
            now = now._replace(target=os.readlink(now.name, dir_fd=fd))
        except OSError as error:
            if error.errno in _VANISHED:
                self._forget(record)
            else:
                entry_id = record.id if record else 0
                problem = f"symlink cannot be read: {_reason(error)}"
                self._unseen(entry_id, path, problem, now.parent)
            return
        self._special(now, record)

    def _special(self, now: Entry, record: Entry | None) -> None:
        """A symlink or special file that is all in its row."""
        if record is not None and (record.target, record.rdev) == (now.target, now.rdev):
            self._metadata(record, now._replace(id=record.id))
            return
        if record is not None:
            self._outgoing.make(now._replace(id=record.id))
            self.counts.changed += 1
            return
        moved = self._moves.moved_here(now)
        if moved is not None and moved.target == now.target:
            self._moves.claim(moved)
            self._outgoing.keep(now._replace(id=moved.id))
            self.counts.moved += 1
            return
        self._outgoing.make(now._replace(id=self._working.take_id()))
        self.counts.new += 1

    def _file(
        self, fd: int, now: Entry, record: Entry | None, path: bytes, status: os.stat_result
    ) -> None:
        moved = same = None
        if record is None or judge_content(record, now) is Verdict.CHANGED:
            same = self._moves.same_inode(now, free_first=record is None)
            if record is None and same is not None and self._moves.is_free(same):
                moved = same
                self._moves.claim(same)
        known = record or moved
        if known is not None:
            now = changed(now, id=known.id)
        if known is not None and judge_content(known, now) is Verdict.SAME:
            entry = now._replace(digest=known.digest, xattrs=known.xattrs, holes=known.holes)
            if moved is not None:
                self._outgoing.keep(entry)
                self.counts.moved += 1
            else:
                self._metadata(known, entry)
            return
        self._content.finish_if_pending(now)
        found = Found(now, record, moved, same, self._moves.twin(now), path, self._now_s, status)
        if not self._content.take(fd, found, self._working):
            # Vanished: as if it had not been there, unless it turns up elsewhere.
            self._forget(record)
            if moved is not None:
                self._moves.release(moved)

    def _remove_missing(self) -> None:
        """Remove what was recorded, not met at its path, and not found anywhere else."""
        for entry_id in self._missing:
            if self._moves.is_claimed(entry_id) or self._working.entry(entry_id) is None:
                continue
            self.counts.removed += self._outgoing.remove(entry_id)
        del self._missing[:]

    def close(self) -> None:
        """Close the files that still wait for a signature."""
        self._content.close()

    def resend(self, entry_id: int) -> None:
        """Send the content of an entry that the server has lost, or what has become of it."""
        self.counts.removed += self._resending.resend(entry_id)


def _reason(error: OSError) -> str:
    return (error.strerror or "unknown error").lower()
