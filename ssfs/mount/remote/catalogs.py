"""The whole catalogs of tasks whose `.history` is looked at.

Each is fetched once, and kept on the shelf under its logical digest: where there is one of a version near, only what differs is
fetched. While somebody looks they are kept from being dropped, and for as long after the last look as versions are held.
The versions themselves are not held at the server: what is asked of a catalog needs no more than the catalog.
"""

import errno
import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import trio

from ssfs.clock import Clock
from ssfs.engine.browse.requests import CatalogQuestion, Lacked
from ssfs.engine.browse.shelf import Lease, Shelf, catalog_key, is_digest
from ssfs.engine.browse.whole import Base, FetchedCatalog, WrongCatalog
from ssfs.errors import CorruptStore, SsfsError, StoreFull
from ssfs.mount.inodes import Stale
from ssfs.mount.names import ShownVersion
from ssfs.mount.remote.server import Server
from ssfs.mount.remote.version import WholeVersion, ref_of
from ssfs.protocol.browsing import CatalogPart
from ssfs.store.opened import CatalogAbsent, VersionGone

R = TypeVar("R")

_GONE_S = 1.0
_DAMAGED_S = 60.0
_FULL_S = 5.0
"""For so long it is believed that a version cannot be had, and that the disk is full."""


class _Held:
    """A catalog that is kept on the shelf."""

    def __init__(self, lease: Lease) -> None:
        self.lease = lease
        self.used_s = 0.0


class _Lacking(NamedTuple):
    """Why a catalog cannot be had, and until when that is believed."""

    error: CorruptStore | VersionGone
    until_s: float


class WholeCatalogs:
    """What is here of them."""

    def __init__(self, server: Server, shelf: Shelf, clock: Clock, idle_s: float) -> None:
        """Fetch nothing yet; keep each on the shelf for `idle_s` after it was last asked for."""
        self._server = server
        self._shelf = shelf
        self._clock = clock
        self._idle_s = idle_s
        self._held: dict[bytes, _Held] = {}
        self._lacking: dict[bytes, _Lacking] = {}
        self._fetching = 0
        self._full: StoreFull | None = None
        self._full_until_s = 0.0

    def open_version(self, path: bytes) -> WholeVersion:
        """A version whose catalog is here.

        Raises:
            CatalogAbsent: It is not.
            CorruptStore: The server has lost it.
            VersionGone: The version was deleted.
        """
        held = self._held.get(path)
        if held is not None and held.lease.is_whole:
            return WholeVersion(path, held.lease.another())
        if lacking := self._lacking.get(path):
            raise lacking.error
        raise CatalogAbsent

    def are_here(self, versions: Sequence[ShownVersion]) -> bool:
        """Whether questions to these versions can be answered; they stay here then until nobody has asked for a while."""
        now_s = self._clock.monotonic_s()
        # All of them are asked: it keeps them.
        return [version for version in versions if not self._is_here(version, now_s)] == []

    def _is_here(self, version: ShownVersion, now_s: float) -> bool:
        held = self._held.get(version.path)
        if held is None:
            lease = self._shelf.lease(catalog_key(version.catalog_digest, version.path))
            if not lease.is_whole:
                lease.release()
                return self._is_lacking(version, now_s)
            held = self._held[version.path] = _Held(lease)
        held.used_s = now_s
        return held.lease.is_whole

    def _is_lacking(self, version: ShownVersion, now_s: float) -> bool:
        lacking = self._lacking.get(version.path)
        if lacking is not None and now_s >= lacking.until_s:
            del self._lacking[version.path]
            return False
        return lacking is not None

    def close_idle(self) -> None:
        """Keep no longer what nobody has asked for in a while."""
        if self._fetching:
            return
        now_s = self._clock.monotonic_s()
        for path, held in list(self._held.items()):
            if now_s - held.used_s >= self._idle_s:
                del self._held[path]
                held.lease.release()
        self._lacking = {p: lack for p, lack in self._lacking.items() if now_s < lack.until_s}

    # -- fetching --------------------------------------------------------------------------------

    async def fetch(self, task: object, versions: Sequence[ShownVersion]) -> None:
        """Fetch those that are not here, or find out that they cannot be had.

        Args:
            task: Whose they are: what somebody is fetching already is waited for.
            versions: By sequence.

        Raises:
            StoreFull: There is no room for all of them in the cache.
            OSError: The server does not answer.
        """
        if self._clock.monotonic_s() < self._full_until_s and self._full is not None:
            raise self._full
        await self._server.once((task, "catalogs"), lambda: self._fetch_all(versions))

    async def _fetch_all(self, versions: Sequence[ShownVersion]) -> None:
        self._fetching += 1
        try:
            await self._fetch_each(versions)
        except StoreFull as error:
            # Without all of them none is of use, and whoever enters a version needs room, too.
            for version in versions:
                if (held := self._held.pop(version.path, None)) is not None:
                    held.lease.release()
            self._shelf.drop_unused(0)
            self._full, self._full_until_s = error, self._clock.monotonic_s() + _FULL_S
            raise
        finally:
            self._fetching -= 1

    async def _fetch_each(self, versions: Sequence[ShownVersion]) -> None:
        for index, version in enumerate(versions):
            if self._is_here(version, self._clock.monotonic_s()):
                continue
            try:
                await self._fetch(version, self._nearest(versions, index))
            except Stale:
                self._note_lacking(version, VersionGone(), _GONE_S)
            except CorruptStore as error:
                self._note_lacking(version, error, _DAMAGED_S)

    def _note_lacking(
        self, version: ShownVersion, error: CorruptStore | VersionGone, for_s: float
    ) -> None:
        self._lacking[version.path] = _Lacking(error, self._clock.monotonic_s() + for_s)

    def _nearest(self, versions: Sequence[ShownVersion], index: int) -> ShownVersion | None:
        """The version next to one whose catalog is here: it has most rows in common."""
        for other in (*reversed(versions[:index]), *versions[index + 1 :]):
            held = self._held.get(other.path)
            if held is not None and held.lease.is_whole and is_digest(other.catalog_digest):
                return other
        return None

    async def _fetch(self, version: ShownVersion, base: ShownVersion | None) -> None:
        """Fetch one; without the base, if it does not lead there."""
        try:
            await self._fetch_by_parts(version, base)
        except StoreFull:
            self._shelf.drop_unused(0)
        except (Stale, CorruptStore):
            if base is None:
                raise
        else:
            return
        await self._fetch_by_parts(version, None)

    async def _fetch_by_parts(self, version: ShownVersion, base: ShownVersion | None) -> None:
        """Fetch one.

        Raises:
            Stale: The server does not have it, or not the base.
            CorruptStore: The server has lost one of them, or what it sent is not what was committed.
            StoreFull: There is no room for it.
            OSError: It cannot be had for another reason.
        """
        path, start = self._shelf.new_path(), None
        refs = [ref_of(version.path)]
        if base is not None:
            start = Base(self._held[base.path].lease.path, bytes.fromhex(base.catalog_digest))
            refs.append(ref_of(base.path))
        fetched = await self._in_thread(lambda: FetchedCatalog.begin(path, start))
        try:
            while not fetched.has_all:
                base_id = str(base.id) if base else ""
                part = await self._ask(
                    CatalogQuestion(refs[0], base_id, fetched.through, fetched.take)
                )
                await self._in_thread(functools.partial(fetched.end_part, part))
            digest = version.catalog_digest
            wanted = bytes.fromhex(digest) if is_digest(digest) else b""
            await self._in_thread(lambda: fetched.finish(wanted))
            self._keep(version, path)
        finally:
            for ref in refs:
                self._server.link.has_looked(ref)
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(fetched.close)

    async def _ask(self, question: CatalogQuestion) -> CatalogPart:
        try:
            await self._server.ask(question)
        except (OSError, CorruptStore) as error:
            if isinstance(question.failure, StoreFull):
                raise question.failure from error
            if isinstance(error, CorruptStore) and not isinstance(question.failure, Lacked):
                raise self._trouble(error) from error
            raise
        assert question.part is not None
        return question.part

    async def _in_thread(self, work: Callable[[], R]) -> R:
        """Do what has to do with the cache's disk alone."""
        try:
            return await trio.to_thread.run_sync(work)
        except (StoreFull, WrongCatalog):
            raise
        except SsfsError as error:
            raise self._trouble(error) from error

    def _trouble(self, error: SsfsError) -> OSError:
        """What is no fault of the version: none may be left out of a history for it."""
        return OSError(errno.EIO, str(error), self._server.location)

    def _keep(self, version: ShownVersion, path: bytes) -> None:
        held = self._held.get(version.path)
        if held is None:
            lease = self._shelf.lease(catalog_key(version.catalog_digest, version.path))
            held = self._held[version.path] = _Held(lease)
        held.lease.replace(path)
        held.used_s = self._clock.monotonic_s()
