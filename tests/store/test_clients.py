"""The registry: certificates count only as long as it says so."""

import datetime
import os
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from ssfs.errors import ConfigError, CorruptStore, StoreError, TrustError
from ssfs.model.peer import ALL_POINTS, Role
from ssfs.pki.certificate import check_issued, make_key, make_request, to_der
from ssfs.store.clients import Registry
from tests.fakes.stopping import stopped_at
from tests.store.registries import (
    DAY,
    HOUR,
    NOW,
    Machine,
    enrol,
    files_of,
    invite,
    make_registry,
    pki,
)

SECOND = datetime.timedelta(seconds=1)

WRONG_CODE = "wrong, used or expired"


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return make_registry(tmp_path / "store")


# -- files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("umask", [0, 0o022, 0o077])
def test_everything_is_for_the_owner_alone(registry: Registry, umask: int):
    before = os.umask(umask)
    try:
        registry.ensure_server_certificate(NOW)
        machine = enrol(registry)
        invite(registry, "nas2")
        registry.note_seen("nas1", NOW)
        registry.renew(machine.der, make_request(machine.key), NOW)
        registry.revoke("nas1", NOW)
    finally:
        os.umask(before)
    top = pki(registry)
    modes = {
        str(path.relative_to(top.parent)): stat.S_IMODE(path.stat().st_mode)
        for path in [top, *top.rglob("*")]
    }
    (invitation,) = (top / "invitations").iterdir()
    assert modes == {
        "pki": 0o700,
        "pki/lock": 0o600,
        "pki/changed": 0o600,
        "pki/ca.key": 0o600,
        "pki/ca.pem": 0o600,
        "pki/server.key": 0o600,
        "pki/server.pem": 0o600,
        "pki/clients": 0o700,
        "pki/clients/nas1.toml": 0o600,
        "pki/invitations": 0o700,
        f"pki/invitations/{invitation.name}": 0o600,
    }


def test_text_files_say_what_the_format_says(registry: Registry):
    enrol(registry, roles=(Role.ADMIN, Role.BACKUP), points=("photos", "main"))
    invite(registry, "nas2", points=(ALL_POINTS,))
    client = tomllib.loads((pki(registry) / "clients" / "nas1.toml").read_text())
    (certificate,) = client.pop("certificates")
    assert client == {
        "format": 1,
        "name": "nas1",
        "roles": ["backup", "admin"],
        "points": ["main", "photos"],
        "enrolled": NOW,
    }
    assert certificate["expires"] == NOW + 90 * DAY
    (path,) = (pki(registry) / "invitations").iterdir()
    assert tomllib.loads(path.read_text()) == {
        "format": 1,
        "client": "nas2",
        "roles": ["backup"],
        "points": ["*"],
        "created": NOW,
        "expires": NOW + DAY,
    }


def test_secret_of_an_invitation_is_not_in_the_store(registry: Registry):
    secret = invite(registry)
    for name, content in files_of(registry).items():
        assert secret not in content
        assert secret.hex() not in name
        assert secret.hex().encode() not in content


def test_looking_makes_nothing(registry: Registry):
    assert registry.clients() == []
    assert registry.invitations(NOW) == []
    assert registry.find("nas1") is None
    assert registry.change_stamp() == b""
    with pytest.raises(TrustError, match=WRONG_CODE):
        registry.redeem(bytes(20), make_request(make_key()), NOW)
    with pytest.raises(ConfigError, match="No client"):
        registry.revoke("nas1", NOW)
    with pytest.raises(StoreError, match="no clients yet"):
        registry.authority()
    registry.note_seen("nas1", NOW)
    assert not pki(registry).exists()


# -- renewal ---------------------------------------------------------------------------------------


def renew(registry: Registry, machine: Machine, now: datetime.datetime) -> Machine:
    pem = registry.renew(machine.der, make_request(machine.key), now)
    return Machine(machine.key, pem)


def test_renewed_certificate_counts_beside_the_old_one(registry: Registry):
    old = enrol(registry)
    new = renew(registry, old, NOW + 60 * DAY)
    assert check_issued(new.pem, new.key, registry.authority().pem)
    for machine in (old, new):
        assert registry.identify(machine.der, NOW + 61 * DAY).name == "nas1"
    with pytest.raises(TrustError, match="expired"):
        registry.identify(old.der, NOW + 90 * DAY)
    assert registry.identify(new.der, NOW + 150 * DAY - SECOND)


def test_expired_certificates_are_forgotten_at_the_next_renewal(registry: Registry):
    machine = enrol(registry)
    for month in range(1, 13):
        machine = renew(registry, machine, NOW + month * 30 * DAY)
    (client,) = registry.clients()
    # Made after 300, 330 and 360 days; the one made after 270 is just over.
    assert len(client.certificates) == 3
    assert client.enrolled == NOW


def test_certificate_that_counts_no_more_is_not_renewed(registry: Registry):
    superseded = enrol(registry)
    current = enrol(registry)
    with pytest.raises(TrustError, match="any more"):
        renew(registry, superseded, NOW)
    with pytest.raises(TrustError, match="expired"):
        renew(registry, current, NOW + 90 * DAY)
    registry.revoke("nas1", NOW)
    with pytest.raises(TrustError, match="revoked"):
        renew(registry, current, NOW)


@pytest.mark.slow
def test_renewals_without_end_are_refused_and_harm_nobody(registry: Registry):
    machine = enrol(registry)
    request = make_request(machine.key)
    for _ in range(99):
        registry.renew(machine.der, request, NOW)
    with pytest.raises(TrustError, match="too many"):
        registry.renew(machine.der, request, NOW)
    assert registry.identify(machine.der, NOW)
    with pytest.raises(TrustError, match="request"):
        registry.renew(enrol(registry, "nas2").der, b"garbage", NOW)


# -- who it is -------------------------------------------------------------------------------------


def test_certificate_ends_by_the_servers_clock(registry: Registry):
    machine = enrol(registry)
    assert registry.identify(machine.der, NOW + 90 * DAY - SECOND)
    # A server's clock that was set back locks nobody out.
    assert registry.identify(machine.der, NOW - 900 * DAY)
    with pytest.raises(TrustError, match=r"expired on 2024-07-30 .*ssfs enroll"):
        registry.identify(machine.der, NOW + 90 * DAY)


def test_unknown_client(registry: Registry):
    machine = enrol(registry)
    (pki(registry) / "clients" / "nas1.toml").unlink()
    with pytest.raises(TrustError, match=r"knows no client 'nas1' .*ssfs invite"):
        registry.identify(machine.der, NOW)


def test_certificate_of_another_authority(registry: Registry, tmp_path: Path):
    enrol(registry)
    other = make_registry(tmp_path / "other")
    with pytest.raises(TrustError, match="not one of this store"):
        registry.identify(enrol(other).der, NOW)


def test_servers_own_certificate_is_no_clients(registry: Registry):
    enrol(registry, "ssfs-server")
    files = registry.ensure_server_certificate(NOW)
    with pytest.raises(TrustError, match="any more"):
        registry.identify(to_der(Path(os.fsdecode(files.certificate)).read_bytes()), NOW)


@pytest.mark.parametrize("name", ["../../etc/x", "a/b", ".", "x" * 64, "", " "])
def test_names_in_certificates_lead_nowhere(registry: Registry, name: str):
    invite(registry)
    if not name:
        with pytest.raises(TrustError):
            registry.identify(b"", NOW)
        return
    pem = registry.authority().issue_client(make_request(make_key()), name, NOW).pem
    with pytest.raises(TrustError, match="knows no client"):
        registry.identify(to_der(pem), NOW)


def test_damaged_file_of_a_client_locks_out_that_client_only(registry: Registry):
    machine, other = enrol(registry), enrol(registry, "nas2")
    path = pki(registry) / "clients" / "nas1.toml"
    for content in (b"", b"garbage", (pki(registry) / "clients" / "nas2.toml").read_bytes()):
        path.write_bytes(content)
        with pytest.raises(CorruptStore):
            registry.identify(machine.der, NOW)
        assert registry.identify(other.der, NOW).name == "nas2"
    assert enrol(registry)
    assert len(registry.clients()) == 2


def test_times_without_a_zone_are_damage(registry: Registry):
    machine = enrol(registry)
    path = pki(registry) / "clients" / "nas1.toml"
    path.write_text(path.read_text().replace("+00:00", ""))
    with pytest.raises(CorruptStore):
        registry.identify(machine.der, NOW)


def test_strays_are_not_clients(registry: Registry):
    enrol(registry)
    for name in (".nas2.toml.new", "a b.toml", "readme", "x" * 65 + ".toml"):
        (pki(registry) / "clients" / name).write_text("stray")
    assert [client.name for client in registry.clients()] == ["nas1"]


# -- revocation ------------------------------------------------------------------------------------


def test_revoked_client_has_no_access(registry: Registry):
    machine, other = enrol(registry), enrol(registry, "nas2")
    registry.revoke("nas1", NOW + HOUR)
    with pytest.raises(TrustError, match=r"'nas1' was revoked .*ssfs enroll"):
        registry.identify(machine.der, NOW + HOUR)
    assert registry.identify(other.der, NOW)
    assert registry.find("nas1").revoked == NOW + HOUR


def test_revoking_again_changes_nothing_but_the_stamp(registry: Registry):
    enrol(registry)
    registry.revoke("nas1", NOW)
    before, stamp = registry.clients(), registry.change_stamp()
    assert registry.revoke("nas1", NOW + DAY) == 0
    assert registry.clients() == before
    assert registry.change_stamp() != stamp


def test_revocation_withdraws_open_codes(registry: Registry):
    enrol(registry)
    codes = [invite(registry), invite(registry)]
    other = invite(registry, "nas2")
    assert registry.revoke("nas1", NOW) == 2
    for code in codes:
        with pytest.raises(TrustError, match=WRONG_CODE):
            registry.redeem(code, make_request(make_key()), NOW)
    assert registry.redeem(other, make_request(make_key()), NOW).name == "nas2"


def test_client_that_never_enrolled_can_be_disinvited(registry: Registry):
    invite(registry)
    assert registry.revoke("nas1", NOW) == 1
    assert registry.clients() == []
    with pytest.raises(ConfigError, match="No client 'nas1'"):
        registry.revoke("nas1", NOW)


def test_new_invitation_ends_a_revocation(registry: Registry):
    revoked = enrol(registry)
    registry.revoke("nas1", NOW)
    machine = enrol(registry)
    assert registry.identify(machine.der, NOW).name == "nas1"
    with pytest.raises(TrustError):
        registry.identify(revoked.der, NOW)


def test_damaged_client_can_be_revoked(registry: Registry):
    machine = enrol(registry)
    (pki(registry) / "clients" / "nas1.toml").write_bytes(b"garbage")
    stamp = registry.change_stamp()
    registry.revoke("nas1", NOW)
    assert registry.change_stamp() != stamp
    with pytest.raises(TrustError):
        registry.identify(machine.der, NOW)


@pytest.mark.slow
def test_stamp_changes_with_every_change_of_a_client_and_with_nothing_else(registry: Registry):
    stamps = [registry.change_stamp()]

    def changed() -> bool:
        stamps.append(registry.change_stamp())
        return stamps[-1] not in stamps[:-1]

    secret = invite(registry)
    assert not changed()
    key = make_key()
    machine = Machine(key, registry.redeem(secret, make_request(key), NOW).certificate)
    assert changed()
    registry.note_seen("nas1", NOW)
    registry.identify(machine.der, NOW)
    registry.ensure_server_certificate(NOW)
    assert not changed()
    renew(registry, machine, NOW)
    assert changed()
    for _ in range(50):  # faster than any time stamp of a file system
        registry.revoke("nas1", NOW)
        assert changed()


# -- last seen -------------------------------------------------------------------------------------


def test_last_seen_is_written_once_an_hour(registry: Registry):
    enrol(registry)
    path = pki(registry) / "clients" / "nas1.toml"

    def see(now: datetime.datetime) -> int:
        registry.note_seen("nas1", now)
        return path.stat().st_ino

    first = see(NOW)
    assert see(NOW + HOUR - SECOND) == first
    assert registry.find("nas1").last_seen == NOW
    assert see(NOW + HOUR) != first
    assert registry.find("nas1").last_seen == NOW + HOUR
    see(NOW - DAY)  # the clock was set back
    assert registry.find("nas1").last_seen == NOW - DAY


def test_nobody_and_the_revoked_are_not_seen(registry: Registry):
    enrol(registry)
    registry.revoke("nas1", NOW)
    before = files_of(registry)
    registry.note_seen("nas1", NOW)
    registry.note_seen("nas2", NOW)
    assert files_of(registry) == before


# -- what goes wrong -------------------------------------------------------------------------------


def test_disk_that_fails_a_note_is_no_reason_to_end_a_session(registry: Registry):
    enrol(registry)
    with stopped_at(1):
        registry.note_seen("nas1", NOW)
        with pytest.raises(StoreError):
            registry.revoke("nas1", NOW)
    assert registry.find("nas1").last_seen is None


@pytest.mark.slow
def test_nothing_is_imported_once_a_process_has_become_the_stores_owner(registry: Registry):
    """That user need not be allowed to read where modules are."""
    script = """
import datetime, sys
import ssfs.cli.clients, ssfs.cli.invite, ssfs.cli.revoke
from ssfs.model.peer import Role
from ssfs.pki.certificate import make_key, make_request, to_der
from ssfs.store.clients import Registry
from ssfs.store.store import Store

store = Store.open(sys.argv[1].encode())
before = set(sys.modules)
now = datetime.datetime(2024, 5, 1, tzinfo=datetime.UTC)
registry = Registry(store)
registry.ensure_server_certificate(now)
secret = registry.invite("nas1", [Role.BACKUP], ["main"], now + datetime.timedelta(1), now)
key = make_key()
der = to_der(registry.redeem(secret, make_request(key), now).certificate)
registry.identify(der, now)
registry.renew(der, make_request(key), now)
registry.note_seen("nas1", now)
registry.revoke("nas1", now)
registry.clients(), registry.invitations(now), registry.change_stamp()
for failing in (lambda: registry.identify(der, now), lambda: registry.identify(b"", now)):
    try:
        failing()
    except Exception:
        pass
assert set(sys.modules) == before, set(sys.modules) - before
"""
    store = os.path.dirname(registry.path)
    subprocess.run([sys.executable, "-c", script, store], check=True)
