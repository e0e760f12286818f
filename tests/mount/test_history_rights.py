"""What several directories have in common grants nobody more than each of them: against what the kernel checks."""

import struct
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from ssfs.mount.history.rights import Rights, common_rights, lets_pass_all_of

OWN = (0, 0)
USERS = (11, 12, 13)
GROUPS = (21, 22)
UNDEFINED = 2**32 - 1
PASS = 1


def acl(entries: Sequence[tuple[int, int, int]]) -> bytes:
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def granted(rights: Rights, user: int, groups: frozenset[int]) -> int:
    """The bits that the kernel grants, one by one (fs/namei.c, fs/posix_acl.c)."""
    if user == rights.uid:
        return rights.mode >> 6 & 7
    if rights.acl and rights.mode & 0o070:
        return granted_by_acl(rights, user, groups)
    if rights.gid in groups:
        return rights.mode >> 3 & 7
    return rights.mode & 7


def granted_by_acl(rights: Rights, user: int, groups: frozenset[int]) -> int:
    entries = list(struct.iter_unpack("<HHI", rights.acl[4:]))
    (mask,) = [bits for tag, bits, _ in entries if tag == 16]
    for tag, bits, number in entries:
        if tag == 2 and number == user:
            return bits & mask
    of_groups = [
        bits
        for tag, bits, number in entries
        if (tag == 4 and rights.gid in groups) or (tag == 8 and number in groups)
    ]
    if of_groups:
        found = 0
        for bits in of_groups:
            found |= bits
        return found & mask
    (other,) = [bits for tag, bits, _ in entries if tag == 32]
    return other


BITS = st.integers(0, 7)


@st.composite
def some_rights(draw: st.DrawFn) -> Rights:
    # Often full or empty: what is alike by chance is seldom.
    bits = st.one_of(st.sampled_from([0, 5, 7]), BITS)
    owner, group, other = draw(bits), draw(bits), draw(bits)
    uid, gid = draw(st.sampled_from(USERS)), draw(st.sampled_from(GROUPS))
    value = b""
    if draw(st.booleans()):
        entries = [
            (1, owner, UNDEFINED),
            (2, draw(bits), draw(st.sampled_from(USERS))),
            (4, draw(bits), UNDEFINED),
            (8, draw(bits), draw(st.sampled_from(GROUPS))),
            (16, group, UNDEFINED),
            (32, other, UNDEFINED),
        ]
        value = acl(entries)
    return Rights(owner << 6 | group << 3 | other, uid, gid, value)


EVERYBODY = [
    (user, frozenset(groups))
    for user in (*USERS, 14)
    for groups in ((), (21,), (22,), (21, 22), (23,), (0,))
]


@given(st.lists(some_rights(), min_size=1, max_size=4))
def test_what_directories_have_in_common_grants_no_more_than_each(found):
    common = common_rights(found, OWN)
    for user, groups in EVERYBODY:
        bits = granted(common, user, groups)
        for rights in found:
            assert not bits & ~granted(rights, user, groups), (user, groups, rights, common)


@given(some_rights(), some_rights())
def test_one_lets_pass_all_of_another_only_if_it_does(outer, inner):
    if lets_pass_all_of(outer, inner):
        for user, groups in EVERYBODY:
            if granted(inner, user, groups) & PASS:
                assert granted(outer, user, groups) & PASS, (user, groups)


def test_alike_directories_are_shown_as_they_are():
    one = Rights(0o2750, 11, 21, acl([(1, 7, UNDEFINED)]))
    assert common_rights([one, one], OWN) == one


def test_where_only_modes_differ_the_bits_of_all_are_left():
    assert common_rights([Rights(0o755, 11, 21), Rights(0o750, 11, 21)], OWN) == Rights(
        0o750, 11, 21
    )


def test_what_is_open_to_all_stays_so_whoever_had_it():
    assert common_rights([Rights(0o755, 11, 21), Rights(0o755, 12, 22)], OWN) == Rights(0o755, *OWN)
    assert common_rights([Rights(0o750, 11, 21), Rights(0o770, 12, 21)], OWN) == Rights(
        0o750, 0, 21
    )


def test_what_was_private_to_two_is_private_to_the_mount():
    assert common_rights([Rights(0o700, 11, 21), Rights(0o700, 12, 21)], OWN) == Rights(
        0o700, 0, 21
    )


def test_passing_is_compared():
    private, shared, open_to_all = (
        Rights(0o700, 11, 21),
        Rights(0o750, 11, 21),
        Rights(0o755, 12, 22),
    )
    assert lets_pass_all_of(shared, private)
    assert not lets_pass_all_of(private, shared)
    assert lets_pass_all_of(open_to_all, private)
    assert lets_pass_all_of(private, Rights(0o500, 0, 0)), "root passes everywhere"
    assert not lets_pass_all_of(private, Rights(0o500, 12, 21))
