"""`ssfs versions`: list what a task has."""

import click

from ssfs.cli.exit_codes import ExitCode
from ssfs.cli.location import parse_location, point_of
from ssfs.cli.options import examples, json_option, location_argument, quiet_option, verbose_option
from ssfs.cli.output import bytes_text, complain, counted, emit, emit_json, seconds_text
from ssfs.cli.session import open_session
from ssfs.cli.tables import emit_table
from ssfs.protocol.requests import ListVersions, VersionLine, VersionsReport
from ssfs.retention.shrink import lost_text

_DAMAGED = "damaged"


@click.command(
    epilog=examples(
        "ssfs versions /srv/store::main/nas1-home",
    )
)
@location_argument
@json_option
@quiet_option
@verbose_option
def versions(*, location: bytes, as_json: bool, quiet: bool, verbose: bool) -> ExitCode:
    """List the versions of a task, oldest first, and why each of them stays.

    With -q: their ids only. With -v: times and counts of problems too.

    With --json: a list of objects with the keys version, mount_name, started (UTC), seconds,
    entries, bytes, new_bytes, problems (their number), pinned, keep (list of reasons; empty: it goes
    when versions expire next), damaged (how many of its entries are known to be; null: all may be),
    shrunk (null, or {before, after}: numbers of files, when the source had lost more than half of
    them). What cannot be read of a damaged version is null.

    Exit codes: 0 done; 2 no such task, or more than one to choose from; 3 a version is known to be
    damaged; 6 no store there, or it cannot be read.
    """
    place = parse_location(location)
    with open_session(place) as session:
        report = session.ask(ListVersions(point_of(place), place.task or ""))
    if as_json:
        emit_json(report.versions)
    elif quiet:
        for line in report.versions:
            emit(line.version)
    else:
        _show(report, verbose=verbose)
        if report.held is not None:
            emit(report.held)
    damaged = [line.version for line in report.versions if _DAMAGED in line.keep]
    for version in damaged:
        complain(f"The record of version {version} is damaged: it is neither shown nor expired")
    hurt = [line for line in report.versions if line.damaged != 0]
    if hurt:
        complain(
            f"{counted(len(hurt), 'version')} with damage: the next sync heals the files its source "
            "still has, `ssfs verify --from` those another store has, `ssfs recover` catalogs"
        )
    return ExitCode.PROBLEMS if damaged or hurt else ExitCode.DONE


def _show(report: VersionsReport, *, verbose: bool) -> None:
    if not report.versions:
        emit(f"Task {report.task} has no version yet")
        return
    columns = ["VERSION", "NAME", ">ENTRIES", ">SIZE", ">NEW", "KEPT AS"]
    more = ["STARTED", ">TOOK", ">PROBLEMS"]
    emit_table(
        columns + more if verbose else columns,
        (_row(line, verbose=verbose) for line in report.versions),
    )


def _damage_text(damaged: int | None) -> str:
    return "its catalog or tree is damaged" if damaged is None else f"{damaged:,} damaged"


def _fate_text(line: VersionLine) -> str:
    fate = ", ".join(line.keep) or "goes at the next expiry"
    return fate if line.shrunk is None else f"{fate}; flagged: {lost_text(line.shrunk)}"


def _row(line: VersionLine, *, verbose: bool) -> list[str]:
    def text(number: float | None, form: str = "count") -> str:
        if number is None:
            return "?"
        forms = {"bytes": bytes_text, "seconds": seconds_text}
        return forms[form](number) if form in forms else f"{number:,}"

    row = [
        line.version,
        line.mount_name or "?",
        text(line.entries),
        text(line.bytes, "bytes"),
        text(line.new_bytes, "bytes"),
        _fate_text(line),
    ]
    if line.damaged != 0:
        row[-1] += f"; {_damage_text(line.damaged)}"
    if verbose:
        started = line.started.strftime("%Y-%m-%d %H:%M:%S UTC")
        row += [started, text(line.seconds, "seconds"), text(line.problems)]
    return row
