"""A sync on one machine: sender and receiver as two processes, joined by a socket pair.

The receiver is a fork of this process (no second start-up) that becomes the store's owner; the sender
stays what it is, as only it needs to read the source. Fork before there are threads: call this before
a monitor draws anything.
"""

import os
import signal
import socket
import sys
import traceback

from ssfs.clock import Clock
from ssfs.engine.cache import cache_root
from ssfs.engine.greeting import greet_server
from ssfs.engine.sender import SyncRequest, SyncResult, send_version
from ssfs.engine.session import Visitor, serve_session
from ssfs.errors import ConnectionLost, PeerError
from ssfs.fsio.disk import raise_descriptor_limit
from ssfs.model.peer import LOCAL
from ssfs.monitor import Monitor
from ssfs.net.channel import Channel
from ssfs.protocol.states import Role
from ssfs.store.store import Store

_BUFFER_BYTES = 4 << 20


def sync_local(store: Store, request: SyncRequest, monitor: Monitor, clock: Clock) -> SyncResult:
    """Make one version in a store of this machine.

    Raises:
        ConnectionLost: The receiving process died.
        SsfsError: As `ssfs.engine.sender.send_version`.
    """
    raise_descriptor_limit()
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        ours.close()
        os._exit(_receive(theirs, store, clock))
    theirs.close()
    status: int | None = None
    try:
        with Channel(ours, Role.CLIENT) as channel:
            greet_server(channel)  # S1
            result = send_version(channel, request, cache_root(), monitor, clock)
            # Deleting what expired goes on in the other process; when we end, all is done.
            monitor.phase("cleaning up")
            status = os.waitpid(child, 0)[1]
    except ConnectionLost as error:
        status = os.waitpid(child, 0)[1]
        raise _explain(status, error) from error
    finally:
        if status is None:
            os.waitpid(child, 0)
    return result


def _receive(stream: socket.socket, store: Store, clock: Clock) -> int:
    """The receiving process; its exit status."""
    # The sender decides what an interrupt means: we see the stream end, and keep what has arrived.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    try:
        with Channel(stream, Role.SERVER) as channel:
            serve_session(channel, store, Visitor(LOCAL), clock, lambda _: None)  # R1
    except BaseException:  # noqa: BLE001  # the last frame of a process: nobody else can report it
        traceback.print_exc()
        return 1
    return 0


def _explain(status: int, error: ConnectionLost) -> PeerError:
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        return ConnectionLost(
            f"The receiving process was ended by {name}",
            remedy="the old versions are whole; the next sync goes on where this one was",
        )
    return error
