"""The order in which the rows of a restore come: depth first, so that each one's directory is among those seen last.

A row without a directory, or a directory inside itself, cannot be said that way.
"""

from ssfs.errors import RemoteProtocolError
from ssfs.model.entry import ROOT_ID, Entry, Kind


class DepthFirst:
    """The order of rows: each is in the directory before it, or in one of those above that."""

    def __init__(self) -> None:
        self._above: list[int] = []
        self.is_empty = True

    def check(self, entry: Entry) -> None:
        """Take the next row.

        Raises:
            RemoteProtocolError: It cannot be the next one.
        """
        if self.is_empty != (entry.id == ROOT_ID):
            raise RemoteProtocolError("The first row must be the root's, and no other")
        while not self.is_empty and (not self._above or self._above[-1] != entry.parent):
            if not self._above:
                raise RemoteProtocolError(f"Entry {entry.id} does not follow its directory")
            self._above.pop()
        self.is_empty = False
        if entry.kind == Kind.DIRECTORY:
            self._above.append(entry.id)
