"""Which versions a task should have: versions.toml (FORMAT.md, "Text files").

A version that leaves is struck off before it is moved, and one that came is entered some time after its commit. So what
is on the roll and not in versions/ was lost, whatever broke off when; what is missing on the roll means nothing.
"""

import contextlib
import os
from collections.abc import Iterable

import msgspec

from ssfs.errors import CorruptStore
from ssfs.fsio.disk import fsync
from ssfs.fsio.lock import DirectoryLock, check_no_directory
from ssfs.model.version import VersionId
from ssfs.store.store import Task
from ssfs.store.textfile import FORMAT, read_text_file, write_text_file

_ROLL = b"versions.toml"


class _Roll(msgspec.Struct, frozen=True):
    """The content of versions.toml."""

    format: int
    versions: tuple[str, ...]


def read_roll(task: Task) -> frozenset[str]:
    """The ids on the roll; none where there is no roll.

    Raises:
        CorruptStore: It is damaged.
        OSError: It cannot be read.
    """
    try:
        return frozenset(read_text_file(_ROLL, _Roll, directory=task.path).versions)
    except FileNotFoundError:
        return frozenset()


def settle_roll(task: Task, guard: DirectoryLock, leaving: Iterable[VersionId] = ()) -> None:
    """Enter all versions that are there but those that are about to leave; durable after this call.

    The caller holds the task's guard. On a full disk the roll goes rather than the versions stay.
    """
    try:
        known = read_roll(task)
    except (CorruptStore, OSError):
        known = frozenset()
    present = {str(version.id) for version in task.versions()}
    roll = _Roll(FORMAT, tuple(sorted((known | present) - set(map(str, leaving)))))
    _write(task, guard, known, roll)


def strike_lost(task: Task, guard: DirectoryLock) -> None:
    """Forget the versions that are lost: somebody has been told."""
    present = {str(version.id) for version in task.versions()}
    _write(task, guard, None, _Roll(FORMAT, tuple(sorted(present))))


def _write(task: Task, guard: DirectoryLock, known: frozenset[str] | None, roll: _Roll) -> None:
    if known is not None and known == frozenset(roll.versions):
        return
    check_no_directory(os.path.join(task.path, _ROLL))
    try:
        write_text_file(_ROLL, roll, dir_fd=guard.fd, is_sealed=True)
    except OSError:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(_ROLL, dir_fd=guard.fd)
            fsync(guard.fd)
