"""The store's own certificate authority: what it issues, and to whom.

Nobody else is trusted: a client knows the one certificate of this CA, the server takes only what this
CA has signed. Names decide nothing at the server's end (addresses change, so its certificate bears a
fixed name), purposes do: a client's certificate is none of a server, so that a client that was broken
into cannot play the server to others.

All certificates begin to be valid a day before they are made. The server looks at expiry by its own
clock and against its registry (`ssfs.store.clients`); clocks of clients are not relied on.
"""

import datetime
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ssfs.errors import ConfigError, TrustError
from ssfs.pki.certificate import (
    CLIENT_LIFE,
    PARSE_ERRORS,
    SERVER_LIFE,
    PublicKey,
    fingerprint,
    parse_key,
)

SERVER_NAME = "ssfs-server"
"""The DNS name in every server's certificate, whatever its address."""

MAX_NAME_BYTES = 64
"""Of a client's name: X.509 allows no more in a common name."""

_AUTHORITY_LIFE = datetime.timedelta(days=30 * 365 + 7)
_BACKDATED = datetime.timedelta(days=1)
_MAX_REQUEST_BYTES = 16 << 10
_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


class Issued(NamedTuple):
    """A certificate just made.

    Attributes:
        pem: The certificate.
        serial: Its serial number, in hex without leading zeros.
        expires: When it expires (UTC, aware, whole seconds).
    """

    pem: bytes
    serial: str
    expires: datetime.datetime


class Authority:
    """A CA: its private key and its certificate.

    Attributes:
        pem: Its certificate, as PEM.
        fingerprint: SHA-256 of its certificate (DER).
    """

    def __init__(self, key: ed25519.Ed25519PrivateKey, certificate: x509.Certificate) -> None:
        self._key = key
        self._certificate = certificate
        self.pem = certificate.public_bytes(serialization.Encoding.PEM)
        self.fingerprint = fingerprint(self.pem)

    @classmethod
    def create(cls, store_id: str, key: bytes, now: datetime.datetime) -> "Authority":
        """Make the CA of a store: a certificate for a private key (PEM, Ed25519), signed by itself.

        Raises:
            ConfigError: The key cannot be used.
        """
        private = _parse_own_key(key)
        name = _common_name(f"ssfs {store_id}")
        builder = (
            _begin(name, name, private.public_key(), now, _AUTHORITY_LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage("key_cert_sign"), critical=True)
        )
        return cls(private, builder.sign(private, None))

    @classmethod
    def load(cls, key: bytes, certificate: bytes) -> "Authority":
        """The CA from its private key and its certificate (both PEM).

        Raises:
            ConfigError: One cannot be used, or they do not belong together.
        """
        private = _parse_own_key(key)
        try:
            parsed = x509.load_pem_x509_certificate(certificate)
            fits = parsed.public_key() == private.public_key()
        except PARSE_ERRORS as error:
            raise ConfigError("The certificate of the authority cannot be used") from error
        if not fits:
            raise ConfigError("Key and certificate of the authority do not belong together")
        return cls(private, parsed)

    def issue_server(self, key: bytes, now: datetime.datetime) -> Issued:
        """A certificate for the server with this private key (PEM).

        Raises:
            ConfigError: The key cannot be used.
        """
        builder = self._begin(
            SERVER_NAME,
            parse_key(key).public_key(),
            ExtendedKeyUsageOID.SERVER_AUTH,
            now,
            SERVER_LIFE,
        )
        name = x509.SubjectAlternativeName([x509.DNSName(SERVER_NAME)])
        return self._sign(builder.add_extension(name, critical=False))

    def issue_client(self, request: bytes, name: str, now: datetime.datetime) -> Issued:
        """A certificate for a client.

        Args:
            request: Its signing request (PEM); only its key is taken over.
            name: The name it was invited under; at most `MAX_NAME_BYTES`.
            now: The server's time.

        Raises:
            TrustError: The request is not signed with its key, or the key is of another kind than
                Ed25519 and P-256.
        """
        key = _requested_key(request)
        return self._sign(self._begin(name, key, ExtendedKeyUsageOID.CLIENT_AUTH, now, CLIENT_LIFE))

    def _begin(
        self,
        name: str,
        key: PublicKey,
        purpose: x509.ObjectIdentifier,
        now: datetime.datetime,
        life: datetime.timedelta,
    ) -> x509.CertificateBuilder:
        issuer = self._key.public_key()
        return (
            _begin(_common_name(name), self._certificate.subject, key, now, life)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage("digital_signature"), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer), critical=False
            )
        )

    def _sign(self, builder: x509.CertificateBuilder) -> Issued:
        certificate = builder.sign(self._key, None)
        return Issued(
            certificate.public_bytes(serialization.Encoding.PEM),
            f"{certificate.serial_number:x}",
            certificate.not_valid_after_utc,
        )


def _begin(
    subject: x509.Name,
    issuer: x509.Name,
    key: PublicKey,
    now: datetime.datetime,
    life: datetime.timedelta,
) -> x509.CertificateBuilder:
    """What all certificates have."""
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + life)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _requested_key(request: bytes) -> PublicKey:
    """The public key of a signing request, whose sender has shown to hold the private one."""
    if len(request) > _MAX_REQUEST_BYTES:
        raise TrustError("The signing request is too long")
    try:
        parsed = x509.load_pem_x509_csr(request)
        key = parsed.public_key()
        is_signed = parsed.is_signature_valid
    except PARSE_ERRORS as error:
        raise TrustError("The signing request cannot be read") from error
    if not is_signed:
        raise TrustError("The signing request is not signed with its key")
    if isinstance(key, ed25519.Ed25519PublicKey):
        return key
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
        return key
    raise TrustError("The signing request is for a key that is neither Ed25519 nor P-256")


def _parse_own_key(key: bytes) -> ed25519.Ed25519PrivateKey:
    private = parse_key(key)
    if not isinstance(private, ed25519.Ed25519PrivateKey):
        raise ConfigError("The private key of the authority is not Ed25519")
    return private


def _common_name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _key_usage(usage: str) -> x509.KeyUsage:
    return x509.KeyUsage(**{name: name == usage for name in _USAGES})
