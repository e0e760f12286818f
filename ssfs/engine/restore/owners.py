"""Who owns what on this machine: what the user says, else the recorded name, else the number."""

import grp
import os
import pwd

from ssfs.engine.restore.options import OwnerMap
from ssfs.model.entry import GROUP, USER, Entry
from ssfs.store.catalog.reader import CatalogReader


class Owners:
    """The users and groups of a catalog, by the numbers they have here."""

    def __init__(self, catalog: CatalogReader, owner_map: OwnerMap) -> None:
        self._map = owner_map
        self._names = {
            (principal.kind, principal.number): os.fsdecode(principal.name)
            for principal in catalog.principals()
        }
        self._local: dict[tuple[int, int], int] = {}
        self._pairs: dict[tuple[int, int], tuple[int, int]] = {}

    def of(self, entry: Entry) -> tuple[int, int]:
        """User and group number of an entry."""
        recorded = (entry.uid, entry.gid)
        found = self._pairs.get(recorded)
        if found is None:
            found = self._number(USER, entry.uid), self._number(GROUP, entry.gid)
            self._pairs[recorded] = found
        return found

    def local(self, kind: int, number: int) -> int:
        """This machine's number for a user's or group's number of the source."""
        return self._number(kind, number)

    def _number(self, kind: int, number: int) -> int:
        key = (kind, number)
        if key not in self._local:
            self._local[key] = self._find(kind, number)
        return self._local[key]

    def _find(self, kind: int, number: int) -> int:
        name = self._names.get((kind, number), "")
        chosen = self._map.users if kind == USER else self._map.groups
        for called in (name, str(number)):
            if called in chosen:
                return chosen[called]
        if self._map.numeric:
            return number
        try:
            return pwd.getpwnam(name).pw_uid if kind == USER else grp.getgrnam(name).gr_gid
        except (KeyError, ValueError, OSError):
            return number
