"""The first words of a session, at both ends: who speaks which protocol (SYNC.md, S1 and R1), and certificates."""

from typing import TypeVar

from ssfs import __version__
from ssfs.engine.refusal import raise_refused
from ssfs.errors import ConfigError, PeerError, RemoteProtocolError
from ssfs.net.channel import Channel
from ssfs.protocol.enrolling import AskAuthority, Authority, Enroll, Enrolled, Renew
from ssfs.protocol.messages import PROTOCOL_VERSION, Hello, Leave, Refused

T = TypeVar("T")


def greet_server(channel: Channel) -> Hello:
    """Greet as the client; what the server answered.

    Raises:
        PeerError: It speaks another protocol, or refused.
    """
    channel.send(Hello(PROTOCOL_VERSION, __version__))
    answer = _answer(channel, Hello)
    if answer.protocol != PROTOCOL_VERSION:
        raise PeerError(
            "The server speaks another protocol version", remedy="use the same ssfs at both ends"
        )
    return answer


def greet_client(channel: Channel, *, renew: bool = False) -> None:
    """Answer a client's greeting.

    Args:
        channel: To the client, which has said nothing yet.
        renew: Tell it that its certificate should be renewed.

    Raises:
        ConfigError: It speaks another protocol.
        RemoteProtocolError: It did not greet.
    """
    hello = channel.receive()
    if not isinstance(hello, Hello):
        raise RemoteProtocolError("The client did not greet")
    # In any case: by it a client of another version says what is wrong.
    channel.send(Hello(PROTOCOL_VERSION, __version__, renew=renew))
    if hello.protocol != PROTOCOL_VERSION:
        raise ConfigError(
            f"This server speaks protocol {PROTOCOL_VERSION}, not {hello.protocol}",
            remedy="use the same ssfs at both ends",
        )


def fetch_authority(channel: Channel) -> bytes:
    """The certificate (PEM) of the server's authority, as the server shows it: to be pinned, not believed."""
    channel.send(AskAuthority())
    answer = _answer(channel, Authority)
    channel.send(Leave())
    return answer.certificate


def ask_to_enrol(channel: Channel, secret: bytes, request: bytes) -> Enrolled:
    """Redeem the secret of a code for a certificate.

    Raises:
        TrustError: The server does not take it.
    """
    channel.send(Enroll(secret, request))
    answer = _answer(channel, Enrolled)
    channel.send(Leave())
    return answer


def ask_to_renew(channel: Channel, request: bytes) -> bytes:
    """A new certificate (PEM) for the one this session shows; other requests may follow."""
    channel.send(Renew(request))
    return _answer(channel, Enrolled).certificate


def _answer(channel: Channel, wanted: type[T]) -> T:
    answer = channel.receive()
    if isinstance(answer, Refused):
        raise_refused(answer)
    if not isinstance(answer, wanted):
        # To a stranger's question the table of states lets through the answer to another one.
        raise RemoteProtocolError(f"The server answered with {type(answer).__name__}")
    return answer
