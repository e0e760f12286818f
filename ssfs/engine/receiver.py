"""The server's side of a sync. Read `receive_version` beside SYNC.md: the steps R2..R9 are its."""

import contextlib
import os

import msgspec

from ssfs.clock import Clock
from ssfs.engine.expire import clean_up, expire, files_before
from ssfs.engine.incoming import Incoming
from ssfs.engine.rows import send_catalog
from ssfs.errors import (
    ConfigError,
    ConnectionLost,
    CorruptStore,
    PeerBusy,
    RemoteProtocolError,
    StoreError,
    StoreLocked,
    TrustError,
)
from ssfs.fsio.disk import open_directory
from ssfs.model.entry import GROUP, ROOT_ID, USER
from ssfs.model.peer import Peer
from ssfs.model.version import (
    RootMetadata,
    VersionId,
    VersionRecord,
    free_shift,
    shown_names,
    timed_name,
)
from ssfs.net.channel import Channel
from ssfs.protocol.messages import (
    Committed,
    Expired,
    FetchCatalog,
    Finish,
    Leave,
    Open,
    Opened,
    Queued,
)
from ssfs.retention.shrink import judge_shrink
from ssfs.store.catalog.reader import CatalogReader
from ssfs.store.healing import heal
from ssfs.store.slots import SlotRequest
from ssfs.store.staging import Staging
from ssfs.store.store import Store as OpenStore
from ssfs.store.store import Task
from ssfs.store.textfile import FORMAT
from ssfs.store.usage import check_room
from ssfs.store.version import Version

_LOOK_EVERY_S = 0.1
"""How often a backup that waits looks whether a slot is free, times its place in the queue."""
_LOOK_AT_MOST_EVERY_S = 1.0

_NOTHING = Opened(
    task_id="dry-run",
    base="",
    catalog_digest=bytes(32),
    resumed=False,
    next_id=ROOT_ID,
    expected_entries=0,
    expected_bytes=0,
    partials=[],
)
"""What a dry run into a task that does not exist yet is compared with."""


def receive_version(
    channel: Channel, request: Open, store: OpenStore, peer: Peer, clock: Clock
) -> str:
    """Receive one version into the store, commit it, expire by the rule; the version's id.

    Args:
        channel: To a client that has been greeted and said `request`.
        request: What it wants; "" is returned when that was a dry run.
        store: Where to.
        peer: Who it is.
        clock: The server's: versions are dated by it.

    Raises:
        ConnectionLost: It went away; what had arrived is kept for the next run.
        TrustError: It may not.
        StoreError: The store cannot take the version (now).
        PeerBusy: All slots are taken and it does not want to wait.
    """
    started = clock.now().replace(microsecond=0)
    start_s = clock.monotonic_s()
    if not peer.may_back_up(request.point):
        raise TrustError(
            f"Client {peer.name!r} may not back up into sync point {request.point!r}",
            remedy="the store's administrator grants it by `ssfs invite`",
        )
    owner = peer.name or request.client
    if request.dry_run:
        _answer_dry_run(channel, store, request, owner)
        return ""
    store.become_owner()
    point = store.create_point(request.point)
    task = point.claim_task(request.task, owner, request.source, clock)
    holder = f"process {os.getpid()} for {owner}, since {started:%Y-%m-%d %H:%M:%S} UTC"
    with task.lock_for_writing(holder), SlotRequest(point, holder) as slot:  # R2
        _wait_for_slot(channel, slot, request)
        clean_up(task)
        check_room(point)
        base = _newest_intact(task)
        before = 0 if base is None else files_before(task, base)
        with Staging(task, base) as staging:
            channel.send(_opened(task, staging))
            try:
                staging.prepare()  # R3
                finish = Incoming(channel, staging).receive(channel.messages())  # R4 to R6
            except ConnectionLost:
                staging.checkpoint()
                raise
            version_id = VersionId(task.next_sequence(), started)
            seconds = clock.monotonic_s() - start_s
            record = _record(task, staging, version_id, finish, clock, seconds)
            if not request.allow_shrink:
                shrunk = judge_shrink(before, staging.catalog.counter("files"))
                record = msgspec.structs.replace(record, shrunk=shrunk)
            staging.commit(version_id, record)  # R7
            channel.send(_committed(task, record, staging))
    _heal(task)
    plan = expire(task, clock.now(), automatic=True)  # R8
    held = point.held or (str(plan.hold) if plan.hold else "")
    expired = [] if plan.hold else [str(version.id) for version in plan.expired]
    with contextlib.suppress(ConnectionLost):
        channel.send(Expired(expired, held))
    clean_up(task)  # R9
    return str(version_id)


def _wait_for_slot(channel: Channel, slot: SlotRequest, request: Open) -> None:
    """Wait until the backup is one of those that may run; the client hears of its place."""
    told = 0
    while not slot.is_granted():
        if not request.waits:
            raise PeerBusy(
                f"All slots of sync point {request.point!r} are taken, {slot.place} would be "
                "this backup's place in the queue",
                remedy="try again later, or wait (without --no-wait)",
            )
        if slot.place != told:
            told = slot.place
            channel.send(Queued(told))
        if channel.has_ended(min(_LOOK_EVERY_S * slot.place, _LOOK_AT_MOST_EVERY_S)):
            raise ConnectionLost("The client left the queue")


def _newest_intact(task: Task) -> Version | None:
    """The base: the newest version that can be one."""
    for version in reversed(task.versions()):
        try:
            if version.damage().whole:
                continue
            with version.share(), version.catalog() as catalog:
                version.check_catalog_file()
                os.close(open_directory(os.path.join(version.path, b"tree")))
                if catalog.logical_digest().hex() == version.record().catalog_digest:
                    return version
        except (CorruptStore, StoreLocked, OSError):
            continue
    return None


def _heal(task: Task) -> None:
    """Heal older versions with what has just come; what cannot be healed now stays on their lists."""
    with contextlib.suppress(StoreError, OSError):
        heal(task, task.versions()[-1:])


def _opened(task: Task, staging: Staging) -> Opened:
    catalog = staging.catalog
    return Opened(
        task_id=task.settings.id,
        base=staging.base,
        catalog_digest=catalog.logical_digest(),
        resumed=staging.is_resumed,
        next_id=catalog.first_new_id,
        expected_entries=catalog.counter("entries"),
        expected_bytes=catalog.counter("bytes"),
        partials=staging.partials,
    )


def _answer_dry_run(channel: Channel, store: OpenStore, request: Open, owner: str) -> None:
    """Let a client compare with the newest version of a task of its own; writes nothing."""
    try:
        task = store.point(request.point).task(request.task)
        base = _newest_intact(task)
    except ConfigError:
        task, base = None, None
    if task is not None:
        task.check_is_of(owner, request.source)
    with contextlib.ExitStack() as stack:
        if task is None or base is None:
            channel.send(_NOTHING)
            catalog = None
        else:
            stack.enter_context(base.share())
            catalog = stack.enter_context(base.catalog())
            channel.send(
                msgspec.structs.replace(
                    _NOTHING,
                    task_id=task.settings.id,
                    base=str(base.id),
                    catalog_digest=catalog.logical_digest(),
                    next_id=catalog.number("next_id"),
                    expected_entries=catalog.number("entries"),
                    expected_bytes=catalog.number("bytes"),
                )
            )
        for message in channel.messages():
            if isinstance(message, Leave):
                return
            if not isinstance(message, FetchCatalog) or catalog is None:
                raise RemoteProtocolError("A dry run sends no changes")
            send_catalog(channel, catalog)


def _record(
    task: Task,
    staging: Staging,
    version_id: VersionId,
    finish: Finish,
    clock: Clock,
    seconds: float,
) -> VersionRecord:
    catalog = staging.catalog
    others = [version.record() for version in task.versions() if version.is_intact()]
    taken = [other.name for other in others]
    counts = msgspec.structs.replace(
        finish.report,
        entries=catalog.counter("entries"),
        bytes=catalog.counter("bytes"),
        new_bytes=staging.new_bytes,
    )
    return VersionRecord(
        format=FORMAT,
        id=str(version_id),
        sequence=version_id.sequence,
        time=version_id.time,
        committed=clock.now().replace(microsecond=0),
        name=timed_name(version_id.time, task.point.store.zone, version_id.sequence, taken),
        seconds=round(seconds, 3),
        client=task.settings.owner,
        source=task.settings.source,
        base=staging.base,
        catalog_digest=catalog.logical_digest().hex(),
        counts=counts,
        root=root_metadata(catalog),
        shift_s=free_shift(version_id.time, (other.second for other in others)),
    )


def root_metadata(catalog: CatalogReader) -> RootMetadata:
    """What a record says of the source's root directory."""
    root = catalog.root()
    if root is None:
        raise RemoteProtocolError("The client sent no root directory")
    names = {
        (kind, number): name.decode(errors="replace") for kind, number, name in catalog.principals()
    }
    return RootMetadata(
        root.mode,
        root.uid,
        root.gid,
        names.get((USER, root.uid), ""),
        names.get((GROUP, root.gid), ""),
        root.mtime_s,
        root.mtime_ns,
    )


def _committed(task: Task, record: VersionRecord, staging: Staging) -> Committed:
    names = [version.record().name for version in task.versions() if version.is_intact()]
    catalog = staging.catalog
    return Committed(
        record.id,
        shown_names(names)[-1],
        catalog.counter("entries"),
        catalog.counter("bytes"),
        staging.new_bytes,
        record.shrunk,
    )
