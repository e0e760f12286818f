"""Every change is refused with EROFS.

The mount is read-only, so the kernel refuses changes before they come here: this is a second fence, in
case somebody remounts it writable.
"""

import errno
from typing import NoReturn

import pyfuse3
from typing_extensions import override


def refuse_change() -> NoReturn:
    """Say that the file system is read-only."""
    raise pyfuse3.FUSEError(errno.EROFS)


class ReadOnlyOperations(pyfuse3.Operations):
    """Handlers for everything that would change something."""

    @override
    async def setattr(
        self,
        inode: int,
        attr: pyfuse3.EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: int | None,
        ctx: pyfuse3.RequestContext,
    ) -> NoReturn:
        refuse_change()

    @override
    async def mknod(
        self,
        parent_inode: int,
        name: bytes,
        mode: int,
        rdev: int,
        ctx: pyfuse3.RequestContext,
    ) -> NoReturn:
        refuse_change()

    @override
    async def mkdir(
        self, parent_inode: int, name: bytes, mode: int, ctx: pyfuse3.RequestContext
    ) -> NoReturn:
        refuse_change()

    @override
    async def unlink(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> NoReturn:
        refuse_change()

    @override
    async def rmdir(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> NoReturn:
        refuse_change()

    @override
    async def symlink(
        self, parent_inode: int, name: bytes, target: bytes, ctx: pyfuse3.RequestContext
    ) -> NoReturn:
        refuse_change()

    @override
    async def rename(
        self,
        parent_inode_old: int,
        name_old: bytes,
        parent_inode_new: int,
        name_new: bytes,
        flags: int,
        ctx: pyfuse3.RequestContext,
    ) -> NoReturn:
        refuse_change()

    @override
    async def link(
        self, inode: int, new_parent_inode: int, new_name: bytes, ctx: pyfuse3.RequestContext
    ) -> NoReturn:
        refuse_change()

    @override
    async def create(
        self,
        parent_inode: int,
        name: bytes,
        mode: int,
        flags: int,
        ctx: pyfuse3.RequestContext,
    ) -> NoReturn:
        refuse_change()

    @override
    async def write(self, fh: int, off: int, buf: bytes) -> NoReturn:
        refuse_change()

    @override
    async def setxattr(
        self, inode: int, name: bytes, value: bytes, ctx: pyfuse3.RequestContext
    ) -> NoReturn:
        refuse_change()

    @override
    async def removexattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> NoReturn:
        refuse_change()
