"""Enrolment codes: the one line that a person carries from the server to a new client.

    ssfs1/HOST/PORT/BASE32

BASE32, lower-case and without padding, holds the SHA-256 fingerprint of the store's CA certificate (32
bytes: the client knows the server by it), a one-time secret (20 bytes: the server knows the client by
it) and a checksum (4 bytes) over all before it. A code so survives shells unquoted, and line breaks and
capitals put in by whatever carries it; and one that was cut or mistyped is told from one that is wrong.

The store keeps the secret's hash only. A secret is random, so it needs no slow hash.
"""

import base64
import binascii
import hashlib
import re
import secrets

import msgspec
from typing_extensions import override

from ssfs.errors import ConfigError
from ssfs.pki.address import Address, check_address

SECRET_BYTES = 20
FINGERPRINT_BYTES = 32

_CHECKSUM_BYTES = 4
_FORM = re.compile(r"(ssfs1/([^/]*)/([^/]*)/)([a-z2-7]+)", re.IGNORECASE | re.ASCII)
_NEWER = re.compile(r"ssfs[0-9]+/.*", re.IGNORECASE | re.ASCII)
_REMEDY = "copy the whole line that `ssfs invite` printed"


class EnrolmentCode(msgspec.Struct, frozen=True):
    """What a client needs to know to enrol.

    Attributes:
        host: Where the server is; an IPv6 address without brackets.
        port: Its TCP port.
        fingerprint: SHA-256 of its CA certificate (DER).
        secret: Proof that the client was invited; never to be shown or logged.
    """

    host: str
    port: int
    fingerprint: bytes
    secret: bytes

    @override
    def __repr__(self) -> str:
        return f"EnrolmentCode({self.host!r}, {self.port})"

    @property
    def address(self) -> Address:
        """Where the server is."""
        return Address(self.host, self.port)

    def spell(self) -> str:
        """The code as one line, without a line end.

        Raises:
            ConfigError: There can be no such host or port.
        """
        check_address(self.host, str(self.port))
        begin = f"ssfs1/{self.host}/{self.port}/"
        return begin + _encode(begin, self.fingerprint + self.secret)


def parse_code(text: str) -> EnrolmentCode:
    """The code that a line spells; white space anywhere in it and capitals do not matter.

    Raises:
        ConfigError: It spells none; the error never shows the text, which may hold a secret.
    """
    line = "".join(text.split())
    form = _FORM.fullmatch(line)
    if form is None:
        if line[:6].lower() == "ssfs1/":
            raise _incomplete()
        if _NEWER.fullmatch(line):
            raise ConfigError(
                "The enrolment code is one of a newer ssfs", remedy="update ssfs here"
            )
        raise ConfigError("This is not an enrolment code", remedy=_REMEDY)
    begin, host, port, encoded = form.groups()
    encoded = encoded.upper()
    try:
        address = check_address(host, port)
        content = base64.b32decode(encoded + "=" * (-len(encoded) % 8))[:-_CHECKSUM_BYTES]
    except (ConfigError, binascii.Error):
        raise _incomplete() from None
    # Encoded again, so that its checksum and the bits that fill up its end are both right.
    if (
        len(content) != FINGERPRINT_BYTES + SECRET_BYTES
        or _encode(begin, content) != encoded.lower()
    ):
        raise _incomplete()
    return EnrolmentCode(
        address.host, address.port, content[:FINGERPRINT_BYTES], content[FINGERPRINT_BYTES:]
    )


def make_secret() -> bytes:
    """A new one-time secret."""
    return secrets.token_bytes(SECRET_BYTES)


def secret_hash(secret: bytes) -> str:
    """What the store keeps of a secret: 64 hex digits."""
    return hashlib.sha256(b"ssfs enrolment secret\0" + secret).hexdigest()


def _encode(begin: str, content: bytes) -> str:
    """The content with its checksum, which guards against slips and not against forgers."""
    checked = f"ssfs enrolment code\0{begin.lower()}".encode() + content
    checksum = hashlib.sha256(checked).digest()[:_CHECKSUM_BYTES]
    return base64.b32encode(content + checksum).decode().rstrip("=").lower()


def _incomplete() -> ConfigError:
    return ConfigError("The enrolment code is incomplete or mistyped", remedy=_REMEDY)
