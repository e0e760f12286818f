"""What could not be seen stays as it was: rows of the version before, flagged stale.

A file that cannot be read, a name that cannot be looked at, a directory that cannot be listed: none of them says that
anything is gone. The flag is on each entry, so that whoever looks at one file knows what it is.
"""

import itertools

from ssfs.engine.outgoing import Outgoing
from ssfs.model.entry import Entry, Flag, Kind
from ssfs.store.catalog.writer import CatalogWriter

_ROWS_AT_A_TIME = 1000


def keep_as_before(entry: Entry, working: CatalogWriter, outgoing: Outgoing) -> None:
    """Flag a recorded entry stale, and all that is still below it.

    What has been found elsewhere by now is not below it any more, and stays as it was found.

    Args:
        entry: Its row in the version being made.
        working: The version being made.
        outgoing: Takes the rows that change.
    """
    pending = [entry]
    while pending:
        row = pending.pop()
        if not row.flags & Flag.STALE:
            outgoing.keep(row._replace(flags=row.flags | Flag.STALE))
        after = b""
        while row.kind == Kind.DIRECTORY and (below := _some(working, row.id, after)):
            after = below[-1].name
            pending += [child for child in below if child.kind == Kind.DIRECTORY]
            for child in below:
                if child.kind != Kind.DIRECTORY and not child.flags & Flag.STALE:
                    outgoing.keep(child._replace(flags=child.flags | Flag.STALE))


def _some(working: CatalogWriter, parent: int, after: bytes) -> list[Entry]:
    """The next rows of a directory: it may hold a million."""
    return list(itertools.islice(working.children(parent, after), _ROWS_AT_A_TIME))
