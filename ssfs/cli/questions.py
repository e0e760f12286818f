"""What the commands that ask about versions share: the limit of an answer, and what is said about it."""

from collections.abc import Iterable

import click

from ssfs.cli.exit_codes import ExitCode
from ssfs.cli.output import complain
from ssfs.protocol.questions import DEFAULT_LIMIT, MAX_LIMIT, VersionProblem

limit_option = click.option(
    "--limit",
    type=click.IntRange(1, MAX_LIMIT),
    default=DEFAULT_LIMIT,
    metavar="N",
    help=f"List no more than N, at most {MAX_LIMIT:,}. Default: {DEFAULT_LIMIT:,}.",
)


def complain_of_limit(what: str, listed: int, *, is_truncated: bool) -> None:
    """Say that there is more than is shown."""
    if is_truncated:
        complain(f"Only {listed:,} {what} are listed: there are more (--limit N lists up to N)")


def complain_of_lost(point: str, lost: Iterable[str]) -> None:
    """Name the tasks that were left out."""
    for name in lost:
        complain(
            f"Task {point}/{name} is left out, its settings or its versions are lost: "
            "put them back if you can; `ssfs recover` makes them anew"
        )


def complain_of_versions(problems: Iterable[VersionProblem]) -> None:
    """Name the versions that were left out."""
    for found in problems:
        complain(f"Version {found.version} of task {found.task} is left out: {found.problem}")


def exit_code(problems: tuple[VersionProblem, ...], lost: tuple[str, ...] = ()) -> ExitCode:
    """Whether all versions, of all tasks, could be asked."""
    return ExitCode.PROBLEMS if problems or lost else ExitCode.DONE


def short_time(text: str) -> str:
    """A file's time to the second, for people."""
    return text if text.startswith("@") else f"{text[:10]} {text[11:19]}"
