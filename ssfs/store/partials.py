"""Large files that are not surely in the tree yet: what an interrupted run leaves of them is not lost.

A large file is received in `staging/partials/`, under a name that says which source file it is. When it is whole it gets its
place in the tree as a second hard link; the first goes only after the checkpoint that records the file. So whenever a run is cut, killed
included, everything that had arrived of large files lies here, and the next run offers it as bases for
deltas. Nothing here needs to be trusted or to be on the disk: a delta is made from a signature of the actual
bytes, and the digest of the whole file is checked at the end.

A name is `SEQUENCE.DEV.INO.ENTRY`: sequence numbers grow, DEV and INO are the source's, ENTRY is the
entry id. What a crash can leave beside that is deleted when the directory is opened next.
"""

import contextlib
import os
import re
import stat
from typing import NamedTuple

from ssfs.fsio.disk import link_file, open_fd
from ssfs.fsio.removal import remove_tree
from ssfs.fsio.sparse import find_layout
from ssfs.protocol.messages import INLINE_MAX_BYTES, Partial
from ssfs.store.staged import StagedRows

MOST_PARTIALS = 256
"""So many source files are remembered, the largest; a checkpoint bounds what the others add up to."""
MOST_PARTS = 3
"""So many files of one source file: see `Partials.gather`."""

_NAME = re.compile(rb"(\d{1,18})\.(-?\d{1,20})\.(-?\d{1,20})\.(\d{1,18})")
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


class Origin(NamedTuple):
    """What the source's file system calls a file: device and inode number, as in its row."""

    dev: int
    ino: int


class Part(NamedTuple):
    """One data file in `partials/`.

    Attributes:
        name: Its name there.
        origin: Which source file it is (a part of).
        size: Bytes, holes left out; 0 while it is being received.
    """

    name: bytes
    origin: Origin
    size: int


class Partials:
    """The directory `partials/` of one staging."""

    def __init__(self, fd: int) -> None:
        """Use the open directory, which stays the caller's."""
        self._fd = fd
        self._sequence = 0
        self._known: dict[int, list[Part]] = {}
        self._numbers: dict[Origin, int] = {}
        self._abandoned: dict[Origin, Part] = {}
        self._settled: list[bytes] = []

    # -- what an interrupted run has left ----------------------------------------------------------

    def gather(self, staged: StagedRows) -> None:
        """Look at what is there; keep and number what is of use, delete the rest.

        Of one source file the newest part is kept, and an older one if it is larger than those after it: a
        run that is cut early has not yet rebuilt what the one before had received. Parts that the catalog's
        checkpoint has recorded as files of the tree are of no use, nor are older ones of the same source file, nor
        any for which the disk has no room to go on.
        """
        chains: dict[Origin, list[Part]] = {}
        done: set[Origin] = set()
        for part, entry_id, inode in self._scan():
            chain = chains.setdefault(part.origin, [])
            if (file := staged.find(entry_id)) is not None and file.ino == inode:
                done.add(part.origin)
            largest = chain[-1].size if chain else INLINE_MAX_BYTES
            if part.origin in done or part.size <= largest:
                self._unlink(part.name)
                continue
            if len(chain) == MOST_PARTS:
                # The oldest is the largest: what lies between it and the newest is most likely in it.
                self._unlink(chain.pop().name)
            chain.append(part)
        by_size = sorted(filter(None, chains.values()), key=lambda chain: -chain[-1].size)
        free = self._free_bytes()
        for chain in by_size:
            number = len(self._known) + 1
            # What is rebuilt from a partial needs as much room again.
            if number > MOST_PARTIALS or chain[-1].size > free:
                for part in chain:
                    self._unlink(part.name)
                continue
            self._known[number] = chain
            self._numbers[chain[0].origin] = number

    def _free_bytes(self) -> int:
        status = os.fstatvfs(self._fd)
        return status.f_bavail * status.f_frsize

    def _scan(self) -> list[tuple[Part, int, int]]:
        """The regular files of proper names, newest first, with entry id and inode; deletes others."""
        found: list[tuple[int, Part, int, int]] = []
        for name in map(os.fsencode, os.listdir(self._fd)):
            status = os.stat(name, dir_fd=self._fd, follow_symlinks=False)
            match = _NAME.fullmatch(name)
            if match is None or not stat.S_ISREG(status.st_mode):
                remove_tree(name, dir_fd=self._fd)
                continue
            sequence, dev, ino, entry_id = map(int, match.groups())
            part = Part(name, Origin(dev, ino), self._stream_bytes(name, status))
            found.append((sequence, part, entry_id, status.st_ino))
            self._sequence = max(self._sequence, sequence)
        found.sort(reverse=True)
        return [(part, entry_id, inode) for _, part, entry_id, inode in found]

    def _stream_bytes(self, name: bytes, status: os.stat_result) -> int:
        """How much is in a part, holes left out."""
        with open_fd(name, _OPEN, dir_fd=self._fd) as fd:
            return find_layout(fd, status).data_bytes

    def announced(self) -> list[Partial]:
        """What the client may use as bases."""
        return [
            Partial(number, *chain[0].origin, sum(part.size for part in chain))
            for number, chain in self._known.items()
        ]

    def open(self, number: int) -> list[int] | None:
        """Descriptors of an announced partial's parts, newest first; None if it is used up or gone.

        The caller closes them.
        """
        with contextlib.ExitStack() as stack:
            fds = []
            for part in self._known.get(number, ()):
                try:
                    fds.append(os.open(part.name, _OPEN, dir_fd=self._fd))
                except FileNotFoundError:
                    return None
                stack.callback(os.close, fds[-1])
            stack.pop_all()
        return fds or None

    # -- what arrives ------------------------------------------------------------------------------

    def create(self, origin: Origin, entry_id: int) -> tuple[Part, int]:
        """A new empty file, and a descriptor to write it."""
        self._sequence += 1
        name = b"%d.%d.%d.%d" % (self._sequence, *origin, entry_id)
        return Part(name, origin, 0), os.open(name, _CREATE, 0o400, dir_fd=self._fd)

    def link(self, part: Part, target: bytes, target_fd: int) -> None:
        """Give a whole file a second name, over what has it; its own goes with `sweep`.

        What else is known of the same source file has served its purpose.
        """
        with contextlib.suppress(FileNotFoundError):
            os.unlink(target, dir_fd=target_fd)
        link_file(part.name, self._fd, target, target_fd)
        self._settled.append(part.name)
        if (abandoned := self._abandoned.pop(part.origin, None)) is not None:
            self._settled.append(abandoned.name)
        if (number := self._numbers.pop(part.origin, None)) is not None:
            self._settled += (old.name for old in self._known.pop(number))

    def abandon(self, part: Part) -> None:
        """Keep what arrived of a file whose sending broke off or went wrong, if it is the most so far."""
        status = os.stat(part.name, dir_fd=self._fd, follow_symlinks=False)
        size = self._stream_bytes(part.name, status)
        other = self._abandoned.get(part.origin)
        if size <= (other.size if other else INLINE_MAX_BYTES):
            self._unlink(part.name)
            return
        if other is not None:
            self._unlink(other.name)
        self._abandoned[part.origin] = part._replace(size=size)

    def sweep(self) -> None:
        """A checkpoint has recorded all whole files: their names here may go."""
        settled, self._settled = self._settled, []
        for name in settled:
            self._unlink(name)

    def remove_all(self) -> None:
        """Make room: the disk is full, and partials must not be what keeps the next run from fitting."""
        for name in os.listdir(self._fd):
            self._unlink(os.fsencode(name))

    def _unlink(self, name: bytes) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._fd)
