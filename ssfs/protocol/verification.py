"""The command that verifies what a store holds: request and answer (`ssfs.protocol.requests` has the others)."""

from typing import Annotated

import msgspec

from ssfs.protocol.asking import Request, Text


class Damaged(msgspec.Struct, forbid_unknown_fields=True):
    """Something damaged, once for all versions that have it.

    Attributes:
        task: POINT/TASK; "" for what belongs to none.
        path: In the versions, or (without versions) in the store.
        problem: What is wrong.
        versions: Ids of the versions that have it.
        healed: In how many of them it was healed.
    """

    task: str
    path: str
    problem: str
    versions: list[str]
    healed: int = 0


class VerifyReport(msgspec.Struct, forbid_unknown_fields=True):
    """What became of it.

    Attributes:
        versions: How many were looked at.
        files: Data files that were read.
        bytes: What they hold.
        seconds: How long it took.
        resumed: Whether a run that had broken off was gone on with.
        recorded: Whether damage could be written down.
        damaged: What is damaged, or was until it was healed.
    """

    versions: int = 0
    files: int = 0
    bytes: int = 0
    seconds: float = 0.0
    resumed: bool = False
    recorded: bool = True
    damaged: list[Damaged] = []

    @property
    def left(self) -> list[Damaged]:
        """What is damaged still."""
        return [item for item in self.damaged if item.healed < max(len(item.versions), 1)]


class VerifyVersions(Request[VerifyReport], frozen=True, tag="verify"):
    """Read what lies in a store, and write down what is damaged.

    Attributes:
        point: Sync point; "" for all that the client administers (then neither task nor versions are named).
        task: Task; "" for all of the sync point or, if versions are named, for its only one.
        versions: Any spelling of each (README, "Use it"); none: all.
        sample: Which part of the data files is read, at random; 1: all.
        older_than_s: Leave out what was verified within so many seconds.
    """

    point: Text
    task: Text
    versions: tuple[Text, ...] = ()
    sample: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0
    older_than_s: Annotated[int, msgspec.Meta(ge=0, le=1 << 40)] | None = None
