"""`ssfs find`: which versions have a file."""

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
)
from ssfs.cli.output import bytes_text, emit, emit_json, path_text, safe_text
from ssfs.cli.questions import (
    complain_of_limit,
    complain_of_lost,
    complain_of_versions,
    exit_code,
    limit_option,
    short_time,
)
from ssfs.cli.session import open_session
from ssfs.cli.tables import emit_table
from ssfs.protocol.questions import Finding, FindPaths


@click.command(
    epilog=examples(
        "ssfs find /srv/store 'report*.odt'",
        "ssfs find /srv/store::main/nas1-home '/ann/**/*.jpg' --deleted --from 2024-05-01",
    )
)
@location_argument
@click.argument("pattern", type=PATH)
@click.option(
    "--from", "since", metavar="DATE", default="", help="Ask only versions of this day or later."
)
@click.option(
    "--deleted",
    is_flag=True,
    help="Only what the newest version of its task does not have any more.",
)
@click.option("-i", "--ignore-case", is_flag=True, help="Do not tell capitals from small letters.")
@limit_option
@json_option
@quiet_option
@verbose_option
def find(
    *,
    location: bytes,
    pattern: bytes,
    since: str,
    deleted: bool,
    ignore_case: bool,
    limit: int,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> ExitCode:
    """Find what matches PATTERN in all versions of a task, or of all tasks of the sync point.

    PATTERN is written as in a .gitignore file. Without a slash it is a name, wherever that is; with
    one it is the whole path, from the root of the version: docs/*.odt. "*" is any part of a name, "?"
    one character, [a-z] one of these, "**/" any directories; a slash at the end: only directories.

    Shown are each path, size and time as in the newest version that has it, how many versions have it,
    and the first and the last of them, and where the newest version has what has moved. That is not
    --deleted.

    With -q: the paths only. With -v: kinds, and the ids of the versions.

    With --json: one object with the keys found (list of {task, path, kind, size, mtime, versions
    (their number), first_version, first_name, last_version, last_name, deleted, moved_to (the path in the
    newest version, null unless it has moved)}), truncated (there is more than --limit allows), problems
    (list of {task, version, problem}: versions left out), lost (names of tasks left out, whose settings
    or versions are lost).

    Exit codes: 0 done, also if nothing was found; 3 a version is damaged, or a task's settings or versions are lost,
    and was left out; 2 no such
    task, or PATTERN or DATE makes no sense; 6 no store there, or it cannot be read.
    """
    place = parse_location(location)
    request = FindPaths(
        point_of(place), place.task or "", pattern, since, deleted, ignore_case, limit
    )
    with open_session(place) as session:
        report = session.ask(request)
    if as_json:
        emit_json(report)
        return exit_code(report.problems, report.lost)
    if quiet:
        for line in report.found:
            emit(safe_text(line.path))
    elif report.found:
        _show(report.found, has_task=place.task is None, verbose=verbose)
    else:
        emit(f"Nothing {'deleted ' if deleted else ''}matches {safe_text(path_text(pattern))}")
    complain_of_limit("paths", len(report.found), is_truncated=report.truncated)
    complain_of_versions(report.problems)
    complain_of_lost(request.point, report.lost)
    return exit_code(report.problems, report.lost)


def _show(found: tuple[Finding, ...], *, has_task: bool, verbose: bool) -> None:
    columns = [">SIZE", "MODIFIED", ">VERSIONS", "FIRST", "LAST", "PATH"]
    if has_task:
        columns.insert(0, "TASK")
    emit_table(
        [*columns, "KIND", "FIRST ID", "LAST ID"] if verbose else columns,
        (_row(line, has_task=has_task, verbose=verbose) for line in found),
    )


def _row(line: Finding, *, has_task: bool, verbose: bool) -> list[str]:
    end = "/" if line.kind == "directory" else ""
    row = [
        bytes_text(line.size) if line.kind == "file" else "",
        short_time(line.mtime),
        f"{line.versions:,}",
        line.first_name,
        f"{line.last_name} (deleted)" if line.deleted else line.last_name,
        line.path + end + (f" (moved to {line.moved_to}{end})" if line.moved_to else ""),
    ]
    if has_task:
        row.insert(0, line.task)
    return [*row, line.kind, line.first_version, line.last_version] if verbose else row
