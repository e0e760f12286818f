"""The store's own keys: made once, mended where that harms nobody, never shown."""

import datetime
import os
import ssl
from pathlib import Path

import pytest

from ssfs.errors import CorruptStore, StoreError, TrustError
from ssfs.pki.authority import Authority
from ssfs.pki.certificate import (
    check_issued,
    is_issued_by,
    make_key,
    make_request,
    read_certificate,
    to_der,
)
from ssfs.store.clients import Registry
from ssfs.store.store import Store
from tests.fakes.stopping import stopped_at
from tests.store.registries import (
    DAY,
    NOW,
    enrol,
    invite,
    make_registry,
    pki,
)

SECOND = datetime.timedelta(seconds=1)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return make_registry(tmp_path / "store")


def test_authority_is_made_once(registry: Registry):
    invite(registry)
    fingerprint = registry.authority().fingerprint
    registry.ensure_server_certificate(NOW + DAY)
    enrol(registry, "nas2")
    assert registry.authority().fingerprint == fingerprint
    again = Registry(Store.open(os.path.dirname(registry.path)))
    assert again.authority().fingerprint == fingerprint


def test_interrupted_making_of_the_authority_goes_on_with_its_key(registry: Registry):
    machine, pinned = enrol(registry), registry.authority().pem
    key = (pki(registry) / "ca.key").read_bytes()
    (pki(registry) / "ca.pem").unlink()
    files = registry.ensure_server_certificate(NOW)
    assert (pki(registry) / "ca.key").read_bytes() == key
    # Whoever knows each other still does.
    server = Path(os.fsdecode(files.certificate)).read_bytes()
    assert is_issued_by(to_der(server), pinned)
    assert registry.identify(machine.der, NOW).name == "nas1"


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


def test_files_of_the_server_are_what_ssl_takes(registry: Registry):
    files = registry.ensure_server_certificate(NOW)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    context.load_verify_locations(files.authority)
    assert len(context.get_ca_certs()) == 1


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


@pytest.mark.slow
def test_making_a_registry_stopped_anywhere_can_be_done_again(tmp_path: Path):
    number, stopped = 1, True
    while stopped:
        registry = make_registry(tmp_path / f"store{number}")
        with stopped_at(number):
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
