"""Entry problems: what went wrong with one path while the run went on."""

import msgspec


class EntryProblem(msgspec.Struct, frozen=True):
    """One path that could not be backed up or restored as it is.

    Attributes:
        path: Path below the source's root (bytes; b"" is the root).
        problem: What happened and what was done instead, one clause.
    """

    path: bytes
    problem: str
