"""Who is at the other end, and what it may do: values and pure decisions.

A peer's name comes from its certificate, its roles and points from the store's registry
(`ssfs.store.clients`), never from what it says itself. Every question "may it?" is answered by a
method here, and nowhere else; one that is not answered with yes is a no.
"""

import enum

import msgspec


class Role(enum.StrEnum):
    """What a client is there for; a client may have several."""

    BACKUP = "backup"
    """Adds versions to its own tasks, and reads those."""
    RESTORE = "restore"
    """Reads every task of its points."""
    ADMIN = "admin"
    """Reads every task of its points, and may verify, pin, delete, expire and set their policy too."""


ALL_POINTS = "*"
"""Among a peer's points: whatever point there is or will be. No point can have this name."""


class Peer(msgspec.Struct, frozen=True):
    """The other end of a session.

    Attributes:
        name: Its name; whose tasks are its own. Empty: as it calls itself (see `called`).
        roles: What it is there for.
        points: The sync points it may use, or `ALL_POINTS` among them.
        is_known: Whether it has proved who it is. Who has not may at most enrol.
    """

    name: str
    roles: frozenset[Role]
    points: frozenset[str]
    is_known: bool = True

    def called(self, claimed: str) -> "Peer":
        """This peer under its name; the one it claims only if nothing says better who it is."""
        if self.name or not self.is_known:
            return self
        return msgspec.structs.replace(self, name=claimed)

    def may_use_point(self, point: str) -> bool:
        """Whether the sync point exists for it at all."""
        return self.is_known and (point in self.points or ALL_POINTS in self.points)

    def may_back_up(self, point: str) -> bool:
        """Whether it may add versions, to tasks of its own, in a sync point."""
        return self.may_use_point(point) and Role.BACKUP in self.roles

    def may_read_task(self, point: str, owner: str) -> bool:
        """Whether it may list and read the versions of a task.

        Args:
            point: The sync point the task is in.
            owner: Name of the client whose task it is.
        """
        if not self.may_use_point(point):
            return False
        if self.roles & {Role.RESTORE, Role.ADMIN}:
            return True
        # Nobody is nameless: an empty name must not match an empty owner.
        return Role.BACKUP in self.roles and bool(self.name) and owner == self.name

    def may_administer(self, point: str) -> bool:
        """Whether it may verify, pin, delete and expire versions of a sync point, and set its policy."""
        return self.may_use_point(point) and Role.ADMIN in self.roles


NOBODY = Peer("", frozenset(), frozenset(), is_known=False)
"""Who has shown no certificate."""

LOCAL = Peer("", frozenset(Role), frozenset({ALL_POINTS}))
"""Whoever has the store's files themselves, here or over ssh: no rule of ours could bind them."""
