"""Content by its digest, from the versions of a server: what heals a store from another one far away.

The client says which contents it lacks (`Seek`), the server sends those it has (`ContentPart`) and says when that was
all (`Sought`). The server reads only in tasks that the peer may read, and digests what it sends: a file that turns
out damaged is no end, another version may have it whole. The client believes nothing: what does not have its
digest is thrown away (`ssfs.store.healing.Arrival`).
"""

import contextlib
import itertools
import os
from collections.abc import Iterable, Iterator

from ssfs.engine.refusal import hear, hearing_refusals
from ssfs.engine.rights import check_use
from ssfs.engine.selection import readable_tasks
from ssfs.errors import RemoteProtocolError, StoreError
from ssfs.fsio.disk import open_directory
from ssfs.fsio.sparse import digest_stream
from ssfs.model.entry import Entry
from ssfs.model.layout import Layout
from ssfs.model.peer import Peer
from ssfs.monitor import Monitor
from ssfs.net.channel import Channel
from ssfs.protocol.seeking import ContentPart, Seek, Sought
from ssfs.store.healing import Arrival, Content, Wanted
from ssfs.store.store import Store, Task
from ssfs.store.stored import open_stored
from ssfs.store.tree import Tree
from ssfs.store.version import Version

MOST_SOUGHT = 8192
"""Contents in one request."""


# -- the client ------------------------------------------------------------------------------------


class ChannelSource:
    """A server's versions as a place where content may still be."""

    def __init__(self, channel: Channel, point: str, task: str, monitor: Monitor) -> None:
        """Ask through a channel whose session is in the state `READY`.

        Args:
            channel: To the server.
            point: Where it is to look; "" everywhere.
            task: Likewise.
            monitor: Hears of what arrives.
        """
        self._channel = channel
        self._point = point
        self._task = task
        self._monitor = monitor

    def gather(self, wanted: Wanted, workplace: int) -> None:
        """Bring what the server has of it; see `ssfs.store.healing.Gather`.

        Raises:
            OSError: The workplace cannot be written; the session is ready for the next question.
            SsfsError: What the server raised.
            ConnectionLost: It went away.
            RemoteProtocolError: It broke the rules.
        """
        rest = iter(wanted.items())
        while batch := list(itertools.islice(rest, MOST_SOUGHT)):
            contents = [content for content, _ in batch]
            with hearing_refusals(self._channel):
                self._channel.send(Seek(self._point, self._task, contents))
            self._take(batch, workplace)

    def _take(self, batch: list[tuple[Content, bytes]], workplace: int) -> None:
        arrivals = _Arrivals(batch, workplace)
        with contextlib.closing(arrivals):
            while not isinstance(part := hear(self._channel), Sought):
                if not isinstance(part, ContentPart):
                    raise RemoteProtocolError(f"The server sent {type(part).__name__} for content")
                arrivals.hear(part)
                self._monitor.advance(0, len(part.content), b"")
        if arrivals.failure is not None:
            raise arrivals.failure


class _Arrivals:
    """What comes for one request, one file after the other.

    Attributes:
        failure: What the workplace could not take; the rest passes by, so that the session can go on.
    """

    def __init__(self, batch: list[tuple[Content, bytes]], workplace: int) -> None:
        self.failure: OSError | None = None
        self._batch = batch
        self._workplace = workplace
        self._open: Arrival | None = None
        self._number = -1

    def hear(self, part: ContentPart) -> None:
        """The next piece; raises RemoteProtocolError if it cannot be one."""
        if self._number < 0:
            if not 0 <= part.id < len(self._batch):
                raise RemoteProtocolError("The server sent what was not sought")
            self._number = part.id
            with self._noting_failures():
                self._open = Arrival(*self._batch[part.id], self._workplace)
        if part.id != self._number:
            raise RemoteProtocolError("The server mixed the contents of two files")
        with self._noting_failures():
            self._write(part)
        if part.last:
            self.close()
            self._number = -1

    def _write(self, part: ContentPart) -> None:
        if self._open is None or self.failure is not None:
            return
        if not self._open.takes(len(part.content)):
            raise RemoteProtocolError("The server sent more of a file than there is")
        self._open.write(part.content)
        if part.last:
            self._open.finish()

    @contextlib.contextmanager
    def _noting_failures(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.failure = self.failure or error

    def close(self) -> None:
        """What is not there whole goes."""
        if self._open is not None:
            self._open.close()
            self._open = None


# -- the server ------------------------------------------------------------------------------------


def serve_seek(channel: Channel, store: Store, peer: Peer, request: Seek) -> int:
    """Send a client the contents that it seeks; how many those were.

    Args:
        channel: A session in which the client has said `request` and waits.
        store: Where to look; this process can read it.
        peer: Who asks: what it may not read is not looked at.
        request: What it wants.

    Raises:
        ConfigError: There is no such point or task.
        TrustError: The peer may not read it.
        StoreError: The store cannot be read.
        ConnectionLost: The client went away.
        RemoteProtocolError: It asked for too much. Nobody has told the client of any of these.
    """
    if len(request.contents) > MOST_SOUGHT:
        raise RemoteProtocolError("The client sought too much at a time")
    numbers = {content: number for number, content in enumerate(request.contents)}
    tasks = list(_tasks(store, peer, request))
    found = 0
    for version in _versions(tasks):
        if not numbers:
            break
        # What is wrong with one version is no reason not to look into the next.
        with contextlib.suppress(StoreError, OSError, ValueError):
            found += _Search(channel, version, numbers).run()
    channel.send(Sought())
    return found


def _tasks(store: Store, peer: Peer, request: Seek) -> Iterator[Task]:
    if request.point:
        check_use(peer, request.point)
        yield from readable_tasks(store, peer, request.point, request.task)
        return
    for point in store.points():
        if peer.may_use_point(point.name):
            yield from readable_tasks(store, peer, point.name, "")


def _versions(tasks: Iterable[Task]) -> Iterator[Version]:
    for task in tasks:
        yield from reversed(task.versions())


class _Search:
    """One version, searched."""

    def __init__(self, channel: Channel, version: Version, numbers: dict[Content, int]) -> None:
        """What is sent goes from `numbers`."""
        self._channel = channel
        self._version = version
        self._numbers = numbers

    def run(self) -> int:
        """Send what it has; how many contents."""
        version, found = self._version, 0
        with version.share(), version.catalog() as catalog:
            damaged = version.damage().ids
            tree = Tree(catalog, open_directory(os.path.join(version.path, b"tree")))
            with contextlib.closing(tree):
                for entry in catalog.files_with(self._numbers):
                    content = (entry.size, entry.digest)
                    if content not in self._numbers or entry.id in damaged:
                        continue
                    if self._is_sent(entry, tree, self._numbers[content]):
                        del self._numbers[content]
                        found += 1
        return found

    def _is_sent(self, entry: Entry, tree: Tree, number: int) -> bool:
        """Send a file; whether it was what its row says, all of it."""
        try:
            fd = open_stored(entry.name, tree.directory(entry.parent))
        except OSError:
            return False
        try:
            if os.fstat(fd).st_size != entry.size:
                return False
            layout = Layout.of(entry.size, entry.holes)
            try:
                digest, _ = digest_stream(
                    fd,
                    layout,
                    lambda piece, _: self._channel.send(
                        ContentPart(number, last=False, content=piece)
                    ),
                )
            except OSError:
                digest = b""
            # Right or wrong: the client sees for itself.
            self._channel.send(ContentPart(number, last=True, content=b""))
            return digest == entry.digest
        finally:
            os.close(fd)
