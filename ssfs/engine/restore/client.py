"""The client's side of a restore from a server. Read `fetch_version` beside SYNC.md, "Restore"."""

import contextlib
import os
import tempfile
from collections.abc import Iterator

import msgspec

from ssfs.clock import Clock
from ssfs.engine.refusal import hear, hearing_refusals
from ssfs.engine.restore.kept import KeptCatalogs
from ssfs.engine.restore.options import DEFAULT_OPTIONS, RestoreOptions
from ssfs.engine.restore.order import DepthFirst
from ssfs.engine.restore.restorer import Destination, RestoreResult, restore_into
from ssfs.engine.restore.wanted import check_last_names, find_wanted
from ssfs.engine.restore.window import ChannelContents, shown
from ssfs.engine.rows import received_rows
from ssfs.errors import (
    ConfigError,
    RemoteProtocolError,
    StoreError,
    StoreFull,
)
from ssfs.fsio.disk import raise_descriptor_limit
from ssfs.monitor import Monitor
from ssfs.net.channel import Channel
from ssfs.protocol.messages import Leave
from ssfs.protocol.restoring import Fetch, Fetched
from ssfs.store.catalog.reader import CatalogReader
from ssfs.store.catalog.writer import CatalogWriter


def fetch_version(
    channel: Channel,
    request: Fetch,
    target: bytes,
    monitor: Monitor,
    clock: Clock,
    options: RestoreOptions = DEFAULT_OPTIONS,
) -> tuple[Fetched, RestoreResult]:
    """Copy a version of a server, or parts of it, into the directory `target`.

    Args:
        channel: A session in the state `READY`; it is over afterwards.
        request: What to restore.
        target: As for `ssfs.engine.restore.local.restore_version`.
        monitor: Hears of progress and problems.
        clock: For the duration, and for access times, which no catalog has.
        options: How.

    Returns:
        Which version it was, and what became of it.

    Raises:
        ConfigError: There is no such task, version or path, the target cannot be used, or there
            is no room for the list of files; nothing was written.
        TrustError: The server does not let us read it.
        PeerError: The server broke the rules or went away; what was restored so far is right.
        StoreError: The version is damaged or gone.
    """
    started_s = clock.monotonic_s()
    raise_descriptor_limit()
    with contextlib.ExitStack() as stack:
        stack.enter_context(hearing_refusals(channel))
        kept = stack.enter_context(contextlib.closing(KeptCatalogs(options.cache)))
        request = msgspec.structs.replace(request, known=kept.digests())
        fetched = ask_for_version(channel, request)
        monitor.phase("fetching the list of files")
        if fetched.known:
            catalog = kept.find(fetched.known)
            _hear_no_row(channel)
        else:
            catalog = stack.enter_context(_fetched_catalog(channel))
        wanted = find_wanted(catalog, request.paths)
        if not options.in_place:
            check_last_names(wanted)
        if not (fetched.known and wanted):
            monitor.expect(catalog.number("entries"), catalog.number("bytes"))
        monitor.phase("restoring")
        contents = stack.enter_context(
            contextlib.closing(ChannelContents(channel, damaged_ok=request.damaged_ok))
        )
        # The list of files may lie in a directory that the version does not have.
        lists = os.path.dirname(catalog.path)
        spared = msgspec.structs.replace(options, spared=(*options.spared, lists))
        destination = Destination(target, spared, shown(fetched.problem))
        result = restore_into(destination, wanted, catalog, contents, monitor, clock)
        contents.finish()
        channel.send(Leave())
    return fetched, msgspec.structs.replace(result, seconds=clock.monotonic_s() - started_s)


def ask_for_version(channel: Channel, request: Fetch) -> Fetched:
    """Which version it is that rows will come of now; raises what the server refuses with."""
    channel.send(request)
    fetched = hear(channel)
    if not isinstance(fetched, Fetched):
        raise RemoteProtocolError(f"The server answered with {type(fetched).__name__}")
    return fetched


@contextlib.contextmanager
def _fetched_catalog(channel: Channel) -> Iterator[CatalogReader]:
    """The rows that come, as a catalog of our own, gone in the end."""
    with contextlib.ExitStack() as stack:
        try:
            directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="ssfs-restore-"))
        except OSError as error:
            raise no_room_for_list(
                tempfile.gettempdir(), error.strerror or "unknown error"
            ) from error
        path = os.path.join(os.fsencode(directory), b"catalog.db")
        try:
            with CatalogWriter.open_writer(path, durable=False) as writer:
                _receive_rows(channel, writer)
                writer.checkpoint()
        except StoreError as error:
            if error.path != path:
                raise  # what the server says about its store
            is_full = isinstance(error, StoreFull)
            raise no_room_for_list(
                directory, "no space left" if is_full else error.problem
            ) from error
        yield stack.enter_context(CatalogReader.open(path))


def _hear_no_row(channel: Channel) -> None:
    """The end of the rows, of which none is to come."""
    for _ in received_rows(lambda: hear(channel)):
        raise RemoteProtocolError("The server sent rows that it said we have")


def _receive_rows(channel: Channel, catalog: CatalogWriter) -> None:
    """Put the rows that come into an empty catalog, until the end of them."""
    order = DepthFirst()
    for batch in received_rows(lambda: hear(channel)):
        for entry in batch.entries:
            order.check(entry)
        catalog.load(batch.entries, batch.principals, batch.xattr_sets)
    if order.is_empty:
        raise RemoteProtocolError("The server sent no row")


def no_room_for_list(directory: str, reason: str) -> ConfigError:
    """The error of a list of files that does not fit into the directory for temporary files."""
    return ConfigError(
        f"The list of files cannot be kept ({reason.lower()})",
        path=os.fsencode(directory),
        remedy="set TMPDIR to a directory with more room",
    )
