"""Where the content of restored files comes from: what a restore asks of it, and a version of this machine.

The other one is `ssfs.engine.restore.window`: a server at the end of a channel.
"""

import os
from collections.abc import Callable
from typing import NamedTuple, Protocol

from ssfs.delta.basis import Basis
from ssfs.errors import CorruptStore
from ssfs.fsio.disk import COPY_BYTES
from ssfs.fsio.sparse import read_at, write_at
from ssfs.fsio.uncached import write_uncached
from ssfs.model.entry import Entry
from ssfs.model.layout import ContentHasher, Layout, content_digest
from ssfs.protocol.messages import INLINE_MAX_BYTES
from ssfs.store.damage import NO_DAMAGE, Damage
from ssfs.store.tree import Tree

DAMAGED = "its content in the store is damaged"


class Copy:
    """A file that is being written; what it holds is digested on the way.

    Attributes:
        layout: Where its data belongs.
        size: Bytes of its stream so far.
        failure: What a write failed with, if one did.
    """

    def __init__(self, fd: int, layout: Layout, progress: Callable[[int], None]) -> None:
        """A copy in the empty file `fd`; `progress` hears of each piece's bytes."""
        self.layout = layout
        self.size = 0
        self.failure: OSError | None = None
        self._fd = fd
        self._hasher = ContentHasher(layout)
        self._progress = progress

    def write(self, content: bytes | memoryview) -> None:
        """The next bytes of the stream.

        Raises:
            OSError: They cannot be written; it is in `failure`, too.
        """
        self._hasher.update(content)
        try:
            if self.layout.is_sparse:
                write_at(self._fd, self.layout, content, self.size)
            else:
                write_uncached(self._fd, content, self.size)
        except OSError as error:
            self.failure = error
            raise
        self.size += len(content)
        self._progress(len(content))

    def is_of(self, entry: Entry) -> bool:
        """Whether what was written is this entry's content; the file is as long as it has to be then."""
        if self.layout.is_sparse:
            os.ftruncate(self._fd, entry.size)
        return self._hasher.digest() == entry.digest


class Outcome(NamedTuple):
    """What became of a file's content.

    Attributes:
        problem: What is wrong with it in the store; "" if all of it was written and is right.
        comes_again: Nothing usable came, but it was asked for once more, behind all others.
        is_as_it_is: It was written all the same, as it is.
    """

    problem: str = ""
    comes_again: bool = False
    is_as_it_is: bool = False


class Contents(Protocol):
    """A source of content: files are asked for, then taken in the same order.

    Attributes:
        wants_bases: Whether it can use the target's own file where there is one.
    """

    wants_bases: bool

    def has_credit(self, basis_bytes: int) -> bool:
        """Whether a file with a basis of this size may be asked for now."""
        ...

    def ask(self, entry: Entry, basis: Basis | None) -> None:
        """Ask for a file's content, against the target's own file if there is one; takes that over."""
        ...

    def is_full(self) -> bool:
        """Whether so much was asked for that something should be taken before more is."""
        ...

    def is_low(self) -> bool:
        """Whether so much was taken that more should be asked for."""
        ...

    def flush(self) -> None:
        """Nothing more is asked for until something has been taken."""
        ...

    def take_whole(self, entry: Entry) -> bytes | None:
        """The content of the file that was asked for first, if it is small, without holes, and right.

        None: it has to be taken by `take`, which says what is wrong, or dropped.
        """
        ...

    def take(self, entry: Entry, copy: Copy) -> Outcome:
        """Write the content of the file that was asked for first.

        Raises:
            OSError: The copy cannot be written; the next file can be taken all the same.
        """
        ...

    def drop(self, entry: Entry) -> None:
        """Do without the file that was asked for first."""
        ...


class TreeContents:
    """The files of a version of this machine, one at a time: nothing is gained by asking ahead."""

    wants_bases = False

    def __init__(self, tree: Tree, damage: Damage = NO_DAMAGE, *, damaged_ok: bool = False) -> None:
        """Read from `tree`, which stays the caller's; what is damaged only if that is `damaged_ok`."""
        self._tree = tree
        self._damaged_ok = damaged_ok
        self._ids = frozenset() if damaged_ok else damage.ids
        self._is_doubtful = bool(damage.whole) and not damaged_ok

    def has_credit(self, _basis_bytes: int) -> bool:
        """Without end."""
        return True

    def ask(self, _entry: Entry, _basis: Basis | None) -> None:
        """Nothing to do: it is there."""

    def is_full(self) -> bool:
        """Each file is taken at once."""
        return True

    def is_low(self) -> bool:
        """All of them are."""
        return False

    def flush(self) -> None:
        """Nothing waits."""

    def take_whole(self, entry: Entry) -> bytes | None:
        """A small data file's content, if it is the right one."""
        if entry.size > INLINE_MAX_BYTES or entry.holes:
            return None
        if self._is_doubtful or entry.id in self._ids:
            return None
        try:
            fd = open_content(self._tree, entry)
            try:
                content = os.read(fd, entry.size + 1)
            finally:
                os.close(fd)
        except (OSError, CorruptStore):
            return None
        return content if is_content_of(entry, content) else None

    def take(self, entry: Entry, copy: Copy) -> Outcome:
        """Copy the content of a data file, if it is the right one."""
        if self._is_doubtful or entry.id in self._ids:
            return Outcome(DAMAGED)
        try:
            fd = open_content(self._tree, entry)
        except OSError as error:
            return Outcome(cannot_be_opened(error))
        except CorruptStore as error:
            return Outcome(cannot_be_found(error))
        try:
            is_long = os.fstat(fd).st_size == entry.size
            if copy.layout.is_sparse and not is_long and not self._damaged_ok:
                return Outcome(DAMAGED)
            buffer = memoryview(bytearray(min(COPY_BYTES, copy.layout.data_bytes)))
            while buffer:
                try:
                    count = read_at(fd, copy.layout, buffer, copy.size, once=True)
                except OSError as error:
                    return Outcome(cannot_be_read(error))
                if not count:
                    break
                copy.write(buffer[:count])
            if copy.is_of(entry):
                return Outcome()
            return Outcome(DAMAGED, is_as_it_is=self._damaged_ok)
        finally:
            os.close(fd)

    def drop(self, _entry: Entry) -> None:
        """Nothing is on its way."""


def is_content_of(entry: Entry, content: bytes) -> bool:
    """Whether this is the whole content of a file without holes."""
    return len(content) == entry.size and content_digest(None, content) == entry.digest


def open_content(tree: Tree, entry: Entry) -> int:
    """The open data file of an entry.

    Raises:
        CorruptStore: The catalog has no directory for it.
        OSError: It cannot be opened.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    return os.open(entry.name, flags, dir_fd=tree.directory(entry.parent))


def cannot_be_opened(error: OSError) -> str:
    """The problem of a data file that `open_content` cannot open."""
    return f"its content in the store cannot be opened: {(error.strerror or '').lower()}"


def cannot_be_found(error: CorruptStore) -> str:
    """The problem of a data file that has no place in the tree."""
    return f"its content in the store cannot be found: {error.problem}"


def cannot_be_read(error: OSError) -> str:
    """The problem of a data file that cannot be read."""
    return f"its content cannot be read: {(error.strerror or '').lower()}"
