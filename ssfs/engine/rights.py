"""Who may do what, asked before anything is done: what `Peer` decides, as errors.

A peer that may not use a sync point learns nothing of it, not even whether it exists.
"""

from ssfs.errors import TrustError
from ssfs.model.peer import Peer, Role
from ssfs.store.store import Task


def check_use(peer: Peer, point: str) -> None:
    """Refuse a peer that has no business in a sync point.

    Raises:
        TrustError: It has none.
    """
    if not peer.may_use_point(point):
        raise TrustError(
            f"Client {peer.name!r} may not use sync point {point!r}",
            remedy=f"an administrator of the store can allow it: "
            f"`ssfs invite STORE {peer.name} --point {point}`",
        )


def check_reading(peer: Peer, task: Task) -> None:
    """Refuse a peer that may not see a task.

    Raises:
        TrustError: It may not.
    """
    check_use(peer, task.point.name)
    if not peer.may_read_task(task.point.name, task.settings.owner):
        raise TrustError(
            f"Client {peer.name!r} may not read task {task.label!r}",
            remedy=_remedy(peer, Role.RESTORE),
        )


def check_administration(peer: Peer, point: str, deed: str) -> None:
    """Refuse a peer that may not change what a sync point holds.

    Args:
        peer: Who asks.
        point: Where.
        deed: What it wants to do there, as in "may not DEED".

    Raises:
        TrustError: It may not.
    """
    check_use(peer, point)
    if not peer.may_administer(point):
        raise TrustError(
            f"Client {peer.name!r} may not {deed}",
            remedy=_remedy(peer, Role.ADMIN),
        )


def _remedy(peer: Peer, role: Role) -> str:
    return (
        f"an administrator of the store can allow it: `ssfs invite STORE {peer.name} --role {role}`"
    )
