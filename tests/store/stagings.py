"""Stagings filled by hand: a task, rows, and the changes a client could send."""

import os
from pathlib import Path

import blake3

from ssfs.model.entry import ROOT_ID, Entry, Kind
from ssfs.model.policy import Policy
from ssfs.model.version import Counts, RootMetadata, VersionId, VersionRecord
from ssfs.store.staging import Staging
from ssfs.store.store import Store, Task
from ssfs.store.textfile import FORMAT
from ssfs.store.version import Version
from tests.fakes.clock import START, FrozenClock

ROOT = Entry(ROOT_ID, 0, b"", int(Kind.DIRECTORY), 0o755, *(0,) * 5, b"", b"", *(0,) * 5)


def make_task(path: Path) -> Task:
    """A task without versions in a new store."""
    store = Store.create(os.fsencode(path), Policy(), "UTC", FrozenClock())
    return store.create_point("main").claim_task("task", "client", "/docs", FrozenClock())


def file(entry_id: int, name: bytes, content: bytes = b"", parent: int = ROOT_ID) -> Entry:
    """The row of a file with this content."""
    return ROOT._replace(
        id=entry_id,
        parent=parent,
        name=name,
        kind=int(Kind.FILE),
        mode=0o644,
        size=len(content),
        digest=blake3.blake3(content).digest(),
    )


def directory(entry_id: int, name: bytes, parent: int = ROOT_ID) -> Entry:
    return ROOT._replace(id=entry_id, parent=parent, name=name)


def symlink(entry_id: int, name: bytes, target: bytes, parent: int = ROOT_ID) -> Entry:
    kind = int(Kind.SYMLINK)
    return ROOT._replace(id=entry_id, parent=parent, name=name, kind=kind, target=target)


def begin(task: Task) -> Staging:
    """A staging from the newest version, prepared."""
    versions = task.versions()
    staging = Staging(task, versions[-1] if versions else None)
    staging.prepare()
    return staging


def commit(task: Task, staging: Staging) -> Version:
    """Make it a version, and close it."""
    version_id = VersionId(task.next_sequence(), START)
    assert staging.wanted() == []
    record = VersionRecord(
        FORMAT,
        str(version_id),
        version_id.sequence,
        START,
        START,
        f"2024-05-01_020000.{version_id.sequence}",
        1.0,
        "client",
        "/docs",
        staging.base,
        staging.catalog.logical_digest().hex(),
        Counts(entries=staging.catalog.counter("entries"), bytes=staging.catalog.counter("bytes")),
        RootMetadata(0o755, 0, 0, "root", "root", 0, 0),
    )
    with staging:
        staging.commit(version_id, record)
    return task.versions()[-1]


def make_base(task: Task) -> Version:
    """/a (file) /d/b (file) /d/e/c (file) /d/l (symlink), ids 2 to 7."""
    staging = begin(task)
    staging.make(ROOT)
    staging.store(file(2, b"a", b"content a"), b"content a")
    staging.make(directory(3, b"d"))
    staging.store(file(4, b"b", b"content b", 3), b"content b")
    staging.make(directory(5, b"e", 3))
    staging.store(file(6, b"c", b"content c", 5), b"content c")
    staging.make(symlink(7, b"l", b"/target", 3))
    return commit(task, staging)


def tree_of(path: bytes) -> dict[str, bytes]:
    """What lies below a directory: content of files, target of symlinks, b"/" for directories."""
    found = {}
    for place, below, names in os.walk(path):
        for name in below + names:
            where = os.path.join(place, name)
            key = os.fsdecode(os.path.relpath(where, path))
            if os.path.islink(where):
                found[key] = b"-> " + os.readlink(where)
            elif os.path.isdir(where):
                found[key] = b"/"
            else:
                found[key] = Path(os.fsdecode(where)).read_bytes()
    return found


def staged_tree(task: Task) -> dict[str, bytes]:
    return tree_of(os.path.join(task.path, b"staging", b"tree"))


BASE_TREE = {
    "a": b"content a",
    "d": b"/",
    "d/b": b"content b",
    "d/e": b"/",
    "d/e/c": b"content c",
    "d/l": b"-> /target",
}
