"""Certificates as their holders see them: keys, signing requests, what a certificate says.

Keys are Ed25519; a client may bring one on P-256 instead (hardware that knows no other). Text is PEM,
and what comes from a peer is parsed and encoded anew before anybody keeps it: a PEM file with a second
certificate in it would be trusted twice.
"""

import datetime
import hashlib
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import NameOID

from ssfs.errors import ConfigError, TrustError

CLIENT_LIFE = datetime.timedelta(days=90)
SERVER_LIFE = datetime.timedelta(days=365)

PrivateKey = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey
PublicKey = ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey

PARSE_ERRORS = (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion)
"""What parsing something hostile may raise."""

_RENEWED_WITH_LEFT = 1 / 3


class CertificateText(NamedTuple):
    """What a certificate says.

    Attributes:
        name: Its common name: who holds it.
        serial: Its serial number, in hex without leading zeros.
        not_after: When it expires (UTC, aware, whole seconds).
    """

    name: str
    serial: str
    not_after: datetime.datetime


def make_key() -> bytes:
    """A new private key (Ed25519, PKCS 8, not encrypted), as PEM."""
    return key_pem(ed25519.Ed25519PrivateKey.generate())


def make_request(key: bytes) -> bytes:
    """A signing request for a private key, both as PEM.

    It names nobody: the name is the one that was invited.

    Raises:
        ConfigError: The key cannot be used.
    """
    private = parse_key(key)
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    if isinstance(private, ed25519.Ed25519PrivateKey):
        request = builder.sign(private, None)
    else:
        request = builder.sign(private, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM)


def read_certificate(der: bytes) -> CertificateText:
    """What a certificate (DER) says; nothing of it is verified.

    Raises:
        TrustError: It is none, or none of ours.
    """
    try:
        certificate = x509.load_der_x509_certificate(der)
        names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        (name,) = [name.value for name in names]
        serial, not_after = certificate.serial_number, certificate.not_valid_after_utc
    except PARSE_ERRORS as error:
        raise TrustError("The certificate cannot be read", remedy="enrol again") from error
    if not isinstance(name, str):
        raise TrustError("The certificate names nobody", remedy="enrol again")
    return CertificateText(name, f"{serial:x}", not_after)


def is_issued_by(der: bytes, authority: bytes) -> bool:
    """Whether a certificate (DER) bears the signature of a CA, given its certificate (PEM)."""
    try:
        certificate = x509.load_der_x509_certificate(der)
        certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(authority))
    except (*PARSE_ERRORS, InvalidSignature):
        return False
    return True


def is_due(
    not_after: datetime.datetime, now: datetime.datetime, life: datetime.timedelta = CLIENT_LIFE
) -> bool:
    """Whether it is time to renew a certificate: less than a third of its life is left."""
    return not_after - now < life * _RENEWED_WITH_LEFT


def to_der(certificate: bytes) -> bytes:
    """The DER form of a certificate (PEM); the first one, if there are more.

    Raises:
        TrustError: It is none.
    """
    return _to_der(_parse_certificate(certificate))


def fingerprint(certificate: bytes) -> bytes:
    """SHA-256 of a certificate (PEM) in its DER form.

    Raises:
        TrustError: It is none.
    """
    return hashlib.sha256(to_der(certificate)).digest()


def pin_authority(certificate: bytes, expected: bytes) -> bytes:
    """The CA certificate (PEM) to trust from now on, if what the server showed is the right one.

    Args:
        certificate: What it showed (PEM), over a connection that proves nothing.
        expected: Its SHA-256 fingerprint, from the enrolment code.

    Raises:
        TrustError: It is another one.
    """
    shown = _parse_certificate(certificate)
    if hashlib.sha256(_to_der(shown)).digest() != expected:
        raise TrustError(
            "The server is not the one that the enrolment code is for",
            remedy="somebody may be in between, or the store was made anew: check the address, "
            "then get a new code with `ssfs invite`",
        )
    return shown.public_bytes(serialization.Encoding.PEM)


def check_issued(certificate: bytes, key: bytes, authority: bytes) -> bytes:
    """The certificate (PEM) that a client got, if it is one for its key by its CA.

    Raises:
        TrustError: It is not.
        ConfigError: The key cannot be used.
    """
    issued = _parse_certificate(certificate)
    ours = _public_der(parse_key(key).public_key())
    try:
        is_ours = _public_der(issued.public_key()) == ours
    except PARSE_ERRORS:
        is_ours = False
    if not is_ours or not is_issued_by(_to_der(issued), authority):
        raise TrustError("The server sent a certificate that is not for us")
    return issued.public_bytes(serialization.Encoding.PEM)


def parse_key(key: bytes) -> PrivateKey:
    """A private key from its PEM.

    Raises:
        ConfigError: It cannot be used. The error holds nothing of it.
    """
    try:
        private = serialization.load_pem_private_key(key, None)
    except PARSE_ERRORS:
        private = None
    if isinstance(private, ed25519.Ed25519PrivateKey) or (
        isinstance(private, ec.EllipticCurvePrivateKey) and isinstance(private.curve, ec.SECP256R1)
    ):
        return private
    raise ConfigError("The private key cannot be used", remedy="it must be Ed25519 or P-256")


def key_pem(key: PrivateKey) -> bytes:
    """A private key as PEM (PKCS 8, not encrypted: who can read the file can use it)."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _parse_certificate(pem: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem)
    except PARSE_ERRORS as error:
        raise TrustError("The server sent something that is no certificate") from error


def _to_der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)


def _public_der(key: CertificatePublicKeyTypes) -> bytes:
    return key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
