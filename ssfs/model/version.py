"""Versions: their ids, their counts, their record, and the names a mount gives them.

Everything here is a value or a pure function over values. What a version id looks like and why
order is by sequence and not by time: FORMAT.md, "Versions".
"""

import datetime
import re
from collections.abc import Iterable

import msgspec
from typing_extensions import override

from ssfs.model.policy import Policy
from ssfs.model.settings import PointLimits, Reserve, ServerSettings

_VERSION_ID = re.compile(r"(\d{6,})-(\d{4}-\d{2}-\d{2}T\d{6}Z)")
_TIME_FORMAT = "%Y-%m-%dT%H%M%SZ"


class VersionId(msgspec.Struct, frozen=True, order=True):
    """Sequence number and time; ordered by sequence.

    Attributes:
        sequence: Position in the task's history, from 1; never used twice.
        time: When the sync began, by the server's clock: aware, UTC, whole seconds.
    """

    sequence: int
    time: datetime.datetime

    @override
    def __str__(self) -> str:
        """The directory name, `000042-2024-05-01T020000Z`."""
        return f"{self.sequence:06d}-{self.time.strftime(_TIME_FORMAT)}"


def parse_version_id(text: str) -> VersionId | None:
    """The version id a text spells, or None."""
    match = _VERSION_ID.fullmatch(text)
    if match is None:
        return None
    try:
        # Not strptime: it imports a module when first called, which a process that has become the
        # store's owner may not be allowed to read any more.
        time = datetime.datetime.fromisoformat(match[2])
        # In the `try` too: of thousands of digits, which a peer may have written, int() makes nothing.
        version_id = VersionId(int(match[1]), time)
    except ValueError:
        return None
    # `0000042-...` or digits of another script: nothing that we would find again by its id.
    return version_id if str(version_id) == text else None


class Counts(msgspec.Struct):
    """What a sync did and what its version holds. Entries unless the name says bytes.

    Attributes:
        entries: All entries of the version, the root included.
        bytes: Sum of the sizes of its files.
        new: Entries that no path of the base had.
        changed: Files whose content differs from the base's at the same path.
        moved: Entries found at another path, content not read or not sent.
        metadata_only: Entries of which only metadata changed.
        removed: Entries of the base that are gone, those inside removed directories included.
        linked: Files, new or changed at their path, whose content the base already had.
        problems: Entries that could not be backed up as they are.
        bytes_read: File content read from the source.
        bytes_sent: Bytes the client put on the stream.
        bytes_received: Bytes the client took off the stream.
        new_bytes: File content newly stored by the server.
        sockets: Sockets met: they are not backed up.
    """

    entries: int = 0
    bytes: int = 0
    new: int = 0
    changed: int = 0
    moved: int = 0
    metadata_only: int = 0
    removed: int = 0
    linked: int = 0
    problems: int = 0
    bytes_read: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    new_bytes: int = 0
    sockets: int = 0


class RootMetadata(msgspec.Struct, frozen=True):
    """The source's root directory, as far as a listing of versions shows it."""

    mode: int
    uid: int
    gid: int
    user: str
    group: str
    mtime_s: int
    mtime_ns: int


class Shrink(msgspec.Struct, frozen=True):
    """A source that has lost most of its files (`ssfs.retention.shrink`).

    Attributes:
        before: How many regular files there were.
        after: How many the version has.
    """

    before: int
    after: int


class VersionRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """The content of version.toml (FORMAT.md, "Text files").

    Attributes:
        shift_s: Added to `time` it is a second that no other version had when this one was committed.
    """

    format: int
    id: str
    sequence: int
    time: datetime.datetime
    committed: datetime.datetime
    name: str
    seconds: float
    client: str
    source: str
    base: str
    catalog_digest: str
    counts: Counts
    root: RootMetadata
    catalog_file: str = ""
    shrunk: Shrink | None = None
    shift_s: int = 0

    @property
    def second(self) -> datetime.datetime:
        """The second that is this version's alone."""
        return self.time + datetime.timedelta(seconds=self.shift_s)


class TaskSettings(msgspec.Struct, frozen=True):
    """The content of task.toml."""

    format: int
    id: str
    owner: str
    source: str
    created: datetime.datetime
    last_sequence: int = 0
    released_sequence: int = 0


class PointSettings(msgspec.Struct, frozen=True, omit_defaults=True):
    """The content of point.toml."""

    format: int
    policy: Policy
    limits: PointLimits = PointLimits()


class StoreSettings(msgspec.Struct, frozen=True, omit_defaults=True):
    """The content of store.toml."""

    format: int
    id: str
    created: datetime.datetime
    timezone: str
    policy: Policy
    server: ServerSettings = ServerSettings()
    reserve: Reserve = Reserve()


def timed_name(
    time: datetime.datetime, zone: datetime.tzinfo, sequence: int, taken: Iterable[str]
) -> str:
    """The name a version keeps for life, `2024-05-01_143000`.

    Two versions of one local second (a fast test, the repeated hour in autumn) must not share a
    name: the later one gets its sequence number appended, `2024-05-01_143000.43`.
    """
    name = time.astimezone(zone).strftime("%Y-%m-%d_%H%M%S")
    return f"{name}.{sequence}" if name in set(taken) else name


def free_shift(time: datetime.datetime, taken: Iterable[datetime.datetime]) -> int:
    """How many seconds later than a time there is one that is not taken.

    Where names have seconds and nothing else (`@GMT-2024.05.01-12.30.00`) two versions of one second
    must not share one. It is recorded, so that it stays when the other version goes.
    """
    seconds, shift_s = set(taken), 0
    while time + datetime.timedelta(seconds=shift_s) in seconds:
        shift_s += 1
    return shift_s


def shown_names(timed_names: Iterable[str]) -> list[str]:
    """The names a listing shows, for timed names in sequence order.

    The newest of each day gets the bare date, the others keep their timed name. Both names always
    lead to the version; this says which one is listed.
    """
    names = list(timed_names)
    newest_of_day = {name[:10]: index for index, name in enumerate(names)}
    return [
        name[:10] if newest_of_day[name[:10]] == index else name for index, name in enumerate(names)
    ]
