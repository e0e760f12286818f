"""The client's side of a sync. Read `send_version` beside SYNC.md: the steps S2..S9 are its."""

import contextlib
from collections.abc import Sequence
from typing import TypeVar

import msgspec

from ssfs.clock import Clock
from ssfs.engine.cache import TaskCache, open_cache
from ssfs.engine.comparison import Comparison
from ssfs.engine.moves import Catalogs, Source
from ssfs.engine.outgoing import Outgoing
from ssfs.engine.refusal import hearing_refusals, raise_refused
from ssfs.engine.rows import received_rows
from ssfs.errors import PeerError, RemoteProtocolError
from ssfs.model.problem import EntryProblem
from ssfs.model.version import Counts, Shrink
from ssfs.monitor import Monitor
from ssfs.net.channel import Channel
from ssfs.protocol.messages import (
    CheckpointDone,
    Committed,
    Expired,
    FetchCatalog,
    Finish,
    Leave,
    Message,
    Need,
    Open,
    Opened,
    Queued,
    Refused,
)
from ssfs.retention.shrink import judge_shrink
from ssfs.source.exclude import ExcludeOptions, Excluder
from ssfs.store.catalog.reader import CatalogReader
from ssfs.store.catalog.writer import CatalogWriter

T = TypeVar("T")

_MAX_NEEDS = 5
"""How often a server may ask for all content again before something is badly wrong."""
_IDS_PER_NEED = 50_000
"""A server that lacks more asks several times."""


class SyncRequest(msgspec.Struct, frozen=True):
    """What is to be backed up where.

    Attributes:
        source: Root directory.
        point: Sync point name.
        task: Task name.
        client: This client's name.
        source_identity: What the task remembers of its source.
        exclude: What is left out.
        skip: (device, inode) of directories never to go into.
        dry_run: Compare, say what would be done, make no version.
        waits: Wait for a slot when all of the sync point are taken.
        allow_shrink: It is meant that most files are gone.
        ignore_inode: Inode numbers of the source mean nothing from one run to the next.
    """

    source: bytes
    point: str
    task: str
    client: str
    source_identity: str
    exclude: ExcludeOptions
    skip: frozenset[tuple[int, int]] = frozenset()
    dry_run: bool = False
    waits: bool = True
    allow_shrink: bool = False
    ignore_inode: bool = False


class SyncResult(msgspec.Struct, frozen=True):
    """What became of it. `version` and `mount_name` are empty after a dry run.

    Attributes:
        version: Id of the version.
        mount_name: The name a mount shows it by.
        counts: What was done.
        seconds: How long it took.
        problems: What could not be backed up as it is.
        expired: Ids of the versions that were let go afterwards.
        expiry_held: Why none were; "" if nothing held.
        shrunk: The version is flagged: the source has lost most of its files.
        notes: What is odd about the source, in a line each.
    """

    version: str
    mount_name: str
    counts: Counts
    seconds: float
    problems: list[EntryProblem]
    expired: list[str]
    expiry_held: str
    shrunk: Shrink | None = None
    notes: Sequence[str] = ()


def send_version(
    channel: Channel, request: SyncRequest, cache_root: bytes, monitor: Monitor, clock: Clock
) -> SyncResult:
    """Make one version of the source.

    Args:
        channel: To a server that has been greeted.
        request: What is to be backed up where.
        cache_root: Where the catalogs of this client's versions are kept.
        monitor: Hears of progress and problems.
        clock: For durations, and to know when a file was read.

    Raises:
        SourceError: The source as a whole cannot be read.
        PeerError: The server refused, broke the rules or went away.
        StoreError: The server's store cannot take it (as the server said).
        ConfigError: The cache cannot be used, or the server found the request wrong.
    """
    started = clock.monotonic_s()
    with contextlib.ExitStack() as stack:
        stack.enter_context(hearing_refusals(channel))
        source = Source(request.source, request.skip, ignore_inode=request.ignore_inode)
        stack.callback(source.close)
        opened = _open_task(channel, request, monitor)  # S2
        cache = stack.enter_context(open_cache(cache_root, opened.task_id))
        compared = stack.enter_context(_compared_catalog(channel, cache, opened))  # S3
        working = stack.enter_context(cache.begin_working(compared))
        working.set_next_id(opened.next_id)
        wire = None if request.dry_run else channel
        outgoing = stack.enter_context(
            contextlib.closing(Outgoing(wire, working, clock, opened.partials))
        )
        catalogs = Catalogs(compared, working, cache.sums)
        comparison = Comparison(
            source, catalogs, outgoing, Excluder(request.exclude), monitor, clock
        )
        stack.enter_context(contextlib.closing(comparison))
        monitor.expect(opened.expected_entries, opened.expected_bytes)
        comparison.run(dry_run=request.dry_run)  # S4 to S6
        if request.dry_run:
            channel.send(Leave())
            counts = _final_counts(comparison, working, channel)
            seconds = clock.monotonic_s() - started
            shrunk = None
            if not request.allow_shrink:
                shrunk = judge_shrink(compared.number("files"), working.counter("files"))
            return SyncResult(
                "", "", counts, seconds, comparison.problems, [], "", shrunk, comparison.notes
            )
        monitor.phase("committing")
        committed = _finish(channel, comparison, outgoing, working)  # S7, S8
        cache.keep_working(working)  # S9
        expired = _hear(channel, Expired)
        counts = _final_counts(comparison, working, channel)
    return SyncResult(
        version=committed.version,
        mount_name=committed.mount_name,
        counts=msgspec.structs.replace(counts, new_bytes=committed.new_bytes),
        seconds=clock.monotonic_s() - started,
        problems=comparison.problems,
        expired=expired.versions,
        expiry_held=expired.held,
        shrunk=committed.shrunk,
        notes=comparison.notes,
    )


def _open_task(channel: Channel, request: SyncRequest, monitor: Monitor) -> Opened:
    """Ask for the task, and wait in the queue if that is where we are put."""
    channel.send(
        Open(
            request.point,
            request.task,
            request.client,
            request.source_identity,
            request.dry_run,
            request.waits,
            request.allow_shrink,
        )
    )
    while isinstance(message := _hear_any(channel), Queued):
        waiting = f"waiting for a slot, place {message.place} in the queue"
        monitor.phase(waiting)
        # Where nobody watches a progress line, `--verbose` still tells.
        monitor.note(waiting)
    monitor.phase("")
    return _expect(message, Opened)


def _compared_catalog(channel: Channel, cache: TaskCache, opened: Opened) -> CatalogReader:
    """The catalog to compare with: cached, or fetched row by row."""
    cached = cache.find(opened.catalog_digest)
    if cached is not None:
        return cached
    fetched = cache.create()
    try:
        if opened.catalog_digest != bytes(len(opened.catalog_digest)):
            channel.send(FetchCatalog())
            for batch in received_rows(lambda: _hear_any(channel)):
                fetched.load(batch.entries, batch.principals, batch.xattr_sets)
            if fetched.logical_digest() != opened.catalog_digest:
                raise RemoteProtocolError("The server sent another catalog than it announced")
        fetched.create_search_indexes()
        return cache.finish_fetched(fetched, opened.catalog_digest)
    finally:
        fetched.close()


def _finish(
    channel: Channel, comparison: Comparison, outgoing: Outgoing, working: CatalogWriter
) -> Committed:
    """Say that it is complete until the server agrees."""
    needs_for_all = 1 + working.counter("entries") // _IDS_PER_NEED
    for _ in range(_MAX_NEEDS * needs_for_all):
        outgoing.withdraw_unused_xattrs()
        outgoing.flush()
        outgoing.wait_signatures()
        counts = _final_counts(comparison, working, channel)
        working.checkpoint()
        channel.send(Finish(working.logical_digest(), counts))
        answer = _hear_any(channel)
        if not isinstance(answer, Need):
            return _expect(answer, Committed)
        for entry_id in answer.ids:
            comparison.resend(entry_id)
    raise PeerError("The server keeps asking for the same content", remedy="check both disks")


def _final_counts(comparison: Comparison, working: CatalogWriter, channel: Channel) -> Counts:
    return msgspec.structs.replace(
        comparison.counts,
        entries=working.counter("entries"),
        bytes=working.counter("bytes"),
        bytes_sent=channel.sent_bytes,
        bytes_received=channel.received_bytes,
    )


def _hear(channel: Channel, wanted: type[T]) -> T:
    """The next message that is no late answer; it is of this type."""
    return _expect(_hear_any(channel), wanted)


def _hear_any(channel: Channel) -> Message:
    """The next message that is no late answer; a refusal is raised."""
    while True:
        match channel.receive():
            case Refused() as refused:
                raise_refused(refused)
            case CheckpointDone():
                continue
            case message:
                return message


def _expect(message: Message, wanted: type[T]) -> T:
    """The message, if it is of this type: the table of states lets through late signatures, too."""
    if not isinstance(message, wanted):
        raise RemoteProtocolError(f"The server sent a stray {type(message).__name__}")
    return message
