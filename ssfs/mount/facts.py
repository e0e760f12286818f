"""Facts that a mount tells of an entry beside what the source had: extended attributes that are read by name only.

    user.ssfs.version   the id of the version it is in
    user.ssfs.digest    of a file: the digest of its content, in hex
    user.ssfs.stale     "1" if it could not be read, so that it is what the version before has
    user.ssfs.damaged   "1" if its data is known to be damaged

They are not listed: cp -a, tar --xattrs and rsync -X copy what is listed, and a restored tree would no longer be
what was backed up. What a source has under one of these names itself goes before. Linux gives attributes of these names
to files and directories alone.
"""

from ssfs.model.entry import Entry, Flag
from ssfs.mount.names import Binding
from ssfs.store.opened import OpenVersion

_YES = b"1"


def fact_xattr(entry: Entry, name: bytes, binding: Binding, opened: OpenVersion) -> bytes | None:
    """The value of such an attribute; None if the entry has none of this name."""
    if name == b"user.ssfs.version":
        return str(binding.version.id).encode()
    if name == b"user.ssfs.digest":
        return entry.digest.hex().encode() or None
    if name == b"user.ssfs.stale":
        return _YES if entry.flags & Flag.STALE else None
    if name == b"user.ssfs.damaged":
        return _YES if opened.is_damaged(entry) else None
    return None
