"""The registry: invitations are used once, certificates count only as long as it says so."""

import datetime
import json
import os
import stat
import subprocess
import sys
import threading
import tomllib
from collections import Counter
from pathlib import Path

import pytest

from ssfs.errors import ConfigError, CorruptStore, StoreError, TrustError
from ssfs.model.peer import ALL_POINTS, Peer, Role
from ssfs.pki.authority import Authority
from ssfs.pki.certificate import check_issued, make_key, make_request, read_certificate, to_der
from ssfs.store.clients import Registry
from ssfs.store.store import Store
from tests.store.registries import DAY, HOUR, NOW, Machine, enrol, invite, make_registry

SECOND = datetime.timedelta(seconds=1)
WRONG_CODE = "wrong, used or expired"


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return make_registry(tmp_path / "store")


def pki(registry: Registry) -> Path:
    return Path(os.fsdecode(registry.path))


def files_of(registry: Registry) -> dict[str, bytes]:
    top = pki(registry)
    return {str(path.relative_to(top)): path.read_bytes() for path in top.rglob("*.*")}


# -- files ----------------------------------------------------------------------------------------


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


# -- the authority and the server -------------------------------------------------------------------


def test_authority_is_made_once(registry: Registry):
    invite(registry)
    fingerprint = registry.authority().fingerprint
    registry.ensure_server_certificate(NOW + DAY)
    enrol(registry, "nas2")
    assert registry.authority().fingerprint == fingerprint
    again = Registry(Store.open(os.path.dirname(registry.path)))
    assert again.authority().fingerprint == fingerprint


def test_interrupted_making_of_the_authority_goes_on_with_its_key(registry: Registry):
    enrol(registry)
    key = (pki(registry) / "ca.key").read_bytes()
    (pki(registry) / "ca.pem").unlink()
    registry.ensure_server_certificate(NOW)
    assert (pki(registry) / "ca.key").read_bytes() == key
    assert registry.authority()


def test_authority_that_has_gone_is_not_replaced_behind_the_clients_backs(registry: Registry):
    enrol(registry)
    for name in ("ca.pem", "ca.key"):
        (pki(registry) / name).unlink()
    for use in (registry.ensure_server_certificate, lambda now: invite(registry, now=now)):
        with pytest.raises(CorruptStore, match="authority is missing"):
            use(NOW)
    assert not (pki(registry) / "ca.key").exists()


@pytest.mark.parametrize("name", ["ca.key", "ca.pem"])
@pytest.mark.parametrize("content", [b"", b"garbage", None])
def test_damaged_authority_is_said_without_its_key(registry: Registry, name: str, content):
    machine = enrol(registry)
    path = pki(registry) / name
    key = (pki(registry) / "ca.key").read_text().splitlines()[1]
    if content is None:  # one of another authority
        content = make_key() if name == "ca.key" else Authority.create("x", make_key(), NOW).pem
    path.write_bytes(content)
    uses = [
        registry.authority,
        lambda: registry.ensure_server_certificate(NOW),
        lambda: invite(registry),
        lambda: registry.renew(machine.der, make_request(machine.key), NOW),
    ]
    for use in uses:
        with pytest.raises((CorruptStore, TrustError)) as caught:
            use()
        assert key not in str(caught.value)
        assert key not in str(caught.value.__cause__)
    assert path.read_bytes() == content


def test_missing_key_of_the_authority(registry: Registry):
    enrol(registry)
    (pki(registry) / "ca.key").unlink()
    with pytest.raises(CorruptStore, match="private key"):
        registry.authority()


def server_text(registry: Registry, now: datetime.datetime):
    files = registry.ensure_server_certificate(now)
    key, certificate, authority = (Path(os.fsdecode(path)).read_bytes() for path in files)
    check_issued(certificate, key, authority)
    return key, read_certificate(to_der(certificate))


def test_server_certificate_is_kept_until_it_is_due(registry: Registry):
    key, first = server_text(registry, NOW)
    third = (first.not_after - NOW) / 3
    assert server_text(registry, first.not_after - third - SECOND) == (key, first)
    key_then, second = server_text(registry, first.not_after - third + SECOND)
    assert key_then == key
    assert second.serial != first.serial
    assert second.not_after > first.not_after


@pytest.mark.parametrize("name", ["server.key", "server.pem"])
@pytest.mark.parametrize("content", [b"", b"garbage", make_key(), None])
def test_useless_files_of_the_server_are_made_anew(registry: Registry, name: str, content):
    server_text(registry, NOW)
    path = pki(registry) / name
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    key, text = server_text(registry, NOW)
    assert server_text(registry, NOW) == (key, text)


def test_server_certificate_of_another_authority_is_made_anew(registry: Registry):
    key, text = server_text(registry, NOW)
    other = Authority.create("other", make_key(), NOW)
    (pki(registry) / "server.pem").write_bytes(other.issue_server(key, NOW).pem)
    assert server_text(registry, NOW)[1].serial != text.serial


# -- enrolment --------------------------------------------------------------------------------------


def test_enrolled_client_is_who_was_invited(registry: Registry):
    secret = registry.invite("nas1", {Role.BACKUP, Role.RESTORE}, ["main"], NOW + DAY, NOW)
    key = make_key()
    enrolled = registry.redeem(secret, make_request(key), NOW)
    assert (enrolled.name, enrolled.roles, enrolled.points) == (
        "nas1",
        (Role.BACKUP, Role.RESTORE),
        ("main",),
    )
    assert check_issued(enrolled.certificate, key, registry.authority().pem)
    peer = registry.identify(to_der(enrolled.certificate), NOW)
    assert peer == Peer("nas1", frozenset({Role.BACKUP, Role.RESTORE}), frozenset({"main"}))


def test_code_works_once(registry: Registry):
    secret = invite(registry)
    registry.redeem(secret, make_request(make_key()), NOW)
    before = files_of(registry)
    with pytest.raises(TrustError, match=WRONG_CODE):
        registry.redeem(secret, make_request(make_key()), NOW)
    assert files_of(registry) == before


def test_code_expires(registry: Registry):
    secret, in_time = invite(registry), invite(registry, "nas2")
    registry.redeem(in_time, make_request(make_key()), NOW + DAY - SECOND)
    with pytest.raises(TrustError, match=WRONG_CODE):
        registry.redeem(secret, make_request(make_key()), NOW + DAY)
    assert not list((pki(registry) / "invitations").iterdir())
    assert registry.find("nas1") is None


def test_wrong_code(registry: Registry):
    secret = invite(registry)
    for wrong in (
        bytes(20),
        secret[:-1],
        secret + b"\0",
        b"",
        secret[:-1] + bytes([secret[-1] ^ 1]),
    ):
        with pytest.raises(TrustError, match=WRONG_CODE):
            registry.redeem(wrong, make_request(make_key()), NOW)
    assert registry.redeem(secret, make_request(make_key()), NOW)


def test_bad_request_does_not_use_up_the_code(registry: Registry):
    secret = invite(registry)
    with pytest.raises(TrustError, match="request"):
        registry.redeem(secret, b"garbage", NOW)
    assert registry.clients() == []
    assert registry.redeem(secret, make_request(make_key()), NOW)


def test_expired_invitations_go_as_they_are_met(registry: Registry):
    invite(registry, "old1")
    invite(registry, "old2")
    assert [one.client for one in registry.invitations(NOW)] == ["old1", "old2"]
    assert registry.invitations(NOW + DAY) == []
    invite(registry, "new", now=NOW + 2 * DAY)
    assert len(list((pki(registry) / "invitations").iterdir())) == 1


def test_damaged_invitation_invites_nobody_and_is_in_nobodys_way(registry: Registry):
    secret = invite(registry)
    (path,) = (pki(registry) / "invitations").iterdir()
    path.write_bytes(b"garbage")
    assert registry.invitations(NOW) == []
    with pytest.raises(TrustError, match=WRONG_CODE):
        registry.redeem(secret, make_request(make_key()), NOW)
    enrol(registry, "nas2")
    assert not path.exists()


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", ".a", "-a", "a b", "ä", "a" * 65])
def test_names_that_cannot_be_invited(registry: Registry, name: str):
    with pytest.raises(ConfigError):
        invite(registry, name)
    with pytest.raises(ConfigError):
        registry.revoke(name, NOW)
    with pytest.raises(ConfigError):
        registry.find(name)
    assert not pki(registry).exists()


def test_invitations_to_nothing(registry: Registry):
    for roles, points, expires in [
        ((), ("main",), NOW + DAY),
        ((Role.BACKUP,), (), NOW + DAY),
        ((Role.BACKUP,), ("a b",), NOW + DAY),
        ((Role.BACKUP,), ("main", "**"), NOW + DAY),
        ((Role.BACKUP,), ("main",), NOW),
    ]:
        with pytest.raises(ConfigError):
            registry.invite("nas1", roles, points, expires, NOW)
    assert not pki(registry).exists()


def test_longest_name_can_be_invited(registry: Registry):
    machine = enrol(registry, "n" * 64)
    assert registry.identify(machine.der, NOW).name == "n" * 64


def test_enrolling_again_replaces_what_was_before(registry: Registry):
    first = enrol(registry, roles=(Role.ADMIN,), points=(ALL_POINTS,))
    registry.note_seen("nas1", NOW)
    second = enrol(registry, now=NOW + DAY)
    assert registry.identify(second.der, NOW + DAY) == Peer(
        "nas1", frozenset({Role.BACKUP}), frozenset({"main"})
    )
    with pytest.raises(TrustError, match="not a certificate of client 'nas1' any more"):
        registry.identify(first.der, NOW + DAY)
    (client,) = registry.clients()
    assert (client.enrolled, client.last_seen) == (NOW + DAY, None)
    assert client.expires == NOW + 91 * DAY


# -- renewal ----------------------------------------------------------------------------------------


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


# -- who it is --------------------------------------------------------------------------------------


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


# -- revocation -------------------------------------------------------------------------------------


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


# -- last seen --------------------------------------------------------------------------------------


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


# -- several at once --------------------------------------------------------------------------------

_RACER = """
import datetime, json, sys
from ssfs.errors import TrustError
from ssfs.pki.certificate import make_key, make_request
from ssfs.store.clients import Registry
from ssfs.store.store import Store

registry = Registry(Store.open(sys.argv[1].encode()))
now = datetime.datetime.fromisoformat(sys.argv[2])
request = make_request(make_key())
wins = []
print("ready", flush=True)
for line in sys.stdin:
    try:
        wins.append([line.strip(), registry.redeem(bytes.fromhex(line), request, now).certificate.decode()])
    except TrustError:
        pass
    print("done", flush=True)
print(json.dumps(wins))
"""


def start_racer(registry: Registry) -> "subprocess.Popen[str]":
    store = os.fsdecode(os.path.dirname(registry.path))
    racer = subprocess.Popen(
        [sys.executable, "-c", _RACER, store, NOW.isoformat()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert racer.stdout.readline() == "ready\n"
    return racer


@pytest.mark.slow
def test_of_two_processes_with_one_code_one_gets_a_certificate(registry: Registry):
    racers = [start_racer(registry) for _ in range(2)]
    secrets = [invite(registry, f"nas{number}") for number in range(60)]
    for secret in secrets:
        for racer in racers:
            racer.stdin.write(f"{secret.hex()}\n")
            racer.stdin.flush()
        for racer in racers:
            assert racer.stdout.readline() == "done\n"
    wins = []
    for racer in racers:
        out, _ = racer.communicate(timeout=60)
        assert racer.returncode == 0
        wins.append(json.loads(out))
    assert Counter(secret for won in wins for secret, _ in won) == {
        secret.hex(): 1 for secret in secrets
    }
    # Both were in the race.
    assert all(len(won) > 3 for won in wins)
    for won in wins:
        for _, pem in won:
            assert registry.identify(to_der(pem.encode()), NOW)


def test_threads_of_one_server_exclude_each_other_too(registry: Registry):
    secret = invite(registry)
    registry.ensure_server_certificate(NOW)
    outcomes: list[object] = []
    start = threading.Barrier(8)

    def race() -> None:
        request = make_request(make_key())
        start.wait()
        try:
            outcomes.append(registry.redeem(secret, request, NOW).name)
        except TrustError:
            outcomes.append(None)

    threads = [threading.Thread(target=race) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(outcomes) == {"nas1": 1, None: 7}


# -- what goes wrong --------------------------------------------------------------------------------


class _Stopped(OSError):
    """Nothing more reaches the disk."""


def stop_at(monkeypatch: pytest.MonkeyPatch, number: int) -> list[str]:
    """Let the Nth call that changes the disk, and all after it, fail; the calls that were made."""
    made: list[str] = []

    def counted(name: str):
        real = getattr(os, name)

        def call(*arguments, **options):
            made.append(name)
            if len(made) >= number:
                raise _Stopped(5, "stopped")
            return real(*arguments, **options)

        return call

    for name in ("rename", "unlink", "fsync", "write", "mkdir"):
        monkeypatch.setattr(os, name, counted(name))
    return made


@pytest.mark.slow
def test_enrolment_stopped_anywhere_leaves_the_old_or_the_new_client(tmp_path: Path):
    number, stopped = 1, True
    while stopped:
        registry = make_registry(tmp_path / f"store{number}")
        before = enrol(registry)
        registry.revoke("nas1", NOW)
        secret = invite(registry, roles=(Role.RESTORE,))
        old = registry.find("nas1")
        with pytest.MonkeyPatch.context() as patch:
            stop_at(patch, number)
            try:
                registry.redeem(secret, make_request(make_key()), NOW + DAY / 2)
                stopped = False
            except StoreError:
                pass
        now = registry.find("nas1")
        assert now == old or (now.roles == (Role.RESTORE,) and now.revoked is None)
        with pytest.raises(TrustError):
            registry.identify(before.der, NOW)
        if stopped and registry.invitations(NOW):
            registry.redeem(secret, make_request(make_key()), NOW)
        assert registry.invitations(NOW) == []
        assert registry.find("nas1").roles == (Role.RESTORE,)
        number += 1
    assert number > 8


@pytest.mark.slow
def test_making_a_registry_stopped_anywhere_can_be_done_again(tmp_path: Path):
    number, stopped = 1, True
    while stopped:
        registry = make_registry(tmp_path / f"store{number}")
        with pytest.MonkeyPatch.context() as patch:
            stop_at(patch, number)
            try:
                registry.ensure_server_certificate(NOW)
                invite(registry)
                stopped = False
            except StoreError:
                pass
        server_text(registry, NOW)
        machine = enrol(registry)
        assert registry.identify(machine.der, NOW)
        number += 1
    assert number > 15


def test_disk_that_fails_a_note_is_no_reason_to_end_a_session(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
):
    enrol(registry)
    with monkeypatch.context() as patch:
        stop_at(patch, 1)
        registry.note_seen("nas1", NOW)
        with pytest.raises(StoreError):
            registry.revoke("nas1", NOW)
    assert registry.find("nas1").last_seen is None


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
