"""What the store's authority issues, looked at by the letter."""

import datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ssfs.errors import ConfigError, TrustError
from ssfs.pki.authority import MAX_NAME_BYTES, Authority
from ssfs.pki.certificate import is_issued_by, key_pem, make_key, make_request, read_certificate
from tests.pki.certificates import (
    NOW,
    STORE_ID,
    der,
    make_authority,
    make_client,
    make_server,
    parsed,
)

DAY = datetime.timedelta(days=1)


def extension(certificate: x509.Certificate, kind):
    return certificate.extensions.get_extension_for_class(kind)


def usages(certificate: x509.Certificate) -> set[str]:
    usage = extension(certificate, x509.KeyUsage).value
    names = {"digital_signature", "key_cert_sign", "crl_sign", "key_agreement", "key_encipherment"}
    return {name for name in names if getattr(usage, name)}


def test_authority_certificate():
    authority = make_authority()
    certificate = parsed(authority.pem)
    assert certificate.subject.rfc4514_string() == f"CN=ssfs {STORE_ID}"
    assert certificate.issuer == certificate.subject
    constraints = extension(certificate, x509.BasicConstraints)
    assert constraints.critical
    assert (constraints.value.ca, constraints.value.path_length) == (True, 0)
    assert usages(certificate) == {"key_cert_sign"}
    assert certificate.not_valid_before_utc == NOW - DAY
    assert certificate.not_valid_after_utc.year == 2054
    assert isinstance(certificate.public_key(), ed25519.Ed25519PublicKey)
    assert certificate.fingerprint(hashes.SHA256()) == authority.fingerprint
    assert is_issued_by(der(authority.pem), authority.pem)


def test_server_certificate():
    certificate = parsed(make_server(make_authority()).certificate)
    names = extension(certificate, x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["ssfs-server"]
    assert list(extension(certificate, x509.ExtendedKeyUsage).value) == [
        ExtendedKeyUsageOID.SERVER_AUTH
    ]
    assert not extension(certificate, x509.BasicConstraints).value.ca
    assert usages(certificate) == {"digital_signature"}


def test_client_certificate():
    authority = make_authority()
    certificate = parsed(make_client(authority, "nas1").certificate)
    assert certificate.subject.rfc4514_string() == "CN=nas1"
    assert list(extension(certificate, x509.ExtendedKeyUsage).value) == [
        ExtendedKeyUsageOID.CLIENT_AUTH
    ]
    assert not extension(certificate, x509.BasicConstraints).value.ca
    assert usages(certificate) == {"digital_signature"}
    assert certificate.not_valid_before_utc == NOW - DAY
    assert certificate.not_valid_after_utc == NOW + 90 * DAY
    assert is_issued_by(der(make_client(authority).certificate), authority.pem)


def test_serials_are_random():
    authority = make_authority()
    serials = {parsed(make_client(authority).certificate).serial_number for _ in range(20)}
    assert len(serials) == 20
    assert min(serials).bit_length() > 64


def test_what_was_issued_is_said():
    authority = make_authority()
    issued = authority.issue_client(make_request(make_key()), "nas1", NOW)
    said = read_certificate(der(issued.pem))
    assert (said.serial, said.not_after) == (issued.serial, issued.expires)


def request(key, name: str = "", algorithm=None, *extensions) -> bytes:
    """A signing request that a client of another make might send."""
    names = [x509.NameAttribute(NameOID.COMMON_NAME, name)] if name else []
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(names))
    for value in extensions:
        builder = builder.add_extension(value, critical=True)
    return builder.sign(key, algorithm).public_bytes(serialization.Encoding.PEM)


def test_request_decides_nothing_but_the_key():
    key = ed25519.Ed25519PrivateKey.generate()
    wanted = request(
        key,
        "admin",
        None,
        x509.BasicConstraints(ca=True, path_length=None),
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]),
        x509.SubjectAlternativeName([x509.DNSName("ssfs-server")]),
    )
    certificate = parsed(make_authority().issue_client(wanted, "nas1", NOW).pem)
    assert certificate.subject.rfc4514_string() == "CN=nas1"
    assert not extension(certificate, x509.BasicConstraints).value.ca
    assert list(extension(certificate, x509.ExtendedKeyUsage).value) == [
        ExtendedKeyUsageOID.CLIENT_AUTH
    ]
    with pytest.raises(x509.ExtensionNotFound):
        extension(certificate, x509.SubjectAlternativeName)
    assert certificate.public_key() == key.public_key()


def test_request_not_signed_with_its_key_is_refused():
    pem = request(ed25519.Ed25519PrivateKey.generate())
    whole = x509.load_pem_x509_csr(pem).public_bytes(serialization.Encoding.DER)
    flipped = whole[:-1] + bytes([whole[-1] ^ 1])
    forged = x509.load_der_x509_csr(flipped).public_bytes(serialization.Encoding.PEM)
    with pytest.raises(TrustError, match="not signed"):
        make_authority().issue_client(forged, "nas1", NOW)


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        (rsa.generate_private_key(65537, 2048), hashes.SHA256()),
        (dsa.generate_private_key(2048), hashes.SHA256()),
        (ed448.Ed448PrivateKey.generate(), None),
        (ec.generate_private_key(ec.SECP384R1()), hashes.SHA256()),
        (ec.generate_private_key(ec.SECP256K1()), hashes.SHA256()),
    ],
    ids=["RSA", "DSA", "Ed448", "P-384", "secp256k1"],
)
def test_keys_of_other_kinds_are_refused(key, algorithm):
    with pytest.raises(TrustError, match="neither Ed25519 nor P-256"):
        make_authority().issue_client(request(key, "", algorithm), "nas1", NOW)


def test_p256_request_is_taken():
    key = ec.generate_private_key(ec.SECP256R1())
    pem = make_authority().issue_client(request(key, "", hashes.SHA256()), "nas1", NOW).pem
    assert parsed(pem).public_key() == key.public_key()


def test_what_is_no_request_is_refused():
    authority = make_authority()
    whole = make_request(make_key())
    for content in (b"", b"garbage", authority.pem, bytes(1000), whole * 1000):
        with pytest.raises(TrustError):
            authority.issue_client(content, "nas1", NOW)
    for at in range(len(whole.rstrip())):
        with pytest.raises(TrustError):
            authority.issue_client(whole[:at], "nas1", NOW)


def test_authority_is_loaded_as_it_was_made():
    key = make_key()
    made = Authority.create(STORE_ID, key, NOW)
    loaded = Authority.load(key, made.pem)
    assert (loaded.pem, loaded.fingerprint) == (made.pem, made.fingerprint)
    assert is_issued_by(der(make_client(loaded).certificate), made.pem)


def test_authority_of_wrong_parts_is_refused():
    key = make_key()
    made = Authority.create(STORE_ID, key, NOW)
    with pytest.raises(ConfigError, match="do not belong together"):
        Authority.load(make_key(), made.pem)
    with pytest.raises(ConfigError):
        Authority.load(key, b"garbage")
    with pytest.raises(ConfigError):
        Authority.load(b"garbage", made.pem)
    with pytest.raises(ConfigError, match="not Ed25519"):
        Authority.create(STORE_ID, key_pem(ec.generate_private_key(ec.SECP256R1())), NOW)


def test_longest_name():
    authority = make_authority()
    name = "n" * MAX_NAME_BYTES
    assert read_certificate(der(make_client(authority, name).certificate)).name == name


def test_private_key_does_not_show():
    key = make_key()
    authority = Authority.create(STORE_ID, key, NOW)
    assert "PRIVATE" not in repr(authority)
    assert repr(authority).startswith("<")
