"""`ssfs points`: what a store holds."""

import datetime
import os

import click
import msgspec

from ssfs.cli.exit_codes import ExitCode
from ssfs.cli.location import parse_store
from ssfs.cli.options import PATH, examples, json_option, quiet_option, verbose_option
from ssfs.cli.output import emit, emit_json, safe_text
from ssfs.cli.policies import policy_text
from ssfs.cli.tables import emit_table
from ssfs.engine.selection import mount_names
from ssfs.fsio.disk import store_errors
from ssfs.model.policy import Policy
from ssfs.store.store import Point, Store, Task


class TaskLine(msgspec.Struct, frozen=True):
    """The JSON form of a task."""

    task: str
    owner: str
    source: str
    versions: int
    last_version: str | None
    last_mount_name: str | None
    last_started: datetime.datetime | None


class PointLine(msgspec.Struct, frozen=True):
    """The JSON form of a sync point."""

    point: str
    policy: Policy
    tasks: list[TaskLine]


@click.command(
    epilog=examples(
        "ssfs points /srv/store",
    )
)
@click.argument("store", type=PATH)
@json_option
@quiet_option
@verbose_option
def points(*, store: bytes, as_json: bool, quiet: bool, verbose: bool) -> ExitCode:
    """List the sync points of STORE with their policies, and their tasks.

    Of each task: whose it is, what it backs up, and the last version.

    With -q: the locations of the tasks only, one a line. With -v: the numbers of versions too.

    With --json: a list of objects {point, policy: {days, weeks, months, keep_last}, tasks}, where
    tasks is a list of {task, owner, source, versions (their number), last_version, last_mount_name,
    last_started (UTC)}; the last three are null as long as there is no version.

    Exit codes: 0 done; 6 no store there, or it cannot be read.
    """
    path = parse_store(store)
    opened = Store.open(path)
    with store_errors(path):
        lines = [_point_line(point) for point in opened.points()]
    if as_json:
        emit_json(lines)
    elif quiet:
        for line in lines:
            for task in line.tasks:
                emit(safe_text(f"{os.fsdecode(path)}::{line.point}/{task.task}"))
    else:
        _show(lines, verbose=verbose)
    return ExitCode.DONE


def _point_line(point: Point) -> PointLine:
    tasks = [_task_line(task) for task in point.tasks()]
    return PointLine(point.name, point.settings.policy, tasks)


def _task_line(task: Task) -> TaskLine:
    versions = task.versions()
    last = versions[-1] if versions else None
    return TaskLine(
        task=task.name,
        owner=task.settings.owner,
        source=task.settings.source,
        versions=len(versions),
        last_version=str(last.id) if last else None,
        # Only the newest of its day bears the bare date, and the last one is that.
        last_mount_name=mount_names([last]).get(last) if last else None,
        last_started=last.id.time if last else None,
    )


def _show(lines: list[PointLine], *, verbose: bool) -> None:
    if not lines:
        emit("No sync point yet: the first `ssfs sync` makes one")
    for line in lines:
        emit(f"{line.point}: keeps {policy_text(line.policy)}")
        if not line.tasks:
            emit("  no task yet")
            continue
        columns = ["  TASK", "OWNER", "SOURCE", "LAST VERSION"]
        emit_table(
            [*columns, ">VERSIONS"] if verbose else columns,
            (_row(task, verbose=verbose) for task in line.tasks),
        )


def _row(task: TaskLine, *, verbose: bool) -> list[str]:
    row = [f"  {task.task}", task.owner, task.source, task.last_version or "none"]
    return [*row, f"{task.versions:,}"] if verbose else row
