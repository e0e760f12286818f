"""Invitations: each is used once, in time, by who has the code."""

import datetime
import json
import os
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest

from ssfs.errors import ConfigError, StoreError, TrustError
from ssfs.model.peer import ALL_POINTS, Peer, Role
from ssfs.pki.certificate import check_issued, make_key, make_request, to_der
from ssfs.store.clients import Registry
from tests.fakes.stopping import stopped_at
from tests.store.registries import (
    DAY,
    NOW,
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


# -- several at once -------------------------------------------------------------------------------

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
    for number, secret in enumerate(secrets):
        # Each is the first to know in every other race.
        for racer in racers if number % 2 else reversed(racers):
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


@pytest.mark.slow
def test_enrolment_stopped_anywhere_leaves_the_old_or_the_new_client(tmp_path: Path):
    number, stopped = 1, True
    while stopped:
        registry = make_registry(tmp_path / f"store{number}")
        before = enrol(registry)
        registry.revoke("nas1", NOW)
        secret = invite(registry, roles=(Role.RESTORE,))
        old = registry.find("nas1")
        with stopped_at(number):
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
