"""What a sync point keeps: the paper's X days, Y weeks and Z months, and a number of newest ones."""

import msgspec


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many versions of each age stay (SmartSync paper, section 4; DESIGN.md section 2).

    Attributes:
        days: Calendar days, the reference date included, of which the newest version stays.
        weeks: ISO weeks before those days of which the newest version stays.
        months: Calendar months before those weeks of which the newest version stays.
        keep_last: Newest versions that stay whatever their day; at least 1.
    """

    days: int = 10
    weeks: int = 7
    months: int = 5
    keep_last: int = 1


KEEP_EVERYTHING = Policy(days=0, weeks=0, months=0, keep_last=100_000)
"""Where nobody knows any more what is to be kept."""
