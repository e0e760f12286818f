"""Versions of a server: one that is looked into is kept from being deleted there, its rows in a partial catalog here.

Of one in whose task's history somebody looks the whole catalog is here, and nothing else.
"""

import os

from typing_extensions import override

from ssfs.engine.browse.link import BrowsingLink
from ssfs.engine.browse.partial import PartialCatalog
from ssfs.engine.browse.requests import VersionRef
from ssfs.engine.browse.shelf import Lease
from ssfs.errors import InternalError
from ssfs.model.entry import Entry
from ssfs.mount.remote.content import Pieces, RemoteContent
from ssfs.store.opened import CatalogAbsent, OpenVersion


def ref_of(path: bytes) -> VersionRef:
    """The version at a path that `ssfs.mount.remote.top` made."""
    return VersionRef(*map(os.fsdecode, path.rsplit(b"/", 3)[1:]))


class LeasedVersion(OpenVersion):
    """A version of a server whose rows are in a catalog that the shelf of this mount lends."""

    def __init__(self, path: bytes, lease: Lease) -> None:
        """Take over the lease."""
        super().__init__(path)
        self._lease = lease

    @property
    @override
    def catalog(self) -> PartialCatalog:
        return self._lease.catalog

    @override
    def hard_links(self, group: int) -> tuple[int, int] | None:
        return self.catalog.linked(group)

    @override
    def open_file(self, entry: Entry) -> int:
        raise InternalError("A server's file has no descriptor here")

    @override
    def discard(self) -> bool:
        self.close_catalog()
        self._lease.discard()
        return True

    @override
    def close_catalog(self) -> None:
        super().close_catalog()
        self._lease.close_catalog()

    @override
    def close(self) -> None:
        self.close_catalog()
        self._lease.release()


class RemoteVersion(LeasedVersion):
    """A version of a server.

    Attributes:
        ref: Which.
        damaged: Files of it that the server was asked for and cannot read.
    """

    def __init__(self, path: bytes, lease: Lease, link: BrowsingLink, pieces: Pieces) -> None:
        """Take over the lease; the link holds the version already."""
        super().__init__(path, lease)
        self.ref = ref_of(path)
        self.damaged: set[int] = set()
        self._link = link
        self._pieces = pieces

    @override
    def open_content(self, entry: Entry) -> RemoteContent:
        return RemoteContent(self._pieces, self.ref, entry)

    @override
    def is_damaged(self, entry: Entry) -> bool:
        return entry.id in self.damaged

    @override
    def close(self) -> None:
        self._link.let_go(self.ref)
        super().close()


class WholeVersion(LeasedVersion):
    """A version of a server of which nothing but the catalog is asked, all of which is here."""

    @property
    @override
    def catalog(self) -> PartialCatalog:
        catalog = self._lease.catalog
        if not catalog.is_whole:
            raise CatalogAbsent
        return catalog

    @override
    def is_damaged(self, entry: Entry) -> bool:
        return False
