"""A server for one session over standard input and output: what runs at the far end of `ssh://`.

Who the client is, the account that ssh let in says: whoever has the account has the store, unless the
command line (a forced command in authorized_keys) binds the session to one client and role.
"""

import trio

from ssfs.clock import Clock
from ssfs.daemon.session import Session
from ssfs.engine.session import Visitor
from ssfs.model.peer import LOCAL, Peer
from ssfs.net.options import LinkOptions
from ssfs.net.wire import open_stdio
from ssfs.store.store import Store


async def serve_stdio(store: Store, peer: Peer, clock: Clock) -> None:
    """Serve one session to its end.

    Args:
        store: What is served; this process owns it.
        peer: Who is at the other end.
        clock: The server's.
    """
    wire = open_stdio()
    name = peer.name or ("whoever has the store" if peer == LOCAL else "a client")
    session = Session(store, Visitor(peer), f"session for {name}", clock)
    options = LinkOptions(idle_s=store.settings.server.idle_s)
    await session.run(wire, options, trio.CapacityLimiter(1))
