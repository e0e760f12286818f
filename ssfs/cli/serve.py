"""`ssfs serve`: let other machines back up into a store."""

import logging
import os
import sys

import click
import trio

from ssfs.cli.location import DEFAULT_POINT, parse_store
from ssfs.cli.options import PATH, examples, quiet_option, verbose_option
from ssfs.cli.roles import parse_roles
from ssfs.clock import SystemClock
from ssfs.daemon.server import Server
from ssfs.daemon.stdio import serve_stdio
from ssfs.errors import ConfigError
from ssfs.fsio.disk import raise_descriptor_limit
from ssfs.model.peer import LOCAL, Peer, Role
from ssfs.pki.address import DEFAULT_PORT
from ssfs.store.invitations import check_client_name
from ssfs.store.store import Store

_BACKLOG = 512
_LAST_PORT = 65535


@click.command(
    epilog=examples(
        "ssfs serve /srv/store",
        "ssfs serve /srv/store --listen 192.168.1.5:7433",
    )
)
@click.argument("store", type=PATH)
@click.option(
    "--listen",
    metavar="HOST:PORT",
    help=f"Address to listen on. Default: all addresses of this machine, port {DEFAULT_PORT}; "
    "port 0 takes a free one.",
)
@click.option(
    "--stdio",
    is_flag=True,
    help="Serve one session on standard input and output: for ssh, which starts this by itself.",
)
@click.option(
    "--client",
    metavar="NAME",
    help="With --stdio: whoever connects is this client, with the roles and sync points named.",
)
@click.option(
    "--role",
    "roles",
    multiple=True,
    metavar="ROLE,...",
    help="With --client: what it may do, of backup, restore and admin. Default: backup.",
)
@click.option(
    "--point",
    "points",
    multiple=True,
    metavar="P",
    help="With --client: a sync point it may use, '*' for all. Default: main.",
)
@quiet_option
@verbose_option
def serve(
    *,
    store: bytes,
    listen: str | None,
    stdio: bool,
    client: str | None,
    roles: tuple[str, ...],
    points: tuple[str, ...],
    quiet: bool,
    verbose: bool,
) -> None:
    r"""Serve STORE to clients that were invited (`ssfs invite`), until SIGTERM or Ctrl-C.

    It stays in the foreground and logs on stderr: `listening on HOST:PORT`, then a line when a
    session begins, asks for something, and ends. SIGTERM breaks running sessions off so that the next
    run of each client goes on where it was. SIGHUP reads store.toml and the certificate again. Several
    servers may serve one store.

    Over ssh no server is needed beforehand: `ssh://HOST/STORE` starts `ssfs serve STORE --stdio`
    there, and whoever has the account has the store. To bind an ssh key to one client, write into the
    account's authorized_keys, in one line:

    \b
      restrict,command="ssfs serve /srv/store --stdio --client nas1 --role backup" ssh-ed25519 AAAA...

    Exit codes: 0 ended by a signal; 2 wrong options, or the address cannot be listened on; 6 no store
    there, or not yours.
    """
    peer = _forced_peer(client, roles, points, stdio=stdio)
    host, port = _parse_listen(listen)
    opened = Store.open(parse_store(store))
    opened.become_owner()
    raise_descriptor_limit()
    _log_to_stderr(quiet=quiet or (stdio and not verbose))
    clock = SystemClock()
    if stdio:
        trio.run(serve_stdio, opened, peer, clock)
        return
    server = Server(opened, clock)
    trio.run(_listen, server, host, port)


def _parse_listen(text: str | None) -> tuple[str | None, int]:
    """Host (None for all addresses) and port, which here may be 0."""
    if text is None:
        return None, DEFAULT_PORT
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > _LAST_PORT:
        raise ConfigError(
            f"{text!r} is no address to listen on", remedy="write HOST:PORT, such as 0.0.0.0:7433"
        )
    return host.strip("[]") or None, int(port)


def _forced_peer(
    client: str | None,
    roles: tuple[str, ...],
    points: tuple[str, ...],
    *,
    stdio: bool,
) -> Peer:
    """Who is at the other end of standard input."""
    if client is None:
        if roles or points:
            raise ConfigError("--role and --point are those of --client NAME", remedy="name one")
        return LOCAL
    if not stdio:
        raise ConfigError(
            "--client goes with --stdio", remedy="over TLS, `ssfs invite` says who may do what"
        )
    return Peer(
        check_client_name(client),
        parse_roles(roles or (Role.BACKUP,)),
        frozenset(points or (DEFAULT_POINT,)),
    )


def _log_to_stderr(*, quiet: bool) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger = logging.getLogger("ssfs")
    logger.addHandler(handler)
    logger.propagate = False
    logger.setLevel(logging.WARNING if quiet else logging.INFO)


async def _listen(server: Server, host: str | None, port: int) -> None:
    try:
        listeners = await trio.open_tcp_listeners(port, host=host, backlog=_BACKLOG)
    except OSError as error:
        raise ConfigError(
            f"Cannot listen on {host or 'this machine'}, port {port}: "
            f"{os.strerror(error.errno).lower() if error.errno else error}",
            remedy="choose another with --listen HOST:PORT",
        ) from error
    await server.run(listeners)
