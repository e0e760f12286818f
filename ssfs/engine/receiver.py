"""The server's side of a sync. Read `receive_version` beside SYNC.md: the steps R1..R9 are its."""

import contextlib
import os
from collections.abc import Iterator

import msgspec

from ssfs import __version__
from ssfs.clock import Clock
from ssfs.engine.expire import clean_up, expire
from ssfs.engine.incoming import Incoming, send_catalog
from ssfs.engine.refusal import to_refusal
from ssfs.errors import (
    ConfigError,
    ConnectionLost,
    CorruptStore,
    RemoteProtocolError,
    SsfsError,
    StoreLocked,
)
from ssfs.fsio.disk import store_error
from ssfs.model.entry import GROUP, ROOT_ID, USER
from ssfs.model.version import (
    RootMetadata,
    VersionId,
    VersionRecord,
    shown_names,
    timed_name,
)
from ssfs.net.channel import Channel
from ssfs.protocol.messages import (
    PROTOCOL_VERSION,
    Committed,
    Expired,
    FetchCatalog,
    Finish,
    Hello,
    Leave,
    Message,
    Open,
    Opened,
)
from ssfs.store.catalog.reader import CatalogReader
from ssfs.store.staging import Staging
from ssfs.store.store import Store as OpenStore
from ssfs.store.store import Task
from ssfs.store.textfile import FORMAT
from ssfs.store.version import Version

_ROWS_PER_FRAME = 2000
_MAX_NEED_IDS = 50_000

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


def serve_backup(channel: Channel, store: OpenStore, clock: Clock) -> None:
    """Serve one client: greet it, receive a version, tell it what went wrong.

    Raises:
        ConnectionLost: It went away; what had arrived is kept for the next run.
        InternalError: Our own bug.
    """
    try:
        try:
            receive_version(channel, store, clock)
        except OSError as error:
            raise store_error(error, store.path) from error
    except ConnectionLost:
        raise
    except SsfsError as error:
        with contextlib.suppress(ConnectionLost):
            channel.send(to_refusal(error))


def receive_version(channel: Channel, store: OpenStore, clock: Clock) -> None:
    """Receive one version into the store, commit it, expire by the rule."""
    started = clock.now().replace(microsecond=0)
    start_s = clock.monotonic_s()
    messages = channel.messages()
    request = _greet(channel, messages)  # R1
    if request.dry_run:
        _answer_dry_run(channel, messages, store, request)
        return
    store.become_owner()
    point = store.create_point(request.point)
    task = point.claim_task(request.task, request.client, request.source, clock)
    holder = f"process {os.getpid()} for {request.client}, since {started:%Y-%m-%d %H:%M:%S} UTC"
    with task.lock_for_writing(holder):  # R2
        clean_up(task)
        with Staging(task, _newest_intact(task)) as staging:
            channel.send(_opened(task, staging))
            try:
                staging.prepare()  # R3
                finish = Incoming(channel, staging).receive(messages)  # R4 to R6
            except ConnectionLost:
                staging.checkpoint()
                raise
            version_id = VersionId(task.next_sequence(), started)
            seconds = clock.monotonic_s() - start_s
            record = _record(task, staging, version_id, finish, clock, seconds)
            staging.commit(version_id, record)  # R7
            channel.send(_committed(task, version_id, staging))
    plan = expire(task, clock.now(), automatic=True)  # R8
    held = str(plan.hold) if plan.hold else ""
    expired = [] if plan.hold else [str(version.id) for version in plan.expired]
    with contextlib.suppress(ConnectionLost):
        channel.send(Expired(expired, held))
    clean_up(task)  # R9


def _greet(channel: Channel, messages: Iterator[Message]) -> Open:
    hello = next(messages)
    if not isinstance(hello, Hello):
        raise RemoteProtocolError("The client did not greet")
    if hello.protocol != PROTOCOL_VERSION:
        raise ConfigError(
            f"This server speaks protocol {PROTOCOL_VERSION}, not {hello.protocol}",
            remedy="use the same ssfs at both ends",
        )
    channel.send(Hello(PROTOCOL_VERSION, __version__))
    request = next(messages)
    if not isinstance(request, Open):
        raise RemoteProtocolError("The client asked for nothing")
    return request


def _newest_intact(task: Task) -> Version | None:
    """The base: the newest version that can be one."""
    for version in reversed(task.versions()):
        try:
            with version.share(), version.catalog() as catalog:
                if catalog.logical_digest().hex() == version.record().catalog_digest:
                    return version
        except (CorruptStore, StoreLocked, OSError):
            continue
    return None


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


def _answer_dry_run(
    channel: Channel, messages: Iterator[Message], store: OpenStore, request: Open
) -> None:
    """Let a client compare with the newest version; writes nothing."""
    try:
        task = store.point(request.point).task(request.task)
        base = _newest_intact(task)
    except ConfigError:
        task, base = None, None
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
        for message in messages:
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
    taken = [version.record().name for version in task.versions() if version.is_intact()]
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
        root=_root_metadata(catalog),
    )


def _root_metadata(catalog: CatalogReader) -> RootMetadata:
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


def _committed(task: Task, version_id: VersionId, staging: Staging) -> Committed:
    names = [version.record().name for version in task.versions() if version.is_intact()]
    catalog = staging.catalog
    return Committed(
        str(version_id),
        shown_names(names)[-1],
        catalog.counter("entries"),
        catalog.counter("bytes"),
        staging.new_bytes,
    )
