"""Exit codes: the one place that maps what happened to a number (README, "Exit codes").

A code has one meaning for all commands, so that cron and scripts need no table of each.
"""

import enum

from ssfs.errors import (
    ConfigError,
    PeerError,
    SourceError,
    SsfsError,
    StoreError,
    TrustError,
)


class ExitCode(enum.IntEnum):
    """What a command's exit code says."""

    DONE = 0
    BUG = 1
    USAGE = 2
    PROBLEMS = 3
    """Done, but some files had problems; they are listed."""
    TRUST = 4
    PEER = 5
    STORE = 6
    SOURCE = 7
    INTERRUPTED = 130
    """By SIGINT or SIGTERM, or by a "no" to a question: nothing more was done."""


_OF_FAMILY: dict[type[SsfsError], ExitCode] = {
    ConfigError: ExitCode.USAGE,
    TrustError: ExitCode.TRUST,
    PeerError: ExitCode.PEER,
    StoreError: ExitCode.STORE,
    SourceError: ExitCode.SOURCE,
}


def exit_code_of(error: SsfsError) -> ExitCode:
    """The exit code of the family an error belongs to."""
    for family, code in _OF_FAMILY.items():
        if isinstance(error, family):
            return code
    return ExitCode.BUG
