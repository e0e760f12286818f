"""What a sync point keeps and takes, in words."""

from ssfs.cli.output import bytes_text, counted
from ssfs.model.policy import Policy
from ssfs.model.settings import PointLimits
from ssfs.protocol.requests import PointReport


def policy_text(policy: Policy) -> str:
    """A policy in words."""
    newest = "the newest version" if policy.keep_last == 1 else f"the {policy.keep_last} newest"
    tiers = (
        counted(policy.days, "day"),
        counted(policy.weeks, "week"),
        counted(policy.months, "month"),
    )
    return f"{', '.join(tiers)} and {newest}"


def limits_text(report: PointReport) -> str:
    """What a sync point takes, as far as that is not what any sync point takes; "" if it is."""
    parts = []
    if report.quota is not None:
        parts.append(f"at most {bytes_text(report.quota)}, {bytes_text(report.used or 0)} used")
    if report.max_concurrent != PointLimits().max_concurrent:
        parts.append(f"{counted(report.max_concurrent, 'backup')} at once")
    return "; ".join(parts)
