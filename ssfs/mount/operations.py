"""What the kernel asks of a mount, and what it is told; only here exceptions become errnos.

Every request comes through `MountOperations.answer`, which lets nothing out: what is expected becomes its errno by one
table, everything else EIO and a traceback in the log. No exception of a handler ends a mount.

Changes are refused by `ssfs.mount.refusals`. Some requests have no handler on purpose: for flush, fsync and others the answer
ENOSYS makes the kernel stop asking.

Of a store on this machine all handlers but `_read` answer without awaiting anything, except that the first request for a version
waits until a worker thread has compared its catalog with its digest. `_read` awaits a worker thread when the store's disk must be
waited for. Of a server's, what an answer is made of is awaited first (`ssfs.mount.remote.preparing`). What a handler awaits does not hold up other requests (`ssfs.mount.pump`).
"""

import errno
import itertools
import logging
import os
import secrets
from collections.abc import Callable, Coroutine

import trio

from ssfs.errors import CorruptStore, StoreError
from ssfs.mount import wire
from ssfs.mount.handles import DirectoryHandle, FileHandle, VersionHandle
from ssfs.mount.inodes import NoEntry, Stale, WrongKind
from ssfs.mount.passthrough import Passthrough
from ssfs.mount.pump import Answer
from ssfs.mount.refusals import CHANGES
from ssfs.mount.remote.preparing import Preparer
from ssfs.mount.tree import MountTree
from ssfs.mount.wire import Opcode, OpenFlag, Request
from ssfs.store.checked import CatalogCheck, CatalogUnchecked
from ssfs.store.opened import CatalogAbsent

_READ_BYTES = 1 << 20
_LOGGED_ONCE = 1000
_MOST_LOST = 10

# More precise classes first. An OSError keeps its number, if it is one of these: others (a name that
# is not there, a lock) would tell a user about our files as if they were theirs.
_ERRNO_OF: tuple[tuple[type[Exception], int], ...] = (
    (NoEntry, errno.ENOENT),
    (Stale, errno.ESTALE),
    (WrongKind, errno.EINVAL),
    (CorruptStore, errno.EIO),
    (StoreError, errno.EIO),
)
_PASSED_ON = frozenset(
    {errno.EIO, errno.EACCES, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENODEV, errno.ESTALE}
)
_NEVER_CHANGES = int(OpenFlag.CACHE_DIR | OpenFlag.KEEP_CACHE)
_KEPT = int(OpenFlag.KEEP_CACHE)
_PASSED_THROUGH = int(OpenFlag.PASSTHROUGH)
_QUIET = (NoEntry, Stale, WrongKind)

_log = logging.getLogger(__name__)


class MountOperations:
    """Answers the kernel from a `MountTree`."""

    def __init__(
        self, tree: MountTree, on_start: Callable[[], None], preparer: Preparer | None = None
    ) -> None:
        """Be ready for the kernel's first request.

        Args:
            tree: What is mounted.
            on_start: Called when that has come: from then on we serve.
            preparer: Fetches what the tree answers from; None if all of it is on this machine.
        """
        self._tree = tree
        self._on_start = on_start
        self._preparer = preparer
        self._passthrough: Passthrough | None = None
        self._directories: dict[int, DirectoryHandle] = {}
        self._files: dict[int, FileHandle] = {}
        self._passed_on: dict[int, int] = {}
        self._numbers = itertools.count(1)
        # NFS keeps inode numbers beyond a mount's life, and numbers begin anew with each mount.
        self._generation = secrets.randbelow(1 << 31) + 1
        # One for all: what is in it goes to the kernel before anything else runs.
        self._buffer = memoryview(bytearray(_READ_BYTES))
        self._logged: set[str] = set()
        self._checking = trio.Lock()

        self._handlers: dict[int, Callable[[Request], Coroutine[object, object, Answer]]] = {
            Opcode.INIT: self._init,
            Opcode.DESTROY: self._destroy,
            Opcode.FORGET: self._forget,
            Opcode.BATCH_FORGET: self._forget,
            Opcode.LOOKUP: self._lookup,
            Opcode.GETATTR: self._getattr,
            Opcode.READLINK: self._readlink,
            Opcode.STATFS: self._statfs,
            Opcode.LISTXATTR: self._listxattr,
            Opcode.GETXATTR: self._getxattr,
            Opcode.OPENDIR: self._opendir,
            Opcode.READDIRPLUS: self._readdir,
            Opcode.RELEASEDIR: self._releasedir,
            Opcode.OPEN: self._open,
            Opcode.READ: self._read,
            Opcode.LSEEK: self._lseek,
            Opcode.RELEASE: self._release,
        }

    def connect(self, passthrough: Passthrough) -> None:
        """From now on let the kernel read files by itself where it can."""
        self._passthrough = passthrough

    async def answer(self, request: Request) -> Answer:
        """Answer a request, whatever happens."""
        handler = self._handlers.get(request.opcode)
        if handler is None:
            return errno.EROFS if request.opcode in CHANGES else errno.ENOSYS
        lost = 0
        try:
            while True:
                try:
                    return await handler(request)
                except CatalogUnchecked as unchecked:
                    check = unchecked.check
                except CatalogAbsent:
                    # The copy that was here is damaged; who asks again has it fetched.
                    lost += 1
                    if lost > _MOST_LOST:
                        raise
                    continue
                await self._run_check(check)
        except Exception as error:  # noqa: BLE001 - the root of a request: it ends here
            return self.errno_of(error)

    async def _run_check(self, check: CatalogCheck) -> None:
        """Find out whether a catalog is what was committed; then its request can be answered."""
        try:
            # One after the other: they have one disk, and many may wait for one catalog.
            async with self._checking:
                if not check.is_done:
                    await trio.to_thread.run_sync(check.run)
        finally:
            check.close()

    def errno_of(self, error: Exception) -> int:
        """The errno for an exception; says in the log what the administrator must know."""
        number = errno.EIO
        if isinstance(error, OSError) and error.errno in _PASSED_ON:
            number = error.errno
        else:
            for kind, kinds_number in _ERRNO_OF:
                if isinstance(error, kind):
                    number = kinds_number
                    break
        if isinstance(error, (StoreError, OSError)):
            self._log_once(str(error))
        elif not isinstance(error, _QUIET):
            _log.error("A request failed", exc_info=error)
        return number

    def _log_once(self, text: str) -> None:
        """One line for each damage, however often it is met."""
        if text not in self._logged:
            if len(self._logged) >= _LOGGED_ONCE:
                self._logged.clear()
            self._logged.add(text)
            _log.error("%s", text)

    # -- the first and the last ------------------------------------------------------------------

    async def _init(self, asked: Request) -> Answer:
        agreement = wire.agree(asked.body)
        if agreement is None:
            _log.error("The kernel is too old: Linux 5.4 is needed")
            return errno.EPROTO
        self._on_start()
        return agreement

    async def _forget(self, _: Request) -> Answer:
        """Nothing is kept for the kernel's sake: a number says itself what it leads to."""

    async def _destroy(self, _: Request) -> Answer:
        return b""

    # -- names and attributes --------------------------------------------------------------------

    async def _lookup(self, asked: Request) -> Answer:
        name = wire.decode_name(asked.body)
        if self._preparer is not None:
            await self._preparer.name(asked.inode, name)
        attributes = self._tree.lookup(asked.inode, name)
        return wire.encode_entry(attributes, self._generation)

    async def _getattr(self, asked: Request) -> Answer:
        if self._preparer is not None:
            await self._preparer.row(asked.inode)
        return wire.encode_attributes(self._tree.attributes(asked.inode))

    async def _readlink(self, asked: Request) -> Answer:
        if self._preparer is not None:
            await self._preparer.row(asked.inode)
        return self._tree.read_link(asked.inode)

    async def _statfs(self, _: Request) -> Answer:
        if self._preparer is not None:
            return wire.encode_space(await self._preparer.space())
        assert self._tree.store_path is not None
        status = os.statvfs(self._tree.store_path)
        return wire.encode_space(
            wire.Space(
                status.f_blocks,
                status.f_bfree,
                status.f_bavail,
                status.f_files,
                status.f_ffree,
                status.f_bsize,
                status.f_namemax,
                status.f_frsize,
            )
        )

    # -- extended attributes ---------------------------------------------------------------------

    async def _listxattr(self, asked: Request) -> Answer:
        size, _ = wire.decode_xattr(asked.body)
        if self._preparer is not None:
            await self._preparer.row(asked.inode)
        names = b"".join(name + b"\0" for name in self._tree.xattr_names(asked.inode))
        answer = wire.encode_xattr(names, size)
        return errno.ERANGE if answer is None else answer

    async def _getxattr(self, asked: Request) -> Answer:
        size, name = wire.decode_xattr(asked.body)
        if self._preparer is not None:
            await self._preparer.fact(asked.inode, name)
        value = self._tree.xattr(asked.inode, name)
        if value is None:
            return errno.ENODATA
        answer = wire.encode_xattr(value, size)
        return errno.ERANGE if answer is None else answer

    # -- directories -----------------------------------------------------------------------------

    async def _opendir(self, asked: Request) -> Answer:
        if self._preparer is not None:
            await self._preparer.row(asked.inode)
        number = next(self._numbers)
        handle = self._directories[number] = self._tree.handles.open_directory(asked.inode)
        # The kernel may answer later listings from its own memory where nothing ever changes.
        never_changes = isinstance(handle, VersionHandle)
        flags = _NEVER_CHANGES if never_changes else 0
        return wire.encode_open(number, flags)

    async def _readdir(self, asked: Request) -> Answer:
        number, after, size = wire.decode_read(asked.body)
        handle = self._directories[number]
        if self._preparer is not None:
            await self._preparer.inside(asked.inode)
        return self._tree.handles.list_directory(handle, after, size, self._generation)

    async def _releasedir(self, asked: Request) -> Answer:
        handle = self._directories.pop(wire.decode_handle(asked.body))
        self._tree.handles.close_directory(handle)
        return b""

    # -- files -----------------------------------------------------------------------------------

    async def _open(self, asked: Request) -> Answer:
        if wire.decode_open(asked.body) & (os.O_ACCMODE | os.O_TRUNC):
            return errno.EROFS
        if self._preparer is not None:
            await self._preparer.row(asked.inode)
        number = next(self._numbers)
        handle = self._files[number] = self._tree.handles.open_file(asked.inode)
        if (
            self._passthrough is not None
            and handle.content is None
            and (backing := self._passthrough.open(asked.inode, handle.fd))
        ):
            self._passed_on[number] = asked.inode
            return wire.encode_open(number, _PASSED_THROUGH, backing)
        is_doubtful = handle.content is not None and handle.content.is_doubtful
        return wire.encode_open(number, 0 if is_doubtful else _KEPT)

    async def _read(self, asked: Request) -> Answer:
        number, offset, size = wire.decode_read(asked.body)
        handle = self._files[number]
        size = min(size, max(handle.entry.size - offset, 0), _READ_BYTES)
        if handle.content is not None:
            return await handle.content.read(offset, size)
        view = self._buffer[:size]
        try:
            done = os.preadv(handle.fd, [view], offset, os.RWF_NOWAIT) if size else 0
        except OSError as error:
            # EOPNOTSUPP: a file system without it, tmpfs for one.
            if error.errno not in (errno.EAGAIN, errno.EOPNOTSUPP):
                raise
            done = 0
        if done == size:
            return view
        return await trio.to_thread.run_sync(_read_all, handle, offset, size)

    async def _lseek(self, asked: Request) -> Answer:
        number, offset, whence = wire.decode_lseek(asked.body)
        handle = self._files[number]
        if handle.content is not None:
            # The kernel does without then: all is data.
            return errno.ENOSYS
        try:
            return wire.encode_offset(os.lseek(handle.fd, offset, whence))
        except OSError as error:
            if error.errno == errno.ENXIO:
                return errno.ENXIO  # behind the end, or no data comes any more
            raise

    async def _release(self, asked: Request) -> Answer:
        number = wire.decode_handle(asked.body)
        if (passed_on := self._passed_on.pop(number, None)) is not None:
            assert self._passthrough is not None
            self._passthrough.close(passed_on)
        self._tree.handles.close_file(self._files.pop(number))
        return b""


def _read_all(handle: FileHandle, offset: int, size: int) -> bytes:
    """Exactly `size` bytes: the kernel would fill up with zeros and call them the file's."""
    pieces = []
    while size:
        try:
            piece = os.pread(handle.fd, size, offset)
        except OSError as error:
            error.filename = handle.label
            raise
        if not piece:
            raise OSError(errno.EIO, "Shorter than the catalog says", handle.label)
        pieces.append(piece)
        offset += len(piece)
        size -= len(piece)
    return b"".join(pieces)
