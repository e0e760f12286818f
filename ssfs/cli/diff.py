"""`ssfs diff`: how two versions differ."""

import click

from ssfs.cli.exit_codes import ExitCode
from ssfs.cli.location import parse_location, point_of
from ssfs.cli.options import (
    PATH,
    examples,
    json_option,
    location_argument,
    quiet_option,
    verbose_option,
    version_argument,
)
from ssfs.cli.output import bytes_text, emit, emit_json, safe_text
from ssfs.cli.questions import complain_of_limit, limit_option
from ssfs.cli.session import open_session
from ssfs.protocol.questions import CompareVersions, DiffCounts, Difference


@click.command(
    epilog=examples(
        "ssfs diff /srv/store::main/nas1-home 2024-05-01 latest",
        "ssfs diff /srv/store::main/nas1-home latest~1 latest ann/docs",
    )
)
@location_argument
@version_argument
@click.argument("other")
@click.argument("path", type=PATH, required=False, default=b"")
@limit_option
@json_option
@quiet_option
@verbose_option
def diff(
    *,
    location: bytes,
    version: str,
    other: str,
    path: bytes,
    limit: int,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> ExitCode:
    """Show what the version OTHER has that VERSION has not, and the other way round.

    One line for each entry that was added, removed, modified (its content), moved, has other metadata
    (it says which) or is something else now (type). A directory that has moved is one line, and so
    is one whose mode or owner differs; a directory's time follows from what is in it and is not mentioned.
    With PATH: only what is or was there or below.

    With -q: the paths only. With -v: exact sizes.

    With --json: one object with the keys task, old_version, new_version, differences (list of {change:
    added, removed, modified, metadata, moved or type; path, from (if moved), kind, old_kind, size,
    old_size, fields}), counts ({added, removed, modified, metadata, moved, type, added_bytes,
    removed_bytes, modified_bytes}), truncated (there are more than --limit allows; all are counted).

    Exit codes: 0 done, whether they differ or not; 2 no such task, version or PATH; 6 no store there,
    or one of the versions cannot be read.
    """
    place = parse_location(location)
    request = CompareVersions(point_of(place), place.task or "", version, other, path, limit)
    with open_session(place) as session:
        report = session.ask(request)
    if as_json:
        emit_json(report)
        return ExitCode.DONE
    for difference in report.differences:
        emit(safe_text(difference.path if quiet else _line(difference, exact=verbose)))
    if not quiet:
        emit(_summary(report.counts))
    complain_of_limit("differences", len(report.differences), is_truncated=report.truncated)
    return ExitCode.DONE


def _line(difference: Difference, *, exact: bool) -> str:
    def size(size_bytes: int | None) -> str:
        return f"{size_bytes or 0:,} B" if exact else bytes_text(size_bytes or 0)

    path = difference.path or "."
    match difference.change:
        case "added" if difference.kind == "file":
            more = size(difference.size)
        case "removed" if difference.kind == "file":
            more = size(difference.old_size)
        case "modified" if difference.kind == "file":
            more = f"{size(difference.old_size)} -> {size(difference.size)}"
        case "metadata":
            more = ", ".join(difference.fields)
        case "moved":
            path, more = f"{difference.origin} -> {path}", ""
        case "type":
            more = f"{difference.old_kind} -> {difference.kind}"
        case _:
            more = difference.kind
    return f"{difference.change:<8}  {path}" + (f"  ({more})" if more else "")


def _summary(counts: DiffCounts) -> str:
    if counts == DiffCounts():
        return "No difference"
    return (
        f"{counts.added:,} added ({bytes_text(counts.added_bytes)}), "
        f"{counts.removed:,} removed ({bytes_text(counts.removed_bytes)}), "
        f"{counts.modified:,} modified ({bytes_text(counts.modified_bytes)}), "
        f"{counts.metadata:,} with other metadata, {counts.moved:,} moved, "
        f"{counts.type:,} of another type"
    )
