"""`ssfs point`: the policy of a sync point."""

import click
import msgspec

from ssfs.cli.asking import agrees, will_ask
from ssfs.cli.exit_codes import ExitCode
from ssfs.cli.location import DEFAULT_POINT, Location, parse_location
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
from ssfs.cli.policies import changed_policy, policy_text
from ssfs.clock import SystemClock
from ssfs.engine.expire import plan_expiry
from ssfs.errors import ConfigError
from ssfs.fsio.disk import store_errors
from ssfs.model.policy import Policy
from ssfs.store.store import Point, Store

_NAMED = 10


class Loss(msgspec.Struct, frozen=True):
    """The versions of a task that a policy lets go."""

    task: str
    versions: list[str]


class PolicyReport(msgspec.Struct, frozen=True):
    """The JSON form of what the command found and did."""

    point: str
    policy: Policy
    created: bool
    changed: bool
    expires: list[Loss]


@click.command(
    epilog=examples(
        "ssfs point /srv/store::main --days 30 --months 12",
    )
)
@location_argument
@days_option
@weeks_option
@months_option
@keep_last_option
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
    yes: bool,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> ExitCode:
    """Show what a sync point keeps, or set it. A sync point that does not exist is made.

    Numbers that are not given stay as they are. Nothing is deleted here: what a new policy lets
    go is named, and goes at the next sync or `ssfs expire`. With -v all those versions are named.

    With --json: one object with the keys point, policy {days, weeks, months, keep_last}, created,
    changed, expires (list of {task, versions}: what the policy lets go that was to stay).

    Exit codes: 0 done; 2 wrong options; 6 no store there, or not yours; 130 you said no.
    """
    place = parse_location(location)
    if place.task is not None:
        raise ConfigError("A policy is one of a whole sync point", remedy="leave out '/TASK'")
    store = Store.open(place.store)
    with store_errors(place.store):
        found, created = _find_or_create(store, place)
        before = found.settings.policy
        policy = changed_policy(before, days=days, weeks=weeks, months=months, keep_last=keep_last)
        losses = _losses(found, policy) if policy != before else []
    if policy != before:
        store.become_owner()
        if not quiet or will_ask(yes=yes):
            _name(losses, verbose=verbose)
        question = f"Set the policy of {found.name!r} to {policy_text(policy)}?"
        if losses and not agrees(question, yes=yes):
            return ExitCode.INTERRUPTED
        with store_errors(place.store):
            found.set_policy(policy)
    if as_json:
        emit_json(PolicyReport(found.name, policy, created, policy != before, losses))
    elif not quiet:
        verb = "now keeps" if created or policy != before else "keeps"
        emit(f"{found.name} {verb} {policy_text(policy)}")
    return ExitCode.DONE


def _find_or_create(store: Store, place: Location) -> tuple[Point, bool]:
    """The sync point, and whether it was made just now."""
    name = place.point or DEFAULT_POINT
    if name in {point.name for point in store.points()}:
        return store.point(name), False
    store.become_owner()
    return store.create_point(name), True


def _losses(found: Point, policy: Policy) -> list[Loss]:
    """What a policy lets go that the present one keeps, by task."""
    now = SystemClock().now()
    losses = []
    for task in found.tasks():
        gone = {str(version.id) for version in plan_expiry(task, now).expired}
        going = [str(version.id) for version in plan_expiry(task, now, policy).expired]
        versions = [version for version in going if version not in gone]
        if versions:
            losses.append(Loss(task.name, versions))
    return losses


def _name(losses: list[Loss], *, verbose: bool) -> None:
    for loss in losses:
        count = len(loss.versions)
        shown = loss.versions if verbose else loss.versions[:_NAMED]
        more = f" and {count - len(shown):,} more" if count > len(shown) else ""
        complain(
            f"Task {loss.task!r}: {counted(count, 'version')} will go at the next expiry: "
            f"{', '.join(shown)}{more}"
        )
