"""Extended attributes of what is restored: what the version has is set, what it has not is taken away."""

import errno
import os

from ssfs.engine.restore.owners import Owners
from ssfs.errors import CorruptStore
from ssfs.model.entry import Entry
from ssfs.model.xattrs import ACLS, is_kept, translate_acl
from ssfs.source.xattrs import get_xattr, list_xattrs
from ssfs.store.catalog.reader import CatalogReader

_NOT_OURS = (errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.ENOTSUP)
_SECURITY = b"security."
_REMEMBERED = 1000


class RestoredXattrs:
    """Sets the attributes of entries.

    Attributes:
        not_set: Attributes that only root may set, or that the file system has no place for.
    """

    def __init__(self, catalog: CatalogReader, owners: Owners) -> None:
        self.not_set = 0
        self._catalog = catalog
        self._owners = owners
        self._known: dict[bytes, dict[bytes, bytes]] = {}
        self._not_ours: set[bytes] = set() if os.geteuid() == 0 else {b"trusted", b"security"}

    def of(self, entry: Entry) -> dict[bytes, bytes]:
        """The attributes of an entry as they are on this machine, by name.

        Raises:
            CorruptStore: They are lost or damaged.
        """
        if not entry.xattrs:
            return {}
        known = self._known.get(entry.xattrs)
        if known is None:
            known = self._catalog.xattrs(entry)
            for acl in ACLS:
                if acl in known:
                    known[acl] = translate_acl(known[acl], self._owners.local)
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[entry.xattrs] = known
        return known

    def may_be_inherited(self, directory_fd: int) -> bool:
        """Whether what is made in an open directory may have attributes that we would take away again."""
        try:
            return any(_is_ours(os.fsencode(name)) for name in list_xattrs(directory_fd))
        except OSError as error:
            return error.errno not in _NOT_OURS

    def lacks(self, entry: Entry, there: int | bytes) -> bool:
        """Whether an open file, or what has a name (not followed), has others, as far as we can tell and set.

        What cannot be told is to be set, which says why.
        """
        try:
            names = list_xattrs(there)
            if not names and not entry.xattrs:
                return False
            wanted = self.of(entry)
            present = {name for name in map(os.fsencode, names) if _is_ours(name)}
            if not wanted and not present:
                return False
            settable = {name: wanted[name] for name in wanted if self._is_settable(name)}
            return present - wanted.keys() != set() or any(
                name not in present or get_xattr(there, name) != value
                for name, value in settable.items()
            )
        except CorruptStore:
            return True
        except OSError as error:
            return error.errno not in _NOT_OURS

    def count_unset(self, entry: Entry, there: int | bytes) -> None:
        """Count the attributes that an entry which is left as it is does not have."""
        if entry.xattrs:
            try:
                present = set(map(os.fsencode, list_xattrs(there)))
            except OSError:
                present = set()
            self.not_set += len(self.of(entry).keys() - present)

    def _is_settable(self, name: bytes) -> bool:
        return name.partition(b".")[0] not in self._not_ours

    def set(self, entry: Entry, target: int | bytes) -> str:
        """Make the attributes of an open file, or of what has a name (not followed), the entry's.

        Returns:
            What went wrong, for another reason than who we are or where it is; "" for nothing.
        """
        try:
            wanted = self.of(entry)
            present = {os.fsencode(name) for name in list_xattrs(target)}
        except CorruptStore as error:
            return f"without its extended attributes: {error.problem}"
        except OSError as error:
            if error.errno not in _NOT_OURS:
                return f"without its extended attributes: {(error.strerror or '').lower()}"
            self.not_set += len(self.of(entry))
            return ""
        problem = ""
        for name in present - wanted.keys():
            if _is_ours(name):
                problem = self._change(target, name, None) or problem
        for name, value in wanted.items():
            problem = self._change(target, name, value) or problem
        return problem

    def _change(self, target: int | bytes, name: bytes, value: bytes | None) -> str:
        follows = isinstance(target, int)
        try:
            if value is None:
                os.removexattr(target, name, follow_symlinks=follows)
            else:
                os.setxattr(target, name, value, follow_symlinks=follows)
        except OSError as error:
            if error.errno not in _NOT_OURS:
                reason = (error.strerror or "unknown error").lower()
                return f"without its extended attribute {os.fsdecode(name)}: {reason}"
            self.not_set += 1
            if error.errno in (errno.EOPNOTSUPP, errno.ENOTSUP):
                self._not_ours.add(name.partition(b".")[0])
        return ""


def _is_ours(name: bytes) -> bool:
    """Whether an attribute that no row has is taken away.

    A default ACL of the directory above leaves traces; labels are the system's to give.
    """
    return is_kept(name) and not name.startswith(_SECURITY)
