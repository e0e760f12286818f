"""Who may pass directories that are several versions' at once.

The kernel checks one owner, one group, one mode and one ACL, while each version may have had others. So what is shown
never grants more than any of them did; where no mode says exactly what they have in common, it says less:

- All are alike: shown as they are, with their ACL.
- Only modes differ: the bits that all have.
- Owners differ: the mount's own user has it, and the owners' bits are taken from all others too, since each owner is one
  of the others now. Groups likewise.
- There are ACLs and they differ: everybody has what every entry of every ACL grants.
"""

from collections.abc import Sequence
from functools import reduce
from operator import and_
from typing import NamedTuple

from ssfs.model.entry import GROUP, USER, Entry
from ssfs.model.xattrs import ACL_ACCESS, acl_permissions
from ssfs.mount.owners import Owners, local_acl
from ssfs.store.opened import OpenVersion

_PASS = 1
_ALL = 7


class Rights(NamedTuple):
    """What the kernel checks of a directory.

    Attributes:
        mode: Its permission bits.
        uid: This machine's number of the owner.
        gid: Of the group.
        acl: Its access ACL with this machine's numbers; b"" for none.
    """

    mode: int
    uid: int
    gid: int
    acl: bytes = b""

    @property
    def owner_bits(self) -> int:
        """What the owner may."""
        return self.mode >> 6 & _ALL

    @property
    def group_bits(self) -> int:
        """What the group may (with an ACL: at most)."""
        return self.mode >> 3 & _ALL

    @property
    def other_bits(self) -> int:
        """What everybody else may."""
        return self.mode & _ALL

    @property
    def least(self) -> int:
        """What everybody may, whoever it is."""
        # The mode too: the kernel passes over an ACL if the group's bits are 0.
        bits = self.owner_bits & self.group_bits & self.other_bits
        if not self.acl:
            return bits
        return reduce(and_, acl_permissions(self.acl) or [0], bits)


def rights_of(entry: Entry, opened: OpenVersion, owners: Owners) -> Rights:
    """The rights of an entry in a version."""
    return Rights(
        entry.mode,
        owners.local_number(USER, entry.uid, opened.owner_name(USER, entry.uid)),
        owners.local_number(GROUP, entry.gid, opened.owner_name(GROUP, entry.gid)),
        local_acl(opened, entry, ACL_ACCESS, owners) or b"",
    )


def common_rights(found: Sequence[Rights], own: tuple[int, int]) -> Rights:
    """Rights that grant nobody more than each of some does.

    Args:
        found: At least one.
        own: User and group of the mount: they have what has no owner, no group in common.
    """
    first = found[0]
    if all(rights == first for rights in found):
        return first
    if any(rights.acl for rights in found):
        bits = reduce(and_, (rights.least for rights in found))
        return Rights(_mode(_ALL, bits, bits), *own)
    owner_bits, group_bits, other_bits = (
        reduce(and_, (rights.owner_bits for rights in found)),
        reduce(and_, (rights.group_bits for rights in found)),
        reduce(and_, (rights.other_bits for rights in found)),
    )
    uid, gid = first.uid, first.gid
    if any(rights.uid != uid for rights in found):
        uid = own[USER]
        group_bits &= owner_bits
        other_bits &= owner_bits
        owner_bits = _ALL
    if any(rights.gid != gid for rights in found):
        gid = own[GROUP]
        other_bits &= group_bits
        group_bits = other_bits
    return Rights(_mode(owner_bits, group_bits, other_bits), uid, gid)


def _mode(owner_bits: int, group_bits: int, other_bits: int) -> int:
    return owner_bits << 6 | group_bits << 3 | other_bits


def lets_pass_all_of(outer: Rights, inner: Rights) -> bool:
    """Whether `outer` surely lets through everybody whom `inner` lets through."""
    if outer == inner or outer.least & _PASS:
        return True
    if not inner.acl and not inner.mode & 0o011:
        # At most its owner passes; root passes everywhere.
        is_owner = inner.uid == outer.uid and outer.owner_bits & _PASS
        return bool(is_owner) or not inner.owner_bits & _PASS or inner.uid == 0
    if inner.acl or outer.acl or (inner.uid, inner.gid) != (outer.uid, outer.gid):
        return False
    return not inner.mode & 0o111 & ~outer.mode
