"""`ssfs point`: what a sync point keeps and takes."""

import click
import msgspec.structs

from ssfs.cli.asking import agrees, will_ask
from ssfs.cli.exit_codes import ExitCode
from ssfs.cli.location import parse_location, point_of
from ssfs.cli.options import (
    days_option,
    examples,
    json_option,
    keep_last_option,
    location_argument,
    months_option,
    quiet_option,
    verbose_option,
    weeks_option,
    yes_option,
)
from ssfs.cli.output import complain, counted, emit, emit_json
from ssfs.cli.policies import limits_text, policy_text
from ssfs.cli.session import open_session
from ssfs.errors import ConfigError
from ssfs.model.settings import MAX_CONCURRENT
from ssfs.model.size import parse_size
from ssfs.protocol.requests import Loss, SetPoint

_NAMED = 10
_NO_QUOTA = "none"


def _quota(_context: click.Context, _option: click.Parameter, text: str | None) -> int | None:
    """The bytes of a quota; 0 takes it away, None leaves it as it is."""
    if text is None:
        return None
    if text.lower() == _NO_QUOTA:
        return 0
    try:
        return parse_size(text)
    except ValueError as error:
        raise click.BadParameter(
            f"{error}: write it like 500G, 1.5T, 200Gi, or {_NO_QUOTA}"
        ) from error


@click.command(
    epilog=examples(
        "ssfs point /srv/store::main --days 30 --months 12",
        "ssfs point /srv/store::main --quota 500G",
    )
)
@location_argument
@days_option
@weeks_option
@months_option
@keep_last_option
@click.option(
    "--max-concurrent",
    type=click.IntRange(1, MAX_CONCURRENT),
    metavar="N",
    help="Let N backups run at once; others wait. 8 unless set.",
)
@click.option(
    "--quota",
    "quota_bytes",
    metavar="SIZE",
    callback=_quota,
    help="Take no new backup once all versions together hold SIZE, such as 500G or 1.5T; "
    "`none`: as much as there is.",
)
@yes_option
@json_option
@quiet_option
@verbose_option
def point(
    *,
    location: bytes,
    days: int | None,
    weeks: int | None,
    months: int | None,
    keep_last: int | None,
    max_concurrent: int | None,
    quota_bytes: int | None,
    yes: bool,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> ExitCode:
    """Show what a sync point keeps, or set it. A sync point that does not exist is made.

    What is not given stays as it is. Nothing is deleted here: what a new policy lets go is
    named, and goes at the next sync or `ssfs expire`. With -v all those versions are named.

    With --json: one object with the keys point, policy {days, weeks, months, keep_last},
    max_concurrent, quota (bytes, or null), used (bytes, null without a quota), created, changed,
    expires (list of {task, versions}: what the policy lets go that was to stay).

    Exit codes: 0 done; 2 wrong options; 6 no store there, or not yours; 130 you said no.
    """
    place = parse_location(location)
    if place.task is not None:
        raise ConfigError("A policy is one of a whole sync point", remedy="leave out '/TASK'")
    request = SetPoint(point_of(place), days, weeks, months, keep_last, max_concurrent, quota_bytes)
    with open_session(place) as session:
        report = session.ask(request)
        if report.changed and (not quiet or will_ask(yes=yes)):
            _name(report.expires, verbose=verbose)
        question = f"Set the policy of {report.point!r} to {policy_text(report.policy)}?"
        if report.expires and not agrees(question, yes=yes):
            return ExitCode.INTERRUPTED
        if report.created or report.changed:
            report = session.ask(msgspec.structs.replace(request, apply=True))
    if as_json:
        emit_json(report)
    elif not quiet:
        verb = "now keeps" if report.created or report.changed else "keeps"
        limits = limits_text(report)
        emit(
            f"{report.point} {verb} {policy_text(report.policy)}"
            + (f"; {limits}" if limits else "")
        )
    return ExitCode.DONE


def _name(losses: tuple[Loss, ...], *, verbose: bool) -> None:
    for loss in losses:
        count = len(loss.versions)
        shown = loss.versions if verbose else loss.versions[:_NAMED]
        more = f" and {count - len(shown):,} more" if count > len(shown) else ""
        complain(
            f"Task {loss.task!r}: {counted(count, 'version')} will go at the next expiry: "
            f"{', '.join(shown)}{more}"
        )
