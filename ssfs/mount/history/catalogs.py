"""The catalogs of a task's versions, asked one after the other by numbers from 0, the oldest."""

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from ssfs.errors import CorruptStore
from ssfs.mount.top import Mounted, TaskDirectory
from ssfs.store.catalog.reader import CatalogReader
from ssfs.store.opened import CatalogAbsent, OpenVersion, VersionGone

if TYPE_CHECKING:
    from ssfs.mount.names import ShownVersion

A = TypeVar("A")
_log = logging.getLogger(__name__)


class Catalogs:
    """The versions that a task shows, as of the last `refresh`.

    Attributes:
        task: Whose they are.
        versions: By sequence.
    """

    def __init__(self, mounted: Mounted, task: TaskDirectory) -> None:
        self.task = task
        self.versions: Sequence[ShownVersion] = ()
        self._mounted = mounted
        self._complained: set[bytes] = set()
        self._usable: set[bytes] = set()
        self._unasked: list[int] = []

    def refresh(self) -> bool:
        """Look which versions there are; whether they are others than before."""
        self.task.refresh()
        if self.task.shown is self.versions:
            return False
        self.versions = self.task.shown
        paths = [version.path for version in self.versions]
        self._complained.intersection_update(paths)
        self._usable.intersection_update(paths)
        self._unasked = [index for index, path in enumerate(paths) if path not in self._usable]
        return True

    def make_usable(self) -> None:
        """Have every catalog compared with its digest before any question is put to them.

        A question that needs all of them would begin anew, with the newest, for each that must be read first. This goes
        on where it was.

        Raises:
            CatalogUnchecked: One must be read first; call it again then.
            OSError: One cannot be opened.
        """
        while self._unasked:
            index = self._unasked[-1]
            self.ask(index, _catalog_of)
            self._usable.add(self.versions[index].path)
            self._unasked.pop()

    def ask(self, index: int, question: Callable[[OpenVersion], A]) -> A | None:
        """The answer of a version; None if it is just being deleted, or its catalog is damaged.

        Raises:
            CatalogAbsent: It must be fetched first, perhaps once more.
            OSError: It cannot be opened.
        """
        version = self.versions[index]
        opened: OpenVersion | None = None
        try:
            opened = self._mounted.catalogs.use(version, self._mounted.clock.monotonic_s())
            return question(opened)
        except VersionGone:
            pass
        except CorruptStore as error:
            if opened is not None and opened.discard():
                raise CatalogAbsent from error
            if version.path not in self._complained:
                self._complained.add(version.path)
                _log.error("Version %s is left out of histories: %s", version.id, error)
        return None


def _catalog_of(opened: OpenVersion) -> CatalogReader:
    return opened.catalog
