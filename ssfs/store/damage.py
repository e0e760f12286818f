"""What is known to be damaged in a version: its damage.toml (FORMAT.md, "Damage").

Whoever finds damage writes it down here, and from then on nobody takes what is damaged for good: it is no base, no
link source, and it is not given out unless somebody insists. Healing takes it off the list again. Who changes the list
holds the task's guard.
"""

import contextlib
import datetime
import os
from collections.abc import Callable, Iterable

import msgspec

from ssfs.errors import CorruptStore
from ssfs.fsio.disk import fsync, open_directory
from ssfs.store.textfile import FORMAT, damage_of_disk, parse_text, unseal, write_text_file

MOST_LISTED = 50_000
"""A version with more damaged entries than these is damaged as a whole."""

CATALOG = "catalog.db"
RECORD = "version.toml"
TREE = "tree"
_DAMAGE = "damage.toml"
_MAX_BYTES = 64 << 20


class DamagedEntry(msgspec.Struct, frozen=True):
    """An entry whose data is not what its row says.

    Attributes:
        id: Which one; 0 for a name in tree/ that no row has.
        path: Where, for people.
        problem: What is wrong.
        found: When that was seen first (UTC).
    """

    id: int
    path: str
    problem: str
    found: datetime.datetime


class DamagedPart(msgspec.Struct, frozen=True):
    """A part of the version's directory that is damaged; fields as of an entry."""

    name: str
    problem: str
    found: datetime.datetime


class Damage(msgspec.Struct, frozen=True, omit_defaults=True):
    """The content of damage.toml."""

    format: int
    parts: tuple[DamagedPart, ...] = ()
    entries: tuple[DamagedEntry, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.parts or self.entries)

    @property
    def ids(self) -> frozenset[int]:
        """The ids of damaged entries."""
        return frozenset(entry.id for entry in self.entries if entry.id)

    @property
    def whole(self) -> str:
        """Why nothing of the version can be trusted; "" if that is not so."""
        for part in self.parts:
            if part.name != RECORD:
                return f"{part.name}: {part.problem}"
        return ""

    @property
    def catalog(self) -> str:
        """What is wrong with its catalog; "" if nothing is known to be."""
        return next((part.problem for part in self.parts if part.name == CATALOG), "")

    def bounded(self) -> "Damage":
        """The same, or, of too many entries, the first of them and a word on the whole tree."""
        if len(self.entries) <= MOST_LISTED:
            return self
        problem = f"more than {MOST_LISTED:,} of its entries are damaged"
        part = DamagedPart(TREE, problem, self.entries[-1].found)
        others = (part for part in self.parts if part.name != TREE)
        return Damage(FORMAT, (*others, part), self.entries[:MOST_LISTED])


NO_DAMAGE = Damage(FORMAT)


def read_damage(directory: bytes, *, dir_fd: int | None = None) -> Damage:
    """What is known to be damaged in the version in a directory.

    A damage.toml that cannot be read makes all of the version doubtful.

    Raises:
        StoreError: A newer ssfs made it.
    """
    path = os.path.join(directory, b"damage.toml")
    try:
        fd = os.open(
            b"damage.toml" if dir_fd is not None else path,
            os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC,
            dir_fd=dir_fd,
        )
    except FileNotFoundError:
        return NO_DAMAGE
    status = os.fstat(fd)
    try:
        with damage_of_disk(path):
            content = os.pread(fd, min(status.st_size, _MAX_BYTES), 0)
        return parse_text(unseal(content, path), Damage, path)
    except CorruptStore as error:
        found = datetime.datetime.fromtimestamp(int(status.st_mtime), datetime.UTC)
        return Damage(FORMAT, (DamagedPart(_DAMAGE, error.problem, found),))
    finally:
        os.close(fd)


def change_damage(directory: bytes, change: Callable[[Damage], Damage]) -> Damage:
    """Replace the list, durably, by what `change` makes of it; the caller holds the task's guard.

    Raises:
        OSError: The version has gone, or cannot be written.
    """
    fd = open_directory(directory)
    try:
        before = read_damage(directory, dir_fd=fd)
        after = change(before).bounded()
        if after and after != before:
            write_text_file(b"damage.toml", after, dir_fd=fd, is_sealed=True)
        elif before and not after:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(b"damage.toml", dir_fd=fd)
            fsync(fd)
    finally:
        os.close(fd)
    return after


def without(damage: Damage, ids: Iterable[int]) -> Damage:
    """The list without these entries; a word on the whole tree stays until all are gone."""
    healed = frozenset(ids)
    entries = tuple(entry for entry in damage.entries if entry.id not in healed)
    return Damage(FORMAT, damage.parts, entries)
