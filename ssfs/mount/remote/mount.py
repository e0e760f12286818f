"""All that a mount of a server has beyond one of this machine."""

import contextlib

from ssfs.clock import Clock
from ssfs.engine.browse.shelf import open_shelf
from ssfs.engine.cache import cache_root
from ssfs.errors import InternalError
from ssfs.mount.history.view import Histories
from ssfs.mount.inodes import Inodes
from ssfs.mount.remote.catalogs import WholeCatalogs
from ssfs.mount.remote.preparing import Preparer
from ssfs.mount.remote.server import Server
from ssfs.mount.remote.target import RemoteTarget
from ssfs.mount.remote.top import ListedDirectory, ListedGroup, ListedTask, Where
from ssfs.mount.top import Mounted
from ssfs.store.opened import OpenVersion


class RemoteMount:
    """A mount of a server's store, or of a part of it.

    Attributes:
        target: What is mounted.
    """

    def __init__(
        self, target: RemoteTarget, clock: Clock, patience_s: float, idle_s: float
    ) -> None:
        """Connect to nothing yet: a process in the background starts with no descriptor.

        Args:
            target: What is mounted.
            clock: The time.
            patience_s: For how long to wait for a server that says nothing.
            idle_s: For how long after the last look at a history its catalogs are kept here whatever their size.
        """
        self.target = target
        self._clock = clock
        self._patience_s = patience_s
        self._idle_s = idle_s
        self._stack = contextlib.ExitStack()
        self._preparer: Preparer | None = None
        self._catalogs: WholeCatalogs | None = None

    def start(self, inodes: Inodes, histories: Histories) -> Preparer:
        """Connect, inside of trio; what prepares for questions to these.

        Raises:
            ConfigError: The cache cannot be used.
        """
        target = self.target
        shelf = self._stack.enter_context(open_shelf(cache_root(), target.location))
        server = Server(target.connect, target.store, self._clock, self._patience_s)
        self._catalogs = WholeCatalogs(server, shelf, self._clock, self._idle_s)
        self._preparer = Preparer(server, shelf, inodes, histories, self._catalogs, self._clock)
        server.start()
        self._stack.callback(server.link.stop)
        return self._preparer

    def close_idle(self) -> None:
        """Let go of what nobody has used for a while; call it every now and then."""
        if self._catalogs is not None:
            self._catalogs.close_idle()

    def close(self) -> None:
        """Leave the server."""
        self._stack.close()

    def open_version(self, path: bytes) -> OpenVersion:
        """A version, entered before."""
        if self._preparer is None:
            raise InternalError("Nothing is prepared before the start")
        return self._preparer.open_version(path)

    def open_catalog(self, path: bytes) -> OpenVersion:
        """A version of which the catalog alone is asked, and is here."""
        if self._catalogs is None:
            raise InternalError("Nothing is prepared before the start")
        return self._catalogs.open_version(path)

    def root(self, mounted: Mounted) -> ListedDirectory:
        """The root of the mount."""
        where = Where(self.target.store, self.target.point, self.target.task)
        kind = ListedTask if where.task else ListedGroup
        return kind(mounted, where, None)
