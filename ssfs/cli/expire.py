"""`ssfs expire`: let versions go by the policy, because somebody says so."""

import click
import msgspec

from ssfs.cli.asking import agrees
from ssfs.cli.exit_codes import ExitCode
from ssfs.cli.location import open_tasks, parse_location
from ssfs.cli.options import (
    examples,
    json_option,
    location_argument,
    quiet_option,
    verbose_option,
    yes_option,
)
from ssfs.cli.output import counted, emit, emit_json
from ssfs.cli.tables import emit_table
from ssfs.clock import SystemClock
from ssfs.engine import expire as engine
from ssfs.engine.expire import ExpiryPlan
from ssfs.engine.selection import mount_names
from ssfs.fsio.disk import store_errors
from ssfs.store.store import Task


class Fate(msgspec.Struct, frozen=True):
    """The JSON form of a version: why it stays; no reason: it goes."""

    version: str
    mount_name: str | None
    keep: tuple[str, ...]


class TaskReport(msgspec.Struct, frozen=True):
    """The JSON form of a task's expiry."""

    task: str
    expired: list[str]
    versions: list[Fate]
    held: str | None


class ExpireReport(msgspec.Struct, frozen=True):
    """The JSON form of an expiry."""

    dry_run: bool
    tasks: list[TaskReport]


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
    a long silence). This command does it in any case, and so releases the hold.

    The table names what goes and why the others stay; -v shows it all without --dry-run too.

    With --json: one object {dry_run, tasks}, where tasks is a list of {task, expired (version ids
    that go or would), versions (list of {version, mount_name, keep}), held (null, or why a sync
    would hold)}.

    Exit codes: 0 done; 2 no such task; 6 no store there, or not yours; 130 you said no.
    """
    tasks = open_tasks(parse_location(location))
    now = SystemClock().now()
    reports = []
    for task in tasks:
        with store_errors(task.path):
            plan = engine.plan_expiry(task, now)
            reports.append(_report(task, plan))
    if not as_json and not quiet:
        for report in reports:
            _show(report, whole=dry_run or verbose)
    if not dry_run and tasks:
        tasks[0].point.store.become_owner()
        count = sum(len(report.expired) for report in reports)
        if count and not agrees(f"Delete {counted(count, 'version')}?", yes=yes):
            return ExitCode.INTERRUPTED
        for task in tasks:
            with store_errors(task.path):
                engine.expire(task, now, automatic=False)
        for task in tasks:
            with store_errors(task.path):
                engine.clean_up(task)
    if as_json:
        emit_json(ExpireReport(dry_run, reports))
    elif not quiet:
        _conclude(reports, dry_run=dry_run)
    return ExitCode.DONE


def _report(task: Task, plan: ExpiryPlan) -> TaskReport:
    names = mount_names([judged.version for judged in plan.judged])
    return TaskReport(
        task=task.name,
        expired=[str(version.id) for version in plan.expired],
        versions=[
            Fate(str(version.id), names.get(version), reasons) for version, reasons in plan.judged
        ],
        held=str(plan.hold) if plan.hold else None,
    )


def _show(report: TaskReport, *, whole: bool) -> None:
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


def _conclude(reports: list[TaskReport], *, dry_run: bool) -> None:
    count = counted(sum(len(report.expired) for report in reports), "version")
    emit(f"Dry run, nothing was changed: {count} would go" if dry_run else f"Expired {count}")
