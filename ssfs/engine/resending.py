"""What the server asks for again (`Need`): content that it has lost, sent whole, and of each file once.

Names that are hard links of one file in the source, and files of one content, were one inode in the store, and become
one again: the first is sent, the others are linked to it.
"""

import os
from collections.abc import Callable

from ssfs.engine.content import SHARED_MIN_BYTES, ContentSender
from ssfs.engine.moves import Source
from ssfs.engine.outgoing import Outgoing
from ssfs.engine.plan import Verdict, judge_content
from ssfs.fsio.disk import DIRECTORY_FLAGS
from ssfs.fsio.sparse import find_layout
from ssfs.model.entry import Entry, Kind
from ssfs.source.reading import digest_file, is_same, open_file
from ssfs.store.catalog.writer import CatalogWriter

_MOST_REMEMBERED = 100_000
_AS_READ = ("dev", "ino", "size", "mtime_s", "mtime_ns", "ctime_s", "ctime_ns")
"""Two names that are alike in these are one file in one state."""

Key = int | tuple[int, bytes]
"""A link group, or size and digest."""


class Resending:
    """Sends content again."""

    def __init__(
        self,
        source: Source,
        working: CatalogWriter,
        outgoing: Outgoing,
        content: ContentSender,
        report: Callable[[bytes, str], None],
    ) -> None:
        """Send what `working` says is in `source`; `report` hears of what is not there any more."""
        self._source = source
        self._working = working
        self._outgoing = outgoing
        self._content = content
        self._report = report
        self._sent: dict[Key, int] = {}

    def resend(self, entry_id: int) -> int:
        """Send the content of an entry, or what has become of it; how many entries are gone."""
        entry = self._working.entry(entry_id)
        names = self._working.path_names(entry_id)
        if entry is None or names is None or entry.kind != Kind.FILE:
            return 0
        path = b"/".join(names)
        try:
            parent = _open_beneath(self._source.fd, names[:-1])
        except OSError:
            is_sent = False
        else:
            try:
                is_sent = self._is_linked(parent, entry) or (
                    self._content.send_whole(parent, entry, path) and self._remember(entry_id)
                )
            finally:
                os.close(parent)
        if is_sent:
            return 0
        # It may only be unreadable now.
        self._outgoing.mark_incomplete(entry.parent)
        self._report(path, "the server has lost its content and it is not here any more")
        return self._outgoing.remove(entry_id)

    def _remember(self, entry_id: int) -> bool:
        """Others may be linked to this one."""
        if len(self._sent) >= _MOST_REMEMBERED:
            self._sent.clear()
        row = self._working.entry(entry_id)
        if row is not None:
            self._sent.update(dict.fromkeys(_keys(row), entry_id))
        return True

    def _is_linked(self, parent: int, entry: Entry) -> bool:
        """Link a file to one that was sent, if it has that one's content still; False if it must be sent."""
        sent = next((self._sent[key] for key in _keys(entry) if key in self._sent), 0)
        twin = self._working.entry(sent) if sent else None
        if twin is None:
            return False
        try:
            with open_file(entry.name, parent) as fd:
                status = os.fstat(fd)
                now = self._source.seen(entry.id, entry.parent, entry.name, status)
                is_twin = now.link_group and all(
                    getattr(now, name) == getattr(twin, name) for name in _AS_READ
                )
                if is_twin:
                    known = twin
                elif (
                    # What else a new ctime stands for, attributes say, only sending it whole finds out.
                    (now.ctime_s, now.ctime_ns) == (entry.ctime_s, entry.ctime_ns)
                    and _is_shared(twin, entry)
                    and _is_as_recorded(fd, status, now, entry)
                ):
                    known = entry
                else:
                    return False
        except OSError:
            return False
        self._outgoing.link(
            now._replace(
                digest=known.digest, flags=known.flags, xattrs=known.xattrs, holes=known.holes
            ),
            twin.id,
        )
        return True


def _keys(row: Entry) -> list[Key]:
    """By what another name of a file, or another file with its content, is found."""
    keys: list[Key] = [row.link_group] if row.link_group else []
    if row.size >= SHARED_MIN_BYTES:
        keys.append((row.size, row.digest))
    return keys


def _is_shared(twin: Entry, entry: Entry) -> bool:
    return (twin.size, twin.digest) == (entry.size, entry.digest) and twin.size >= SHARED_MIN_BYTES


def _is_as_recorded(fd: int, status: os.stat_result, now: Entry, entry: Entry) -> bool:
    """Whether an open file has the content of its row; read where its times do not prove it."""
    verdict = judge_content(entry, now)
    if verdict is Verdict.CHECK:
        layout = find_layout(fd, status)
        digest, _ = digest_file(fd, layout, lambda _: None)
        is_right = digest == entry.digest and layout.holes == entry.holes
        return is_right and is_same(status, os.fstat(fd))
    return verdict is Verdict.SAME


def _open_beneath(root: int, names: list[bytes]) -> int:
    """A descriptor of a directory below the root, no symlink followed on the way."""
    fd = os.dup(root)
    for name in names:
        try:
            below = os.open(name, DIRECTORY_FLAGS, dir_fd=fd)
        finally:
            os.close(fd)
        fd = below
    return fd
