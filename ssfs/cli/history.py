"""`ssfs history`: what has become of a file."""

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
from ssfs.cli.output import bytes_text, emit, emit_json
from ssfs.cli.questions import complain_of_versions, exit_code, short_time
from ssfs.cli.session import open_session
from ssfs.cli.tables import emit_table
from ssfs.protocol.questions import FileState, ShowHistory


@click.command(
    epilog=examples(
        "ssfs history /srv/store::main/nas1-home ann/report.odt",
    )
)
@location_argument
@click.argument("path", type=PATH)
@json_option
@quiet_option
@verbose_option
def history(*, location: bytes, path: bytes, as_json: bool, quiet: bool, verbose: bool) -> ExitCode:
    """Show the states of the file PATH over the versions of a task, oldest first.

    A state is its content, size, time and place, and lasts from one version to another. The file is
    followed when it moves; PATH may be where it was in any version. What was deleted and made anew at
    its path is the same file here.

    With -q: of each state the name of the last version that has it. With -v: digests, and the ids of
    the versions.

    With --json: one object with the keys task, states (list of {path, kind, size, mtime, digest,
    target, versions (their number), first_version, first_name, last_version, last_name}), deleted
    (the newest version does not have it), problems (list of {task, version, problem}: versions left
    out).

    Exit codes: 0 done; 3 a version is damaged and was left out; 2 no such task, or no version has
    PATH; 6 no store there, or it cannot be read.
    """
    place = parse_location(location)
    with open_session(place) as session:
        report = session.ask(ShowHistory(point_of(place), place.task or "", path))
    if as_json:
        emit_json(report)
        return exit_code(report.problems)
    if quiet:
        for state in report.states:
            emit(state.last_name)
    else:
        columns = ["FROM", "TO", ">VERSIONS", ">SIZE", "MODIFIED", "PATH"]
        emit_table(
            [*columns, "DIGEST", "FIRST ID", "LAST ID"] if verbose else columns,
            (_row(state, verbose=verbose) for state in report.states),
        )
        if report.deleted:
            emit("The newest version does not have it any more")
    complain_of_versions(report.problems)
    return exit_code(report.problems)


def _row(state: FileState, *, verbose: bool) -> list[str]:
    path = state.path if state.target is None else f"{state.path} -> {state.target}"
    row = [
        state.first_name,
        state.last_name,
        f"{state.versions:,}",
        bytes_text(state.size) if state.kind == "file" else state.kind,
        short_time(state.mtime),
        path or ".",
    ]
    more = [state.digest or "", state.first_version, state.last_version]
    return row + more if verbose else row
