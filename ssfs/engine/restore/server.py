"""The server's side of a restore. Read `serve_restore` beside SYNC.md, "Restore"."""

import contextlib
import os

import msgspec

from ssfs.engine.restore.answers import Answers
from ssfs.engine.restore.local import check_usable
from ssfs.engine.restore.wanted import find_wanted, wanted_rows
from ssfs.engine.rows import send_rows
from ssfs.engine.selection import choose_version, mount_name_of
from ssfs.errors import ConfigError, CorruptStore, TrustError
from ssfs.fsio.disk import open_directory, store_errors
from ssfs.model.peer import Peer
from ssfs.net.channel import Channel
from ssfs.protocol.messages import CatalogEnd
from ssfs.protocol.restoring import Fetch, Fetched
from ssfs.store.store import Store, Task
from ssfs.store.tree import Tree
from ssfs.store.version import Version


class RestoreServed(msgspec.Struct, frozen=True):
    """What a client was sent.

    Attributes:
        task: POINT/TASK.
        version: Id of the version.
        files: Files whose content was sent, whole or as a delta.
        size_bytes: How long those files are.
    """

    task: str
    version: str
    files: int
    size_bytes: int


def serve_restore(channel: Channel, store: Store, peer: Peer, request: Fetch) -> RestoreServed:
    """Send a client what it restores, until it leaves.

    The version cannot be deleted meanwhile. Nothing but the files that the request names can be
    read. Memory: some 30 MB (a segment of a file and its delta), and nine times the largest
    signature while that is in use; at its limit of 16 MiB, which takes a file of 700 GB, 150 MB.

    Args:
        channel: A session in which the client has said `request` and waits.
        store: Where it is; this process can read it.
        peer: Who asks.
        request: What it wants.

    Raises:
        ConfigError: There is no such point, task, version or path.
        TrustError: The peer may not read it.
        StoreError: The store cannot be read.
        ConnectionLost: The client went away.
        RemoteProtocolError: It broke the rules. Nobody has told the client of any of these.
    """
    task = _find_task(store, peer, request)
    with contextlib.ExitStack() as stack:
        stack.enter_context(store_errors(store.path))
        version = choose_version(task, request.version)
        stack.enter_context(version.share())
        damage = version.damage()
        fault = check_usable(version, damage, damaged_ok=request.damaged_ok)
        catalog = stack.enter_context(version.catalog())
        tree = Tree(catalog, open_directory(os.path.join(version.path, b"tree")))
        stack.callback(tree.close)
        wanted = find_wanted(catalog, request.paths)
        digest = b"" if fault else catalog.logical_digest()
        fetched = _fetched(task, version, fault, is_whole=not wanted)
        if digest in request.known:
            channel.send(msgspec.structs.replace(fetched, known=digest))
            channel.send(CatalogEnd())
        else:
            channel.send(fetched)
            send_rows(channel, catalog, wanted_rows(catalog, wanted))
        known = None if request.damaged_ok else damage
        answers = stack.enter_context(
            contextlib.closing(Answers(channel, catalog, tree, wanted, known))
        )
        answers.run()
    return RestoreServed(task.label, str(version.id), answers.files, answers.size_bytes)


def _find_task(store: Store, peer: Peer, request: Fetch) -> Task:
    """The task that is meant, if the peer may read it; without a name the only one it may."""
    if not peer.may_use_point(request.point):
        raise TrustError(f"Client {peer.name!r} may not use sync point {request.point!r}")
    with store_errors(store.path):
        point = store.point(request.point)
        tasks = [point.task(request.task)] if request.task else point.tasks()
    readable = [task for task in tasks if peer.may_read_task(point.name, task.settings.owner)]
    if len(readable) == 1:
        return readable[0]
    if request.task:
        raise TrustError(f"Client {peer.name!r} may not read task {tasks[0].label!r}")
    if not readable:
        raise ConfigError(f"Sync point {point.name!r} has no task that can be restored")
    names = ", ".join(task.name for task in readable)
    raise ConfigError(
        f"Sync point {point.name!r} has several tasks: {names}", remedy="name one of them"
    )


def _fetched(task: Task, version: Version, fault: str, *, is_whole: bool) -> Fetched:
    """What the client is told first; parts are not counted, as it will hold their rows soon."""
    entries = size_bytes = 0
    if is_whole:
        with contextlib.suppress(CorruptStore):
            counts = version.record().counts
            entries, size_bytes = counts.entries, counts.bytes
    name = mount_name_of(task, version) or ""
    return Fetched(str(version.id), name, entries, size_bytes, fault)
