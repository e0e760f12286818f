"""The way to a store on another machine: connected, proven, greeted."""

import contextlib
import os
import shlex
from collections.abc import Iterator

from ssfs.cli.location import SshPlace, TlsPlace
from ssfs.cli.output import complain
from ssfs.engine.greeting import ask_to_renew, greet_server
from ssfs.errors import SsfsError, TrustError
from ssfs.fsio.disk import read_file
from ssfs.net.channel import Channel
from ssfs.net.options import LinkOptions
from ssfs.protocol.messages import Leave
from ssfs.protocol.states import State
from ssfs.source.enrolment import Enrolment, find_enrolment, replace_certificate
from ssfs.source.identity import client_name

_DEFAULTS = LinkOptions()
_SSH_KEEP_ALIVE = ("-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4")


@contextlib.contextmanager
def open_channel(place: TlsPlace | SshPlace, options: LinkOptions = _DEFAULTS) -> Iterator[Channel]:
    """A session with the server of a place, greeted and ready for a first request.

    Args:
        place: Where to; over TLS this machine must have enrolled there.
        options: How the bytes travel.

    Raises:
        ConfigError: This machine has not enrolled with the server.
        TrustError: The server is not the one it enrolled with.
        ConnectionLost: The server cannot be reached, or went away.
    """
    # Loads trio and TLS, which a command that stays on this machine does not wait for.
    from ssfs.net.dial import SshTarget, TlsTarget, open_session  # noqa: PLC0415

    enrolment: Enrolment | None = None
    target: TlsTarget | SshTarget
    if isinstance(place, TlsPlace):
        enrolment = find_enrolment(place.host, place.port)
        target = TlsTarget(
            *enrolment.address,
            ca_path=enrolment.authority,
            key_path=enrolment.key,
            certificate_path=enrolment.certificate,
        )
    else:
        target = SshTarget(ssh_command(place))
    with open_session(target, options) as session:
        hello = greet_server(session.channel)
        if hello.renew and enrolment is not None:
            _renew(session.channel, enrolment)
        yield session.channel
        if session.channel.state is State.READY:
            session.channel.send(Leave())


def client_name_at(place: TlsPlace | SshPlace) -> str:
    """What the server of a place calls this machine: what it was invited as, else what we say.

    Raises:
        ConfigError: This machine has not enrolled there.
    """
    if isinstance(place, SshPlace):
        return client_name()
    return find_enrolment(place.host, place.port).client


def ssh_command(place: SshPlace) -> list[str]:
    """The command that serves a place over its standard input and output.

    `$SSFS_SSH` may name another ssh, with options, in shell words.
    """
    command = [*shlex.split(os.environ.get("SSFS_SSH") or "ssh"), *_SSH_KEEP_ALIVE]
    if place.port is not None:
        command += ["-p", str(place.port)]
    if place.user is not None:
        command += ["-l", place.user]
    # "--" before the host is not known to every ssh; a host never begins with a dash.
    store = shlex.quote(os.fsdecode(place.store))
    return [*command, place.host, f"ssfs serve {store} --stdio"]


def _renew(channel: Channel, enrolment: Enrolment) -> None:
    """Get a new certificate for the key we have; a failure is one of this time only."""
    # Loaded when needed: a certificate is renewed once in two months.
    from ssfs.pki.certificate import check_issued, make_request  # noqa: PLC0415

    with _open_parts(enrolment) as fd:
        key, authority = read_file(b"key.pem", dir_fd=fd), read_file(b"ca.pem", dir_fd=fd)
    renewed = ask_to_renew(channel, make_request(key))
    try:
        replace_certificate(enrolment, check_issued(renewed, key, authority))
    except TrustError:
        raise
    except SsfsError as error:
        complain(f"The certificate could not be renewed this time: {error}")


@contextlib.contextmanager
def _open_parts(enrolment: Enrolment) -> Iterator[int]:
    fd = os.open(enrolment.credentials, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)
