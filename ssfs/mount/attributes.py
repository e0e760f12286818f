"""What stat() says about everything in a mount.

The catalog decides, never the inode in the store: that one carries data only (FORMAT.md, "tree/"). Its ctime above
all means nothing, because every later version that links it moves it; ctime is shown as mtime.

Inode numbers: `binding << 40 | entry id`, so they differ between versions and between names, and repeat only for
hard links inside one version (tar, cp -a and others take equal numbers for one file). Binding 0 is for
what lies above the versions.
"""

import stat
from typing import NamedTuple

from ssfs.model.entry import (
    GROUP,
    MAX_ENTRY_ID,
    ROOT_ID,
    USER,
    Entry,
    Kind,
    mtime_ns_of,
    st_mode,
)
from ssfs.model.layout import data_bytes
from ssfs.mount.names import Binding
from ssfs.mount.owners import Owners
from ssfs.store.opened import OpenVersion

BLOCK_BYTES = 512
DIRECTORY_BYTES = 4096
TOP_TIMEOUT_S = 0.5
"""How long the kernel may believe what lies above the versions: that changes while mounted."""
VERSION_TIMEOUT_S = 7 * 86400.0
"""How long it may believe what lies inside a version: that never changes."""

_NS = 1_000_000_000


class Attributes(NamedTuple):
    """One entry's attributes, as this machine shows them.

    Attributes:
        inode: Its number; 0 says that there is no such entry, and for how long that is so.
        mode: Kind and permission bits.
        nlink: Number of names; at least 1 (Samba takes 0 for a deleted file).
        uid: This machine's number of the owner.
        gid: This machine's number of the group.
        rdev: Device number of a device.
        size: In bytes.
        data_bytes: Likewise, holes left out.
        mtime_ns: Since 1970; may be negative.
        name_timeout_s: How long the name may be believed to lead here.
        timeout_s: How long the other attributes may be believed.
    """

    inode: int
    mode: int
    nlink: int
    uid: int
    gid: int
    rdev: int
    size: int
    data_bytes: int
    mtime_ns: int
    name_timeout_s: float
    timeout_s: float


class DirectoryItem(NamedTuple):
    """One line of a directory; `cookie` resumes the listing after it."""

    cookie: int
    name: bytes
    attributes: Attributes


ABSENT = Attributes(0, 0, 1, 0, 0, 0, 0, 0, 0, VERSION_TIMEOUT_S, VERSION_TIMEOUT_S)
"""A name that no entry of a version has, and never will have."""


def inode_number(binding: int, entry_id: int) -> int:
    """The inode number of an entry as seen through a binding."""
    return binding * MAX_ENTRY_ID | entry_id


def split_inode_number(inode: int) -> tuple[int, int]:
    """The binding (0: above the versions) and the entry id (or node) of an inode number."""
    return divmod(inode, MAX_ENTRY_ID)


def entry_attributes(
    entry: Entry, binding: Binding, opened: OpenVersion, owners: Owners
) -> Attributes:
    """The attributes of an entry inside a version."""
    entry_id, nlink, size = entry.id, 1, entry.size
    if entry.link_group and (links := opened.hard_links(entry.link_group)) is not None:
        entry_id, nlink = links
    if entry.kind == Kind.DIRECTORY:
        size = DIRECTORY_BYTES
    elif entry.kind == Kind.SYMLINK:
        size = len(entry.target)
    return Attributes(
        inode_number(binding.number, entry_id),
        st_mode(entry),
        nlink,
        owners.local_number(USER, entry.uid, opened.owner_name(USER, entry.uid)),
        owners.local_number(GROUP, entry.gid, opened.owner_name(GROUP, entry.gid)),
        entry.rdev,
        size,
        data_bytes(size, entry.holes),
        mtime_ns_of(entry),
        VERSION_TIMEOUT_S,
        VERSION_TIMEOUT_S,
    )


def version_attributes(binding: Binding, owners: Owners) -> Attributes:
    """The attributes of a version's root directory; needs no catalog."""
    root = binding.version.root
    return Attributes(
        inode_number(binding.number, ROOT_ID),
        stat.S_IFDIR | root.mode & 0o7777,
        1,
        owners.local_number(USER, root.uid, root.user),
        owners.local_number(GROUP, root.gid, root.group),
        0,
        DIRECTORY_BYTES,
        DIRECTORY_BYTES,
        root.mtime_s * _NS + root.mtime_ns,
        TOP_TIMEOUT_S,
        VERSION_TIMEOUT_S,
    )


def top_attributes(
    inode: int, mode: int, size: int, mtime_ns: int, owner: tuple[int, int]
) -> Attributes:
    """The attributes of something above the versions."""
    return Attributes(inode, mode, 1, *owner, 0, size, size, mtime_ns, TOP_TIMEOUT_S, TOP_TIMEOUT_S)
