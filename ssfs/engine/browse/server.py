"""The server's side of a session in which a client browses.

Requests are answered one after the other, in the order asked; the next one is read when the last is answered, so that a client that asks
for much only fills the socket. What cannot be had is said by `Lacking`, and the session goes on: a mount lives for
months. A version that was looked into is locked until the client lets it go or leaves, or has looked into
some hundred others. Memory: the open versions, and one frame.
"""

import contextlib
import functools
import os

import blake3
import msgspec

from ssfs.engine.browse.rows import AnsweredRows, send_catalog_part
from ssfs.engine.browse.walk import add_walk
from ssfs.engine.refusal import sendable
from ssfs.engine.selection import readable_tasks
from ssfs.errors import (
    ConfigError,
    CorruptStore,
    InternalError,
    RemoteProtocolError,
    StoreError,
    TrustError,
)
from ssfs.model.entry import MAX_ENTRY_ID, ROOT_ID, Kind
from ssfs.model.peer import Peer
from ssfs.model.version import VersionId, parse_version_id
from ssfs.net.channel import Channel
from ssfs.protocol.browsing import (
    MAX_RANGE_BYTES,
    Browsed,
    BytesEnd,
    Lack,
    Lacking,
    LetGo,
    ListedVersion,
    Listing,
    RowsEnd,
    StoreSpace,
    WantBytes,
    WantCatalog,
    WantListing,
    WantRows,
    WantSpace,
)
from ssfs.protocol.codec import encode_control
from ssfs.protocol.messages import FileRaw, Leave
from ssfs.store.checked import CheckedCatalogs
from ssfs.store.opened import LocalVersion, OpenVersion, OpenVersions, VersionGone
from ssfs.store.store import Store, Task
from ssfs.store.version import Version, list_versions

_AHEAD_OF_READER = 8
"""How many times what is asked for the disk may have ready."""

MAX_AHEAD = 10_000
"""More rows than this are not sent unasked."""

_LISTED_AT_ONCE = 500
_KNOWN_TASKS = 256
_READ_BYTES = 1 << 20
_STAMP_BYTES = 16
_NEVER_S = 0.0

# More precise classes first.
_LACKS: tuple[tuple[type[Exception], Lack], ...] = (
    (VersionGone, Lack.GONE),
    (FileNotFoundError, Lack.GONE),
    (ConfigError, Lack.GONE),
    (TrustError, Lack.REFUSED),
    (CorruptStore, Lack.DAMAGED),
    (StoreError, Lack.FAILED),
    (OSError, Lack.FAILED),
)


def serve_browsing(channel: Channel, store: Store, peer: Peer) -> int:
    """Answer a client that browses, until it leaves; how many answers that were.

    Args:
        channel: A session in which the client has said `Browse` and waits.
        store: Where it looks around; this process can read it.
        peer: Who it is: it sees the tasks that it may read.

    Raises:
        ConnectionLost: It went away.
        RemoteProtocolError: It broke the rules. Nobody has told it so.
    """
    channel.send(Browsed(store.settings.timezone))
    desk = _Desk(channel, store, peer)
    try:
        return desk.run()
    finally:
        desk.close()


class _Desk:
    """One client's session."""

    def __init__(self, channel: Channel, store: Store, peer: Peer) -> None:
        self._channel = channel
        self._store = store
        self._peer = peer
        # Whoever's rights change is cut off: what was allowed once is, as long as the session lasts.
        self._tasks: dict[tuple[str, str], Task] = {}
        self._listed: dict[Task, dict[VersionId, ListedVersion | None]] = {}
        self._digests: dict[bytes, str] = {}
        checked = CheckedCatalogs(at_once=True)
        self._versions = OpenVersions(
            float("inf"), open_version=functools.partial(LocalVersion, checked=checked)
        )
        self._buffer = memoryview(bytearray(_READ_BYTES))
        # To where the disk was told to go ahead last.
        self._gone_ahead = ((b"", 0), 0)

    def close(self) -> None:
        """Let go of all versions."""
        self._versions.close()

    def run(self) -> int:
        """Answer until the client leaves."""
        answers = 0
        while True:
            request = self._channel.receive()
            if isinstance(request, Leave):
                return answers
            try:
                self._answer(request)
            except tuple(kind for kind, _ in _LACKS) as error:
                lack = next(lack for kind, lack in _LACKS if isinstance(error, kind))
                self._channel.send(Lacking(lack, sendable(_text(error))))
            answers += 1

    def _answer(self, request: object) -> None:
        match request:
            case WantListing():
                self._send_listing(request)
            case WantRows():
                self._send_rows(self._open(request), request)
            case WantBytes():
                self._send_bytes(self._open(request), request)
            case WantCatalog():
                self._send_catalog(request)
            case WantSpace():
                self._send_space()
            case LetGo():
                # No answer, not even that there is no such version.
                with contextlib.suppress(*(kind for kind, _ in _LACKS)):
                    self._versions.let_go(self._version(request))
            case _:
                raise InternalError(f"{type(request).__name__} let through by the table of states")

    # -- what is meant ---------------------------------------------------------------------------

    def _task(self, point: str, name: str) -> Task:
        """The task, if the peer may read it."""
        task = self._tasks.get((point, name))
        if task is None:
            (task,) = readable_tasks(self._store, self._peer, point, name)
            if len(self._tasks) >= _KNOWN_TASKS:
                self._tasks.clear()
                self._listed.clear()
                self._digests.clear()
            self._tasks[point, name] = task
        return task

    def _version(self, request: WantRows | WantBytes | WantCatalog | LetGo) -> Version:
        if not request.task:
            raise RemoteProtocolError("The client named no task")
        task = self._task(request.point, request.task)
        version_id = parse_version_id(request.version)
        if version_id is None:
            raise RemoteProtocolError("The client named a version that is none")
        return Version(version_id, os.path.join(task.path, b"versions", str(version_id).encode()))

    def _use(self, version: Version) -> LocalVersion:
        opened = self._versions.use(version, _NEVER_S)
        assert isinstance(opened, LocalVersion)
        return opened

    def _open(self, request: WantRows | WantBytes) -> OpenVersion:
        version = self._version(request)
        opened = self._use(version)
        if version.path not in self._digests:
            if len(self._digests) >= _LISTED_AT_ONCE:
                self._digests.clear()
            digest = ""
            with contextlib.suppress(CorruptStore):
                digest = version.record().catalog_digest
            self._digests[version.path] = digest
        return opened

    # -- listings --------------------------------------------------------------------------------

    def _send_listing(self, request: WantListing) -> None:
        names: list[str] = []
        versions: list[ListedVersion] = []
        if not request.point:
            points = [point.name for point in self._store.points()]
            names = [name for name in points if self._peer.may_use_point(name)]
        elif not request.task:
            tasks = readable_tasks(self._store, self._peer, request.point, "")
            names = [task.name for task in tasks]
        else:
            versions = self._list_versions(self._task(request.point, request.task))
        stamp = blake3.blake3(encode_control((names, versions))).digest(_STAMP_BYTES)
        if stamp == request.stamp:
            names, versions = [], []
        count = max(len(names), len(versions), 1)
        for start in range(0, count, _LISTED_AT_ONCE):
            end = start + _LISTED_AT_ONCE
            listing = Listing(stamp, end >= count, names[start:end], versions[start:end])
            self._channel.send(listing)

    def _list_versions(self, task: Task) -> list[ListedVersion]:
        """The versions whose record can be read, as a mount on this machine shows them."""
        before = self._listed.get(task, {})
        listed: dict[VersionId, ListedVersion | None] = {}
        for version in list_versions(task.path):
            if version.id in before:
                listed[version.id] = before[version.id]
                continue
            try:
                record = version.record()
            except CorruptStore:
                # Damaged for good, unless it is the directory that has gone meanwhile.
                if os.path.exists(version.path):
                    listed[version.id] = None
                continue
            listed[version.id] = ListedVersion(
                str(version.id), record.name, record.root, record.shift_s, record.catalog_digest
            )
        self._listed[task] = listed
        return [version for version in listed.values() if version is not None]

    # -- rows ------------------------------------------------------------------------------------

    def _send_rows(self, opened: OpenVersion, request: WantRows) -> None:
        entry = opened.entry(request.entry)
        if entry is None:
            raise VersionGone
        rows = AnsweredRows(self._channel, opened)
        if entry.id == ROOT_ID:
            rows.add_principals()
        rows.add(entry)
        directories: list[int] = []
        if entry.kind == Kind.DIRECTORY and request.ahead >= 0:
            ahead = min(request.ahead, MAX_AHEAD)
            if request.walks:
                directories = add_walk(rows, opened.catalog, entry, ahead)
            else:
                directories = rows.add_below(entry, ahead)
        rows.end()
        digest = self._digests.get(opened.path, "")
        self._channel.send(RowsEnd(digest, directories))

    def _send_catalog(self, request: WantCatalog) -> None:
        if not 0 <= request.after < MAX_ENTRY_ID:
            raise RemoteProtocolError(f"The client wants the rows after {request.after}")
        base = None
        if request.base:
            base = self._use(self._version(msgspec.structs.replace(request, version=request.base)))
        send_catalog_part(self._channel, self._use(self._version(request)), base, request.after)

    # -- the disk --------------------------------------------------------------------------------

    def _send_space(self) -> None:
        status = os.statvfs(self._store.path)
        self._channel.send(
            StoreSpace(
                status.f_frsize,
                status.f_blocks,
                status.f_bfree,
                status.f_bavail,
                status.f_files,
                status.f_ffree,
            )
        )

    # -- content ---------------------------------------------------------------------------------

    def _send_bytes(self, opened: OpenVersion, request: WantBytes) -> None:
        entry = opened.entry(request.entry)
        if entry is None or entry.kind != Kind.FILE:
            raise RemoteProtocolError(f"The client wants to read entry {request.entry}, no file")
        offset, count = request.offset, request.count
        is_inside = offset >= 0 and 0 <= count <= MAX_RANGE_BYTES and offset + count <= entry.size
        if not is_inside:
            raise RemoteProtocolError(f"The client wants to read beyond entry {request.entry}")
        fd = opened.open_file(entry)
        try:
            self._go_ahead(fd, (opened.path, entry.id), offset, count)
            while count:
                view = self._buffer[:count]
                done = os.preadv(fd, [view], offset)
                if not done:
                    problem = f"Data of entry {entry.id} is not what the catalog says"
                    raise CorruptStore(problem, path=opened.path)
                offset += done
                count -= done
                # A short block of its own costs as much as a long one.
                end = () if count else (BytesEnd(),)
                self._channel.send(FileRaw(view[:done]), *end)
        finally:
            os.close(fd)
        if not request.count:
            self._channel.send(BytesEnd())

    def _go_ahead(self, fd: int, file: tuple[bytes, int], offset: int, count: int) -> None:
        """Have the disk go ahead of the line: a file is opened anew for each range, so the kernel does not see who reads on."""
        end = offset + _AHEAD_OF_READER * count
        done_file, done = self._gone_ahead
        begin = done if file == done_file and offset <= done <= end else offset
        # Far enough to be worth a call, which looks at each page, be it here or not.
        if 2 * (begin - offset) <= end - offset:
            os.posix_fadvise(fd, begin, end - begin, os.POSIX_FADV_WILLNEED)
            self._gone_ahead = (file, end)


def _text(error: Exception) -> str:
    if isinstance(error, VersionGone):
        return "It is not there any more"
    if isinstance(error, OSError):
        return error.strerror or "It cannot be read"
    return str(error)
