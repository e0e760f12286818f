"""Who may do what: the table, in full."""

import itertools

import pytest

from ssfs.model.peer import ALL_POINTS, LOCAL, NOBODY, Peer, Role

NONE, BACKUP, RESTORE, ADMIN = (), (Role.BACKUP,), (Role.RESTORE,), (Role.ADMIN,)


def peer(*roles: Role, points: tuple[str, ...] = ("main",)) -> Peer:
    return Peer("nas1", frozenset(roles), frozenset(points))


@pytest.mark.parametrize(
    ("roles", "backs_up", "reads_own", "reads_others", "administers"),
    [
        (NONE, False, False, False, False),
        (BACKUP, True, True, False, False),
        (RESTORE, False, True, True, False),
        (ADMIN, False, True, True, True),
        (BACKUP + RESTORE, True, True, True, False),
        (BACKUP + ADMIN, True, True, True, True),
        (RESTORE + ADMIN, False, True, True, True),
        (BACKUP + RESTORE + ADMIN, True, True, True, True),
    ],
)
def test_roles_in_a_granted_point(roles, backs_up, reads_own, reads_others, administers):
    for points in (("main",), ("other", "main"), (ALL_POINTS,)):
        one = peer(*roles, points=points)
        assert one.may_use_point("main")
        assert one.may_back_up("main") is backs_up
        assert one.may_read_task("main", "nas1") is reads_own
        assert one.may_read_task("main", "nas2") is reads_others
        assert one.may_administer("main") is administers


@pytest.mark.parametrize("points", [(), ("main",), ("Other", "othe", "other2")])
def test_no_role_reaches_into_another_point(points):
    for count in range(4):
        for roles in itertools.combinations(Role, count):
            one = peer(*roles, points=points)
            assert not one.may_use_point("other")
            assert not one.may_back_up("other")
            assert not one.may_read_task("other", "nas1")
            assert not one.may_administer("other")


def test_nobody_may_do_nothing_whatever_it_claims():
    for one in (NOBODY, NOBODY.called("nas1"), Peer("nas1", LOCAL.roles, LOCAL.points, False)):
        assert not one.may_use_point("main")
        assert not one.may_back_up("main")
        assert not one.may_read_task("main", "nas1")
        assert not one.may_read_task("main", "")
        assert not one.may_administer("main")


def test_keeper_of_the_files_may_do_everything_under_any_name():
    one = LOCAL.called("nas1")
    assert one.name == "nas1"
    assert one.may_back_up("main")
    assert one.may_read_task("any", "nas2")
    assert one.may_administer("any")


def test_name_that_is_proved_is_not_changed_by_a_claim():
    assert peer(Role.BACKUP).called("nas2").name == "nas1"


def test_empty_name_owns_no_task():
    assert not Peer("", frozenset(BACKUP), frozenset({"main"})).may_read_task("main", "")
