"""When a source has lost most of its files: the version is made, flagged, and automatic expiry holds.

An empty directory where a disk should be mounted, a tree that ransomware or a wrong script went through: each night's
version would push good ones out. A version is flagged when it has no file where there were some, or, from ten
files on, less than half of those there were. Only regular files count: they are what people miss.

What "there were" means is what the version before had; if that one was flagged itself, what it was held against. So the
flag stays until the files are back, until somebody says that it is meant (`ssfs sync --allow-shrink`,
or an explicit `ssfs expire`), or until the flagged versions are deleted. Only the newest version's flag holds.
"""

import msgspec
from typing_extensions import override

from ssfs.model.version import Shrink

FILES_WORTH_A_JUDGEMENT = 10
"""Of fewer files half is soon gone; only none at all is suspicious."""


class ShrinkHold(msgspec.Struct, frozen=True):
    """Why automatic expiry holds.

    Attributes:
        sequence: The newest version.
        shrunk: What it lost.
    """

    sequence: int
    shrunk: Shrink

    @override
    def __str__(self) -> str:
        """The reason in one line, for whoever has to decide."""
        return (
            f"Expiry holds: version {self.sequence} has {lost_text(self.shrunk)}. Until the files "
            "are back nothing expires by itself; `ssfs sync --allow-shrink` or `ssfs expire` says "
            "that it is meant"
        )


def judge_shrink(before: int, after: int) -> Shrink | None:
    """Whether too many files are gone.

    Args:
        before: How many regular files there were.
        after: How many there are.
    """
    is_empty = before > 0 and after == 0
    is_halved = before >= FILES_WORTH_A_JUDGEMENT and 2 * after < before
    return Shrink(before, after) if is_empty or is_halved else None


def lost_text(shrunk: Shrink) -> str:
    """What a flagged version has, in words."""
    return f"{shrunk.after:,} of {shrunk.before:,} files"
