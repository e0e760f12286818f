"""What certificates say, and what their holders check."""

import datetime

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from ssfs.errors import ConfigError, TrustError
from ssfs.pki.certificate import (
    CLIENT_LIFE,
    SERVER_LIFE,
    check_issued,
    fingerprint,
    is_due,
    is_issued_by,
    key_pem,
    make_key,
    make_request,
    parse_key,
    pin_authority,
    read_certificate,
)
from tests.pki.certificates import NOW, der, make_authority, make_client, parsed

DAY = datetime.timedelta(days=1)
SECOND = datetime.timedelta(seconds=1)


def test_certificate_says_name_serial_and_end():
    authority = make_authority()
    client = make_client(authority, "nas-1.x")
    said = read_certificate(der(client.certificate))
    assert said.name == "nas-1.x"
    assert int(said.serial, 16) == parsed(client.certificate).serial_number
    assert said.not_after == NOW + 90 * DAY


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x30\x03\x02\x01\x05", bytes(1000)])
def test_what_is_no_certificate_is_refused(content: bytes):
    authority = make_authority()
    with pytest.raises(TrustError):
        read_certificate(content)
    with pytest.raises(TrustError):
        fingerprint(content)
    with pytest.raises(TrustError):
        pin_authority(content, authority.fingerprint)
    with pytest.raises(TrustError):
        check_issued(content, make_key(), authority.pem)
    assert not is_issued_by(content, authority.pem)


@pytest.mark.slow
def test_every_cut_or_changed_certificate_is_refused_or_not_ours():
    authority = make_authority()
    whole = der(make_client(authority).certificate)
    # How many bits of the signature's last byte do not count is outside of what is signed, and says
    # nothing about the certificate.
    unused_bits_at = len(whole) - 65
    for at in range(len(whole)):
        assert not is_issued_by(whole[:at], authority.pem)
        changed = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
        assert not is_issued_by(changed, authority.pem) or at == unused_bits_at
        with pytest.raises(TrustError):
            read_certificate(whole[:at])


@pytest.mark.parametrize(
    ("life", "third"), [(CLIENT_LIFE, 30 * DAY), (SERVER_LIFE, SERVER_LIFE / 3)]
)
def test_renewal_is_due_in_the_last_third(life: datetime.timedelta, third: datetime.timedelta):
    assert not is_due(NOW + life, NOW, life)
    assert not is_due(NOW + third + SECOND, NOW, life)
    assert is_due(NOW + third - SECOND, NOW, life)
    assert is_due(NOW - DAY, NOW, life)


def test_authority_is_pinned_by_its_fingerprint():
    authority = make_authority()
    assert pin_authority(authority.pem, authority.fingerprint) == authority.pem
    assert fingerprint(authority.pem) == parsed(authority.pem).fingerprint(hashes.SHA256())
    with pytest.raises(TrustError, match="not the one"):
        pin_authority(make_authority().pem, authority.fingerprint)


def test_second_certificate_behind_the_right_one_is_not_pinned_with_it():
    authority, rogue = make_authority(), make_authority()
    shown = authority.pem + rogue.pem
    assert pin_authority(shown, authority.fingerprint) == authority.pem


def test_issued_certificate_must_be_for_our_key_by_our_authority():
    authority, other = make_authority(), make_authority()
    client = make_client(authority)
    assert check_issued(client.certificate + other.pem, client.key, authority.pem) == (
        client.certificate
    )
    with pytest.raises(TrustError):
        check_issued(client.certificate, make_key(), authority.pem)
    with pytest.raises(TrustError):
        check_issued(client.certificate, client.key, other.pem)


def test_p256_keys_work_too():
    key = key_pem(ec.generate_private_key(ec.SECP256R1()))
    authority = make_authority()
    client = make_client(authority, key=key)
    assert check_issued(client.certificate, key, authority.pem)


@pytest.mark.parametrize(
    "key",
    [
        b"",
        b"-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n",
        key_pem(ec.generate_private_key(ec.SECP384R1())),
        key_pem(rsa.generate_private_key(65537, 2048)),
    ],
    ids=["empty", "garbage", "P-384", "RSA"],
)
def test_other_keys_are_refused_without_being_shown(key: bytes):
    for use in (parse_key, make_request):
        with pytest.raises(ConfigError, match="private key") as caught:
            use(key)
        assert "c2Vj" not in str(caught.value)


def test_keys_are_new_each_time():
    assert len({make_key() for _ in range(10)}) == 10
    assert isinstance(parse_key(make_key()), ed25519.Ed25519PrivateKey)
