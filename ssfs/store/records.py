"""A directory of text files, one for each record, named after it: NAME.toml.

Reading needs no lock, for a file is replaced or removed at once. Whoever writes holds the lock of the directory
around it, where more than one process may; the directory is made at the first write.
"""

import contextlib
import os
from collections.abc import Iterator
from typing import Generic, TypeVar

import msgspec

from ssfs.errors import ConfigError
from ssfs.fsio.disk import fsync, make_directory, open_directory, store_errors
from ssfs.store.store import check_name
from ssfs.store.textfile import read_text_file, write_text_file

_SUFFIX = ".toml"

T = TypeVar("T", bound=msgspec.Struct)


class Records(Generic[T]):
    """The records of one kind.

    Attributes:
        path: Their directory.
    """

    def __init__(self, parent: bytes, name: bytes, kind: type[T]) -> None:
        """Use the directory `name` of `parent`, which need not exist yet."""
        self.path = os.path.join(parent, name)
        self._name = name
        self._kind = kind

    def names(self) -> list[str]:
        """Of all records, sorted."""
        with store_errors(self.path):
            try:
                files = [os.fsdecode(name) for name in os.listdir(self.path)]
            except FileNotFoundError:
                return []
        stems = [name.removesuffix(_SUFFIX) for name in files if name.endswith(_SUFFIX)]
        # What can name no record is a stray, or what a crash left of a file being replaced.
        return sorted(stem for stem in stems if _is_name(stem))

    def read(self, name: str) -> T | None:
        """The record of this name, if there is one.

        Raises:
            CorruptStore: It is damaged.
        """
        with store_errors(self.path):
            try:
                return read_text_file(_file(name), self._kind, directory=self.path)
            except FileNotFoundError:
                return None

    def write(self, name: str, record: T, *, parent_fd: int) -> None:
        """Put a record in place, durably."""
        with store_errors(self.path), open_or_make_directory(self._name, parent_fd) as fd:
            write_text_file(_file(name), record, dir_fd=fd)

    def remove(self, name: str, *, parent_fd: int) -> None:
        """Remove a record, durably; one that is not there is removed already."""
        with store_errors(self.path), open_or_make_directory(self._name, parent_fd) as fd:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(_file(name), dir_fd=fd)
            fsync(fd)


@contextlib.contextmanager
def open_or_make_directory(name: bytes, parent_fd: int) -> Iterator[int]:
    """A descriptor of a directory, which is made durably if it is not there."""
    try:
        fd = open_directory(name, dir_fd=parent_fd)
    except FileNotFoundError:
        fd = make_directory(name, dir_fd=parent_fd)
        fsync(parent_fd)
    try:
        yield fd
    finally:
        os.close(fd)


def _file(name: str) -> bytes:
    return os.fsencode(check_name(name, "record") + _SUFFIX)


def _is_name(text: str) -> bool:
    try:
        check_name(text, "record")
    except ConfigError:
        return False
    return True
