"""Sets of extended attributes and ACLs as values."""

import struct

import msgspec
import pytest

from ssfs.model.xattrs import (
    acl_owners,
    decode_set,
    encode_set,
    is_kept,
    set_key,
    translate_acl,
)

UNDEFINED = 2**32 - 1


def acl(*entries: tuple[int, int, int]) -> bytes:
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


ACL = acl(
    (1, 6, UNDEFINED),
    (2, 7, 1000),
    (2, 4, 1001),
    (4, 4, UNDEFINED),
    (8, 4, 1000),
    (16, 7, UNDEFINED),
    (32, 0, UNDEFINED),
)


def test_a_set_is_the_same_whatever_the_order():
    pairs = [(b"user.b", b"\0\xff"), (b"user.a", b""), (b"trusted.c", b"x" * 1000)]
    encoded = encode_set(pairs)
    assert encode_set(reversed(pairs)) == encoded
    assert decode_set(encoded) == dict(pairs)
    assert len(set_key(encoded)) == 32
    assert (encode_set([]), set_key(b""), decode_set(b"")) == (b"", b"", {})


@pytest.mark.parametrize(
    "encoded",
    [
        b"\xff",
        msgspec.msgpack.encode([("text", b"")]),
        msgspec.msgpack.encode([(b"user.b", b""), (b"user.a", b"")]),
        msgspec.msgpack.encode([(b"user.a", b""), (b"user.a", b"")]),
        msgspec.msgpack.encode([(b"user.a\0", b"")]),
        msgspec.msgpack.encode([(b"system.other", b"")]),
        msgspec.msgpack.encode([(b"user." + b"x" * 300, b"")]),
        msgspec.msgpack.encode([]),
    ],
)
def test_what_is_no_set_is_refused(encoded):
    with pytest.raises(ValueError, match=r"."):
        decode_set(encoded)


def test_only_what_means_something_elsewhere_is_kept():
    assert all(map(is_kept, (b"user.x", b"trusted.x", b"security.x", b"system.posix_acl_access")))
    assert not any(map(is_kept, (b"system.nfs4_acl", b"btrfs.compression", b"usr.x")))


def test_an_acl_names_users_and_groups():
    assert acl_owners(ACL) == [(0, 1000), (0, 1001), (1, 1000)]


def test_an_acl_is_translated_and_in_the_kernels_order():
    numbers = {(0, 1000): 9, (0, 1001): 5, (1, 1000): 77}
    translated = translate_acl(ACL, lambda kind, number: numbers[kind, number])
    assert translated == acl(
        (1, 6, UNDEFINED),
        (2, 4, 5),
        (2, 7, 9),
        (4, 4, UNDEFINED),
        (8, 4, 77),
        (16, 7, UNDEFINED),
        (32, 0, UNDEFINED),
    )


@pytest.mark.parametrize("value", [b"", b"\2\0\0", b"\1\0\0\0" + bytes(8), ACL[:-1]])
def test_what_is_no_acl_stays_as_it_is(value):
    assert acl_owners(value) == []
    assert translate_acl(value, lambda _kind, _number: 1 // 0) == value
