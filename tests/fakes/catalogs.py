"""Tasks whose versions are a record and a catalog, and no tree: all that questions look at."""

import datetime
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import blake3

from ssfs.model.entry import ROOT_ID, Entry, Kind
from ssfs.store.catalog.writer import CatalogWriter
from ssfs.store.store import Task
from ssfs.store.version import Version
from tests.fakes.histories import FIRST, add_version

DAY = datetime.timedelta(days=1)


def catalog_path(version: Version) -> Path:
    return Path(os.fsdecode(version.path), "catalog.db")


class Catalogs:
    """A task to which versions are added, each a copy of the one before and some changes."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self._time = FIRST

    def next_version(self) -> "ChangingCatalog":
        """Use it with `with`: the version is whole when the block ends."""
        versions = self.task.versions()
        version = add_version(self.task, self._time)
        self._time += DAY
        if versions:
            shutil.copyfile(catalog_path(versions[-1]), catalog_path(version))
        return ChangingCatalog(version)


class ChangingCatalog:
    """The catalog of a version being made, by paths."""

    def __init__(self, version: Version) -> None:
        self.version = version
        path = os.fsencode(catalog_path(version))
        self.catalog = CatalogWriter.open_writer(path, durable=False)
        if self.catalog.root() is None:
            self.catalog.put(self._entry(ROOT_ID, 0, b"", Kind.DIRECTORY))

    def __enter__(self) -> "ChangingCatalog":
        return self

    def __exit__(self, *_: object) -> None:
        self.catalog.checkpoint()
        self.catalog.close()

    def _entry(self, entry_id: int, parent: int, name: bytes, kind: Kind, **more: object) -> Entry:
        mode = 0o755 if kind == Kind.DIRECTORY else 0o644
        empty = Entry(
            entry_id,
            parent,
            name,
            kind,
            mode,
            1000,
            1000,
            1_700_000_000,
            5,
            0,
            b"",
            b"",
            0,
            0,
            0,
            0,
            0,
        )
        return empty._replace(**more)

    def _at(self, path: str) -> Entry:
        entry = self.catalog.resolve(os.fsencode(path))
        assert entry is not None, path
        return entry

    def directory(self, path: str) -> int:
        """Make one; its id."""
        parent, name = os.path.split(path)
        return self.directory_in(self._at(parent).id, os.fsencode(name))

    def directory_in(self, parent: int, name: bytes) -> int:
        entry_id = self.catalog.take_id()
        self.catalog.put(self._entry(entry_id, parent, name, Kind.DIRECTORY))
        return entry_id

    def file(self, path: str, content: bytes = b"", **more: object) -> int:
        """Make a file, or give it another content; its id."""
        parent, name = os.path.split(path)
        known = self.catalog.resolve(os.fsencode(path))
        directory = self._at(parent).id
        entry_id = known.id if known else self.catalog.take_id()
        digest = blake3.blake3(content).digest()
        entry = self._entry(entry_id, directory, os.fsencode(name), Kind.FILE, **more)
        self.catalog.put(
            entry._replace(size=len(content), digest=digest), self.catalog.take_content()
        )
        return entry_id

    def file_in(self, parent: int, name: bytes, size: int, seed: int) -> int:
        """Make a file by the id of its directory, quickly."""
        entry_id = self.catalog.take_id()
        entry = self._entry(entry_id, parent, name, Kind.FILE, size=size, ino=entry_id)
        digest = blake3.blake3(b"%d" % seed).digest()
        self.catalog.put(entry._replace(digest=digest), self.catalog.take_content())
        return entry_id

    def set(self, path: str, **changes: object) -> None:
        """Other metadata."""
        self.catalog.put(self._at(path)._replace(**changes))

    def move(self, path: str, to: str) -> None:
        """To a place that is free."""
        parent, name = os.path.split(to)
        entry = self._at(path)
        self.catalog.put(entry._replace(parent=self._at(parent).id, name=os.fsencode(name)))

    def remove(self, path: str) -> None:
        self.catalog.remove(self._at(path).id)

    def files(self) -> Iterator[Entry]:
        return (entry for entry in self.catalog.entries() if entry.kind == Kind.FILE)
