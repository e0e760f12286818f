"""Messages of a client that enrols or renews its certificate; part of the closed set of `ssfs.protocol.messages`."""

from ssfs.protocol.control import ControlMessage


class AskAuthority(ControlMessage, frozen=True):
    """Client without a certificate: what is your certificate authority's certificate?"""


class Authority(ControlMessage, frozen=True):
    """Server: this (PEM); believe it only if the fingerprint of the code is its."""

    certificate: bytes


class Enroll(ControlMessage, frozen=True):
    """Client without a certificate: here is the secret of my code, and a signing request (PEM)."""

    secret: bytes
    request: bytes


class Renew(ControlMessage, frozen=True):
    """Client: my certificate runs out, sign another one (a signing request, PEM)."""

    request: bytes


class Enrolled(ControlMessage, frozen=True):
    """Server: your certificate (PEM), the name it is for, and the sync points you may use."""

    certificate: bytes
    client: str
    points: list[str]
