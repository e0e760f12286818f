"""`ssfs revoke`: take a client's access away."""

import click

from ssfs.cli.exit_codes import ExitCode
from ssfs.cli.location import parse_store
from ssfs.cli.options import PATH, examples, quiet_option, verbose_option
from ssfs.cli.output import counted, emit
from ssfs.clock import SystemClock
from ssfs.store.clients import Registry
from ssfs.store.store import Store


@click.command(
    epilog=examples(
        "ssfs revoke /srv/store nas1",
    )
)
@click.argument("store", type=PATH)
@click.argument("client")
@quiet_option
@verbose_option
def revoke(*, store: bytes, client: str, quiet: bool, verbose: bool) -> ExitCode:
    """Take the access of CLIENT to the store STORE away, and withdraw its open invitations.

    A running server ends its sessions within a second. Its versions stay, and go as those of any
    other task. Revoking again changes nothing. A new `ssfs invite` lets the client back in.

    With -v: how many invitations were withdrawn, too.

    Exit codes: 0 it has no access; 2 no such client; 6 no store there, or not yours.
    """
    opened = Store.open(parse_store(store))
    opened.become_owner()
    withdrawn = Registry(opened).revoke(client, SystemClock().now())
    if not quiet:
        emit(f"Revoked {client}")
    if verbose and not quiet:
        emit(f"Withdrew {counted(withdrawn, 'invitation')}")
    return ExitCode.DONE
