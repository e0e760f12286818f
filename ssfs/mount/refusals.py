"""Every change is refused with EROFS.

The mount is read-only, so the kernel refuses changes before they come here: this is a second fence, in
case somebody remounts it writable.
"""

from ssfs.mount.wire import Opcode

CHANGES = frozenset(
    {
        Opcode.SETATTR,
        Opcode.SYMLINK,
        Opcode.MKNOD,
        Opcode.MKDIR,
        Opcode.UNLINK,
        Opcode.RMDIR,
        Opcode.RENAME,
        Opcode.RENAME2,
        Opcode.LINK,
        Opcode.WRITE,
        Opcode.SETXATTR,
        Opcode.REMOVEXATTR,
        Opcode.CREATE,
        Opcode.TMPFILE,
        Opcode.FALLOCATE,
    }
)
"""The requests that would change something."""
