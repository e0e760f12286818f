"""`ssfs expire`: let versions go by the policy, because somebody says so."""

import click
import msgspec.structs

from ssfs.cli.asking import agrees
from ssfs.cli.exit_codes import ExitCode
from ssfs.cli.location import parse_location, point_of
from ssfs.cli.options import (
    examples,
    json_option,
    location_argument,
    quiet_option,
    verbose_option,
    yes_option,
)
from ssfs.cli.output import counted, emit, emit_json
from ssfs.cli.questions import complain_of_lost
from ssfs.cli.session import open_session
from ssfs.cli.tables import emit_table
from ssfs.protocol.requests import ExpireReport, ExpireVersions, Fate, TaskExpiry


@click.command(
    epilog=examples(
        "ssfs expire /srv/store::main/nas1-home --dry-run",
    )
)
@location_argument
@click.option("--dry-run", is_flag=True, help="Show what would go and why the rest stays.")
@yes_option
@json_option
@quiet_option
@verbose_option
def expire(
    *, location: bytes, dry_run: bool, yes: bool, as_json: bool, quiet: bool, verbose: bool
) -> ExitCode:
    """Let the versions go that the policy does not keep.

    Those of one task, or of all tasks of a sync point when LOCATION names no task. A sync does this by itself, but holds while the dates look wrong (after a jump of the clock, or
    a long silence), and while the source has lost more than half of its files. This command does it in any case, and so releases the hold.

    The table names what goes and why the others stay; -v shows it all without --dry-run too.

    With --json: one object {dry_run, tasks, lost}, where tasks is a list of {task, expired (version ids
    that go or would), versions (list of {version, mount_name, keep}), held (null, or why a sync
    would hold)}; and lost, the names of tasks left out, whose settings or versions are lost.

    Exit codes: 0 done; 3 a task's settings or versions are lost, it was left out; 2 no such task; 6 no store there, or not yours; 130 you said no.
    """
    place = parse_location(location)
    request = ExpireVersions(point_of(place), place.task or "", dry_run)
    with open_session(place) as session:
        report = session.ask(request)
        if not as_json and not quiet:
            for task in report.tasks:
                _show(task, whole=dry_run or verbose)
        if not dry_run and report.tasks:
            count = _count(report)
            if count and not agrees(f"Delete {counted(count, 'version')}?", yes=yes):
                return ExitCode.INTERRUPTED
            report = session.ask(msgspec.structs.replace(request, apply=True))
    if as_json:
        emit_json(report)
    elif not quiet:
        gone = counted(_count(report), "version")
        emit(f"Dry run, nothing was changed: {gone} would go" if dry_run else f"Expired {gone}")
    if not as_json:
        complain_of_lost(request.point, report.lost)
    return ExitCode.PROBLEMS if report.lost else ExitCode.DONE


def _count(report: ExpireReport) -> int:
    return sum(len(task.expired) for task in report.tasks)


def _show(report: TaskExpiry, *, whole: bool) -> None:
    fates = [fate for fate in report.versions if whole or not fate.keep]
    emit(f"{report.task}: {counted(len(report.versions), 'version')}")
    if report.held:
        emit(f"  {report.held}")
    if fates:
        emit_table(
            ["  VERSION", "NAME", "FATE"],
            ([f"  {fate.version}", fate.mount_name or "?", _fate_text(fate)] for fate in fates),
        )


def _fate_text(fate: Fate) -> str:
    return f"stays: {', '.join(fate.keep)}" if fate.keep else "goes"
