"""Committed versions: finding, reading, locking and pinning them.

A name in versions/ that is no version id is not ours and is left alone. A version whose version.toml is
damaged still exists (it is listed, never expired by rule, never a base); `Version.record` raises for it.
"""

import datetime
import os

import msgspec

from ssfs.errors import CorruptStore, StoreLocked
from ssfs.fsio.disk import digest_content, fsync, open_directory, open_fd, read_file, store_errors
from ssfs.fsio.lock import FileLock
from ssfs.model.version import VersionId, VersionRecord, parse_version_id
from ssfs.store.catalog.reader import CatalogReader
from ssfs.store.damage import Damage, read_damage
from ssfs.store.textfile import (
    damage_of_disk,
    encode_text,
    parse_text,
    seal,
    unseal,
    write_text_file,
)


class Pin(msgspec.Struct, frozen=True):
    """The content of pin.toml."""

    since: datetime.datetime


class Version:
    """One version's directory.

    Attributes:
        id: Its id.
        path: Its directory, as it was when listed (expiry may have moved it since).
    """

    def __init__(self, version_id: VersionId, path: bytes) -> None:
        self.id = version_id
        self.path = path
        self._record: VersionRecord | None = None

    def record(self) -> VersionRecord:
        """Its version.toml.

        Raises:
            CorruptStore: It is damaged or missing.
        """
        if self._record is None:
            self._record = read_record(self.path)
        return self._record

    def is_intact(self) -> bool:
        """Whether its record can be read."""
        try:
            self.record()
        except CorruptStore:
            return False
        return True

    def damage(self) -> Damage:
        """What is known to be damaged in it."""
        return read_damage(self.path)

    def check_catalog_file(self) -> None:
        """Compare the catalog, byte by byte, with what was committed, as far as that is recorded.

        Raises:
            CorruptStore: It is another one, or the record cannot be read.
            OSError: It cannot be read.
        """
        recorded = self.record().catalog_file
        path = os.path.join(self.path, b"catalog.db")
        if recorded:
            with open_fd(path, os.O_RDONLY | os.O_NOFOLLOW) as fd:
                if digest_content(fd).hex() != recorded:
                    raise CorruptStore("The catalog is not what was committed", path=path)

    def is_pinned(self) -> bool:
        """Whether somebody holds it."""
        return os.path.exists(os.path.join(self.path, b"pin.toml"))

    def pin(self, since: datetime.datetime) -> None:
        """Hold it; the caller holds the task's guard."""
        with store_errors(self.path):
            fd = open_directory(self.path)
            try:
                write_text_file(b"pin.toml", Pin(since), dir_fd=fd)
            finally:
                os.close(fd)

    def unpin(self) -> None:
        """Let it go; the caller holds the task's guard."""
        with store_errors(self.path):
            fd = open_directory(self.path)
            try:
                os.unlink(b"pin.toml", dir_fd=fd)
                fsync(fd)
            except FileNotFoundError:
                pass
            finally:
                os.close(fd)

    def share(self) -> FileLock:
        """Keep it from being deleted while somebody reads it; close the lock when done.

        Raises:
            StoreLocked: It is being deleted.
            OSError: It is gone.
        """
        lock = FileLock(os.path.join(self.path, b"lock"), create=False)
        if lock.shared_nowait() and lock.is_linked():
            return lock
        lock.close()
        raise StoreLocked("The version is being deleted", path=self.path)

    def catalog(self) -> CatalogReader:
        """Its catalog; the caller closes it."""
        return CatalogReader.open(os.path.join(self.path, b"catalog.db"))


def list_versions(task_path: bytes, part: bytes = b"versions") -> list[Version]:
    """The versions in a task's versions/ (or trash/), by sequence."""
    directory = os.path.join(task_path, part)
    versions = []
    for name in _names(directory, may_lack=part != b"versions"):
        version_id = parse_version_id(os.fsdecode(name))
        if version_id is not None:
            versions.append(Version(version_id, os.path.join(directory, name)))
    return sorted(versions, key=lambda version: version.id.sequence)


def _names(directory: bytes, *, may_lack: bool) -> list[bytes]:
    """The names in a directory of a task; one that is always there, unless it `may_lack`.

    Raises:
        CorruptStore: It is missing, or no directory.
    """
    try:
        return os.listdir(directory)
    except FileNotFoundError as error:
        if may_lack:
            return []
        raise CorruptStore(
            "A task has lost the directory of its versions",
            path=directory,
            remedy="put it back if you can; `ssfs recover` makes an empty one, and says what is lost",
        ) from error
    except NotADirectoryError as error:
        raise CorruptStore(
            "There is something else in the place of a directory of the store",
            path=directory,
            remedy="move it away, then run `ssfs recover`",
        ) from error


def read_record(directory: bytes) -> VersionRecord:
    """The version.toml in a directory.

    Raises:
        CorruptStore: It is damaged or missing.
    """
    path = os.path.join(directory, b"version.toml")
    try:
        fd = open_directory(directory)
        try:
            with damage_of_disk(path):
                content = read_file(b"version.toml", dir_fd=fd)
        finally:
            os.close(fd)
    except FileNotFoundError as error:
        raise CorruptStore("The version has no record", path=path) from error
    return parse_text(unseal(content, path), VersionRecord, path)


def encode_record(record: VersionRecord) -> bytes:
    """The bytes of a version.toml."""
    return seal(encode_text(record))
