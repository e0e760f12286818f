"""Which names a task's directory shows, and which version each of them leads to.

Pure: versions and the time come in as arguments, nothing here touches a disk or the kernel.

A *binding* is a pair of a name and a version. It has a number that is never used twice, and inode
numbers below it are made from that number, so everything the kernel remembers about a name belongs
to one version for ever. The rules (DESIGN.md section 5):

- A version answers to its timed name for life, and the newest version of a day to the bare date too.
- A name in use is never re-bound: `cp -a` of a dated directory that changed hands half-way copied
  a mixture of two versions, with exit status 0. A binding is in use while something is open through
  it and for `idle_s` after its last request. When its name should lead elsewhere it moves only then,
  as a new binding; until then the newer version is listed under its timed name.
- An expired version is listed no more, but its names still resolve while it is in use and *held*
  (locked open, `ssfs.store.opened`): they are the way back in for somebody who walks through it.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from ssfs.model.version import RootMetadata, VersionId, shown_names

_DATE_LENGTH = len("2024-05-01")


class ShownVersion(NamedTuple):
    """What a listing needs to know about a committed version, from its version.toml.

    Attributes:
        id: Its id.
        name: Its timed name, unique in its task.
        path: Its directory, as it was when it was found.
        root: Metadata of the directory it shows.
        shift_s: What to add to the time in its id for a second that it shares with no other version.
        catalog_digest: Of a server's: logical digest of its catalog, in hex; "" where none was recorded.
    """

    id: VersionId
    name: str
    path: bytes
    root: RootMetadata
    shift_s: int = 0
    catalog_digest: str = ""


@dataclasses.dataclass(eq=False, slots=True)
class Binding:
    """A name that leads to a version.

    Attributes:
        number: Never used twice in a mount; at least 1.
        version: Where it leads.
        last_request_s: When the kernel last asked for something through it (monotonic).
        handles: Files and directories open through it.
        name: The name.
    """

    number: int
    version: ShownVersion
    last_request_s: float = -math.inf
    handles: int = 0
    name: str = ""

    def is_idle(self, now_s: float, idle_s: float) -> bool:
        """Whether nobody has used it for that long."""
        return not self.handles and now_s - self.last_request_s >= idle_s


class Listed(NamedTuple):
    """One line of a task's listing."""

    name: str
    binding: Binding


class NameTable:
    """The names of one task, over time.

    Attributes:
        listing: What a listing shows, by sequence.
        timed: The name that is a version's for life, of each version of the last `update`.
    """

    def __init__(self, numbers: Iterator[int], idle_s: float) -> None:
        """Start without any name.

        Args:
            numbers: Where binding numbers come from; shared by all tasks of a mount.
            idle_s: For how long after its last request a binding counts as in use.
        """
        self.listing: list[Listed] = []
        self.timed: dict[VersionId, str] = {}
        self._numbers = numbers
        self._idle_s = idle_s
        self._versions: Sequence[ShownVersion] = ()
        self._bound: dict[str, Binding] = {}
        self._is_settled = True

    @property
    def latest(self) -> str | None:
        """The listed name of the newest version that is listed; None without any."""
        return self.listing[-1].name if self.listing else None

    def resolve(self, name: str) -> Binding | None:
        """Where a name leads as of the last `update`, listed or not."""
        return self._bound.get(name)

    def update(
        self,
        versions: Sequence[ShownVersion],
        now_s: float,
        is_held: Callable[[ShownVersion], bool],
    ) -> list[Binding]:
        """Bring the names up to date; call it before every question.

        Args:
            versions: The versions there are, by sequence; pass the same object when nothing changed.
            now_s: The monotonic time.
            is_held: Whether a version that is gone can still be read.

        Returns:
            The bindings made now.
        """
        if versions is self._versions and self._is_settled:
            return []
        self._versions = versions
        wanted = wanted_names(versions)
        present = {version.id for version in versions}

        def is_free(binding: Binding) -> bool:
            return binding.is_idle(now_s, self._idle_s) or not (
                binding.version.id in present or is_held(binding.version)
            )

        made = []
        self._is_settled = True
        for name, version in wanted.items():
            binding = self._bound.get(name)
            if binding is not None and binding.version.id == version.id:
                continue
            if binding is not None and not is_free(binding):
                self._is_settled = False
                continue
            self._bound[name] = Binding(next(self._numbers), version, name=name)
            made.append(self._bound[name])
        for name in [name for name in self._bound if name not in wanted]:
            if is_free(self._bound[name]):
                del self._bound[name]
            else:
                self._is_settled = False
        names = _unique_names(versions)
        self.timed = dict(zip((version.id for version in versions), names, strict=True))
        self.listing = list(self._list())
        return made

    def _list(self) -> Iterator[Listed]:
        for version in self._versions:
            name = self.timed[version.id]
            for candidate in (name[:_DATE_LENGTH], name):
                binding = self._bound[candidate]
                if binding.version.id == version.id:
                    yield Listed(candidate, binding)
                    break


def wanted_names(versions: Sequence[ShownVersion]) -> dict[str, ShownVersion]:
    """Where every name should lead when nobody uses any."""
    names = _unique_names(versions)
    wanted = dict(zip(names, versions, strict=True))
    wanted.update(zip(shown_names(names), versions, strict=True))
    return wanted


def _unique_names(versions: Iterable[ShownVersion]) -> list[str]:
    """The timed names; a name met again (no ssfs makes one) gets its version's sequence number."""
    names: list[str] = []
    seen: set[str] = set()
    for version in versions:
        tails = itertools.count()
        name = version.name
        while name in seen:
            name = f"{version.name}.{version.id.sequence}" + "+" * next(tails)
        seen.add(name)
        names.append(name)
    return names
