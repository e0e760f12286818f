"""`ssfs diff`: how two versions differ."""

import os

import click

from ssfs.cli.exit_codes import ExitCode
from ssfs.cli.location import LocalPlace, Place, open_task, parse_location, point_of
from ssfs.cli.options import (
    PATH,
    examples,
    json_option,
    location_argument,
    quiet_option,
    verbose_option,
    version_argument,
)
from ssfs.cli.output import bytes_text, complain, emit, emit_json, safe_text
from ssfs.cli.progress import open_progress
from ssfs.cli.questions import complain_of_limit, limit_option
from ssfs.cli.remote import open_channel
from ssfs.cli.session import open_session
from ssfs.clock import SystemClock
from ssfs.engine.questions.live import LiveRequest, compare_fetched_with, compare_version_with
from ssfs.engine.selection import choose_version
from ssfs.fsio.disk import store_errors
from ssfs.monitor import Monitor
from ssfs.protocol.questions import CompareVersions, DiffCounts, Difference, DiffReport
from ssfs.protocol.restoring import Fetch
from ssfs.source.exclude import ExcludeOptions
from ssfs.store.store import Store


@click.command(
    epilog=examples(
        "ssfs diff /srv/store::main/nas1-home 2024-05-01 latest",
        "ssfs diff /srv/store::main/nas1-home latest~1 latest ann/docs",
        "ssfs diff /srv/store::main/nas1-home latest --live /home",
    )
)
@location_argument
@version_argument
@click.argument("others", nargs=-1, type=PATH, metavar="[VERSION] [PATH]")
@click.option(
    "--live",
    type=PATH,
    metavar="DIR",
    help="Compare with this directory of this machine, instead of a second version.",
)
@click.option(
    "--exclude",
    "excludes",
    multiple=True,
    metavar="PATTERN",
    help="With --live: leave out of DIR what matches, as `ssfs sync` does.",
)
@click.option(
    "--one-file-system", is_flag=True, help="With --live: stay on the file system of DIR."
)
@limit_option
@json_option
@quiet_option
@verbose_option
def diff(
    *,
    location: bytes,
    version: str,
    others: tuple[bytes, ...],
    live: bytes | None,
    excludes: tuple[str, ...],
    one_file_system: bool,
    limit: int,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> ExitCode:
    """Show what the second VERSION, or DIR, has that VERSION has not, and the other way round.

    One line for each entry that was added, removed, modified (its content), moved, has other metadata
    (it says which) or is something else now (type). A directory that has moved is one line. A
    directory's own time follows from what is in it, and makes no difference. With PATH: only what is
    or was there or below.

    DIR is compared with VERSION as if it were the source: nothing of it changes, and files are read
    where times and sizes do not tell. Hard links, extended attributes and holes are compared between
    versions only; but a sparse file with other holes counts as modified.

    With -q: the paths only. With -v: exact sizes.

    With --json: one object with the keys task, old_version, new_version ("" for DIR), differences
    (list of {change: added, removed, modified, metadata, moved or type; path, from (if moved), kind,
    old_kind, size, old_size, fields}), counts ({added, removed, modified, metadata, moved, type,
    added_bytes, removed_bytes, modified_bytes}), truncated (there are more than --limit allows; all
    are counted), problems (list of {path, problem}).

    Exit codes: 0 done, whether they differ or not; 3 something in DIR could not be read (listed); 2 no
    such task, version or PATH; 6 no store there, or one of the versions cannot be read; 7 DIR, or PATH
    in it, is missing.
    """
    place = parse_location(location)
    if live is None:
        _refuse_live_options(excludes, one_file_system=one_file_system)
        other, path = _other_and_path(others)
        request = CompareVersions(point_of(place), place.task or "", version, other, path, limit)
        with open_session(place) as session:
            report = session.ask(request)
    else:
        if len(others) > 1:
            raise click.UsageError("With --live there is one VERSION, and perhaps a PATH")
        wanted = LiveRequest(
            live,
            others[0] if others else b"",
            ExcludeOptions(excludes, one_file_system),
            _store_directory(place),
            limit,
        )
        with open_progress(SystemClock(), quiet=quiet or as_json, verbose=verbose) as monitor:
            report = _compare_live(place, version, wanted, monitor)
    code = ExitCode.PROBLEMS if report.problems else ExitCode.DONE
    if as_json:
        emit_json(report)
        return code
    for difference in report.differences:
        emit(safe_text(difference.path if quiet else _line(difference, exact=verbose)))
    if not quiet:
        emit(_summary(report.counts))
    complain_of_limit("differences", len(report.differences), is_truncated=report.truncated)
    for problem in report.problems:
        complain(f"{problem.path or '.'}: {problem.problem}")
    return code


def _refuse_live_options(excludes: tuple[str, ...], *, one_file_system: bool) -> None:
    if excludes or one_file_system:
        raise click.UsageError("--exclude and --one-file-system are for --live")


def _other_and_path(others: tuple[bytes, ...]) -> tuple[str, bytes]:
    """The second version, and the path to look at."""
    match others:
        case (other,):
            return os.fsdecode(other), b""
        case (other, path):
            return os.fsdecode(other), path
        case _:
            raise click.UsageError("Name two versions and perhaps a PATH, or --live DIR")


def _compare_live(place: Place, version: str, wanted: LiveRequest, monitor: Monitor) -> DiffReport:
    clock = SystemClock()
    if isinstance(place, LocalPlace):
        task = open_task(place)
        chosen = choose_version(task, version)
        return compare_version_with(chosen, task.label, wanted, monitor, clock)
    point = point_of(place)
    label = f"{point}/{place.task}" if place.task else point
    with open_channel(place) as channel:
        fetch = Fetch(point, place.task or "", version, [])
        return compare_fetched_with(channel, fetch, label, wanted, monitor, clock)


def _store_directory(place: Place) -> frozenset[tuple[int, int]]:
    """The store as a directory that a walk must not enter, as in a sync."""
    if not isinstance(place, LocalPlace):
        return frozenset()
    store = Store.open(place.store)
    with store_errors(store.path):
        status = os.stat(store.path)
    return frozenset({(status.st_dev, status.st_ino)})


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
