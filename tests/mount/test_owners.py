"""Whose a file is here."""

import grp
import os
import pwd

import pytest

from ssfs.engine.restore.options import OwnerMap
from ssfs.model.entry import GROUP, USER
from ssfs.mount.owners import NOBODY, Owners


def free_number(ask) -> int:
    for number in range(61_000, 62_000):
        try:
            ask(number)
        except KeyError:
            return number
    raise AssertionError


@pytest.fixture
def owners() -> Owners:
    return Owners()


def test_name_decides_whatever_the_number(owners):
    me, mine = pwd.getpwuid(os.getuid()), grp.getgrgid(os.getgid())
    assert owners.local_number(USER, 4711, me.pw_name) == me.pw_uid
    assert owners.local_number(GROUP, 4711, mine.gr_name) == mine.gr_gid


def test_unknown_name_keeps_a_number_that_nobody_has_here(owners):
    assert owners.local_number(USER, (n := free_number(pwd.getpwuid)), "no such user") == n
    assert owners.local_number(GROUP, (n := free_number(grp.getgrgid)), "") == n


def test_unknown_name_does_not_open_files_to_who_has_its_number_here(owners):
    assert owners.local_number(USER, os.getuid(), "no such user") == NOBODY
    assert owners.local_number(GROUP, os.getgid(), "no such group") == NOBODY
    assert owners.local_number(USER, 0, "") == NOBODY


@pytest.mark.parametrize("name", ["\0", "a\0b", "\udcff", "ä" * 5000])
def test_strange_names_are_names_nobody_has(owners, name):
    assert owners.local_number(USER, 0, name) == NOBODY


@pytest.mark.parametrize("number", [-1, (1 << 32) - 1, 1 << 40])
def test_number_no_machine_has_is_nobodys(owners, number):
    assert owners.local_number(USER, number, "root") == NOBODY


def test_numeric_ids_are_shown_as_recorded():
    assert Owners(OwnerMap(numeric=True)).local_number(USER, 0, "no such user") == 0


def test_answers_are_asked_for_again_after_a_while(owners, monkeypatch):
    number = free_number(pwd.getpwuid)
    assert owners.local_number(USER, number, "newcomer") == number
    monkeypatch.setattr(pwd, "getpwnam", lambda _: pwd.getpwuid(0))
    assert owners.local_number(USER, number, "newcomer") == number
    owners.forget()
    assert owners.local_number(USER, number, "newcomer") == 0
