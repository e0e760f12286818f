"""The walk: the source merged with the compared catalog, one directory at a time.

Holds one descriptor per level of depth and the names of one directory. What a look means is decided in
`ssfs.engine.plan`; what is sent goes through `ssfs.engine.outgoing`; file content is read by `ssfs.engine.content`. Entries of the
compared catalog that were not met are gone only when the walk is over: until then each may still turn
up under another path.
"""

import array
import os
import stat as stat_module

from ssfs.clock import Clock
from ssfs.engine.attributes import Attributes
from ssfs.engine.content import ContentSender, Found
from ssfs.engine.moves import Catalogs, MoveFinder, Source
from ssfs.engine.outgoing import Outgoing
from ssfs.engine.plan import Verdict, is_only_bookkeeping, is_untouched, judge_content, seen
from ssfs.fsio.disk import DIRECTORY_FLAGS, open_directory
from ssfs.model.entry import ROOT_ID, Entry, Flag, Kind, kind_of_mode
from ssfs.model.problem import EntryProblem
from ssfs.model.version import Counts
from ssfs.monitor import Monitor
from ssfs.source.exclude import Excluder
from ssfs.store.catalog.schema import PARKED


class Comparison:
    """One walk over a source.

    Attributes:
        counts: What was found so far.
        problems: What could not be backed up as it is.
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
        self._content = ContentSender(
            catalogs.compared, outgoing, self._attributes, self.counts, monitor, self.report
        )
        self._now_s = 0.0

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
        below: list[tuple[int, bytes]] = []
        stack = [(os.dup(self._source.fd), b"", below)]
        try:
            below.extend(self._directory(self._source.fd, ROOT_ID, b""))
            while stack:
                fd, path, below = stack[-1]
                if not below:
                    os.close(fd)
                    stack.pop()
                    continue
                entry_id, name = below.pop()
                child_path = path + b"/" + name if path else name
                child = self._enter(fd, entry_id, name, child_path)
                if child >= 0:
                    stack.append((child, child_path, []))
                    stack[-1][2].extend(self._directory(child, entry_id, child_path))
        finally:
            for fd, _, _ in stack:
                os.close(fd)
        self._content.finish_deltas()
        self._remove_missing()

    def _root(self) -> None:
        status = os.fstat(self._source.fd)
        now = seen(ROOT_ID, 0, b"", status, self._source.device)
        record = self._compared.root()
        if record is not None and is_untouched(record, status):
            return
        now = now._replace(xattrs=self._attributes.of_open(self._source.fd, record, b""))
        if record is None:
            self._outgoing.make(now)
            self.counts.new += 1
        else:
            self._metadata(record, now)

    def _enter(self, fd: int, entry_id: int, name: bytes, path: bytes) -> int:
        """A descriptor of a directory to walk; -1 for one that cannot be walked."""
        try:
            return open_directory(name, dir_fd=fd)
        except FileNotFoundError:
            self._missing.append(entry_id)
        except OSError as error:
            self._unreadable_directory(entry_id, path, error)
        return -1

    def _unreadable_directory(self, entry_id: int, path: bytes, error: OSError) -> None:
        """Keep what the version before had in it: nothing may look deleted that was not seen."""
        reason = (error.strerror or "unknown error").lower()
        entry = self._working.entry(entry_id)
        if entry is not None and self._compared.entry(entry_id) is not None:
            self.report(path, f"directory cannot be read: {reason}; kept as in the version before")
            self._outgoing.keep(entry._replace(flags=entry.flags | Flag.STALE))
        else:
            self.report(path, f"directory cannot be read: {reason}; its content is not backed up")

    def _directory(self, fd: int, entry_id: int, path: bytes) -> list[tuple[int, bytes]]:
        """Merge one directory; (id, name) of the directories to go into, last one first."""
        try:
            names = [os.fsencode(name) for name in os.listdir(fd)]
        except OSError as error:
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
        try:
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            self._forget(record)
            return 0
        except OSError as error:
            self.report(path, f"cannot be looked at: {(error.strerror or '').lower()}")
            return 0
        is_directory = stat_module.S_ISDIR(status.st_mode)
        if self._excluder.has_patterns and self._excluder.is_excluded(
            path, is_directory=is_directory
        ):
            self._forget(record)
            return 0
        if record is not None and is_untouched(record, status):
            kind = Kind.DIRECTORY if is_directory else record.kind
            if record.kind == kind and (is_directory or kind_of_mode(status.st_mode) == kind):
                return record.id if is_directory and self._goes_into(status) else 0
        now = seen(0, parent, name, status, self._source.device)
        if record is not None and record.kind != now.kind:
            self._missing.append(record.id)
            record = None
        if now.kind == Kind.DIRECTORY:
            if (status.st_dev, status.st_ino) in self._source.skip:
                self._forget(record)
                return 0
            entry_id = self._directory_row(fd, now, record, path)
            return entry_id if self._goes_into(status) else 0
        self._leaf(fd, now, record, path)
        return 0

    def _forget(self, record: Entry | None) -> None:
        """What was recorded here is not to be in the version, unless it turns up elsewhere."""
        if record is not None:
            self._missing.append(record.id)

    def _goes_into(self, status: os.stat_result) -> bool:
        if (status.st_dev, status.st_ino) in self._source.skip:
            return False
        return not (self._excluder.options.one_file_system and status.st_dev != self._source.device)

    # -- rows ------------------------------------------------------------------------------------

    def _directory_row(self, fd: int, now: Entry, record: Entry | None, path: bytes) -> int:
        """Send what changed about a directory itself; its id."""
        now = now._replace(xattrs=self._attributes.of_name(now.name, fd, record, path))
        if record is not None:
            self._metadata(record, now._replace(id=record.id))
            return record.id
        moved = self._moves.moved_here(now)
        if moved is not None:
            self._moves.claim(moved)
            self._outgoing.keep(now._replace(id=moved.id))
            self.counts.moved += 1
            return moved.id
        entry = now._replace(id=self._working.take_id())
        self._outgoing.make(entry)
        self.counts.new += 1
        return entry.id

    def _metadata(self, record: Entry, now: Entry) -> None:
        """Another row for the same content at the same path."""
        self._outgoing.keep(now)
        if not is_only_bookkeeping(record, now):
            self.counts.metadata_only += 1

    def _leaf(self, fd: int, now: Entry, record: Entry | None, path: bytes) -> None:
        if now.kind == Kind.FILE:
            self._file(fd, now, record, path)
        elif now.kind:  # else a socket: nothing that could be backed up
            now = now._replace(xattrs=self._attributes.of_name(now.name, fd, record, path))
            if now.kind == Kind.SYMLINK:
                self._symlink(fd, now, record, path)
            else:
                self._special(now, record)

    def _symlink(self, fd: int, now: Entry, record: Entry | None, path: bytes) -> None:
        try:
            now = now._replace(target=os.readlink(now.name, dir_fd=fd))
        except OSError as error:
            self.report(path, f"symlink cannot be read: {(error.strerror or '').lower()}")
            return
        if record is not None and record.target == now.target:
            self._metadata(record, now._replace(id=record.id))
            return
        self._special(now, record)

    def _special(self, now: Entry, record: Entry | None) -> None:
        """A symlink or special file that is all in its row."""
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

    def _file(self, fd: int, now: Entry, record: Entry | None, path: bytes) -> None:
        moved = same = None
        if record is None or judge_content(record, now) is Verdict.CHANGED:
            same = self._moves.same_inode(now, free_first=record is None)
            if record is None and same is not None and self._moves.is_free(same):
                moved = same
                self._moves.claim(same)
        known = record or moved
        now = now._replace(id=known.id if known else 0)
        if known is not None and judge_content(known, now) is Verdict.SAME:
            entry = now._replace(digest=known.digest, xattrs=known.xattrs, holes=known.holes)
            if moved is not None:
                self._outgoing.keep(entry)
                self.counts.moved += 1
            else:
                self._metadata(known, entry)
            return
        self._content.finish_if_pending(now)
        found = Found(now, record, moved, same, self._moves.twin(now), path, self._now_s)
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

    # -- what the server asks for again ----------------------------------------------------------

    def resend(self, entry_id: int) -> None:
        """Send the content of an entry whole, or what has become of it."""
        entry = self._working.entry(entry_id)
        names = self._working.path_names(entry_id)
        if entry is None or names is None or entry.kind != Kind.FILE:
            return
        path = b"/".join(names)
        try:
            parent = _open_beneath(self._source.fd, names[:-1])
        except OSError:
            sent = False
        else:
            try:
                sent = self._content.send_whole(parent, entry, path, self._source.device)
            finally:
                os.close(parent)
        if not sent:
            self.report(path, "the server has lost its content and it is not here any more")
            self.counts.removed += self._outgoing.remove(entry_id)


def _open_beneath(root: int, names: list[bytes]) -> int:
    """A descriptor of a directory below the root, no symlink followed on the way."""
    fd = os.dup(root)
    for name in names:
        try:
            below = os.open(name, DIRECTORY_FLAGS, dir_fd=fd)
        finally:
            os.close(fd)
        fd = below
    return fd
