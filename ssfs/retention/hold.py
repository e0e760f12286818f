"""When the dates look wrong: automatic expiry holds rather than thin a history by mistake.

The rule of `ssfs.retention.rule` (SmartSync paper, section 4) counts back from the newest version.
A clock that jumped ahead, or a client that is back after a year, moves that reference so far that
nearly the whole history falls out of its tiers at once. So expiry after a sync holds while one of
the newest versions is suspicious: more than two days, and more than three times the usual gap,
after the one before it by sequence. The usual gap is the median of the at most ten gaps before.
Three later versions at the usual pace release the hold, and so does an explicit `ssfs expire`.

Expiry itself makes gaps, and those must not look like jumps: with a day window of one day a daily
task has, early in its life, survivors of Sunday, Thursday and Friday. Three things keep them apart:

* A version is judged only next to its true neighbour, the one with the sequence before its own. The
  newest version always stays, so where that neighbour is gone, an expiry ran after this version
  came, and found nothing suspicious or was explicit. (Or the neighbour was deleted by hand.)
* In the usual gap, a gap counts for each commit that it spans: versions 4 and 8, four days apart,
  make a gap of one day. Else the usual gap would grow to the weeks and months between the
  survivors of the older tiers, and hide real jumps.
* The three later versions count although an expiry may have thinned them since.

Where no gap is known to compare with, more than two days are suspicious only right after the
task's first version. Later, that there is none means that the policy keeps so little, and
a weekly task under such a policy would be held again after each expiry. All that can be lost there
is the single older version.

A negative gap (the clock went back) is no jump: dates after the reference are kept by the rule. It
says nothing on the usual gap either, and is left out of the median.
"""

import datetime
import statistics
from collections.abc import Iterable, Sequence

import msgspec
from typing_extensions import override

from ssfs.retention.rule import DatedVersion

_NEVER_SUSPICIOUS = datetime.timedelta(days=2)
_USUAL_GAPS_IN_A_JUMP = 3
_GAPS_FOR_USUAL = 10
_COMMITS_TO_RELEASE = 3
_FIRST_SEQUENCE = 1


class Hold(msgspec.Struct, frozen=True):
    """Why automatic expiry holds.

    Attributes:
        sequence: The version after the suspicious gap.
        gap: The time since the version before it.
        usual: The usual gap at that time; None if the task had none yet.
    """

    sequence: int
    gap: datetime.timedelta
    usual: datetime.timedelta | None

    @override
    def __str__(self) -> str:
        """One sentence: what looks wrong, and what releases the hold."""
        usual = (
            "and how long is usual is not known yet"
            if self.usual is None
            else f"where {_in_words(self.usual)} is usual"
        )
        return (
            f"Expiry holds because version {self.sequence} is dated {_in_words(self.gap)} after "
            f"the one before it, {usual}: three more versions at the usual pace, or `ssfs expire`, "
            "release it"
        )


def expiry_hold(versions: Iterable[DatedVersion], released_through: int = 0) -> Hold | None:
    """Whether automatic expiry must hold.

    Args:
        versions: All committed versions of one task, in any order, before any is expired.
        released_through: Versions up to this sequence no longer hold: the highest there was at the
            last explicit `ssfs expire`.

    Returns:
        The hold of the newest suspicious version, which stands longest; None if there is none.
    """
    ordered = sorted(versions, key=lambda version: version.sequence)
    for index in range(len(ordered) - 1, 0, -1):
        # Any suspicious version among the later ones has been found by now: all were usual.
        later_commits = ordered[-1].sequence - ordered[index].sequence
        if later_commits >= _COMMITS_TO_RELEASE or ordered[index].sequence <= released_through:
            return None
        hold = _judge(ordered, index)
        if hold is not None:
            return hold
    return None


def _judge(ordered: Sequence[DatedVersion], index: int) -> Hold | None:
    """The hold that the version at `index`, at least 1, gives rise to by its own gap."""
    before, version = ordered[index - 1], ordered[index]
    gap = version.time - before.time
    if version.sequence - before.sequence > 1 or gap <= _NEVER_SUSPICIOUS:
        return None
    usual = _usual_gap(ordered, index)
    if usual is None:
        is_suspicious = before.sequence == _FIRST_SEQUENCE
    else:
        is_suspicious = gap > _USUAL_GAPS_IN_A_JUMP * usual
    return Hold(version.sequence, gap, usual) if is_suspicious else None


def _usual_gap(ordered: Sequence[DatedVersion], index: int) -> datetime.timedelta | None:
    """The median of the last ten gaps before the one that ends at `index`; None without any."""
    earlier = (_gap_per_commit(ordered, i) for i in range(1, index))
    forward = [gap for gap in earlier if gap >= datetime.timedelta(0)]
    if not forward:
        return None
    return datetime.timedelta(
        microseconds=statistics.median(
            gap // datetime.timedelta(microseconds=1) for gap in forward[-_GAPS_FOR_USUAL:]
        )
    )


def _gap_per_commit(ordered: Sequence[DatedVersion], index: int) -> datetime.timedelta:
    """The time since the version before, shared among the commits since then."""
    before, version = ordered[index - 1], ordered[index]
    return (version.time - before.time) / (version.sequence - before.sequence)


def _in_words(length: datetime.timedelta) -> str:
    """A length of time in its largest fitting unit, rounded."""
    for unit in (datetime.timedelta(days=1), datetime.timedelta(hours=1)):
        if length >= 2 * unit or length == unit:
            name = "day" if unit.days else "hour"
            count = round(length / unit)
            return f"{count} {name}" + ("" if count == 1 else "s")
    minutes = round(length / datetime.timedelta(minutes=1))
    return f"{minutes} minute" + ("" if minutes == 1 else "s")
