"""`ssfs invite`."""

import datetime
import os
import subprocess
from pathlib import Path

import pytest

from ssfs.cli.invite import _own_address
from ssfs.errors import ConfigError
from ssfs.model.peer import Role
from ssfs.pki.address import Address
from ssfs.pki.certificate import make_key, make_request
from ssfs.pki.code import parse_code
from ssfs.store.clients import Registry
from ssfs.store.store import Store
from tests.cli.support import COMMAND, environment, run, ssfs, ssfs_json


def registry_of(store: Path) -> Registry:
    return Registry(Store.open(os.fsencode(store)))


def invite(store: Path, *arguments: str) -> str:
    return ssfs("invite", "-q", store, *arguments)


def test_code_alone_on_stdout(store: Path):
    outcome = run("invite", store, "nas1", "--address", "nas.example.org", expect=0)
    code = parse_code(outcome.out)
    assert outcome.out == f"{code.spell()}\n"
    assert code.address == Address("nas.example.org", 7433)
    assert code.fingerprint == registry_of(store).authority().fingerprint
    lines = outcome.err.splitlines()
    assert all(line.startswith("ssfs: ") for line in lines)
    assert "`ssfs enroll`" in lines[0]
    assert "nas.example.org:7433" in lines[0]
    assert "once, until 20" in lines[1]
    assert code.spell() not in outcome.err


def test_quiet_and_verbose(store: Path):
    assert run("invite", "-q", store, "nas1", expect=0).err == ""
    code = run("invite", "-v", store, "nas1", expect=0)
    assert parse_code(code.out).fingerprint.hex() in code.err


def test_code_works_with_the_registry(store: Path):
    code = parse_code(invite(store, "nas1", "--role", "restore, admin", "--point", "*"))
    now = datetime.datetime.now(datetime.UTC)
    enrolled = registry_of(store).redeem(code.secret, make_request(make_key()), now)
    assert (enrolled.name, enrolled.roles, enrolled.points) == (
        "nas1",
        (Role.RESTORE, Role.ADMIN),
        ("*",),
    )


def invitation(store: Path) -> dict:
    (found,) = ssfs_json("clients", store)["invitations"]
    return found


def test_defaults(store: Path):
    code = parse_code(invite(store, "nas1"))
    assert code.port == 7433
    found = invitation(store)
    assert (found["client"], found["roles"], found["points"]) == ("nas1", ["backup"], ["main"])
    assert lasts(found) == datetime.timedelta(hours=24)


def lasts(found: dict) -> datetime.timedelta:
    created, expires = (
        datetime.datetime.fromisoformat(found[key]) for key in ("created", "expires")
    )
    return expires - created


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("90m", datetime.timedelta(minutes=90)),
        ("24h", datetime.timedelta(days=1)),
        ("7d", datetime.timedelta(days=7)),
        ("366d", datetime.timedelta(days=366)),
    ],
)
def test_expiry(store: Path, text: str, length: datetime.timedelta):
    invite(store, "nas1", "--expires", text)
    assert lasts(invitation(store)) == length


def test_several_points_and_roles(store: Path):
    invite(
        *(store, "nas1", "--point", "photos", "--point", "main", "--point", "main"),
        *("--role", "admin", "--role", "backup,restore"),
    )
    found = invitation(store)
    assert found["points"] == ["main", "photos"]
    assert found["roles"] == ["backup", "restore", "admin"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["nas1", "--expires", "0h"],
        ["nas1", "--expires", "24"],
        ["nas1", "--expires", "1w"],
        ["nas1", "--expires", "-1h"],
        ["nas1", "--expires", "367d"],
        ["nas1", "--expires", "999999999999d"],
        ["nas1", "--role", "root"],
        ["nas1", "--role", ""],
        ["nas1", "--role", "backup,"],
        ["nas1", "--point", ""],
        ["nas1", "--point", "a/b"],
        ["nas1", "--address", ""],
        ["nas1", "--address", "nas:0"],
        ["nas1", "--address", "::1"],
        ["nas1", "--address", "a b:1"],
        [""],
        ["../x"],
        ["-x"],
        ["a" * 65],
    ],
    ids=" ".join,
)
def test_wrong_options_are_one_line_and_nothing_made(store: Path, arguments: list[str]):
    outcome = run("invite", store, *arguments, expect=2)
    assert outcome.error
    assert outcome.out == ""
    assert not (store / "pki").exists()


@pytest.mark.parametrize("arguments", [[], ["{store}"], ["{store}", "nas1", "more"]])
def test_wrong_usage(store: Path, arguments: list[str]):
    words = [word.format(store=store) for word in arguments]
    assert "`ssfs invite --help`" in run("invite", *words, expect=2).error


def test_store_that_is_none(tmp_path: Path):
    assert "Not a store" in run("invite", tmp_path, "nas1", expect=6).error
    assert os.listdir(tmp_path) == []


def test_enrolled_client_is_named(store: Path):
    code = parse_code(invite(store, "nas1"))
    now = datetime.datetime.now(datetime.UTC)
    registry_of(store).redeem(code.secret, make_request(make_key()), now)
    assert "enrolled already" in run("invite", store, "nas1", expect=0).err
    assert "enrolled already" not in run("invite", store, "nas2", expect=0).err
    ssfs("revoke", store, "nas1")
    assert "enrolled already" not in run("invite", store, "nas1", expect=0).err


def test_damaged_client_can_be_invited_again(store: Path):
    invite(store, "nas1")
    (store / "pki" / "clients").mkdir()
    (store / "pki" / "clients" / "nas1.toml").write_text("garbage")
    code = run("invite", store, "nas1", expect=0)
    now = datetime.datetime.now(datetime.UTC)
    secret = parse_code(code.out).secret
    assert registry_of(store).redeem(secret, make_request(make_key()), now).name == "nas1"


@pytest.mark.parametrize(
    ("full", "short", "expected"),
    [
        ("nas1.example.org", "nas1", "nas1.example.org"),
        ("localhost", "nas1", "nas1"),
        ("localhost.localdomain", "nas1", "nas1"),
        ("ip6-localhost", "nas1", "nas1"),
        ("1.0.0.127.in-addr.arpa", "nas1", "nas1"),
        ("a b", "NAS1", "nas1"),
        ("localhost", "localhost", None),
        ("localhost", "", None),
    ],
)
def test_own_name(monkeypatch: pytest.MonkeyPatch, full: str, short: str, expected: str | None):
    monkeypatch.setattr("socket.getfqdn", lambda: full)
    monkeypatch.setattr("socket.gethostname", lambda: short)
    if expected is None:
        with pytest.raises(ConfigError, match="--address"):
            _own_address()
    else:
        assert _own_address() == Address(expected, 7433)


@pytest.mark.needs_root
def test_root_acts_as_the_stores_owner(store: Path):
    subprocess.run(["chown", "-R", "daemon:", store], check=True)
    for parent in store.parents:
        parent.chmod(parent.stat().st_mode | 0o11)
    invite(store, "nas1")
    ssfs("clients", store)
    ssfs("revoke", "-q", store, "nas1")
    found = subprocess.run(
        ["find", store, "!", "-user", "daemon"], check=True, capture_output=True, text=True
    )
    assert found.stdout == ""


@pytest.mark.needs_root
def test_other_users_are_told_whose_it_is(store: Path):
    for parent in store.parents:
        parent.chmod(parent.stat().st_mode | 0o11)
    store.chmod(0o755)
    (store / "store.toml").chmod(0o644)
    as_nobody = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
    for command in (["invite", store, "nas1"], ["clients", store], ["revoke", store, "nas1"]):
        done = subprocess.run(
            [*as_nobody, *COMMAND, *command],
            capture_output=True,
            text=True,
            env=environment(),
            check=False,
        )
        if "No module named" in done.stderr or "Permission denied" in done.stderr:
            pytest.skip("nobody may not read the project's files")
        assert done.returncode == 6, done.stderr
        assert "The store belongs to 'root'" in done.stderr


def test_expiry_is_said_in_utc_whatever_the_time_zone(store: Path):
    outcome = run("invite", store, "nas1", env={"TZ": "Asia/Tokyo"}, expect=0)
    expires = datetime.datetime.fromisoformat(invitation(store)["expires"])
    assert f"until {expires:%Y-%m-%d %H:%M} UTC" in outcome.err
