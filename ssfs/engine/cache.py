"""The client's cache: the catalog of its last version, so that comparing needs nothing fetched.

    CACHE/TASK_ID/DIGEST.db          the catalog with this logical digest, complete and synced
    CACHE/TASK_ID/DIGEST.blake3      digest of that file's own bytes: who finds them right need not look at every row
    CACHE/TASK_ID/working-BOOT.db    a catalog being changed, as of the last checkpoint
    CACHE/TASK_ID/compared-BOOT.db   what an interrupted run is compared with
    CACHE/TASK_ID/DIGEST-SIZE.sums   sums of the blocks of a large file's content (`ssfs.engine.kept_sums`)

Everything here may be lost at any time: a catalog is then fetched from the server. It must never be wrong.
So a finished catalog is synced before it gets its name, and the other two count only while the boot lasts
in which they were written (SQLite without fsync keeps its promises until the power goes). A run that fails
because catalogs are damaged or differ takes the cache with it: the next one must not fail over it again.
"""

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator

from ssfs.engine.kept_sums import KeptSums, is_sums
from ssfs.errors import ConfigError, CorruptStore, InternalError, RemoteProtocolError
from ssfs.fsio.disk import (
    copy_file,
    digest_content,
    fsync,
    open_directory,
    open_fd,
    rename,
    write_all,
)
from ssfs.fsio.lock import FileLock
from ssfs.store.catalog.reader import CatalogReader
from ssfs.store.catalog.writer import CatalogWriter

# A task's id comes from a server, and everything else in the directory it names is deleted.
_TASK_ID = re.compile(r"[0-9a-z][0-9a-z-]{0,63}")
_FINISHED = re.compile(rb"([0-9a-f]{64})\.db")
_WRITTEN = b".blake3"
_WRITE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
_BOOT_ID = "/proc/sys/kernel/random/boot_id"


def cache_root() -> bytes:
    """`$SSFS_CACHE_DIR`, else /var/cache/ssfs for root, else under `$XDG_CACHE_HOME`."""
    if chosen := os.environb.get(b"SSFS_CACHE_DIR"):
        return chosen
    if os.geteuid() == 0:
        return b"/var/cache/ssfs"
    home = os.environb.get(b"XDG_CACHE_HOME") or os.path.expanduser(b"~/.cache")
    return os.path.join(home, b"ssfs")


def boot_id() -> bytes:
    """What tells this boot of the machine from all others."""
    with open(_BOOT_ID, "rb") as boot:
        return boot.read().strip()


def _finished(digest: bytes) -> bytes:
    """The file name of a finished catalog."""
    return digest.hex().encode() + b".db"


def _written(digest: bytes) -> bytes:
    """The file name of the digest of its bytes."""
    return digest.hex().encode() + _WRITTEN


def finished_catalogs(root: bytes, most: int) -> list[tuple[bytes, bytes]]:
    """Path and logical digest of the finished catalogs of all tasks in a cache: the newest `most`, newest first."""
    found: list[tuple[int, bytes, bytes]] = []
    with contextlib.suppress(OSError), os.scandir(root) as tasks:
        for task in tasks:
            with contextlib.suppress(OSError), os.scandir(task.path) as files:
                for file in files:
                    if match := _FINISHED.fullmatch(file.name):
                        age = -file.stat(follow_symlinks=False).st_mtime_ns
                        found.append((age, file.path, bytes.fromhex(match[1].decode())))
    return [(path, digest) for _, path, digest in sorted(found)[:most]]


def is_as_written(path: bytes, fd: int) -> bool:
    """Whether a finished catalog, open, is byte for byte what was written at this path; False if that is not known."""
    try:
        with open(path.removesuffix(b".db") + _WRITTEN, "rb") as recorded:
            return recorded.read() == digest_content(fd)
    except OSError:
        return False


@contextlib.contextmanager
def open_cache(root: bytes, task_id: str) -> Iterator["TaskCache"]:
    """The cache of one task, locked; a temporary one while another process has it.

    Raises:
        ConfigError: The cache directory cannot be made.
        RemoteProtocolError: The server's id of the task could lead elsewhere.
    """
    if not _TASK_ID.fullmatch(task_id):
        raise RemoteProtocolError(f"The server calls the task {task_id!r}")
    path = os.path.join(root, task_id.encode())
    with contextlib.ExitStack() as stack:
        try:
            os.makedirs(path, mode=0o700, exist_ok=True)
            lock = stack.enter_context(FileLock(os.path.join(path, b"lock")))
            if not lock.exclusive_nowait():
                path = os.fsencode(
                    stack.enter_context(tempfile.TemporaryDirectory(dir=os.fsdecode(root)))
                )
            fd = open_directory(path)
        except OSError as error:
            raise ConfigError(
                f"The cache directory cannot be used ({error.strerror})",
                path=path,
                remedy="set SSFS_CACHE_DIR to a directory you may write",
            ) from error
        stack.callback(os.close, fd)
        cache = TaskCache(path, fd)
        try:
            yield cache
        except (CorruptStore, InternalError):
            cache.forget()
            raise


class TaskCache:
    """The cached catalogs of one task.

    Attributes:
        sums: What is remembered of the large files in them.
    """

    def __init__(self, path: bytes, fd: int) -> None:
        """Use the directory `path`, open as `fd`; both stay the caller's."""
        self._path = path
        self._fd = fd
        self.sums = KeptSums(fd)
        self._working = b"working-%s.db" % boot_id()
        self._compared = b"compared-%s.db" % boot_id()

    def find(self, digest: bytes) -> CatalogReader | None:
        """The catalog with this logical digest; None if it must be fetched."""
        finished = _finished(digest)
        self._roll_back_working()
        for name in (finished, self._working, self._compared):
            path = os.path.join(self._path, name)
            try:
                with CatalogReader.open(path, immutable=False) as catalog:
                    is_it = catalog.logical_digest() == digest
            except CorruptStore:
                continue
            if is_it and name == self._working:
                # Out of the way of the new working copy, which starts from it.
                rename(name, self._fd, self._compared, self._fd)
                path = os.path.join(self._path, self._compared)
            if is_it:
                # Whatever was open in its journal is undone by now: without locks a question takes half the time.
                return CatalogReader.open(path)
        return None

    def _roll_back_working(self) -> None:
        """Undo what a killed run had not committed, while the journal still has the file's name."""
        path = os.path.join(self._path, self._working)
        if os.path.exists(path):
            with contextlib.suppress(CorruptStore):
                CatalogWriter.open_writer(path, durable=False).close()

    def create(self) -> CatalogWriter:
        """An empty catalog to fetch another one's rows into; see `finish_fetched`."""
        self._remove(b"fetched.db-journal")
        self._remove(b"fetched.db")
        return CatalogWriter.open_writer(os.path.join(self._path, b"fetched.db"), durable=False)

    def finish_fetched(self, catalog: CatalogWriter, digest: bytes) -> CatalogReader:
        """Keep a fetched catalog under its digest."""
        self.keep(catalog, b"fetched.db", digest)
        return CatalogReader.open(os.path.join(self._path, _finished(digest)))

    def begin_working(self, compared: CatalogReader) -> CatalogWriter:
        """A copy of the compared catalog, to be changed."""
        # The journal first: SQLite would play it back into whatever has the name.
        self._remove(self._working + b"-journal")
        self._remove(self._working)
        name = os.path.basename(compared.path)
        copy_file(name, self._fd, self._working, self._fd, mode=0o600)
        path = os.path.join(self._path, self._working)
        writer = CatalogWriter.open_writer(path, durable=False)
        writer.create_search_indexes()
        return writer

    def keep_working(self, catalog: CatalogWriter) -> None:
        """The working catalog is a committed version's now: keep it, and no other."""
        digest = catalog.logical_digest()
        self.sums.tidy(catalog)
        self.keep(catalog, self._working, digest)
        self._remove_all_but(_finished(digest), _written(digest), keeps_sums=True)

    def forget(self) -> None:
        """Lose everything: the next run fetches."""
        self._remove_all_but()

    def _remove_all_but(self, *kept: bytes, keeps_sums: bool = False) -> None:
        for name in map(os.fsencode, os.listdir(self._fd)):
            if name not in (*kept, b"lock") and not (keeps_sums and is_sums(name)):
                self._remove(name)

    def keep(self, catalog: CatalogWriter, name: bytes, digest: bytes) -> None:
        """Close a catalog, sync it and give it its lasting name."""
        catalog.checkpoint()
        catalog.close()
        fd = os.open(name, os.O_RDONLY, dir_fd=self._fd)
        try:
            fsync(fd)
            written = digest_content(fd)
        finally:
            os.close(fd)
        # Not synced, and no reason to fail: where it is lost, every row is looked at.
        with (
            contextlib.suppress(OSError),
            open_fd(_written(digest), _WRITE_FLAGS, dir_fd=self._fd) as written_fd,
        ):
            write_all(written_fd, written)
        self._remove(name + b"-journal")
        rename(name, self._fd, _finished(digest), self._fd)

    def _remove(self, name: bytes) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._fd)
