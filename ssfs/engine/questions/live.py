"""`diff` of a version and a directory of this machine, wherever the store is.

The version's rows become a catalog of our own, and a walk like a sync's makes another one of the directory, beginning with a
copy of the first: so what has moved keeps its id, and a file is read only if its row does not
prove it unchanged, or if the size alone does not prove it changed. Then the two catalogs are compared like any.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator

import msgspec
from typing_extensions import override

from ssfs.clock import Clock
from ssfs.engine.coding import KnownBasis
from ssfs.engine.comparison import Comparison
from ssfs.engine.moves import Catalogs, Source
from ssfs.engine.outgoing import Content, OpenFile, Outgoing
from ssfs.engine.questions.difference import Comparer, DifferenceList
from ssfs.engine.questions.history import plain_path
from ssfs.engine.refusal import hear, hearing_refusals
from ssfs.engine.restore.client import ask_for_version, no_room_for_list
from ssfs.engine.restore.order import DepthFirst
from ssfs.engine.restore.wanted import find_wanted, wanted_rows
from ssfs.engine.rows import received_rows
from ssfs.errors import RemoteProtocolError, StoreError
from ssfs.fsio.disk import store_errors
from ssfs.model.entry import ROOT_ID, Entry, Kind
from ssfs.model.spelling import path_text
from ssfs.monitor import Monitor
from ssfs.net.channel import Channel
from ssfs.protocol.messages import Leave
from ssfs.protocol.questions import DiffReport, PathProblem
from ssfs.protocol.restoring import Fetch
from ssfs.source.exclude import ExcludeOptions, Excluder
from ssfs.source.reading import digest_file
from ssfs.store.catalog.difference import Differences
from ssfs.store.catalog.reader import CatalogReader
from ssfs.store.catalog.writer import CatalogWriter
from ssfs.store.version import Version

_ROWS_AT_ONCE = 1000
_SPECIAL = str.maketrans({character: f"\\{character}" for character in r"\*?[]!# "})


class LiveRequest(msgspec.Struct, frozen=True):
    """What is compared.

    Attributes:
        directory: The directory, as the version's source was.
        path: Only this entry and what is below it, in both; b"": all.
        exclude: What of the directory is left out.
        skip: (device, inode) of directories never to go into.
        limit: Most differences to list; all are counted.
    """

    directory: bytes
    path: bytes
    exclude: ExcludeOptions
    skip: frozenset[tuple[int, int]]
    limit: int


def compare_version_with(
    version: Version, label: str, request: LiveRequest, monitor: Monitor, clock: Clock
) -> DiffReport:
    """Compare a version of a store of this machine with a directory.

    Args:
        version: What is compared; it cannot be deleted meanwhile.
        label: POINT/TASK.
        request: With what.
        monitor: Hears of progress and problems.
        clock: As a sync needs one.

    Raises:
        ConfigError: The version does not have the path.
        SourceError: The directory cannot be read.
        StoreError: The version cannot be read.
    """
    path = plain_path(request.path)

    def fill(catalog: CatalogWriter) -> bytes:
        rows = wanted_rows(recorded, find_wanted(recorded, [path] if path else []))
        return _load(catalog, rows, path)

    with store_errors(version.path), version.share(), version.catalog() as recorded:
        live = _Live(request, fill, monitor, clock)
        return live.compare(label, str(version.id))


def compare_fetched_with(
    channel: Channel, fetch: Fetch, label: str, request: LiveRequest, monitor: Monitor, clock: Clock
) -> DiffReport:
    """Compare a version of a server with a directory; as `compare_version_with`.

    Args:
        channel: A session in the state `READY`; it is over afterwards.
        fetch: The version; its paths are those of `request`.
        label: POINT/TASK.
        request: With what.
        monitor: Hears of progress and problems.
        clock: As a sync needs one.
    """
    path = plain_path(request.path)
    with hearing_refusals(channel):
        asked = msgspec.structs.replace(fetch, paths=[path] if path else [])
        fetched = ask_for_version(channel, asked)

        def fill(catalog: CatalogWriter) -> bytes:
            monitor.phase("fetching the list of files")
            root = _load(catalog, _fetched_rows(channel), path)
            channel.send(Leave())
            return root

        return _Live(request, fill, monitor, clock).compare(label, fetched.version)


def _fetched_rows(channel: Channel) -> Iterator[Entry]:
    order = DepthFirst()
    for batch in received_rows(lambda: hear(channel)):
        for entry in batch.entries:
            order.check(entry)
            yield entry


def _load(catalog: CatalogWriter, rows: Iterable[Entry], path: bytes) -> bytes:
    """Fill a catalog whose root is the directory at a path, or, of another entry, the one it is in.

    Args:
        catalog: It is empty.
        rows: Depth first, from the root of the version.
        path: As in the version.

    Returns:
        The path of the directory that is the root now.
    """
    names = path.split(b"/") if path else []
    rows = iter(rows)
    above = [entry for _, entry in zip(range(len(names) + 1), rows, strict=False)]
    if len(above) <= len(names):
        raise RemoteProtocolError("The server sent no row of what was asked for")
    first: list[Entry] = []
    if above[-1].kind != Kind.DIRECTORY:
        first.append(above.pop())
        names.pop()
    root = above[-1]
    # Without what is not compared (`NOT_OF_A_LIVE_TREE`) and would need more than rows.
    batch = [root._replace(id=ROOT_ID, parent=0, name=b"", xattrs=b"")]
    for entry in _chained(first, rows):
        parent = ROOT_ID if entry.parent == root.id else entry.parent
        batch.append(entry._replace(parent=parent, xattrs=b""))
        if len(batch) >= _ROWS_AT_ONCE:
            catalog.load(batch, [])
            batch = []
    catalog.load(batch, [])
    return b"/".join(names)


def _chained(first: list[Entry], rows: Iterator[Entry]) -> Iterator[Entry]:
    yield from first
    yield from rows


class _Live:
    """One comparison, in a temporary directory of its own."""

    def __init__(
        self,
        request: LiveRequest,
        fill: Callable[[CatalogWriter], bytes],
        monitor: Monitor,
        clock: Clock,
    ) -> None:
        """Prepare it; `fill` is `_load` of the rows of the version."""
        self._request = request
        self._fill = fill
        self._monitor = monitor
        self._clock = clock

    def compare(self, label: str, version: str) -> DiffReport:
        """Do it all."""
        Excluder(self._request.exclude)  # a pattern that makes no sense is found first
        found = DifferenceList(self._request.limit)
        with contextlib.ExitStack() as stack:
            try:
                temporary = stack.enter_context(tempfile.TemporaryDirectory(prefix="ssfs-diff-"))
            except OSError as error:
                raise no_room_for_list(
                    tempfile.gettempdir(), error.strerror or "unknown error"
                ) from error
            directory = os.fsencode(temporary)
            old, new = (os.path.join(directory, name) for name in (b"version.db", b"live.db"))
            try:
                root = self._record(old, new)
                problems = self._walk(old, new, root)
            except StoreError as error:
                if error.path not in (old, new):
                    raise  # what is said about the store
                raise no_room_for_list(temporary, error.problem) from error
            older, newer = (stack.enter_context(CatalogReader.open(path)) for path in (old, new))
            differences = Differences(older, newer, is_live=True)
            stack.callback(differences.close)
            name = self._only_name(root)
            Comparer(differences, found, below=name, prefix=root, is_live=True).run()
        return DiffReport(
            task=label,
            old_version=version,
            new_version="",
            differences=found.listed(),
            counts=found.counts(),
            truncated=found.is_truncated,
            problems=problems,
        )

    def _only_name(self, root: bytes) -> bytes:
        """The name of the one entry of the root that is compared; b"" for all."""
        path = plain_path(self._request.path)
        return path[len(root) :].lstrip(b"/")

    def _record(self, old: bytes, new: bytes) -> bytes:
        """Make the catalog of the version, and the copy that the walk begins with."""
        with CatalogWriter.open_writer(old, durable=False) as catalog:
            root = self._fill(catalog)
            catalog.create_search_indexes()
            catalog.checkpoint()
        shutil.copyfile(old, new)
        return root

    def _walk(self, old: bytes, new: bytes, root: bytes) -> tuple[PathProblem, ...]:
        """Turn the copy into the catalog of the directory."""
        request = self._request
        exclude = request.exclude
        if name := self._only_name(root):
            only = os.fsdecode(name).translate(_SPECIAL)
            exclude = msgspec.structs.replace(
                exclude, patterns=(*exclude.patterns, "/*", f"!/{only}")
            )
        self._monitor.phase("comparing")
        with contextlib.ExitStack() as stack:
            directory = os.path.join(request.directory, root) if root else request.directory
            source = stack.enter_context(contextlib.closing(Source(directory, request.skip)))
            compared = stack.enter_context(CatalogReader.open(old))
            working = stack.enter_context(CatalogWriter.open_writer(new, durable=False))
            self._monitor.expect(compared.number("entries"), 0)
            outgoing = stack.enter_context(contextlib.closing(_Looking(None, working, self._clock)))
            walk = Comparison(
                source,
                Catalogs(compared, working),
                outgoing,
                Excluder(exclude),
                self._monitor,
                self._clock,
            )
            stack.enter_context(contextlib.closing(walk))
            walk.run(dry_run=False)
            working.checkpoint()
        prefix = root + b"/" if root else b""
        return tuple(
            # What a sync does about it, after the semicolon, is not done here.
            PathProblem(path_text(prefix + item.path), item.problem.partition(";")[0])
            for item in walk.problems
        )


class _Looking(Outgoing):
    """Says nothing to anybody; large files are only read if their size does not tell them apart."""

    @override
    def send_content(
        self, now: Entry, file: OpenFile, basis: KnownBasis, progress: Callable[[int], None]
    ) -> Content:
        recorded = self._working.entry(now.id)
        layout = file.layout
        if recorded is None or recorded.size != layout.size:
            return Content(bytes(32), layout.size)
        digest, length = digest_file(file.fd, layout, progress)
        return Content(digest, layout.size if layout.is_sparse else length)
