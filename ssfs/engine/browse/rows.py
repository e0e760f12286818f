"""The rows of a version as a browsing client gets them: of directories that it enters, or of the whole catalog."""

import collections
import contextlib
import itertools

from ssfs.engine.rows import RowSender
from ssfs.model.entry import MAX_ENTRY_ID, Entry, Kind
from ssfs.net.channel import Channel
from ssfs.protocol.browsing import CatalogPart, LinkedNames, Links
from ssfs.store.catalog.difference import Patch
from ssfs.store.opened import LocalVersion, OpenVersion

LINKS_AT_ONCE = 5000
PART_ROWS = 10_000
"""Rows of a catalog in one answer: a tenth of a second, for which other questions of the client wait."""
_PART_GONE = 50_000


class AnsweredRows:
    """The rows of one answer."""

    def __init__(self, channel: Channel, opened: OpenVersion) -> None:
        self._channel = channel
        self._opened = opened
        self._catalog = opened.catalog
        self._sender = RowSender(channel)
        self._sent_sets: set[bytes] = set()
        self._links: list[LinkedNames] = []
        self._groups: set[int] = set()

    def add_principals(self) -> None:
        """What the source called its users and groups."""
        self._sender.add_principals(self._catalog)

    def add(self, entry: Entry) -> None:
        """A row, and what it needs: its attributes, and the first of its links."""
        self._add_alone(entry)
        group = entry.link_group
        if not group or group in self._groups:
            return
        links = self._opened.hard_links(group)
        if links is None:
            return
        if len(self._groups) >= LINKS_AT_ONCE:
            self._groups.clear()
        self._groups.add(group)
        first_id, count = links
        self._links.append(LinkedNames(group, first_id, count))
        if len(self._links) >= LINKS_AT_ONCE:
            self._send_links()
        first = self._catalog.entry(first_id)
        if first is not None and first_id != entry.id:
            self._add_alone(first)

    def _add_alone(self, entry: Entry) -> None:
        entry = self._catalog.checked(entry)
        if entry.xattrs and entry.xattrs not in self._sent_sets:
            if len(self._sent_sets) >= LINKS_AT_ONCE:
                self._sent_sets.clear()
            self._sent_sets.add(entry.xattrs)
            self._sender.add_xattrs(entry.xattrs, self._catalog.xattr_set(entry.xattrs))
        self._sender.add_entry(entry)

    def add_below(self, top: Entry, ahead: int) -> list[int]:
        """What is in a directory, and in those below it as far as so many rows go; the ids of all these."""
        done: list[int] = []
        pending = collections.deque([top.id])
        while pending:
            directory = pending.popleft()
            children = self._catalog.children(directory)
            if done:
                some = list(itertools.islice(children, ahead + 1))
                ahead -= len(some) + 1
                if ahead < 0:
                    break
                children = iter(some)
            for child in children:
                self.add(child)
                if child.kind == Kind.DIRECTORY and len(pending) < ahead:
                    pending.append(child.id)
            done.append(directory)
        return done

    def _send_links(self) -> None:
        self._sender.flush()
        if self._links:
            self._channel.send(Links(self._links))
            self._links = []

    def end(self) -> None:
        """Send what is left."""
        self._send_links()


def send_catalog_part(
    channel: Channel, opened: LocalVersion, base: LocalVersion | None, after: int
) -> None:
    """Send the next rows of a catalog by id, or the next of those that another one has otherwise.

    Raises:
        CorruptStore: One of the catalogs cannot be read.
    """
    catalog = opened.catalog
    sender = RowSender(channel)
    if not after:
        sender.add_principals(catalog)
        for key, encoded in catalog.xattr_sets():
            sender.add_xattrs(key, encoded)
    if base is None:
        rows, gone = catalog.entries_after(after, PART_ROWS), []
        through = rows[-1].id if rows else after
        is_last = len(rows) < PART_ROWS
    else:
        # Opened now, and thereby compared with what was committed.
        _ = base.catalog
        patch = Patch(base.catalog_file, opened.catalog_file, catalog.path)
        with contextlib.closing(patch):
            rows = patch.rows(after, PART_ROWS)
            through = rows[-1].id if len(rows) == PART_ROWS else MAX_ENTRY_ID
            gone = patch.gone(after, through, _PART_GONE)
        if len(gone) == _PART_GONE:
            through = gone[-1]
        is_last = through == MAX_ENTRY_ID
    for entry in rows:
        if entry.id <= through:
            sender.add_entry(catalog.checked(entry))
    sender.flush()
    channel.send(CatalogPart(through, is_last, gone))
