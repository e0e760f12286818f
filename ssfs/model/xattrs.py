"""Extended attributes: which of them are kept, and how a set of them is written.

A set is encoded as FORMAT.md has it for `xattr_set`: a MessagePack array of [name, value], sorted by name. POSIX ACLs
are among them under their system names, in the form the kernel gives them (linux/posix_acl_xattr.h); the
users and groups they name are numbers, which each machine has others for.
"""

import struct
from collections.abc import Callable, Iterable

import blake3
import msgspec

MAX_SET_BYTES = 256 << 10
"""Of one entry, encoded; ext4 holds 64 KiB, others more."""

ACL_ACCESS = b"system.posix_acl_access"
ACL_DEFAULT = b"system.posix_acl_default"
ACLS = (ACL_ACCESS, ACL_DEFAULT)

_KEPT = (b"user.", b"trusted.", b"security.")
_MAX_NAME_BYTES = 255
_ACL_HEAD = struct.Struct("<I")
_ACL_ENTRY = struct.Struct("<HHI")
_ACL_VERSION = 2
_ACL_USER = 2
_ACL_GROUP = 8
_OWNER_KIND = {_ACL_USER: 0, _ACL_GROUP: 1}

Pairs = list[tuple[bytes, bytes]]

_decoder = msgspec.msgpack.Decoder(Pairs)
_encode = msgspec.msgpack.Encoder().encode


def is_kept(name: bytes) -> bool:
    """Whether an attribute of this name is backed up: what others mean is their system's own."""
    return name.startswith(_KEPT) or name in ACLS


def encode_set(pairs: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A set as it is stored; b"" for no attributes."""
    ordered = sorted(pairs)
    return _encode(ordered) if ordered else b""


def set_key(encoded: bytes) -> bytes:
    """The key of a set: the BLAKE3 of it; b"" for no attributes."""
    return blake3.blake3(encoded).digest() if encoded else b""


def decode_set(encoded: bytes) -> dict[bytes, bytes]:
    """The attributes of a set, by name.

    Raises:
        ValueError: It is none.
    """
    try:
        pairs = _decoder.decode(encoded) if encoded else []
    except msgspec.DecodeError as error:
        raise ValueError(str(error)) from error
    found = dict(pairs)
    for name in found:
        if not is_kept(name) or b"\0" in name or len(name) > _MAX_NAME_BYTES:
            raise ValueError(f"no name of an extended attribute: {name!r}")
    if len(found) != len(pairs) or encode_set(pairs) != encoded:
        raise ValueError("extended attributes out of order")
    return found


def acl_owners(acl: bytes) -> list[tuple[int, int]]:
    """(kind, number) of the users (0) and groups (1) an ACL names; none for what is no ACL."""
    return [
        (_OWNER_KIND[tag], number) for tag, _, number in _acl_entries(acl) if tag in _OWNER_KIND
    ]


def acl_permissions(acl: bytes) -> list[int]:
    """What each entry of an ACL grants, the mask among them; none for what is no ACL."""
    return [permissions for _, permissions, _ in _acl_entries(acl)]


def translate_acl(acl: bytes, number_of: Callable[[int, int], int]) -> bytes:
    """An ACL with other numbers for the users and groups it names; what is no ACL stays as it is.

    Args:
        acl: As the kernel has it.
        number_of: This machine's number for a kind and a number of the source's.
    """
    entries = _acl_entries(acl)
    if not entries:
        return acl
    translated = [
        (tag, permissions, number_of(_OWNER_KIND[tag], number) if tag in _OWNER_KIND else number)
        for tag, permissions, number in entries
    ]
    # Stable: the order of tags is the kernel's own, and it wants numbers to rise within each.
    translated.sort(key=lambda entry: (entry[0], entry[2] if entry[0] in _OWNER_KIND else 0))
    return _ACL_HEAD.pack(_ACL_VERSION) + b"".join(_ACL_ENTRY.pack(*entry) for entry in translated)


def _acl_entries(acl: bytes) -> list[tuple[int, int, int]]:
    body = acl[_ACL_HEAD.size :]
    is_acl = (
        len(acl) >= _ACL_HEAD.size
        and _ACL_HEAD.unpack_from(acl)[0] == _ACL_VERSION
        and len(body) % _ACL_ENTRY.size == 0
    )
    return list(_ACL_ENTRY.iter_unpack(body)) if is_acl else []
