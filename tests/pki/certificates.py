"""A CA and the certificates of its server and clients, for tests that need some."""

import datetime
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from ssfs.pki.authority import Authority
from ssfs.pki.certificate import make_key, make_request

NOW = datetime.datetime(2024, 5, 1, 2, 0, tzinfo=datetime.UTC)
STORE_ID = "0123456789abcdef" * 2


class Holder(NamedTuple):
    """A private key and a certificate for it, as PEM."""

    key: bytes
    certificate: bytes


def make_authority(now: datetime.datetime = NOW) -> Authority:
    return Authority.create(STORE_ID, make_key(), now)


def make_server(authority: Authority, now: datetime.datetime = NOW) -> Holder:
    key = make_key()
    return Holder(key, authority.issue_server(key, now).pem)


def make_client(
    authority: Authority, name: str = "nas1", now: datetime.datetime = NOW, key: bytes = b""
) -> Holder:
    key = key or make_key()
    return Holder(key, authority.issue_client(make_request(key), name, now).pem)


def parsed(pem: bytes) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem)


def der(pem: bytes) -> bytes:
    return parsed(pem).public_bytes(serialization.Encoding.DER)
