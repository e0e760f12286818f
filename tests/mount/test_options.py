"""`-o`: what is understood, and that nothing else is swallowed."""

import pytest

from ssfs.errors import ConfigError
from ssfs.mount.options import IDLE_S, MountOptions, parse_options


def test_nothing_given_is_the_default():
    assert parse_options("") == MountOptions()
    assert MountOptions().idle_s == IDLE_S == 60


def test_options_of_all_kinds():
    assert parse_options("allow_other,numeric_ids,idle=2.5,noatime,noexec") == MountOptions(
        True, True, 2.5, ("noatime", "noexec")
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
