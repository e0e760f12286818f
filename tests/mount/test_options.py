"""`-o`: what is understood, and that nothing else is swallowed."""

import pwd

import pytest

from ssfs.engine.restore.options import OwnerMap
from ssfs.errors import ConfigError
from ssfs.mount.options import IDLE_S, MountOptions, parse_options


def test_nothing_given_is_the_default():
    assert parse_options("") == MountOptions()
    assert MountOptions().idle_s == IDLE_S == 60


def test_options_of_all_kinds():
    assert parse_options("allow_other,numeric_ids,idle=2.5,noatime,noexec") == MountOptions(
        True, OwnerMap(numeric=True), 2.5, ("noatime", "noexec")
    )


def test_last_of_opposites_counts():
    assert parse_options("exec,sync,noexec,async,sync").kernel == ("noexec", "sync")


def test_what_the_mount_is_anyway_may_be_named():
    assert parse_options("ro,nosuid,nodev,default_permissions,") == MountOptions()


@pytest.mark.parametrize("option", ["rw", "suid", "dev", "nope", "fsname=x", "idle", "Allow_other"])
def test_other_options_are_named_in_the_error(option):
    with pytest.raises(ConfigError, match=option):
        parse_options(f"noatime,{option}")


@pytest.mark.parametrize("seconds", ["", "x", "-1", "nan", "inf"])
def test_seconds_must_be_some(seconds):
    with pytest.raises(ConfigError, match="idle="):
        parse_options(f"idle={seconds}")


def test_owner_and_map_are_looked_up(tmp_path):
    (tmp_path / "map").write_text("user ann 5\n")
    daemon = pwd.getpwnam("daemon")
    assert parse_options("owner=daemon").sole_owner == (daemon.pw_uid, daemon.pw_gid)
    chosen = OwnerMap(numeric=True, users={"ann": 5})
    assert parse_options(f"numeric_ids,map={tmp_path}/map").owners == chosen


@pytest.mark.parametrize("option", ["owner=no-such-user", "owner=", "map=/no/such/map", "owner"])
def test_owner_and_map_that_are_none_are_named(option):
    with pytest.raises(ConfigError, match=option.removeprefix("map=")):
        parse_options(option)


@pytest.mark.parametrize("other", ["map=/no/such/map", "numeric_ids"])
def test_one_owner_for_all_excludes_what_tells_owners_apart(other):
    for text in (f"owner=root,{other}", f"{other},owner=root"):
        with pytest.raises(ConfigError, match="exclude each other"):
            parse_options(text)


@pytest.mark.parametrize(
    "option", ["nodefault_permissions", "no_default_permissions", "default_permissions=0"]
)
def test_checking_of_permissions_cannot_be_turned_off(option):
    with pytest.raises(ConfigError, match="Unknown"):
        parse_options(f"allow_other,{option}")


def test_history_is_there_but_hidden_unless_told_otherwise():
    told = [parse_options(text) for text in ("", "show_history", "plain")]
    assert [(t.history, t.show_history) for t in told] == [
        (True, False),
        (True, True),
        (False, False),
    ]
    with pytest.raises(ConfigError, match="plain"):
        parse_options("plain,show_history")
