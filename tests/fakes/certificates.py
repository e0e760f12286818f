"""A small certificate authority for tests of TLS, independent of the program's own."""

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = datetime.timedelta(days=1)


class Authority:
    """Issues what a test asks for; everything lies in one directory.

    Attributes:
        ca: The authority's certificate file.
    """

    def __init__(self, directory: Path, name: str = "ca") -> None:
        self._directory = directory
        self._name = name
        self._key = Ed25519PrivateKey.generate()
        self._subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.ca = directory / f"{name}.pem"
        certificate = self._builder(self._subject, self._key, 0).add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        _write(self.ca, certificate.sign(self._key, None))

    def server(self, dns: str = "ssfs-server", *, starts_in_days: int = 0) -> tuple[Path, Path]:
        """(key file, certificate file) of a server."""
        names = x509.SubjectAlternativeName([x509.DNSName(dns)])
        return self._issue(dns, ExtendedKeyUsageOID.SERVER_AUTH, starts_in_days, names)

    def client(self, name: str = "nas1", *, starts_in_days: int = 0) -> tuple[Path, Path]:
        """(key file, certificate file) of a client."""
        return self._issue(name, ExtendedKeyUsageOID.CLIENT_AUTH, starts_in_days)

    def _issue(
        self,
        name: str,
        usage: x509.ObjectIdentifier,
        starts_in_days: int,
        extension: x509.SubjectAlternativeName | None = None,
    ) -> tuple[Path, Path]:
        key = Ed25519PrivateKey.generate()
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = self._builder(subject, key, starts_in_days).add_extension(
            x509.ExtendedKeyUsage([usage]), critical=False
        )
        if extension is not None:
            builder = builder.add_extension(extension, critical=False)
        stem = f"{self._name}-{name}-{starts_in_days}"
        key_path, path = self._directory / f"{stem}.key", self._directory / f"{stem}.pem"
        key_path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        _write(path, builder.sign(self._key, None))
        return key_path, path

    def _builder(
        self, subject: x509.Name, key: Ed25519PrivateKey, starts_in_days: int
    ) -> x509.CertificateBuilder:
        start = datetime.datetime.now(datetime.UTC) + starts_in_days * DAY
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start - DAY)
            .not_valid_after(start + 30 * DAY)
        )


def _write(path: Path, certificate: x509.Certificate) -> None:
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
