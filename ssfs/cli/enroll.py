"""`ssfs enroll`: make this machine a client of a backup server."""

import os
import sys
import tempfile

import click

from ssfs.cli.exit_codes import ExitCode
from ssfs.cli.options import examples, quiet_option, verbose_option
from ssfs.cli.output import emit
from ssfs.clock import SystemClock
from ssfs.engine.greeting import ask_to_enrol, fetch_authority, greet_server
from ssfs.errors import ConfigError
from ssfs.net.dial import TlsTarget, open_session
from ssfs.net.options import LinkOptions
from ssfs.pki.certificate import check_issued, make_key, make_request, pin_authority
from ssfs.pki.code import EnrolmentCode, parse_code
from ssfs.source.enrolment import Credentials, Enrolment, save_enrolment


@click.command(epilog=examples("ssfs enroll", "ssh nas2 ssfs invite /srv/store nas1 | ssfs enroll"))
@click.argument("code", required=False)
@quiet_option
@verbose_option
def enroll(*, code: str | None, quiet: bool, verbose: bool) -> ExitCode:
    """Use a CODE that `ssfs invite` printed on the server: from then on `ssfs sync` can go there.

    Without CODE it is asked for, or read from standard input. The server is known by the fingerprint in
    the code from the first connection on; a private key is made here and never leaves this machine. Key
    and certificate are kept in $SSFS_CONFIG_DIR, else /etc/ssfs for root, else ~/.config/ssfs, readable
    by you alone. The certificate renews itself whenever a sync finds that it is time.

    Exit codes: 0 done; 2 that is no code; 4 the code is wrong, used or expired, or the server is another
    one; 5 the server cannot be reached.
    """
    parsed = parse_code(code if code is not None else _read_code())
    enrolment = _enrol(parsed)
    if quiet:
        return ExitCode.DONE
    place = f"ssfs://{enrolment.address.spell()}"
    emit(f"Enrolled with {enrolment.address.spell()} as {enrolment.client!r}")
    if verbose:
        emit(f"Key and certificate are in {os.fsdecode(enrolment.credentials)!r}")
    point = "main" if "*" in enrolment.points else enrolment.points[0]
    emit(f"Next: ssfs sync DIRECTORY {place}/{point}")
    return ExitCode.DONE


def _read_code() -> str:
    if sys.stdin.isatty():
        return str(click.prompt("Code", err=True, hide_input=True))
    line = sys.stdin.readline()
    if not line.strip():
        raise ConfigError("No code on standard input", remedy="`ssfs invite` prints one")
    return line


def _enrol(code: EnrolmentCode) -> Enrolment:
    """Make sure of the server, then ask it for a certificate."""
    unproven = TlsTarget(code.host, code.port, b"", verify=False)
    with open_session(unproven, LinkOptions()) as session:
        greet_server(session.channel)
        shown = fetch_authority(session.channel)
    authority = pin_authority(shown, code.fingerprint)
    key = make_key()
    with tempfile.NamedTemporaryFile(prefix="ssfs-") as pinned:
        pinned.write(authority)
        pinned.flush()
        proven = TlsTarget(code.host, code.port, os.fsencode(pinned.name))
        with open_session(proven, LinkOptions()) as session:
            greet_server(session.channel)
            enrolled = ask_to_enrol(session.channel, code.secret, make_request(key))
    certificate = check_issued(enrolled.certificate, key, authority)
    return save_enrolment(
        code.address,
        enrolled.client,
        tuple(enrolled.points),
        Credentials(key, certificate, authority),
        SystemClock().now(),
    )
