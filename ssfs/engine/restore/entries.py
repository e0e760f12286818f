"""The entries of a restore that are no directories: which are right, which are written, and in what order.

The content of files is asked for ahead of the one being written, as far as its source likes
(`ssfs.engine.restore.contents`), and taken in the same order. The digest of each file is compared with the catalog's
before it gets its name.
"""

import collections
import contextlib
import os
import stat

from ssfs.engine.restore.contents import Contents, Copy
from ssfs.engine.restore.directories import Directories
from ssfs.engine.restore.existing import Existing, find_basis
from ssfs.engine.restore.links import Links, Turn
from ssfs.engine.restore.options import Action, Overwrite
from ssfs.engine.restore.run import Run
from ssfs.engine.restore.target import IN_THE_WAY
from ssfs.engine.restore.walk import Item, Walk
from ssfs.model.entry import Kind
from ssfs.model.layout import Layout, data_bytes
from ssfs.protocol.messages import INLINE_MAX_BYTES

_FILE = int(Kind.FILE)
_DIRECTORY_THERE = "not restored: a directory has its place"
_MOST_WAITING_DIRECTORIES = 512
"""Directories held open because content for them is on its way."""
_FEW_WAITING_DIRECTORIES = 384


class Entries:
    """Puts what is restored, but for directories, into them."""

    def __init__(self, run: Run, contents: Contents, links: Links) -> None:
        self._run = run
        self._options = run.options
        self._contents = contents
        self._links = links
        self._existing = Existing(run)
        # Nothing is left out, and what is not there is written.
        self._has_patterns = run.deletion.has_patterns
        self._judges_all = run.options.overwrite is Overwrite.IF_CHANGED and not self._has_patterns
        self._is_straight = not (run.options.dry_run or self._has_patterns)
        self._queue: collections.deque[Item] = collections.deque()

    def restore(self, directories: Directories) -> None:
        """Put into each directory what belongs there."""
        self._walk = Walk(directories.make, directories.finish)
        with contextlib.closing(self._walk):
            for item in self._walk.items(directories.tops()):
                is_plain = item.entry.kind == _FILE and not item.entry.link_group
                if is_plain and item.level.is_new and self._is_unhindered():
                    item.is_asked = True
                    self._contents.ask(item.entry, None)
                    self._queue.append(item)
                elif is_plain and self._judges_all and self._existing.is_right(item):
                    self._arrived(item, item.entry.size)
                    continue
                elif self._is_settled(item):
                    continue
                elif item.entry.kind != _FILE:
                    self._put(item)
                    continue
                else:
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

    def _is_unhindered(self) -> bool:
        """Whether a file of one name in a new directory can be asked for without another look: most of them can."""
        return self._is_straight and not self._run.failures.has_foresight

    # -- what is there already -------------------------------------------------------------------

    def _is_settled(self, item: Item) -> bool:
        """Whether nothing is to be written for an entry; it is done with then."""
        if self._has_patterns and self._run.deletion.is_excluded(item.path, is_directory=False):
            self._leave(item)
            return True
        status = self._look(item)
        if status is not None and self._is_kept(item, status):
            self._leave(item)
            return True
        is_first = self._links.turn(item.entry) is Turn.WRITE
        if status is not None:
            item.action = Action.REPLACE
            is_judged = is_first and self._options.overwrite is not Overwrite.ALWAYS
            if is_judged and self._existing.is_settled(item, status):
                self._arrived(item, item.entry.size)
                return True
        if self._options.dry_run:
            self._foresee(item, status, is_first=is_first)
            return True
        return self._is_hopeless(item)

    def _look(self, item: Item) -> os.stat_result | None:
        """What is in an entry's place, if anything."""
        if item.level.is_new:
            return None
        try:
            return os.stat(item.entry.name, dir_fd=item.level.fd, follow_symlinks=False)
        except OSError:
            return None

    def _is_kept(self, item: Item, status: os.stat_result) -> bool:
        """Whether what is there stays, because it is to or because it is a directory."""
        if self._options.keeps(item.entry, status):
            self._run.actions.kept += 1
            return True
        if stat.S_ISDIR(status.st_mode) and not self._options.deletes:
            self._run.failures.report(item.path, _DIRECTORY_THERE)
            return True
        return False

    def _foresee(self, item: Item, status: os.stat_result | None, *, is_first: bool) -> None:
        """Say what would be done with an entry that is not right."""
        if status is not None and stat.S_ISDIR(status.st_mode) and not self._make_room(item):
            self._run.failures.report(item.path, _DIRECTORY_THERE)
        else:
            is_linked = (
                status is not None and not is_first and self._links.is_same(item.entry, status)
            )
            self._run.actions.add(None if is_linked else item.action, item.path)
            self._run.actions.entries += 1
            self._run.actions.size_bytes += item.entry.size if is_first else 0
        self._leave(item)

    def _is_hopeless(self, item: Item) -> bool:
        """Whether it is known that an entry cannot be written; then its content need not come."""
        error = self._run.failures.foresee(item.level.fd, _data_of(item))
        if error is not None:
            self._run.failures.fail(item.path, error)
            self._links.failed(item.entry)
            self._leave(item)
        return error is not None

    def _make_room(self, item: Item) -> bool:
        """Remove a directory that has an entry's place, if that is wished; whether it is gone."""
        if not self._options.deletes or item.level.is_new:
            return False
        return self._run.deletion.make_room(item.entry.name, item.level.fd, item.path)

    # -- the content of files --------------------------------------------------------------------

    def _ask(self, item: Item) -> None:
        """Ask for a file's content, unless it is another name of one that has been asked for."""
        if self._links.turn(item.entry) is not Turn.WRITE:
            self._queue.append(item)
            return
        item.is_asked = True
        basis = None
        if self._contents.wants_bases and _data_of(item) > INLINE_MAX_BYTES:
            basis = find_basis(item)
        if basis is not None:
            while self._queue and not self._contents.has_credit(basis.size_bytes):
                self._put(self._queue.popleft())
        self._contents.ask(item.entry, basis)
        self._queue.append(item)

    def _fill(self, item: Item, fd: int) -> bool:
        """Write a file's content; False if it is not to be had, or not yet."""
        item.is_taken = True
        layout = Layout.of(item.entry.size, item.entry.holes)
        copy = Copy(fd, layout, lambda count: self._run.monitor.advance(0, count, item.path))
        outcome = self._contents.take(item.entry, copy)
        item.comes_again = outcome.comes_again
        if outcome.is_as_it_is:
            self._run.failures.report(item.path, f"restored as it is: {outcome.problem}")
            return True
        if outcome.problem:
            self._run.failures.report(item.path, f"not restored: {outcome.problem}")
        return not (outcome.problem or outcome.comes_again)

    # -- everything but directories --------------------------------------------------------------

    def _put(self, item: Item) -> None:
        """Put an entry in its place."""
        if not item.is_asked and self._is_linked(item):
            return
        entry = item.entry
        if item.is_asked and (content := self._contents.take_whole(entry)) is not None:
            self._put_small(item, content)
            return
        item.is_taken = entry.kind != Kind.FILE
        is_there = False
        if entry.kind in (Kind.CHARACTER_DEVICE, Kind.BLOCK_DEVICE) and os.geteuid() != 0:
            self._run.failures.report(item.path, "not restored: only root may make devices")
        else:
            try:
                is_there = self._run.target.put(
                    entry,
                    item.level.fd,
                    lambda fd: self._fill(item, fd),
                    lambda: self._make_room(item),
                )
            except OSError as error:
                self._fail(item, error)
                if not item.is_taken:
                    self._contents.drop(entry)
        if is_there:
            self._is_put(item)
        elif item.comes_again:
            self._queue.append(item)
        else:
            self._links.failed(entry)
            self._leave(item)

    def _put_small(self, item: Item, content: bytes) -> None:
        """Put a file with this content, which is right, in its place."""
        entry, level, target = item.entry, item.level, self._run.target
        if level.gives_xattrs is None:
            level.gives_xattrs = target.gives_xattrs(level.fd)
        try:
            target.put_small(
                entry,
                level.fd,
                content,
                lambda: self._make_room(item),
                has_no_xattrs=not level.gives_xattrs,
            )
        except OSError as error:
            self._fail(item, error)
            self._links.failed(entry)
            self._leave(item)
            return
        self._is_put(item, len(content))

    def _is_put(self, item: Item, size_bytes: int = 0) -> None:
        self._run.report_incomplete(item.path)
        self._run.failures.end_row()
        self._run.actions.add(item.action, item.path)
        self._arrived(item, size_bytes)

    def _fail(self, item: Item, error: OSError) -> None:
        if error.errno in IN_THE_WAY:
            self._run.failures.report(item.path, _DIRECTORY_THERE)
        else:
            self._run.failures.fail_in(item.level.fd, item.path, _data_of(item), error)

    def _is_linked(self, item: Item) -> bool:
        """Link an entry to another name of its file; False if it must be written itself, now.

        Waits, at the end of the queue, while that name is on its way.
        """
        turn = self._links.turn(item.entry)
        if turn is Turn.LINK:
            with contextlib.suppress(OSError):
                if self._link(item):
                    self._run.actions.entries += 1
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

    def _link(self, item: Item) -> bool:
        """Make an entry another name of the first of its group; False if that is not there."""
        status = self._look(item)
        if status is not None and self._links.is_same(item.entry, status):
            self._run.actions.add(None, item.path)
            return True
        first = self._links.first(item.entry)
        if first is None:
            return False
        self._run.target.link(first, item.entry, item.level.fd, lambda: self._make_room(item))
        self._run.actions.add(item.action, item.path)
        return True

    def _arrived(self, item: Item, size_bytes: int = 0) -> None:
        """An entry is in its place, with so much content that the monitor has not heard of."""
        if item.entry.link_group:
            self._links.is_there(item.entry, item.level.fd)
        self._run.actions.entries += 1
        self._run.actions.size_bytes += item.entry.size
        self._leave(item, size_bytes)

    def _leave(self, item: Item, size_bytes: int = 0) -> None:
        """Nothing more happens to an entry."""
        self._run.monitor.advance(1, size_bytes, item.path)
        self._walk.done(item)


def _data_of(item: Item) -> int:
    """How much content is to be moved and written for an entry: holes are not."""
    return data_bytes(item.entry.size, item.entry.holes)
