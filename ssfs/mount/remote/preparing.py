"""What a question to the tree needs is fetched before the question is put.

The tree answers at once, from what is here (`ssfs.mount.tree`). So for each request of the kernel `Preparer` first sees to it that
what the answer is made of is here: the listing of a directory above the versions, not older than `LISTED_S`; a version, held at
the server; rows of its catalog; for a question to a `.history` the whole catalogs of all versions. Between the last look and the tree's answer nothing awaits, so it still is.
"""

import contextlib
import errno
import functools
from collections.abc import Callable, Iterator

from ssfs.clock import Clock
from ssfs.engine.browse.requests import (
    AHEAD_ROWS,
    WALK_ROWS,
    BytesQuestion,
    ListingQuestion,
    RowsQuestion,
)
from ssfs.engine.browse.shelf import Shelf, catalog_key
from ssfs.errors import CorruptStore, RemoteProtocolError, StoreFull
from ssfs.model.entry import ROOT_ID, Kind
from ssfs.mount.attributes import split_inode_number
from ssfs.mount.history.view import NAME as HISTORY
from ssfs.mount.history.view import Histories
from ssfs.mount.inodes import Inodes
from ssfs.mount.names import ShownVersion
from ssfs.mount.remote.catalogs import WholeCatalogs
from ssfs.mount.remote.content import Pieces
from ssfs.mount.remote.server import Server
from ssfs.mount.remote.space import ServerSpace
from ssfs.mount.remote.top import ListedDirectory, ListedTask
from ssfs.mount.remote.version import RemoteVersion, ref_of
from ssfs.mount.top import Shortcut
from ssfs.mount.wire import Space
from ssfs.protocol.browsing import LinkedNames
from ssfs.protocol.messages import CatalogBatch
from ssfs.store.opened import OpenVersion, VersionGone

LISTED_S = 0.5
"""With what the kernel may believe as long (`TOP_TIMEOUT_S`) this is the second after which a change shows."""

_WALK_S = 2.0
_STEPS_OF_WALK = 3
"""So many directories in a row that were not here, each so soon after the one before, are a walk through the tree."""

_LOOKS = 10
_MOST_OF_HEAD = 200


class Preparer:
    """Fetches what is missing."""

    def __init__(
        self,
        server: Server,
        shelf: Shelf,
        inodes: Inodes,
        histories: Histories,
        catalogs: WholeCatalogs,
        clock: Clock,
    ) -> None:
        """Prepare for questions to `inodes` and `histories`."""
        self._server = server
        self._shelf = shelf
        self._inodes = inodes
        self._clock = clock
        self._histories = histories
        self._catalogs = catalogs
        self._space = ServerSpace(server, clock)
        self._pieces = Pieces(server)
        self._entered: dict[bytes, RemoteVersion] = {}
        # In which version directories are entered one after the other, how many, and when the last one came.
        self._walk = (b"", 0, 0.0)

    def open_version(self, path: bytes) -> OpenVersion:
        """The version that was entered just now."""
        try:
            return self._entered.pop(path)
        except KeyError:
            raise VersionGone from None

    # -- before a question -----------------------------------------------------------------------

    async def row(self, inode: int) -> None:
        """What is to be known of an inode itself.

        Raises:
            Stale: It is not there any more.
            CorruptStore: The server has lost it.
            OSError: The server does not answer.
        """
        await self._prepare(inode, inside=False)

    async def inside(self, inode: int) -> None:
        """All that is in a directory; raises as `row`."""
        await self._prepare(inode, inside=True)

    async def name(self, parent: int, name: bytes) -> None:
        """What a directory has under a name; raises as `row`."""
        if name not in (b".", b".."):
            await self.inside(parent)
            if name == HISTORY and (task := self._task_with_history(parent)):
                await self._history(task)
            return
        await self.row(parent)
        number, entry_id = split_inode_number(parent)
        is_in_version = number and not self._histories.has(number)
        if name == b".." and is_in_version and entry_id != ROOT_ID:
            version = self._inodes.use(self._inodes.binding(number))
            entry = version.catalog.entry(entry_id)
            if entry is not None:
                await self._rows(self._inodes.binding(number).version, entry.parent, inside=False)

    async def fact(self, inode: int, name: bytes) -> None:
        """An extended attribute; raises as `row`."""
        await self.row(inode)
        number, entry_id = split_inode_number(inode)
        if name != b"user.ssfs.damaged" or not number or self._histories.has(number):
            return
        version = self._inodes.use(self._inodes.binding(number))
        entry = version.catalog.entry(entry_id)
        if entry is None or entry.kind != Kind.FILE or not isinstance(version, RemoteVersion):
            return
        try:
            await self._server.ask(BytesQuestion(version.ref, entry_id, 0, 0))
        except CorruptStore:
            version.damaged.add(entry_id)
        else:
            version.damaged.discard(entry_id)

    async def _prepare(self, inode: int, *, inside: bool) -> None:
        number, entry_id = split_inode_number(inode)
        if number and self._histories.has(number):
            task = self._histories.task_of(number)
            assert isinstance(task, ListedTask)
            await self._history(task)
            return
        if number:
            binding = self._inodes.binding(number)
            await self._rows(binding.version, entry_id, inside=inside)
            return
        node = self._inodes.node(entry_id)
        directory = node.task if isinstance(node, Shortcut) else node.looked_at
        if isinstance(directory, ListedDirectory):
            await self._list(directory)

    # -- histories -------------------------------------------------------------------------------

    def _task_with_history(self, inode: int) -> ListedTask | None:
        number, entry_id = split_inode_number(inode)
        node = None if number else self._inodes.node(entry_id)
        return node if self._histories.are_offered and isinstance(node, ListedTask) else None

    async def _history(self, task: ListedTask) -> None:
        """Have the catalogs of all versions here that the task shows."""
        for _ in range(_LOOKS):
            await self._list(task)
            if self._catalogs.are_here(task.shown):
                return
            await self._catalogs.fetch(task, task.shown)
        raise OSError(errno.EIO, "Versions come faster than they are here", self._server.location)

    # -- the disk --------------------------------------------------------------------------------

    async def space(self) -> Space:
        """How full the server's disk is, as far as is known."""
        return await self._space.space()

    # -- listings --------------------------------------------------------------------------------

    async def _list(self, directory: ListedDirectory) -> None:
        now_s = self._clock.monotonic_s()
        if now_s - directory.listed_s < LISTED_S:
            return

        async def ask() -> None:
            where = directory.where
            question = ListingQuestion(where.point, where.task, directory.stamp)
            await self._server.ask(question)
            with self._broken_rules():
                directory.take(question, now_s)

        await self._server.once(directory, ask)

    @contextlib.contextmanager
    def _broken_rules(self) -> Iterator[None]:
        try:
            yield
        except RemoteProtocolError as error:
            raise OSError(errno.EIO, str(error), self._server.location) from error

    # -- rows ------------------------------------------------------------------------------------

    async def _rows(self, version: ShownVersion, entry_id: int, *, inside: bool) -> None:
        """Have the row of an entry here; `inside`, all that is in it."""
        held = self._inodes.mounted.versions
        for _ in range(_LOOKS):
            if not held.is_held(version):
                await self._server.once(version.path, functools.partial(self._enter, version.path))
            try:
                opened = held.use(version, self._clock.monotonic_s())
            except VersionGone:
                continue
            assert isinstance(opened, RemoteVersion)
            try:
                has = opened.catalog.is_complete if inside else opened.catalog.has
                if has(entry_id):
                    return
            except CorruptStore:
                opened.discard()
                continue
            fetch = functools.partial(self._fetch, opened, entry_id, inside=inside)
            await self._server.once((version.path, entry_id, inside), fetch)
        raise OSError(errno.EIO, "It is gone as soon as it is here", self._server.location)

    async def _enter(self, path: bytes) -> None:
        """Have the server keep a version, and its root and its owners here."""
        ref = ref_of(path)
        link = self._server.link
        head: list[CatalogBatch] = []

        def take(rows: CatalogBatch | list[LinkedNames]) -> None:
            if len(head) >= _MOST_OF_HEAD:
                raise RemoteProtocolError("The server sent owners without an end")
            if isinstance(rows, CatalogBatch):
                head.append(rows)

        question = RowsQuestion(ref, ROOT_ID, -1, take)
        link.hold(ref)
        try:
            await self._server.ask(question)
            assert question.end is not None
            lease = self._shelf.lease(catalog_key(question.end.catalog_digest, path))
            try:
                with self._broken_rules():
                    for batch in head:
                        self._store(functools.partial(lease.catalog.store, batch, ROOT_ID))
            except BaseException:
                lease.release()
                raise
        except BaseException:
            link.let_go(ref)
            raise
        self._entered[path] = RemoteVersion(path, lease, link, self._pieces)

    async def _fetch(self, version: RemoteVersion, entry_id: int, *, inside: bool) -> None:
        def take(rows: CatalogBatch | list[LinkedNames]) -> None:
            self._server.in_loop(lambda: self._keep(version, entry_id, rows))

        walks = inside and self._is_walk(version, entry_id)
        ahead = (WALK_ROWS if walks else AHEAD_ROWS) if inside else -1
        question = RowsQuestion(version.ref, entry_id, ahead, take, walks=walks)
        # So that it is not closed meanwhile.
        version.handles += 1
        try:
            await self._server.ask(question)
        finally:
            version.handles -= 1
        end = question.end
        assert end is not None
        with self._broken_rules():
            if inside and entry_id not in end.directories:
                raise RemoteProtocolError(f"The server sent nothing of directory {entry_id}")
            self._store(lambda: version.catalog.mark_complete(end.directories))
        if inside:
            path, steps, _ = self._walk
            steps = steps + 1 if path == version.path else 1
            self._walk = (version.path, steps, self._clock.monotonic_s())

    def _is_walk(self, version: RemoteVersion, entry_id: int) -> bool:
        """Whether what lies beside a directory is likely to be asked for next."""
        path, steps, last_s = self._walk
        if path != version.path or self._clock.monotonic_s() - last_s > _WALK_S:
            self._walk = (version.path, 0, 0.0)
            return False
        entry = version.catalog.entry(entry_id)
        return (
            steps >= _STEPS_OF_WALK and entry is not None and version.catalog.has_all_above(entry)
        )

    def _keep(
        self, version: RemoteVersion, asked: int, rows: CatalogBatch | list[LinkedNames]
    ) -> None:
        if isinstance(rows, CatalogBatch):
            self._store(lambda: version.catalog.store(rows, asked))
        else:
            self._store(lambda: version.catalog.store_links(rows))

    def _store(self, work: Callable[[], None]) -> None:
        """Write to a catalog; on a full disk once more, without what nobody needs there."""
        try:
            work()
        except StoreFull:
            self._shelf.drop_unused(0)
            work()
