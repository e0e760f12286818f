"""Catalogs are believed once they are, byte by byte, what was committed (DECISIONS.md, 15 and 34).

Reading a large catalog from a cold disk takes a second, and a handler must not wait: who asks for one that was not read
yet gets `CatalogUnchecked`, lets `CatalogCheck.run` do it in a thread, and asks again.
"""

import contextlib
import os

from ssfs.errors import CorruptStore
from ssfs.fsio.disk import digest_content
from ssfs.store.version import read_record

_MOST_REMEMBERED = 10_000

_Stamp = tuple[int, int, int, int]
"""Device, inode, size, mtime in ns: another one is another catalog."""


class CatalogUnchecked(Exception):
    """A catalog must be compared with its digest first."""

    def __init__(self, check: "CatalogCheck") -> None:
        super().__init__()
        self.check = check


class CheckedCatalogs:
    """Which catalogs are what was committed, and which are not; each is read once."""

    def __init__(self, *, at_once: bool = False) -> None:
        """Know of none yet.

        Args:
            at_once: Read a catalog when it is asked for, instead of raising `CatalogUnchecked`.
        """
        self._at_once = at_once
        self._is_right: dict[_Stamp, bool] = {}

    def check(self, version_fd: int, path: bytes) -> None:
        """Make sure that the catalog of a version is what was committed, as far as that is recorded.

        Args:
            version_fd: The version's directory, which may be on its way to trash/.
            path: As it was called when it was opened, for the messages.

        Raises:
            CatalogUnchecked: That is not known yet.
            CorruptStore: It is not, or the record is damaged.
            OSError: It cannot be opened.
        """
        catalog_path = os.path.join(path, b"catalog.db")
        try:
            status = os.stat(b"catalog.db", dir_fd=version_fd, follow_symlinks=False)
        except FileNotFoundError as error:
            raise CorruptStore("The catalog is missing", path=catalog_path) from error
        stamp = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        is_right = self._is_right.get(stamp)
        if is_right is None:
            recorded = read_record(b"/proc/self/fd/%d/." % version_fd).catalog_file
            if recorded:
                fd = os.open(
                    b"catalog.db", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=version_fd
                )
                check = CatalogCheck(self, fd, stamp, recorded)
                if not self._at_once:
                    raise CatalogUnchecked(check)
                with contextlib.closing(check):
                    check.run()
                is_right = self._is_right[stamp]
            else:
                is_right = True
                self.remember(stamp, is_right=True)
        if not is_right:
            raise CorruptStore("The catalog is not what was committed", path=catalog_path)

    def knows(self, stamp: _Stamp) -> bool:
        """Whether it was found out."""
        return stamp in self._is_right

    def remember(self, stamp: _Stamp, *, is_right: bool) -> None:
        """Note what was found out."""
        if len(self._is_right) >= _MOST_REMEMBERED:
            self._is_right.clear()
        self._is_right[stamp] = is_right


class CatalogCheck:
    """The reading of one catalog; `run` it once, in any thread, or `close` it."""

    def __init__(self, checked: CheckedCatalogs, fd: int, stamp: _Stamp, recorded: str) -> None:
        self._checked = checked
        self._fd = fd
        self._stamp = stamp
        self._recorded = recorded

    @property
    def is_done(self) -> bool:
        """Whether another one has found it out meanwhile."""
        return self._checked.knows(self._stamp)

    def run(self) -> None:
        """Find it out.

        Raises:
            OSError: The catalog cannot be read.
        """
        is_right = digest_content(self._fd).hex() == self._recorded
        self._checked.remember(self._stamp, is_right=is_right)

    def close(self) -> None:
        """Close the catalog."""
        os.close(self._fd)
