"""The view for Samba (`-o samba`): what its vfs_shadow_copy2 needs to show Windows "Previous Versions".

That module lists one directory, its snapdir, takes each name of the form `@GMT-2024.05.01-12.30.00` for a snapshot of that second
(UTC) and passes over all others; what a client asks for it looks up below such a name. So each task's directory has a
directory `.samba` with one such name for each version and nothing else. It is reached by name and not listed:
whoever walks through a task would meet every version twice.

A name is one version's for as long as the mount lives, whatever expires meanwhile. Of versions of one second all but one
have recorded at their commit by how many seconds theirs is later, so names survive a new mount too. Versions that
have nothing recorded and meet all the same (from an older ssfs) move on by a second each, in their sequence.
"""

import datetime
import os
from typing import TYPE_CHECKING

from typing_extensions import override

from ssfs.model.version import VersionId
from ssfs.mount.names import Binding, Listed, ShownVersion
from ssfs.mount.top import Line, Mounted, TaskDirectory, VersionsDirectory

if TYPE_CHECKING:
    from collections.abc import Sequence

VIEW = ".samba"
FORMAT = "@GMT-%Y.%m.%d-%H.%M.%S"
"""The names, as strftime and smb.conf write them; in UTC."""

_SECOND = datetime.timedelta(seconds=1)
_LATE = datetime.datetime(9999, 12, 31, tzinfo=datetime.UTC)


class GmtNames:
    """The names of a task's versions: each is one version's, and stays so."""

    def __init__(self) -> None:
        self._names: dict[VersionId, str] = {}
        self._given: set[str] = set()

    def name(self, version: ShownVersion) -> str:
        """The name of a version; ask for the older ones first."""
        name = self._names.get(version.id)
        if name is None:
            name = self._names[version.id] = self._free_name(version)
            self._given.add(name)
        return name

    def _free_name(self, version: ShownVersion) -> str:
        second = version.id.time
        # The last seconds there are have none after them.
        step = -_SECOND if second > _LATE else _SECOND
        if second <= _LATE:
            second += datetime.timedelta(seconds=version.shift_s)
        while (name := second.strftime(FORMAT)) in self._given:
            second += step
        return name


class SambaDirectory(VersionsDirectory):
    """The directory of a task with a name of this form for each version."""

    def __init__(self, mounted: Mounted, path: bytes, task: TaskDirectory) -> None:
        super().__init__(mounted, path, task)
        self._task = task
        self._names = GmtNames()
        self._shown: Sequence[ShownVersion] = ()
        self._bound: dict[str, Binding] = {}
        self._listing: list[Listed] = []

    @override
    def has(self, version_id: VersionId) -> bool:
        return self._task.has(version_id)

    @property
    @override
    def looked_at(self) -> TaskDirectory:
        return self._task

    @override
    def refresh(self) -> None:
        self._task.refresh()
        self.mtime_ns = self._task.mtime_ns
        if self._task.shown is not self._shown:
            self._scan()

    @override
    def _scan(self) -> bool:
        self._shown = self._task.shown
        known = self._mounted.bindings
        # What the mount has forgotten of versions that are gone is not to be found here either.
        self._bound = {
            name: binding for name, binding in self._bound.items() if binding.number in known
        }
        self._listing = [
            Listed(name, self._bind(name, version))
            for version in self._shown
            for name in (self._names.name(version),)
        ]
        return True

    def _bind(self, name: str, version: ShownVersion) -> Binding:
        binding = self._bound.get(name)
        if binding is None:
            binding = self._bound[name] = Binding(
                next(self._mounted.binding_numbers), version, name=name
            )
            self._mounted.bindings[binding.number] = (binding, self)
        return binding

    @override
    def lookup(self, name: str) -> Binding | None:
        """The version of a name; also of one that has expired, while somebody is in it."""
        binding = self._bound.get(name)
        if binding is None or not self._is_alive(binding):
            return None
        return binding

    def _is_alive(self, binding: Binding) -> bool:
        return self.has(binding.version.id) or self._mounted.versions.is_held(binding.version)

    @override
    def lines(self) -> list[Line]:
        return [
            Line(binding.version.id.sequence, os.fsencode(name), binding)
            for name, binding in self._listing
        ]
