"""What the kernel asks of a mount, as pyfuse3 passes it on; only here exceptions become errnos.

pyfuse3 ends the whole mount when a handler raises anything but FUSEError, so every handler goes through
`_answered`: what is expected becomes its errno by one table, everything else EIO and a traceback in
the log.

Changes are refused by `ssfs.mount.refusals`. Some handlers are missing on purpose: for flush, fsync and others pyfuse3's own
answer, ENOSYS, makes the kernel stop asking.

Of a store on this machine all handlers but `read` answer without awaiting anything. `read` awaits a worker thread when the store's disk
must be waited for. Of a server's, what an answer is made of is awaited first (`ssfs.mount.remote.preparing`).
"""

import errno
import functools
import itertools
import logging
import os
import secrets
from collections.abc import Awaitable, Callable, Coroutine
from typing import Concatenate, ParamSpec, TypeVar, cast

import pyfuse3
import trio
from typing_extensions import override

from ssfs.errors import CorruptStore, StoreError
from ssfs.model.entry import NAME_MAX_BYTES
from ssfs.mount.attributes import BLOCK_BYTES, Attributes
from ssfs.mount.handles import DirectoryHandle, FileHandle
from ssfs.mount.inodes import NoEntry, Stale, WrongKind
from ssfs.mount.refusals import ReadOnlyOperations, refuse_change
from ssfs.mount.remote.preparing import Preparer
from ssfs.mount.tree import MountTree

_READ_BYTES = 1 << 20
_LOGGED_ONCE = 1000

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
_QUIET = (NoEntry, Stale, WrongKind)

_log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")


def _answered(
    handler: Callable[Concatenate["MountOperations", P], Awaitable[R]],
) -> Callable[Concatenate["MountOperations", P], Coroutine[object, object, R]]:
    """Let nothing but FUSEError out of a handler."""

    @functools.wraps(handler)
    async def answer(self: "MountOperations", /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return await handler(self, *args, **kwargs)
        except pyfuse3.FUSEError:
            raise
        except Exception as error:  # noqa: BLE001 - the root of a request: it ends here
            raise pyfuse3.FUSEError(self.errno_of(error)) from None

    return answer


class MountOperations(ReadOnlyOperations):
    """Answers the kernel from a `MountTree`."""

    supports_dot_lookup = True
    enable_acl = True

    def __init__(
        self, tree: MountTree, on_start: Callable[[], None], preparer: Preparer | None = None
    ) -> None:
        """Be ready for `pyfuse3.init`.

        Args:
            tree: What is mounted.
            on_start: Called when the kernel's first request has come: from then on we serve.
            preparer: Fetches what the tree answers from; None if all of it is on this machine.
        """
        super().__init__()
        self._tree = tree
        self._on_start = on_start
        self._preparer = preparer
        self._directories: dict[int, DirectoryHandle] = {}
        self._files: dict[int, FileHandle] = {}
        self._numbers = itertools.count(1)
        # NFS keeps inode numbers beyond a mount's life, and numbers begin anew with each mount.
        self._generation = secrets.randbelow(1 << 31) + 1
        # One for all: what is in it goes to the kernel before anything else runs.
        self._buffer = memoryview(bytearray(_READ_BYTES))
        self._logged: set[str] = set()

    @override
    def init(self) -> None:
        self._on_start()

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

    def _reply(self, attributes: Attributes) -> pyfuse3.EntryAttributes:
        return self._fill(pyfuse3.EntryAttributes(), attributes)

    def _fill(
        self, entry: pyfuse3.EntryAttributes, attributes: Attributes
    ) -> pyfuse3.EntryAttributes:
        inode, mode, nlink, uid, gid, rdev, size, data_bytes, mtime_ns, *timeouts_s = attributes
        entry.st_ino = inode
        entry.generation = self._generation
        entry.entry_timeout, entry.attr_timeout = timeouts_s
        entry.st_mode = mode
        entry.st_nlink = nlink
        entry.st_uid = uid
        entry.st_gid = gid
        entry.st_rdev = rdev
        entry.st_size = size
        entry.st_blocks = -(-data_bytes // BLOCK_BYTES)
        entry.st_atime_ns = entry.st_mtime_ns = entry.st_ctime_ns = mtime_ns
        return entry

    # -- names and attributes --------------------------------------------------------------------

    @override
    @_answered
    async def lookup(
        self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        if self._preparer is not None:
            await self._preparer.name(parent_inode, name)
        return self._reply(self._tree.lookup(parent_inode, name))

    @override
    @_answered
    async def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        if self._preparer is not None:
            await self._preparer.row(inode)
        return self._reply(self._tree.attributes(inode))

    @override
    @_answered
    async def readlink(self, inode: int, ctx: pyfuse3.RequestContext) -> bytes:
        if self._preparer is not None:
            await self._preparer.row(inode)
        return self._tree.read_link(inode)

    @override
    @_answered
    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        reply = pyfuse3.StatvfsData()
        if self._tree.store_path is None:
            # How full a server's disk is nobody here can do anything about.
            reply.f_bsize = reply.f_frsize = BLOCK_BYTES
            reply.f_namemax = NAME_MAX_BYTES
            return reply
        status = os.statvfs(self._tree.store_path)
        reply.f_bsize = status.f_bsize
        reply.f_frsize = status.f_frsize
        reply.f_blocks = status.f_blocks
        reply.f_bfree = status.f_bfree
        reply.f_bavail = status.f_bavail
        reply.f_files = status.f_files
        reply.f_ffree = status.f_ffree
        reply.f_favail = status.f_favail
        reply.f_namemax = status.f_namemax
        return reply

    # -- extended attributes ---------------------------------------------------------------------

    @override
    @_answered
    async def listxattr(self, inode: int, ctx: pyfuse3.RequestContext) -> list[bytes]:
        if self._preparer is not None:
            await self._preparer.row(inode)
        return self._tree.xattr_names(inode)

    @override
    @_answered
    async def getxattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> bytes:
        if self._preparer is not None:
            await self._preparer.fact(inode, name)
        value = self._tree.xattr(inode, name)
        if value is None:
            raise pyfuse3.FUSEError(errno.ENODATA)
        return value

    # -- directories -----------------------------------------------------------------------------

    @override
    @_answered
    async def opendir(self, inode: int, ctx: pyfuse3.RequestContext) -> int:
        if self._preparer is not None:
            await self._preparer.row(inode)
        number = next(self._numbers)
        self._directories[number] = self._tree.handles.open_directory(inode)
        return number

    @override
    @_answered
    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        handle = self._directories[fh]
        if self._preparer is not None:
            await self._preparer.inside(handle.inode)
        entry = pyfuse3.EntryAttributes()
        for item in self._tree.handles.list_directory(handle, start_id):
            self._fill(entry, item.attributes)
            if not pyfuse3.readdir_reply(token, item.name, entry, item.cookie):
                break

    @override
    @_answered
    async def releasedir(self, fh: int) -> None:
        self._tree.handles.close_directory(self._directories.pop(fh))

    # -- files -----------------------------------------------------------------------------------

    @override
    @_answered
    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        if flags & (os.O_ACCMODE | os.O_TRUNC):
            refuse_change()
        if self._preparer is not None:
            await self._preparer.row(inode)
        number = next(self._numbers)
        self._files[number] = self._tree.handles.open_file(inode)
        return pyfuse3.FileInfo(fh=number, keep_cache=True)

    @override
    @_answered
    async def read(self, fh: int, off: int, size: int) -> bytes:
        handle = self._files[fh]
        size = min(size, max(handle.entry.size - off, 0))
        if handle.content is not None:
            return await handle.content.read(off, size)
        view = self._buffer[:size]
        try:
            done = os.preadv(handle.fd, [view], off, os.RWF_NOWAIT) if size else 0
        except OSError as error:
            # EOPNOTSUPP: a file system without it, tmpfs for one.
            if error.errno not in (errno.EAGAIN, errno.EOPNOTSUPP):
                raise
            done = 0
        if done == size:
            # No copy, and the stubs know of `bytes` only; the kernel takes it before any other read.
            return cast("bytes", view)
        return await trio.to_thread.run_sync(_read_all, handle, off, size)

    @override
    @_answered
    async def release(self, fh: int) -> None:
        self._tree.handles.close_file(self._files.pop(fh))


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
