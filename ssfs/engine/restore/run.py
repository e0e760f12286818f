"""What all parts of one restore work with."""

from typing import NamedTuple

from ssfs.engine.restore.deletion import Deletion
from ssfs.engine.restore.failures import Failures
from ssfs.engine.restore.options import Actions, RestoreOptions
from ssfs.engine.restore.target import Target
from ssfs.model.entry import Entry
from ssfs.monitor import Monitor
from ssfs.store.catalog.reader import CatalogReader


class Run(NamedTuple):
    """One restore.

    Attributes:
        catalog: Of the version, or of that part of it.
        target: Where it is put.
        options: How.
        actions: What was done.
        failures: What could not be.
        deletion: What is removed.
        monitor: Hears of progress and problems.
    """

    catalog: CatalogReader
    target: Target
    options: RestoreOptions
    actions: Actions
    failures: Failures
    deletion: Deletion
    monitor: Monitor

    def set_metadata(self, entry: Entry, fd: int, path: bytes) -> bool:
        """Give an open file or directory the metadata of its row; a failure is its problem.

        Returns:
            Whether it has what can be had of it.
        """
        try:
            self.target.set_metadata(entry, fd)
        except OSError as error:
            self.failures.fail(path, error, "restored, but not its mode and times")
            return False
        self.report_incomplete(path)
        return True

    def report_incomplete(self, path: bytes) -> None:
        """Say what is missing of the metadata that was set last, if anything."""
        if problem := self.target.take_problem():
            self.failures.report(path, f"restored, but {problem}")
