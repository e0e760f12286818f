r"""The questions people ask of versions, and their answers: `find`, `history`, `diff`, `du`.

Part of the closed set of `ssfs.protocol.requests`. A path in an answer is text as `--json` prints it: a byte
that is not UTF-8 is `\xHH`, a backslash `\\`. An answer that could be long has a limit, and says when it has
reached it (`truncated`). A version that could not be read is left out and named in `problems`.
"""

from typing import Annotated

import msgspec

from ssfs.protocol.asking import Path, Report, Request, Text

DEFAULT_LIMIT = 10_000
MAX_LIMIT = 50_000
MAX_PATH_BYTES = 16 << 20
"""Of all paths in an answer together: with them it stays well below the limit of an answer."""

_Limit = Annotated[int, msgspec.Meta(ge=1, le=MAX_LIMIT)]
_Pattern = Annotated[bytes, msgspec.Meta(max_length=5000)]


class VersionProblem(Report, frozen=True):
    """A version that could not be asked, and why."""

    task: str
    version: str
    problem: str


# -- find -------------------------------------------------------------------------------------------


class Finding(Report, frozen=True):
    """A path that matches.

    Attributes:
        task: Name of its task.
        path: Below the root of the versions.
        kind: As in `ssfs.model.entry.KIND_NAMES`; this and the next two as in the newest version
            that has the path.
        size: Bytes of content; 0 unless a file.
        mtime: ISO 8601, UTC, with nanoseconds.
        versions: How many of the versions asked have it.
        first_version: The oldest of them.
        first_name: The name a mount lists that under.
        last_version: The newest of them.
        last_name: The name a mount lists that under.
        deleted: The newest version of the task has neither this path nor, under another name, what was there.
        moved_to: The path under which the newest version has it; null unless it has moved.
    """

    task: str
    path: str
    kind: str
    size: int
    mtime: str
    versions: int
    first_version: str
    first_name: str
    last_version: str
    last_name: str
    deleted: bool
    moved_to: str | None = None


class FindReport(Report, frozen=True):
    """What was found, by task and path.

    Attributes:
        found: No more than the limit.
        truncated: There is more.
        problems: Versions left out.
        lost: Names of tasks left out, whose settings or versions are lost; only who is at the store's machine is told.
    """

    found: tuple[Finding, ...]
    truncated: bool
    problems: tuple[VersionProblem, ...]
    lost: tuple[str, ...] = ()


class FindPaths(Request[FindReport], frozen=True, tag="find"):
    """Which versions have what matches a pattern?

    Attributes:
        point: Sync point.
        task: Task; "" for all of the sync point that the peer may read.
        pattern: As in a .gitignore file (`ssfs.engine.questions.pattern`).
        since: Only versions whose name is not before this one, a date as a rule; "": all.
        deleted: Only what the newest version does not have, under any name.
        ignore_case: a is A.
        limit: Most paths.
    """

    point: Text
    task: Text
    pattern: _Pattern
    since: Text = ""
    deleted: bool = False
    ignore_case: bool = False
    limit: _Limit = DEFAULT_LIMIT


# -- history ----------------------------------------------------------------------------------------


class FileState(Report, frozen=True):
    """What a file was in some consecutive versions.

    Attributes:
        path: Where it was then.
        kind: As in `ssfs.model.entry.KIND_NAMES`.
        size: Bytes of content; 0 unless a file.
        mtime: ISO 8601, UTC, with nanoseconds.
        digest: BLAKE3 of the content in hex; null unless a file.
        target: Where a symlink leads; else null.
        versions: How many versions have it so.
        first_version: The oldest of them.
        first_name: The name a mount lists that under.
        last_version: The newest of them.
        last_name: The name a mount lists that under.
    """

    path: str
    kind: str
    size: int
    mtime: str
    digest: str | None
    target: str | None
    versions: int
    first_version: str
    first_name: str
    last_version: str
    last_name: str


class HistoryReport(Report, frozen=True):
    """The states of a file, oldest first.

    Attributes:
        task: POINT/TASK.
        states: Never empty.
        deleted: The newest version does not have the file, under any name.
        problems: Versions that could not be asked.
    """

    task: str
    states: tuple[FileState, ...]
    deleted: bool
    problems: tuple[VersionProblem, ...]


class ShowHistory(Request[HistoryReport], frozen=True, tag="history"):
    """What has become of a file? `task` is "" for the only one of the sync point."""

    point: Text
    task: Text
    path: Path


# -- diff -------------------------------------------------------------------------------------------


class Difference(Report, frozen=True, rename={"origin": "from"}):
    """An entry that differs.

    Attributes:
        change: "added", "removed", "modified" (the content), "metadata", "moved" or "type" (what it
            is). One that has moved and differs is listed for both.
        path: Where it is in the newer version; if removed, where it was.
        origin: If moved, from where; else null. `from` in JSON.
        kind: What it is (was, if removed), as in `ssfs.model.entry.KIND_NAMES`.
        old_kind: What it was; null if it was not there.
        size: Bytes of content now; null if removed.
        old_size: Likewise then; null if added.
        fields: Of "modified" and "metadata": which metadata differ.
    """

    change: str
    path: str
    origin: str | None
    kind: str
    old_kind: str | None
    size: int | None
    old_size: int | None
    fields: tuple[str, ...]


class DiffCounts(Report, frozen=True):
    """How many entries differ, and the sizes of the files among them."""

    added: int = 0
    removed: int = 0
    modified: int = 0
    metadata: int = 0
    moved: int = 0
    type: int = 0
    added_bytes: int = 0
    removed_bytes: int = 0
    modified_bytes: int = 0


class PathProblem(Report, frozen=True):
    """A path of a directory that could not be compared, and why."""

    path: str
    problem: str


class DiffReport(Report, frozen=True):
    """What differs.

    Attributes:
        task: POINT/TASK.
        old_version: What is compared.
        new_version: With what; "" for a directory that is no version.
        differences: By path.
        counts: Of all differences, those beyond the limit included.
        truncated: There are more than the limit.
        problems: Of a directory: what could not be read.
    """

    task: str
    old_version: str
    new_version: str
    differences: tuple[Difference, ...]
    counts: DiffCounts
    truncated: bool
    problems: tuple[PathProblem, ...] = ()


class CompareVersions(Request[DiffReport], frozen=True, tag="diff"):
    """How do two versions of a task differ?

    Attributes:
        point: Sync point.
        task: Task; "" for the only one of the sync point.
        old: Any spelling of a version (README, "Use it").
        new: Likewise.
        path: Only this entry and what is below it; b"": everything.
        limit: Most differences to list; all are counted.
    """

    point: Text
    task: Text
    old: Text
    new: Text
    path: Path = b""
    limit: _Limit = DEFAULT_LIMIT


# -- du ---------------------------------------------------------------------------------------------


class VersionUsage(Report, frozen=True):
    """What a version takes.

    Attributes:
        version: Its id.
        mount_name: The name a mount lists it under.
        entries: All of them.
        bytes: The sizes of its files.
        content_bytes: The same, each content once however many of its files share it.
        freed_bytes: Of that, what no other version holds: what deleting this one, and no other,
            would free. Null if a version that cannot be read might hold it.
    """

    version: str
    mount_name: str
    entries: int
    bytes: int
    content_bytes: int
    freed_bytes: int | None


class TaskUsage(Report, frozen=True):
    """The versions of a task, by sequence, and what they take together, each content once."""

    task: str
    content_bytes: int
    versions: tuple[VersionUsage, ...]


class UsageReport(Report, frozen=True):
    """The tasks that were asked for, by name, and their sum; what is left out as in `FindReport`."""

    point: str
    content_bytes: int
    tasks: tuple[TaskUsage, ...]
    problems: tuple[VersionProblem, ...]
    lost: tuple[str, ...] = ()


class ShowUsage(Request[UsageReport], frozen=True, tag="du"):
    """What do versions take? `task` is "" for all of the sync point that the peer may read."""

    point: Text
    task: Text


QuestionReport = FindReport | HistoryReport | DiffReport | UsageReport
Question = FindPaths | ShowHistory | CompareVersions | ShowUsage
