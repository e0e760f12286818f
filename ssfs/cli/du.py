"""`ssfs du`: what versions take."""

import click

from ssfs.cli.exit_codes import ExitCode
from ssfs.cli.location import parse_location, point_of
from ssfs.cli.options import examples, json_option, location_argument, quiet_option, verbose_option
from ssfs.cli.output import bytes_text, counted, emit, emit_json
from ssfs.cli.questions import complain_of_lost, complain_of_versions, exit_code
from ssfs.cli.session import open_session
from ssfs.cli.tables import emit_table
from ssfs.protocol.questions import ShowUsage, TaskUsage, VersionUsage


@click.command(
    epilog=examples(
        "ssfs du /srv/store",
        "ssfs du /srv/store::main/nas1-home",
    )
)
@location_argument
@json_option
@quiet_option
@verbose_option
def du(*, location: bytes, as_json: bool, quiet: bool, verbose: bool) -> ExitCode:
    """Show what each version of a task, or of all tasks of the sync point, takes.

    Of each version: its entries; the sizes of its files; CONTENT, the same with each content counted
    once, however many of its files share it; and FREES, what deleting that version, and no other, would
    free: content that no other version holds. Two versions may free more together than each alone.
    Counted are the sizes of files, not what they take in blocks, and neither metadata nor catalogs.

    With -q: only the content of all of them together, in bytes. With -v: sizes in bytes.

    With --json: one object with the keys point, content_bytes, tasks (list of {task, content_bytes,
    versions: list of {version, mount_name, entries, bytes, content_bytes, freed_bytes}}), problems (list
    of {task, version, problem}: versions left out), lost (names of tasks left out, whose settings or
    versions are lost). freed_bytes is null beside a version left out, which may hold the same.

    Exit codes: 0 done; 3 a version is damaged, or a task's settings or versions are lost, and was left out; 2 no such sync point or task; 6 no
    store there, or it cannot be read.
    """
    place = parse_location(location)
    with open_session(place) as session:
        report = session.ask(ShowUsage(point_of(place), place.task or ""))
    if as_json:
        emit_json(report)
        return exit_code(report.problems, report.lost)
    if quiet:
        emit(str(report.content_bytes))
    else:
        for task in report.tasks:
            _show(report.point, task, verbose=verbose)
        if len(report.tasks) != 1:
            total = _size(report.content_bytes, verbose=verbose)
            emit(f"Sync point {report.point}: {total} in {counted(len(report.tasks), 'task')}")
    complain_of_versions(report.problems)
    complain_of_lost(report.point, report.lost)
    return exit_code(report.problems, report.lost)


def _show(point: str, task: TaskUsage, *, verbose: bool) -> None:
    if task.versions:
        emit_table(
            ["VERSION", "NAME", ">ENTRIES", ">SIZE", ">CONTENT", ">FREES"],
            (_row(line, verbose=verbose) for line in task.versions),
        )
    total = _size(task.content_bytes, verbose=verbose)
    emit(f"Task {point}/{task.task}: {total} in {counted(len(task.versions), 'version')}")


def _row(line: VersionUsage, *, verbose: bool) -> list[str]:
    freed = line.freed_bytes
    return [
        line.version,
        line.mount_name,
        f"{line.entries:,}",
        _size(line.bytes, verbose=verbose),
        _size(line.content_bytes, verbose=verbose),
        "?" if freed is None else _size(freed, verbose=verbose),
    ]


def _size(size_bytes: int, *, verbose: bool) -> str:
    return f"{size_bytes:,}" if verbose else bytes_text(size_bytes)
