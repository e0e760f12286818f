"""Policies on the command line: as text, and as options that change some of their numbers."""

import msgspec

from ssfs.cli.output import counted
from ssfs.model.policy import Policy


def policy_text(policy: Policy) -> str:
    """A policy in words."""
    newest = "the newest version" if policy.keep_last == 1 else f"the {policy.keep_last} newest"
    tiers = (
        counted(policy.days, "day"),
        counted(policy.weeks, "week"),
        counted(policy.months, "month"),
    )
    return f"{', '.join(tiers)} and {newest}"


def changed_policy(
    policy: Policy,
    *,
    days: int | None,
    weeks: int | None,
    months: int | None,
    keep_last: int | None,
) -> Policy:
    """The policy with those numbers replaced that were given."""
    given = {"days": days, "weeks": weeks, "months": months, "keep_last": keep_last}
    return msgspec.structs.replace(
        policy, **{name: number for name, number in given.items() if number is not None}
    )
