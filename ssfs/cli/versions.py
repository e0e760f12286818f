"""`ssfs versions`: list what a task has."""

import datetime

import click
import msgspec

from ssfs.cli.exit_codes import ExitCode
from ssfs.cli.location import open_task, parse_location
from ssfs.cli.options import examples, json_option, location_argument, quiet_option, verbose_option
from ssfs.cli.output import bytes_text, complain, emit, emit_json, seconds_text
from ssfs.cli.tables import emit_table
from ssfs.clock import SystemClock
from ssfs.engine.expire import ExpiryPlan, plan_expiry
from ssfs.engine.selection import mount_names
from ssfs.fsio.disk import store_errors
from ssfs.store.store import Task

_DAMAGED = "damaged"


class VersionLine(msgspec.Struct, frozen=True):
    """The JSON form of a version. What only a damaged record knew is null."""

    version: str
    mount_name: str | None
    started: datetime.datetime
    seconds: float | None
    entries: int | None
    bytes: int | None
    new_bytes: int | None
    problems: int | None
    pinned: bool
    keep: tuple[str, ...]


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
    when versions expire next). What cannot be read of a damaged version is null.

    Exit codes: 0 done; 2 no such task, or more than one to choose from; 3 the record of a version is
    damaged; 6 no store there, or it cannot be read.
    """
    task = open_task(parse_location(location))
    with store_errors(task.path):
        plan = plan_expiry(task, SystemClock().now())
        lines = _lines(plan)
    if as_json:
        emit_json(lines)
    elif quiet:
        for line in lines:
            emit(line.version)
    else:
        _show(task, lines, verbose=verbose)
        if plan.hold is not None:
            emit(str(plan.hold))
    damaged = [line.version for line in lines if _DAMAGED in line.keep]
    for version in damaged:
        complain(f"The record of version {version} is damaged: it is neither shown nor expired")
    return ExitCode.PROBLEMS if damaged else ExitCode.DONE


def _lines(plan: ExpiryPlan) -> list[VersionLine]:
    names = mount_names([judged.version for judged in plan.judged])
    lines = []
    for version, reasons in plan.judged:
        record = version.record() if version in names else None
        lines.append(
            VersionLine(
                version=str(version.id),
                mount_name=names.get(version),
                started=version.id.time,
                seconds=record.seconds if record else None,
                entries=record.counts.entries if record else None,
                bytes=record.counts.bytes if record else None,
                new_bytes=record.counts.new_bytes if record else None,
                problems=record.counts.problems if record else None,
                pinned=version.is_pinned(),
                keep=reasons,
            )
        )
    return lines


def _show(task: Task, lines: list[VersionLine], *, verbose: bool) -> None:
    if not lines:
        emit(f"Task {task.label} has no version yet")
        return
    columns = ["VERSION", "NAME", ">ENTRIES", ">SIZE", ">NEW", "KEPT AS"]
    more = ["STARTED", ">TOOK", ">PROBLEMS"]
    emit_table(
        columns + more if verbose else columns, (_row(line, verbose=verbose) for line in lines)
    )


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
        ", ".join(line.keep) or "goes at the next expiry",
    ]
    if verbose:
        started = line.started.strftime("%Y-%m-%d %H:%M:%S UTC")
        row += [started, text(line.seconds, "seconds"), text(line.problems)]
    return row
