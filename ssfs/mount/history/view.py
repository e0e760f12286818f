"""The `.history` directories of a mount: `.history/PATH.../FILE/2024-05-01.txt`.

Directories unite what is at their path in all versions; a file is a directory with a file for each of its states. Those
are entries of versions and have their inode numbers: all that is asked about them is asked of the version. Nothing is
kept for a number that the kernel has: what it stands for is found again in the catalogs (`ssfs.mount.history.places`).
"""

import collections
import contextlib
import dataclasses
import stat
from collections.abc import Iterator

from ssfs.model.xattrs import ACL_ACCESS
from ssfs.mount.attributes import (
    DIRECTORY_BYTES,
    TOP_TIMEOUT_S,
    Attributes,
    split_inode_number,
    top_attributes,
)
from ssfs.mount.history.catalogs import Catalogs
from ssfs.mount.history.places import Place, Places
from ssfs.mount.history.states import FileStates, State, StatesFinder
from ssfs.mount.inodes import Inodes, NoEntry, Stale, WrongKind, row
from ssfs.mount.top import TaskDirectory
from ssfs.store.opened import CatalogAbsent

NAME = b".history"

_REMEMBERED = 256
_UNKNOWN_MODE = 0o000

Line = tuple[int, bytes, Attributes]
"""Cookie, name, attributes."""


@dataclasses.dataclass(eq=False, slots=True)
class HistoryHandle:
    """A directory of a history, open.

    Of a directory lines are read some at a time. A cookie is the number of the line before; where each batch began is
    kept, so that one can go back.

    Attributes:
        inode: Its number.
        starts: Of each batch that was read: how many lines and which name come before.
        batch: Which of them `lines` are; -1 for none.
        lines: Those of the batch.
    """

    inode: int
    starts: list[tuple[int, bytes]] = dataclasses.field(default_factory=lambda: [(0, b"")])
    batch: int = -1
    lines: list[Line] = dataclasses.field(default_factory=list)


class History:
    """The history of one task."""

    def __init__(self, inodes: Inodes, task: TaskDirectory) -> None:
        """Ask nothing yet."""
        self.task = task
        self._inodes = inodes
        self._catalogs = Catalogs(inodes.mounted, task)
        self.places = Places(inodes.mounted, self._catalogs, inodes.owners, inodes.own_ids)
        self._finder = StatesFinder(self._catalogs, self.places, inodes.owners)
        self._states: collections.OrderedDict[bytes, FileStates] = collections.OrderedDict()

    def refresh(self) -> None:
        """Look which versions there are."""
        if self._catalogs.refresh():
            self.forget()
        self._catalogs.make_usable()

    def forget(self) -> None:
        """Ask anew from now on."""
        self.places.forget()
        self._states.clear()

    def child(self, place: Place, name: bytes) -> Attributes:
        """The attributes of what is under a name of a place."""
        if place.ids is not None:
            child = self.places.child(place, name)
            if child is None:
                raise NoEntry
            return self.attributes(child)
        state = self.states(place).by_name.get(name)
        if state is None:
            raise NoEntry
        return self._state_attributes(state)

    def lines(self, place: Place, before: int, after: bytes) -> list[Line]:
        """The next lines of a directory, after so many lines and that name."""
        if place.ids is None:
            return list(self._state_lines(place)) if not before else []
        return [
            (number, child.path.rpartition(b"/")[2], self.attributes(child))
            for number, child in enumerate(self.places.children(place, after), before + 1)
        ]

    def _state_lines(self, place: Place) -> Iterator[Line]:
        for number, state in enumerate(self.states(place).listed, 1):
            # Its version may have been deleted just now.
            with contextlib.suppress(NoEntry, Stale):
                yield number, state.name, self._state_attributes(state)

    def states(self, place: Place) -> FileStates:
        """The states of the file at a place."""
        found = self._states.get(place.path)
        if found is None:
            if len(self._states) >= _REMEMBERED:
                self._states.popitem(last=False)
            found = self._states[place.path] = self._finder.states(place)
        return found

    def attributes(self, place: Place) -> Attributes:
        """The attributes of a place: always a directory."""
        rights = place.rights
        mode = stat.S_IFDIR | rights.mode
        owner = (rights.uid, rights.gid)
        return top_attributes(place.inode, mode, DIRECTORY_BYTES, place.mtime_ns, owner)

    def _state_attributes(self, state: State) -> Attributes:
        """The attributes of a state: those of an entry of a version, whose name here may go."""
        binding = self.task.binding_of(state.version)
        if binding is None:
            raise NoEntry
        opened = self._inodes.consult(binding)
        entry = row(opened, state.entry_id)
        attributes = self._inodes.entry_attributes(entry, binding, opened)
        return attributes._replace(name_timeout_s=TOP_TIMEOUT_S)


class Histories:
    """The histories of a mount's tasks."""

    def __init__(self, inodes: Inodes) -> None:
        """Offer none yet.

        Args:
            inodes: The mount's.
        """
        self._inodes = inodes
        self._offered = self._listed = False
        self._of_task: dict[int, History] = {}
        self._numbers: dict[int, History] = {}

    def offer(self, *, listed: bool) -> None:
        """Have a history in each task, which is listed there or not."""
        self._offered, self._listed = True, listed

    @property
    def are_offered(self) -> bool:
        """Whether each task has one."""
        return self._offered

    def has(self, number: int) -> bool:
        """Whether the upper part of an inode number is of a history."""
        return number in self._numbers

    def task_of(self, number: int) -> TaskDirectory:
        """The task whose history has inode numbers that begin so.

        Raises:
            Stale: None has, any more.
        """
        history = self._numbers.get(number)
        if history is None:
            raise Stale
        return history.task

    def root(self, task: TaskDirectory) -> Attributes:
        """The attributes of a task's `.history`.

        Raises:
            NoEntry: There is none.
        """
        history = self._history(task)
        history.refresh()
        place = history.places.root()
        if place is None:
            raise NoEntry
        return history.attributes(place)

    def _history(self, task: TaskDirectory) -> History:
        history = self._of_task.get(task.inode)
        if history is None:
            if not self._offered:
                raise NoEntry
            history = self._of_task[task.inode] = History(self._inodes, task)
            self._note_numbers(history)
        return history

    def listed_in(self, directory: object) -> Attributes | None:
        """The attributes of a directory's `.history`, if it lists one; for no time at all where catalogs would have to be fetched."""
        if not self._listed or not isinstance(directory, TaskDirectory) or not directory.shown:
            return None
        try:
            return self.root(directory)
        except CatalogAbsent:
            # The kernel believes no more than that there is a directory, and asks before anybody may enter.
            inode = self._history(directory).places.root_inode
            mode = stat.S_IFDIR | _UNKNOWN_MODE
            shown = top_attributes(inode, mode, DIRECTORY_BYTES, 0, self._inodes.own_ids)
            return shown._replace(name_timeout_s=0, timeout_s=0)
        except NoEntry:
            # No catalog of it can be read: that must not take the rest of the listing away.
            return None

    def lookup(self, inode: int, name: bytes) -> Attributes:
        """The attributes of what a directory of a history has under a name.

        Raises:
            NoEntry: Nothing.
            Stale: The directory is no more.
        """
        history, place = self._find(inode)
        attributes = history.child(place, name)
        self._note_numbers(history)
        return attributes

    def attributes(self, inode: int) -> Attributes:
        """The attributes of a directory of a history."""
        history, place = self._find(inode)
        return history.attributes(place)._replace(inode=inode)

    def acl(self, inode: int) -> bytes | None:
        """The access ACL of a directory of a history; None for none. It has no other extended attribute."""
        number, _ = split_inode_number(inode)
        if (history := self._numbers.get(number)) and history.places.is_file(number):
            return None
        return self._find(inode)[1].rights.acl or None

    def xattr_names(self, inode: int) -> list[bytes]:
        """The names of its extended attributes."""
        return [ACL_ACCESS] if self.acl(inode) else []

    def parent(self, inode: int) -> int:
        """The number of the directory above one."""
        history, place = self._find(inode)
        if not place.path:
            return history.task.inode
        above = history.places.at(place.path.rpartition(b"/")[0])
        if above is None:
            raise Stale
        self._note_numbers(history)
        return above.inode

    def open(self, inode: int) -> HistoryHandle:
        """Open a directory of a history; nothing need be closed."""
        self._find(inode)
        return HistoryHandle(inode)

    def list(self, handle: HistoryHandle, after: int) -> Iterator[Line]:
        """The lines after a cookie; 0 begins anew.

        Raises:
            WrongKind: There was no such cookie.
            Stale: The directory is no more.
        """
        if not after:
            handle.starts, handle.batch, handle.lines = [(0, b"")], -1, []
        batch = self._batch_after(handle, after)
        while True:
            if batch != handle.batch:
                self._load(handle, batch)
            if not handle.lines:
                return
            yield from handle.lines[max(after - handle.starts[batch][0], 0) :]
            batch += 1

    def _batch_after(self, handle: HistoryHandle, after: int) -> int:
        """Which batch has the line after a cookie."""
        batch = len(handle.starts) - 1
        while handle.starts[batch][0] > after:
            batch -= 1
        if after > handle.starts[batch][0] and batch == len(handle.starts) - 1:
            raise WrongKind
        return batch

    def _load(self, handle: HistoryHandle, batch: int) -> None:
        history, place = self._find(handle.inode)
        before, name = handle.starts[batch]
        handle.lines = history.lines(place, before, name)
        handle.batch = batch
        self._note_numbers(history)
        if batch + 1 < len(handle.starts):
            # More may be there than when this was first read.
            end, last = handle.starts[batch + 1]
            handle.lines = [line for line in handle.lines if line[0] <= end and line[1] <= last]
        elif handle.lines:
            handle.starts.append((before + len(handle.lines), handle.lines[-1][1]))

    def _find(self, inode: int) -> tuple[History, Place]:
        number, entry_id = split_inode_number(inode)
        history = self._numbers.get(number)
        if history is None:
            raise Stale
        history.refresh()
        return history, history.places.numbered(number, entry_id)

    def _note_numbers(self, history: History) -> None:
        """Know what its inode numbers begin with; some are made when a path is met that was left."""
        for number in history.places.numbers:
            self._numbers[number] = history

    def forget(self, *, owners_changed: bool) -> None:
        """Drop what is of deleted tasks, and what is known of accounts if they are asked for anew; now and then."""
        nodes = self._inodes.mounted.nodes
        self._of_task = {inode: h for inode, h in self._of_task.items() if inode in nodes}
        self._numbers = {}
        for history in self._of_task.values():
            if owners_changed:
                history.forget()
            self._note_numbers(history)
