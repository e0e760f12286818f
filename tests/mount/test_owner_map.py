"""`-o owner=` and `-o map=`: what they spell, and what is wrong with what they do not."""

import grp
import os
import pwd
from pathlib import Path

import pytest

from ssfs.engine.restore.options import OwnerMap
from ssfs.errors import ConfigError
from ssfs.model.entry import GROUP, USER
from ssfs.mount.owner_map import find_owner, read_owner_map
from ssfs.mount.owners import NOBODY, Owners


@pytest.fixture
def write(tmp_path: Path):
    def write(text: str | bytes) -> bytes:
        path = tmp_path / "owners"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return os.fsencode(path)

    return write


def test_owner_is_a_user_of_this_machine_by_name_or_number_with_the_primary_group():
    daemon = pwd.getpwnam("daemon")
    expected = (daemon.pw_uid, daemon.pw_gid)
    assert find_owner("daemon") == find_owner(str(daemon.pw_uid)) == expected


@pytest.mark.parametrize("text", ["", "no such user", "61999", "9" * 10, "-1", "\udcff", "a\0b"])
def test_owner_this_machine_does_not_have_is_named(text):
    with pytest.raises(ConfigError, match="no such user"):
        find_owner(text)


def test_map_names_owners_by_name_or_number_on_both_sides(write):
    path = write(
        "# of the old NAS\n\nuser ann daemon\nuser\t01000   4711\n  group staff 0\ngroup 100 daemon"
    )
    daemons = grp.getgrnam("daemon").gr_gid
    assert read_owner_map(path) == OwnerMap(
        users={"ann": pwd.getpwnam("daemon").pw_uid, "1000": 4711},
        groups={"staff": 0, "100": daemons},
    )


def test_same_line_twice_is_no_mistake(write):
    assert read_owner_map(write("user ann 1\nuser ann 1\n")).users == {"ann": 1}


def test_name_that_is_not_utf8_can_be_mapped(write):
    assert read_owner_map(write(b"user \xff 1\n")).users == {"\udcff": 1}


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("owner ann 1", "'owner' is neither"),
        ("user ann", "2 words"),
        ("user ann 1 2", "4 words"),
        ("user ann nobody-of-this-name", "no user 'nobody-of-this-name'"),
        ("group ann no-such-group", "no group 'no-such-group'"),
        ("user ann 4294967295", "no user 4294967295"),
        pytest.param(f"user ann {'9' * 5000}", "no user 999", id="more digits than an int"),
        ("user bob 6", "'bob' is mapped twice"),
        ("user 0010 6", "'10' is mapped twice"),
    ],
)
def test_mistake_is_named_with_its_line(write, line, problem):
    path = write(f"user bob 5\nuser 10 5\n\n# next\n{line}\nuser x 1\n")
    with pytest.raises(ConfigError, match=f"Line 5 of the map of owners: .*{problem}") as caught:
        read_owner_map(path)
    assert "\n" not in str(caught.value)
    assert os.fsdecode(path) in str(caught.value)


def test_map_that_cannot_be_read_is_named(tmp_path):
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(ConfigError, match="cannot be read") as caught:
            read_owner_map(os.fsencode(path))
        assert str(path) in str(caught.value)


def test_map_without_end_is_refused():
    with pytest.raises(ConfigError, match="longer than"):
        read_owner_map(b"/dev/zero")


def test_mapped_name_goes_before_mapped_number_and_both_before_accounts():
    owners = Owners(OwnerMap(users={"root": 1, "0": 2, "5": 3}, groups={"7": 4}))
    assert owners.local_number(USER, 0, "root") == 1
    assert owners.local_number(USER, 0, "toor") == 2
    assert owners.local_number(USER, 5, "root") == 1
    assert owners.local_number(USER, 5, "games") == 3
    assert owners.local_number(GROUP, 7, "lp") == 4


def test_what_is_not_mapped_goes_by_the_other_rules():
    chosen = {"ann": 1}
    assert Owners(OwnerMap(users=chosen)).local_number(USER, 4711, "daemon") == 1
    assert Owners(OwnerMap(users=chosen)).local_number(USER, 0, "no such user") == NOBODY
    assert Owners(OwnerMap(numeric=True, users=chosen)).local_number(USER, 0, "bob") == 0
    assert Owners(OwnerMap(numeric=True, users=chosen)).local_number(USER, 0, "ann") == 1


def test_sole_owner_has_everything():
    owners = Owners(sole=(11, 22))
    assert {owners.local_number(USER, n, "root") for n in (0, 5, -1)} == {11}
    assert {owners.local_number(GROUP, n, "root") for n in (0, 5, 1 << 40)} == {22}
