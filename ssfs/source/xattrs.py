"""Reading the extended attributes of a source."""

import errno
import os

from ssfs.model.xattrs import encode_set, is_kept

_NONE_HERE = (errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS)


def read_xattrs(target: int | bytes) -> bytes:
    """The attributes of an open file, or of what has a name (not followed), encoded as a set.

    What this process may not see (trusted.* unless root) is not there for it.

    Raises:
        OSError: They are there and cannot be read.
    """
    try:
        names = list_xattrs(target)
    except OSError as error:
        if error.errno in _NONE_HERE:
            return b""
        raise
    if not names:
        return b""
    pairs = []
    for text in names:
        name = os.fsencode(text)
        if is_kept(name):
            try:
                pairs.append((name, get_xattr(target, text)))
            except OSError as error:
                # Gone since it was listed, or (overlayfs) listed without being there.
                if error.errno not in (errno.ENODATA, *_NONE_HERE):
                    raise
    return encode_set(pairs)


def path_of(name: bytes, dir_fd: int) -> bytes:
    """A path for what has a name in an open directory: there are no calls by descriptor and name."""
    return b"/proc/self/fd/%d/%b" % (dir_fd, name)


def list_xattrs(target: int | bytes) -> list[str]:
    """The names of the attributes of an open file, or of what has a name (not followed)."""
    if isinstance(target, int):
        return os.listxattr(target)
    return os.listxattr(target, follow_symlinks=False)


def get_xattr(target: int | bytes, name: str | bytes) -> bytes:
    """The value of one of them; raises OSError."""
    if isinstance(target, int):
        return os.getxattr(target, name)
    return os.getxattr(target, name, follow_symlinks=False)
