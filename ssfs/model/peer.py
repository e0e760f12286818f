"""Who is at the other end, and what that allows: pure decisions over a name, roles and sync points.

What a peer may do is the store's registry's to say (`ssfs.store.clients`), or the account's that started a
server over ssh; never the peer's own messages'.
"""

import enum

import msgspec

ALL_POINTS = "*"


class Role(enum.StrEnum):
    """What a client is let do, in the sync points it is granted."""

    BACKUP = "backup"
    """Add versions to its own tasks, and read those."""
    RESTORE = "restore"
    """Read all tasks."""
    ADMIN = "admin"
    """Read all tasks; pin, delete and expire versions, set policies."""


class Peer(msgspec.Struct, frozen=True):
    """A client, as far as the store knows it.

    Attributes:
        name: Who it is; the owner of the tasks it makes. "": whoever has the store's files
            themselves, who is called what they call themselves.
        roles: What it may do.
        points: Sync points in which it may; `*` is all of them.
    """

    name: str
    roles: frozenset[Role]
    points: frozenset[str]

    def may_use_point(self, point: str) -> bool:
        """Whether anything in this sync point is its business."""
        return bool(self.points & {ALL_POINTS, point})

    def may_back_up(self, point: str) -> bool:
        """Whether it may add versions to tasks of its own there."""
        return Role.BACKUP in self.roles and self.may_use_point(point)

    def may_read_task(self, point: str, owner: str) -> bool:
        """Whether it may see and restore a task of this owner."""
        if not self.may_use_point(point):
            return False
        is_own = Role.BACKUP in self.roles and owner == self.name
        return is_own or bool(self.roles & {Role.RESTORE, Role.ADMIN})

    def may_administer(self, point: str) -> bool:
        """Whether it may pin, delete, expire and set the policy there."""
        return Role.ADMIN in self.roles and self.may_use_point(point)


LOCAL = Peer("", frozenset(Role), frozenset({ALL_POINTS}))
"""Whoever has the store's files: nothing could be kept from them."""
