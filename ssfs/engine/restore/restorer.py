"""Restore: put a version, or parts of it, into a directory.

Directories are made on the way down (`ssfs.engine.restore.walk`); the content of files is asked for ahead of the one being
written, as far as its source likes (`ssfs.engine.restore.contents`), and taken in the same order. A directory gets its
metadata when nothing is left to do in it, deepest first, so that nothing disturbs its times. The
digest of each file is compared with the catalog's before it gets its name.

What fails for one entry is an `EntryProblem`, and the run goes on; a full or read-only target ends it.
"""

import collections
import contextlib
import errno
import os
from collections.abc import Iterable, Iterator

import msgspec

from ssfs.clock import Clock
from ssfs.delta.signature import signature_size
from ssfs.engine.restore.contents import Basis, Contents, Copy
from ssfs.engine.restore.credit import CREDIT_SIGNATURE_BYTES
from ssfs.engine.restore.links import Links, Turn
from ssfs.engine.restore.target import ENDS_RUN, Target, open_target, target_error
from ssfs.engine.restore.walk import Item, Level, Walk
from ssfs.errors import CorruptStore
from ssfs.fsio.sparse import is_empty_in_holes
from ssfs.model.entry import Entry, Kind
from ssfs.model.layout import Layout
from ssfs.model.problem import EntryProblem
from ssfs.monitor import Monitor
from ssfs.protocol.messages import INLINE_MAX_BYTES
from ssfs.source.reading import digest_file, open_file
from ssfs.store.catalog.reader import CatalogReader
from ssfs.store.tree import Tree

_NS = 1_000_000_000
_IN_THE_WAY = (errno.EISDIR, errno.ENOTEMPTY, errno.EEXIST)
_NOT_A_DIRECTORY = (errno.ENOTDIR, errno.ELOOP)
_MOST_WAITING_DIRECTORIES = 512
"""Directories held open because content for them is on its way."""
_FEW_WAITING_DIRECTORIES = 384
_BASIS_MIN_BYTES = 16 << 10
"""A smaller file is not worth a signature."""


class RestoreResult(msgspec.Struct, frozen=True):
    """What became of a restore.

    Attributes:
        entries: Entries that are in the target now.
        size_bytes: Content of its files.
        owners_not_set: Entries that belong to us because only root may give files away.
        xattrs_not_set: Extended attributes (ACLs too) that only root, or no one here, may set.
        seconds: How long it took.
        problems: What could not be restored as it is.
    """

    entries: int
    size_bytes: int
    owners_not_set: int
    xattrs_not_set: int
    seconds: float
    problems: list[EntryProblem]


def restore_into(
    target: bytes,
    wanted: dict[bytes, Entry],
    catalog: CatalogReader,
    contents: Contents,
    monitor: Monitor,
    clock: Clock,
) -> RestoreResult:
    """Put what is wanted into the directory `target`.

    Args:
        target: Made if it does not exist; merged with what it holds.
        wanted: As `ssfs.engine.restore.wanted.find_wanted` found it; nothing: the whole version.
        catalog: Of the version, or of that part of it.
        contents: Where the content of its files comes from.
        monitor: Hears of progress and problems.
        clock: For the duration, and for access times.

    Raises:
        ConfigError: The target cannot be used; nothing was written.
        StoreError: It is full or read-only, or the catalog is damaged.
    """
    started_s = clock.monotonic_s()
    target_fd, is_new = open_target(target)
    try:
        place = Target(catalog, int(clock.now().timestamp() * _NS))
        with contextlib.closing(Tree(catalog, os.dup(target_fd))) as places:
            for entry in wanted.values():
                places.add_root(entry.parent, os.dup(target_fd))
            restorer = _Restorer(catalog, contents, place, Links(catalog, places), monitor)
            try:
                if wanted:
                    restorer.restore(restorer.parts(wanted, target_fd))
                else:
                    restorer.restore([restorer.root(target_fd, is_new=is_new)])
            except OSError as error:
                raise target_error(error, target) from error
    finally:
        os.close(target_fd)
    seconds = clock.monotonic_s() - started_s
    return RestoreResult(
        restorer.entries,
        restorer.size_bytes,
        place.owners_not_set,
        place.xattrs_not_set,
        seconds,
        restorer.problems,
    )


class _Restorer:
    """One run.

    Attributes:
        entries: What is in the target so far.
        size_bytes: Content of its files.
        problems: What went wrong so far.
    """

    def __init__(
        self,
        catalog: CatalogReader,
        contents: Contents,
        target: Target,
        links: Links,
        monitor: Monitor,
    ) -> None:
        self.entries = 0
        self.size_bytes = 0
        self.problems: list[EntryProblem] = []
        self._catalog = catalog
        self._contents = contents
        self._target = target
        self._links = links
        self._monitor = monitor
        self._walk = Walk(catalog, self._make_directory, self._finish_directory)
        self._queue: collections.deque[Item] = collections.deque()

    def root(self, target_fd: int, *, is_new: bool) -> Level:
        """The target as the version's root.

        One that was there keeps its own owner, mode and times: nobody wants /home to become what
        somebody's backup says.
        """
        root = self._catalog.root()
        if root is None:
            raise CorruptStore("The catalog is empty", path=self._catalog.path)
        level = Level(root, os.dup(target_fd), b"", self._catalog.children(root.id))
        level.sets_metadata = is_new
        return level

    def parts(self, wanted: dict[bytes, Entry], target_fd: int) -> Iterator[Level]:
        """The target as the place of each wanted entry in turn."""
        for path, entry in wanted.items():
            yield Level(None, os.dup(target_fd), os.path.dirname(path), iter([entry]))

    def restore(self, tops: Iterable[Level]) -> None:
        """Put into each level what belongs there.

        Raises:
            OSError: The target cannot take any more.
        """
        with contextlib.closing(self._walk):
            for item in self._walk.items(tops):
                if item.entry.kind != Kind.FILE:
                    self._put(item)
                    continue
                self._ask(item)
                if self._contents.is_full() or self._is_above(_MOST_WAITING_DIRECTORIES):
                    self._work_off()
            self._contents.flush()
            while self._queue:
                self._put(self._queue.popleft())

    def _work_off(self) -> None:
        """Take files until it is worth asking for more."""
        self._contents.flush()
        while self._queue and not (
            self._contents.is_low() and not self._is_above(_FEW_WAITING_DIRECTORIES)
        ):
            self._put(self._queue.popleft())

    def _is_above(self, directories: int) -> bool:
        return self._walk.waiting_directories >= directories

    # -- directories -----------------------------------------------------------------------------

    def _make_directory(self, entry: Entry, path: bytes, parent_fd: int) -> int | None:
        """Make the directory, or take the one that is there; None if it cannot be had."""
        try:
            return self._target.make_directory(entry.name, parent_fd)
        except OSError as error:
            if error.errno in _NOT_A_DIRECTORY:
                self._report(path, "not restored, nor what is in it: something else has its place")
            else:
                self._report_error(path, error)
            return None

    def _finish_directory(self, level: Level, entry: Entry) -> None:
        if level.sets_metadata:
            self._set_metadata(entry, level.fd, level.path)
        self.entries += 1
        self._monitor.advance(1, 0, level.path)

    def _set_metadata(self, entry: Entry, fd: int, path: bytes) -> None:
        try:
            self._target.set_metadata(entry, fd)
        except OSError as error:
            if error.errno in ENDS_RUN:
                raise
            reason = (error.strerror or "unknown error").lower()
            self._report(path, f"restored, but not its mode and times: {reason}")
        if problem := self._target.take_problem():
            self._report(path, f"restored, but {problem}")

    # -- the content of files --------------------------------------------------------------------

    def _ask(self, item: Item) -> None:
        """Ask for a file's content, unless it has another name, or the target's own file has it."""
        if self._links.turn(item.entry) is not Turn.WRITE:
            self._queue.append(item)
            return
        item.is_asked = True
        basis = None
        if self._contents.wants_bases and item.entry.size > INLINE_MAX_BYTES:
            if self._is_there(item):
                return
            basis = self._basis(item)
        if basis is not None:
            while self._queue and not self._contents.has_credit(basis.size):
                self._put(self._queue.popleft())
        self._contents.ask(item.entry, basis)
        self._queue.append(item)

    def _is_there(self, item: Item) -> bool:
        """Whether the target's own file has the right content; then it gets its metadata now.

        To digest a file costs a third of its signature and nothing of the line. It is read only
        where its size is right and it may stay where it is; a small one costs less to send.
        """
        entry = item.entry
        with contextlib.ExitStack() as stack:
            try:
                fd = stack.enter_context(open_file(entry.name, item.level.fd))
                status = os.fstat(fd)
                if status.st_size != entry.size or not self._target.is_ours(entry, status):
                    return False
                layout = Layout.of(entry.size, entry.holes)
                digest, _ = digest_file(
                    fd, layout, lambda _: self._monitor.advance(0, 0, item.path)
                )
                if digest != entry.digest or not is_empty_in_holes(fd, layout):
                    return False
            except OSError:
                return False
            self._set_metadata(entry, fd, item.path)
        self._monitor.advance(0, entry.size, item.path)
        self._done(item)
        return True

    def _basis(self, item: Item) -> Basis | None:
        """The target's own file, if it is worth a delta."""
        try:
            with open_file(item.entry.name, item.level.fd) as fd:
                size = os.fstat(fd).st_size
                if size < _BASIS_MIN_BYTES or signature_size(size) > CREDIT_SIGNATURE_BYTES:
                    return None
                return Basis(os.dup(fd), size)
        except OSError:
            return None

    def _fill(self, item: Item, fd: int) -> bool:
        """Write a file's content; False if it is not to be had, or not yet."""
        item.is_taken = True
        layout = Layout.of(item.entry.size, item.entry.holes)
        copy = Copy(fd, layout, lambda count: self._monitor.advance(0, count, item.path))
        outcome = self._contents.take(item.entry, copy)
        item.comes_again = outcome.comes_again
        if outcome.is_as_it_is:
            self._report(item.path, f"restored as it is: {outcome.problem}")
            return True
        if outcome.problem:
            self._report(item.path, f"not restored: {outcome.problem}")
        return not (outcome.problem or outcome.comes_again)

    # -- everything but directories --------------------------------------------------------------

    def _put(self, item: Item) -> None:
        """Put an entry in its place."""
        if not item.is_asked and self._is_linked(item):
            return
        entry, path = item.entry, item.path
        item.is_taken = entry.kind != Kind.FILE
        is_there = False
        if entry.kind in (Kind.CHARACTER_DEVICE, Kind.BLOCK_DEVICE) and os.geteuid() != 0:
            self._report(path, "not restored: only root may make devices")
        else:
            try:
                is_there = self._target.put(entry, item.level.fd, lambda fd: self._fill(item, fd))
            except OSError as error:
                if error.errno in _IN_THE_WAY:
                    self._report(path, "not restored: a directory has its place")
                else:
                    self._report_error(path, error)
                if not item.is_taken:
                    self._contents.drop(entry)
        if is_there:
            if problem := self._target.take_problem():
                self._report(path, f"restored, but {problem}")
            self._done(item)
        elif item.comes_again:
            self._queue.append(item)
        else:
            self._links.failed(entry)
            self._leave(item)

    def _is_linked(self, item: Item) -> bool:
        """Link an entry to another name of its file; False if it must be written itself, now.

        Waits, at the end of the queue, while that name is on its way.
        """
        turn = self._links.turn(item.entry)
        if turn is Turn.LINK:
            first = self._links.first(item.entry)
            with contextlib.suppress(OSError):
                if first is not None:
                    self._target.link(first, item.entry, item.level.fd)
                    self.entries += 1
                    self._leave(item)
                    return True
            self._links.failed(item.entry)
            turn = self._links.turn(item.entry)
        if item.entry.kind != Kind.FILE:
            return False
        if turn is Turn.WRITE:
            self._contents.ask(item.entry, None)
            self._contents.flush()
            item.is_asked = True
        self._queue.append(item)
        return True

    def _done(self, item: Item) -> None:
        """An entry is in its place."""
        self._links.is_there(item.entry, item.level.fd)
        self.entries += 1
        self.size_bytes += item.entry.size
        self._leave(item)

    def _leave(self, item: Item) -> None:
        """Nothing more happens to an entry."""
        self._monitor.advance(1, 0, item.path)
        self._walk.done(item)

    # -- problems --------------------------------------------------------------------------------

    def _report(self, path: bytes, text: str) -> None:
        problem = EntryProblem(path, text)
        self.problems.append(problem)
        self._monitor.problem(problem)

    def _report_error(self, path: bytes, error: OSError) -> None:
        """Report what failed for one entry; what will fail for all of them is raised."""
        if error.errno in ENDS_RUN:
            raise error
        self._report(path, f"not restored: {(error.strerror or 'unknown error').lower()}")
