"""Syncs inside the test's own process: the real sender and receiver, in two threads.

For tests that need a clock of their own or want to look at both ends. Tests of whole programs run
the CLI instead.
"""

import os
import socket
import threading
from pathlib import Path

from ssfs.clock import Clock, SystemClock
from ssfs.engine.cache import cache_root
from ssfs.engine.greeting import greet_server
from ssfs.engine.sender import SyncRequest, SyncResult, send_version
from ssfs.engine.session import Visitor, serve_session
from ssfs.model.entry import Entry
from ssfs.model.peer import LOCAL
from ssfs.model.policy import Policy
from ssfs.monitor import NullMonitor
from ssfs.net.channel import Channel
from ssfs.protocol.states import Role
from ssfs.source.exclude import ExcludeOptions
from ssfs.store.store import Store, Task
from ssfs.store.version import Version

KEEP_ALL = Policy(keep_last=10_000)


class CutSocket(socket.socket):
    """A client's end of a connection that is cut after so many bytes have been sent through it."""

    @classmethod
    def around(cls, stream: socket.socket, cut_after: int) -> "CutSocket":
        """Take over the socket."""
        made = cls(fileno=stream.detach())
        made.left = cut_after
        return made

    left: int = 0

    def sendmsg(self, buffers, *rest):  # type: ignore[override]
        """Send what may still pass; after that the other end sees the end of the stream."""
        whole = b"".join(buffers)[: self.left]
        if not whole:
            self.shutdown(socket.SHUT_RDWR)
            raise ConnectionResetError(104, "Cut")
        sent = self.send(whole)
        self.left -= sent
        return sent


class Backup:
    """A store with one task, and syncs into it.

    Attributes:
        client_clock: Of the next syncs' client, unless it is the server's.
    """

    def __init__(self, path: Path, policy: Policy = KEEP_ALL, clock: Clock | None = None):
        self.clock = clock or SystemClock()
        self.client_clock: Clock | None = None
        self.path = path
        if path.exists() and (path / "store.toml").exists():
            self.store = Store.open(os.fsencode(path))
        else:
            self.store = Store.create(os.fsencode(path), policy, "UTC", self.clock)
        self.errors: list[BaseException] = []
        # What the task remembers of a source, if not its path.
        self.identity = ""

    def sync(
        self,
        source: Path,
        *,
        task: str = "task",
        dry_run: bool = False,
        patterns: tuple[str, ...] = (),
        caches: bool = False,
        cut_after: int | None = None,
        **more,
    ) -> SyncResult:
        """One sync; raises what the sender raises.

        With `cut_after` the connection breaks when the client has sent so many bytes. `more` are
        fields of the request.
        """
        request = SyncRequest(
            source=os.fsencode(source),
            point="main",
            task=task,
            client="client",
            source_identity=self.identity or str(source),
            exclude=more.pop("exclude", ExcludeOptions(patterns=patterns, caches=caches)),
            dry_run=dry_run,
            **more,
        )
        ours, theirs = socket.socketpair()
        if cut_after is not None:
            ours = CutSocket.around(ours, cut_after)
        server = threading.Thread(target=self._serve, args=(theirs,))
        server.start()
        try:
            with Channel(ours, Role.CLIENT) as channel:
                greet_server(channel)
                clock = self.client_clock or self.clock
                return send_version(channel, request, cache_root(), NullMonitor(), clock)
        finally:
            server.join()
            if self.errors:
                raise self.errors.pop()

    def _serve(self, stream: socket.socket) -> None:
        try:
            with Channel(stream, Role.SERVER) as channel:
                store = Store.open(self.store.path)
                serve_session(channel, store, Visitor(LOCAL), self.clock, lambda _: None)
        except Exception as error:
            self.errors.append(error)

    def task(self, name: str = "task") -> Task:
        return self.store.point("main").task(name)

    def versions(self, name: str = "task") -> list[Version]:
        return self.task(name).versions()

    def newest(self, name: str = "task") -> Version:
        return self.versions(name)[-1]


def stored(version: Version, path: str) -> os.stat_result:
    """The status of a file in a version's tree."""
    return os.lstat(os.path.join(version.path, b"tree", os.fsencode(path)))


def row(version: Version, path: str) -> Entry:
    """A row of a version's catalog."""
    with version.catalog() as catalog:
        entry = catalog.resolve(os.fsencode(path))
    assert entry is not None, path
    return entry
