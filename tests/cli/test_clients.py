"""`ssfs clients`."""

import datetime
import os
import subprocess
from pathlib import Path

import pytest

from ssfs.model.peer import Role
from ssfs.pki.certificate import make_key, make_request
from ssfs.store.clients import Registry
from ssfs.store.store import Store
from tests.cli.support import run, ssfs, ssfs_json

NOW = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
DAY = datetime.timedelta(days=1)


def text(time: datetime.datetime) -> str:
    return time.isoformat().replace("+00:00", "Z")


@pytest.fixture
def registry(store: Path) -> Registry:
    """One client that was seen, one revoked, one expired, and an invitation."""
    registry = Registry(Store.open(os.fsencode(store)))
    for name, when, roles in [
        ("nas1", NOW - DAY, [Role.BACKUP, Role.RESTORE]),
        ("nas2", NOW - DAY, [Role.ADMIN]),
        ("nas3", NOW - 100 * DAY, [Role.BACKUP]),
    ]:
        secret = registry.invite(name, roles, ["main", "photos"], when + DAY, when)
        registry.redeem(secret, make_request(make_key()), when)
    registry.note_seen("nas1", NOW)
    registry.revoke("nas2", NOW)
    registry.invite("nas4", [Role.BACKUP], ["*"], NOW + DAY, NOW)
    return registry


def test_none_yet(store: Path):
    assert "`ssfs invite`" in ssfs("clients", store)
    assert ssfs("clients", "-q", store) == ""
    assert ssfs_json("clients", store) == {"clients": [], "invitations": []}
    assert not (store / "pki").exists()


@pytest.mark.usefixtures("registry")
def test_table(store: Path):
    lines = ssfs("clients", store).splitlines()
    assert lines[0].split("  ")[0] == "CLIENT"
    rows = {line.split()[0]: line for line in lines}
    assert "backup,restore" in rows["nas1"]
    assert "main,photos" in rows["nas1"]
    assert f"until {NOW + 89 * DAY:%Y-%m-%d}" in rows["nas1"]
    assert f"{NOW:%Y-%m-%d %H:%M} UTC" in rows["nas1"]
    assert f"revoked {NOW:%Y-%m-%d %H:%M} UTC" in rows["nas2"]
    assert f"expired {NOW - 10 * DAY:%Y-%m-%d}" in rows["nas3"]
    assert "never" in rows["nas3"]
    assert f"{NOW + DAY:%Y-%m-%d %H:%M} UTC" in rows["nas4"]
    assert "INVITED" in rows
    assert "ENROLLED" not in lines[0]
    assert "ENROLLED" in ssfs("clients", "-v", store)


@pytest.mark.usefixtures("registry")
def test_quiet_names_those_with_access(store: Path):
    assert ssfs("clients", "-q", store) == "nas1\n"


@pytest.mark.usefixtures("registry")
def test_json(store: Path):
    listing = ssfs_json("clients", store)
    assert listing["clients"][:2] == [
        {
            "client": "nas1",
            "roles": ["backup", "restore"],
            "points": ["main", "photos"],
            "enrolled": text(NOW - DAY),
            "expires": text(NOW + 89 * DAY),
            "last_seen": text(NOW),
            "revoked": None,
        },
        {
            "client": "nas2",
            "roles": ["admin"],
            "points": ["main", "photos"],
            "enrolled": text(NOW - DAY),
            "expires": text(NOW + 89 * DAY),
            "last_seen": None,
            "revoked": text(NOW),
        },
    ]
    assert listing["invitations"] == [
        {
            "client": "nas4",
            "roles": ["backup"],
            "points": ["*"],
            "created": text(NOW),
            "expires": text(NOW + DAY),
        }
    ]


def test_neither_secrets_nor_keys_are_shown(store: Path, registry: Registry):
    (invitation,) = (store / "pki" / "invitations").iterdir()
    for options in ([], ["-v"], ["--json"]):
        shown = ssfs("clients", store, *options)
        assert invitation.stem not in shown
        assert "PRIVATE" not in shown


def test_keys_of_json_are_in_the_help(store: Path, registry: Registry):
    words = " ".join(ssfs("clients", "--help").split())
    listing = ssfs_json("clients", store)
    for key in {*listing, *listing["clients"][0], *listing["invitations"][0]}:
        assert key in words


def test_damage_is_said(store: Path, registry: Registry):
    (store / "pki" / "clients" / "nas1.toml").write_text("garbage")
    assert "nas1.toml" in run("clients", store, expect=6).error


@pytest.mark.needs_root
def test_read_only_store(tiny_disk: Path):
    store = tiny_disk / "store"
    ssfs("init", "-q", store)
    ssfs("invite", "-q", store, "nas1")
    subprocess.run(["mount", "-o", "remount,ro", tiny_disk], check=True)
    assert "nas1" in ssfs("clients", store)
    for command in (["invite", store, "nas2"], ["revoke", store, "nas1"]):
        assert "read-only" in run(*command, expect=6).error
