"""`ssfs points`: what a store holds."""

import click

from ssfs.cli.exit_codes import ExitCode
from ssfs.cli.location import parse_store_location, spell
from ssfs.cli.options import PATH, examples, json_option, quiet_option, verbose_option
from ssfs.cli.output import emit, emit_json, safe_text
from ssfs.cli.policies import policy_text
from ssfs.cli.questions import complain_of_lost
from ssfs.cli.session import open_session
from ssfs.cli.tables import emit_table
from ssfs.protocol.requests import ListPoints, PointLine, TaskLine


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

    With --json: a list of objects {point, policy: {days, weeks, months, keep_last}, tasks, lost}, where
    tasks is a list of {task, owner, source, versions (their number), last_version, last_mount_name,
    last_started (UTC)}; the last three are null as long as there is no version; and lost, the names of
    tasks whose settings or versions are lost.

    Exit codes: 0 done; 3 the settings or versions of a task are lost; 6 no store there, or it cannot be read.
    """
    place = parse_store_location(store)
    with open_session(place) as session:
        found = session.ask(ListPoints()).points
    if as_json:
        emit_json(found)
    elif quiet:
        for line in found:
            for task in line.tasks:
                emit(safe_text(spell(place, line.point, task.task)))
    else:
        _show(found, verbose=verbose)
    for line in found:
        complain_of_lost(line.point, line.lost)
    return ExitCode.PROBLEMS if any(line.lost for line in found) else ExitCode.DONE


def _show(lines: tuple[PointLine, ...], *, verbose: bool) -> None:
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
