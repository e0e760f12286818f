"""Restores inside the test's own process: the real client and server, in two threads."""

import contextlib
import os
import random
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from ssfs.clock import SystemClock
from ssfs.engine.refusal import to_refusal
from ssfs.engine.restore.client import fetch_version
from ssfs.engine.restore.local import restore_version
from ssfs.engine.restore.options import DEFAULT_OPTIONS, RestoreOptions
from ssfs.engine.restore.restorer import RestoreResult
from ssfs.engine.restore.server import RestoreServed, serve_restore
from ssfs.errors import ConnectionLost, SsfsError
from ssfs.model.peer import LOCAL, Peer
from ssfs.monitor import Monitor, NullMonitor
from ssfs.net.channel import Channel
from ssfs.protocol.messages import PROTOCOL_VERSION, Hello
from ssfs.protocol.restoring import Fetch, Fetched
from ssfs.protocol.states import Role
from ssfs.store.store import Store
from ssfs.store.version import Version
from tests.fakes.syncs import Backup

JOIN_S = 60
Join = Callable[[], tuple[socket.socket, socket.socket]]


class RestoreServer:
    """A server of one store; each session is a thread.

    Attributes:
        served: What was sent, session by session.
        errors: What sessions ended with, but for clients that went away.
        lost: Sessions whose client went away.
        received_bytes: What the last client took off the line.
    """

    def __init__(self, store: bytes | Path, peer: Peer = LOCAL, join: Join = socket.socketpair):
        self.served: list[RestoreServed] = []
        self.errors: list[BaseException] = []
        self.lost = 0
        self.received_bytes = 0
        self._store = os.fsencode(store)
        self._peer = peer
        self._join = join

    @contextlib.contextmanager
    def session(self) -> Iterator[Channel]:
        """A client's channel in the state READY; the session is over when the block ends."""
        ours, theirs = self._join()
        thread = threading.Thread(target=self._serve, args=(theirs,))
        thread.start()
        try:
            with Channel(ours, Role.CLIENT) as channel:
                channel.send(Hello(PROTOCOL_VERSION, "test"))
                channel.receive()
                yield channel
        finally:
            thread.join(JOIN_S)
            assert not thread.is_alive(), "the server's session goes on"

    def _serve(self, stream: socket.socket) -> None:
        with Channel(stream, Role.SERVER) as channel:
            try:
                channel.receive()
                channel.send(Hello(PROTOCOL_VERSION, "test"))
                request = channel.receive()
                assert isinstance(request, Fetch)
                served = serve_restore(channel, Store.open(self._store), self._peer, request)
                self.served.append(served)
            except ConnectionLost:
                self.lost += 1
            except SsfsError as error:
                self.errors.append(error)
                with contextlib.suppress(ConnectionLost):
                    channel.send(to_refusal(error))
            except BaseException as error:
                self.errors.append(error)

    def restore(
        self,
        request: Fetch,
        target: Path,
        monitor: Monitor | None = None,
        options: RestoreOptions = DEFAULT_OPTIONS,
    ) -> tuple[Fetched, RestoreResult]:
        """One restore; raises what the client raises."""
        where = os.fsencode(target)
        with self.session() as channel:
            try:
                return fetch_version(
                    channel, request, where, monitor or NullMonitor(), SystemClock(), options
                )
            finally:
                self.received_bytes = channel.received_bytes


def request_of(version: Version, *paths: str | bytes) -> Fetch:
    """What a client says to restore parts of this version."""
    parts = os.fsdecode(version.path).split("/")
    point, task = parts[-5], parts[-3]
    return Fetch(point, task, str(version.id), [os.fsencode(path) for path in paths])


def store_of(version: Version) -> bytes:
    """The store a version lies in."""
    return b"/".join(version.path.split(b"/")[:-6])


def restore_here(
    version: Version,
    target: Path,
    *paths: str,
    monitor: Monitor | None = None,
    options: RestoreOptions = DEFAULT_OPTIONS,
) -> RestoreResult:
    """Restore from a store of this machine."""
    return restore_version(
        version,
        tuple(os.fsencode(path) for path in paths),
        os.fsencode(target),
        monitor or NullMonitor(),
        SystemClock(),
        options,
    )


def restore_remotely(
    version: Version,
    target: Path,
    *paths: str,
    monitor: Monitor | None = None,
    options: RestoreOptions = DEFAULT_OPTIONS,
) -> RestoreResult:
    """Restore through a server of the version's store."""
    server = RestoreServer(store_of(version))
    _, result = server.restore(request_of(version, *paths), target, monitor, options)
    assert not server.errors
    return result


def make_source(root: Path) -> Path:
    """A small tree with one of most things that a restore treats differently."""
    (root / "a" / "b").mkdir(parents=True)
    (root / "other").mkdir()
    (root / "a" / "large").write_bytes(noise(1 << 20))
    (root / "a" / "small").write_text("small")
    (root / "a" / "b" / "deep").write_text("deep")
    (root / "a" / "link").symlink_to("small")
    os.mkfifo(root / "a" / "fifo")
    (root / "other" / "file").write_text("other")
    os.link(root / "a" / "small", root / "other" / "hard")
    return root


def noise(size: int, seed: int = 0) -> bytes:
    """Bytes that do not compress, the same each time."""
    return random.Random(seed).randbytes(size)


def backed_up(tmp_path: Path, source: Path) -> Version:
    """The only version of a source; a copy of the source is kept in `as-it-was`."""
    backup = Backup(tmp_path / "store")
    backup.sync(source)
    subprocess.run(["cp", "-a", source, tmp_path / "as-it-was"], check=True)
    return backup.newest()
