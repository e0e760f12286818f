"""What a walk through a tree enters next, on the server: `find`, `cp -a` and their like ask for one directory after the other."""

import itertools
from typing import Protocol

from ssfs.model.entry import ROOT_ID, Entry, Kind
from ssfs.store.catalog.reader import CatalogReader

_NEAR = 1000
"""How far the next directory is looked for among files."""
_MOST_ABOVE = 1000


class Rows(Protocol):
    """An answer that is being made."""

    def add(self, entry: Entry) -> None:
        """Take a row."""


def add_walk(rows: Rows, catalog: CatalogReader, entry: Entry, ahead: int) -> list[int]:
    """Answer with what is in a directory, and in those that a walk in the order of names enters after it.

    Args:
        rows: Where to.
        catalog: Of the version.
        entry: The directory; all that is in it is sent.
        ahead: How many rows more.

    Returns:
        The ids of the directories of which all was sent.
    """
    done: list[int] = []
    pending = [entry]
    while True:
        while pending:
            directory = pending.pop()
            children = catalog.children(directory.id)
            if done:
                some = list(itertools.islice(children, max(ahead, 0) + 1))
                ahead -= len(some) + 1
                if ahead < 0:
                    return done
                # Those above were sent before; those beside them were not.
                rows.add(directory)
                children = iter(some)
            inside: list[Entry] = []
            for child in children:
                rows.add(child)
                if child.kind == Kind.DIRECTORY and len(inside) <= ahead:
                    inside.append(child)
            done.append(directory.id)
            pending += reversed(inside)
        beside = _next_after(catalog, entry)
        if beside is None:
            return done
        entry = beside
        pending.append(entry)


def _next_after(catalog: CatalogReader, entry: Entry) -> Entry | None:
    """The next directory that is not below one; None if none is near."""
    for _ in range(_MOST_ABOVE):
        if entry.id == ROOT_ID:
            break
        found = catalog.next_directory(entry.parent, entry.name, _NEAR)
        if found:
            return catalog.entry(found)
        above = catalog.entry(entry.parent)
        if above is None:
            break
        entry = above
    return None
