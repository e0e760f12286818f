"""Whether what an interrupted sync has left can be trusted as far as the next one would trust it.

Looks at a staging that nobody is working on, without a lock: a sync must not find its task taken. What is found is
therefore only believed if the staging has not changed meanwhile. It is not written down anywhere but in the staging
itself, as a word to drop it (`ssfs.store.staging.DOUBTFUL`).
"""

import contextlib
import os
import stat

from ssfs.errors import CorruptStore, StoreLocked
from ssfs.fsio.disk import open_directory
from ssfs.fsio.lock import FileLock
from ssfs.model.entry import Kind
from ssfs.store.catalog.reader import CatalogReader
from ssfs.store.staged import staged_files
from ssfs.store.staging import DOUBTFUL, StagingSettings
from ssfs.store.store import Task
from ssfs.store.stored import fault_of, open_stored
from ssfs.store.textfile import fault_of_text
from ssfs.store.tree import Tree
from ssfs.store.version import read_record


def fault_of_staging(task: Task, *, marks: bool = True) -> str:
    """What is wrong with what an interrupted sync has left; "" if nothing is, or somebody is at it.

    Args:
        task: Whose.
        marks: Whether the next sync is told to drop what is damaged.

    Raises:
        OSError: The store cannot be read.
    """
    path = os.path.join(task.path, b"staging")
    before = _state(task, path)
    if before is None:
        return ""
    try:
        fault = _fault(path)
    except FileNotFoundError:
        return ""
    if fault and _state(task, path) == before:
        if marks:
            with contextlib.suppress(StoreLocked), task.lock_for_writing("verify"):
                if _stamp(path) == before:
                    _mark(path)
        return fault
    return ""


def _state(task: Task, path: bytes) -> tuple[int, ...] | None:
    """Something that changes when anybody works on the staging; None if somebody does, or there is none."""
    try:
        with FileLock(os.path.join(task.path, b"lock"), create=False) as lock:
            # Only a look: let go at once.
            if not lock.shared_nowait():
                return None
    except FileNotFoundError:
        return None
    return _stamp(path)


def _stamp(path: bytes) -> tuple[int, ...] | None:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return None
    return (status.st_ino, status.st_ctime_ns) if stat.S_ISDIR(status.st_mode) else None


def _mark(path: bytes) -> None:
    fd = open_directory(path)
    try:
        os.close(os.open(DOUBTFUL, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=fd))
    finally:
        os.close(fd)


def _fault(path: bytes) -> str:
    """What is wrong; as the next sync would see it, and more closely."""
    names = set(os.listdir(path))
    fault = fault_of_text(b"staging.toml", StagingSettings, directory=path)
    if fault == "missing":
        # Without all that comes after it, it died while it was made; with a record, while it became a version.
        if b"partials" not in names:
            return ""
        with contextlib.suppress(CorruptStore):
            read_record(path)
            return ""
        return "staging.toml is missing; the next sync begins anew"
    if fault:
        return f"staging.toml: {fault}; the next sync begins anew"
    catalog_path = os.path.join(path, b"catalog.db")
    journal = catalog_path + b"-journal"
    if os.path.exists(journal) and os.path.getsize(journal):
        return ""  # in the middle of a transaction: the next sync takes that back first
    try:
        with CatalogReader.open(catalog_path) as catalog:
            fault = catalog.fault()
            return f"catalog.db: {fault}" if fault else _fault_of_files(path, catalog)
    except CorruptStore as error:
        return f"catalog.db: {error.problem.lower()}"


def _fault_of_files(path: bytes, catalog: CatalogReader) -> str:
    """Whether the files that the next sync would take for received are that."""
    tree = Tree(catalog, open_directory(os.path.join(path, b"tree")))
    with contextlib.closing(tree):
        for staged in staged_files(catalog):
            entry = catalog.entry(staged.id)
            if entry is None or entry.kind != Kind.FILE:
                continue
            with contextlib.suppress(OSError, CorruptStore):
                fd = open_stored(entry.name, tree.directory(entry.parent))
                try:
                    status = os.fstat(fd)
                    seen = (status.st_ino, status.st_mtime_ns, status.st_size)
                    if seen == (staged.ino, staged.mtime_ns, staged.size):
                        fault = fault_of(fd, entry)
                        if fault:
                            return f"{os.fsdecode(entry.name)!r}: {fault}"
                finally:
                    os.close(fd)
    return ""
