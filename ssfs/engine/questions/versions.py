"""The versions of a task, asked one after the other; one that cannot be read is left out, and named."""

import os
from collections.abc import Callable
from typing import TypeVar

from ssfs.engine.selection import mount_names
from ssfs.errors import CorruptStore, StoreLocked
from ssfs.protocol.questions import VersionProblem
from ssfs.store.catalog.reader import CatalogReader
from ssfs.store.store import Task
from ssfs.store.version import Version

A = TypeVar("A")


class TaskVersions:
    """The versions of a task as they were when this was made.

    Attributes:
        task: Whose they are.
        all: By sequence, damaged ones too.
        intact: Those whose record can be read.
        names: Of those, by which a mount lists them.
        problems: What could not be read, and was left out.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self.all = task.versions()
        self.names = mount_names(self.all)
        self.intact = list(self.names)
        self.problems: list[VersionProblem] = []
        for version in self.all:
            if version not in self.names:
                self._report(version, "its record is damaged")

    def ask(self, version: Version, question: Callable[[CatalogReader], A]) -> A | None:
        """What a version's catalog says; None if it cannot be read, or is just being deleted."""
        try:
            with version.share(), version.catalog() as catalog:
                return question(catalog)
        except StoreLocked:
            return None
        except CorruptStore as error:
            self._report(self._culprit(error) or version, error.problem)
        except FileNotFoundError:
            if os.path.isdir(version.path):
                self._report(version, "a part of it is missing")
        return None

    def _culprit(self, error: CorruptStore) -> Version | None:
        """Of which version it is that something cannot be read."""
        directory = os.path.dirname(error.path or b"")
        return next((version for version in self.all if version.path == directory), None)

    def _report(self, version: Version, problem: str) -> None:
        if all(known.version != str(version.id) for known in self.problems):
            self.problems.append(VersionProblem(self.task.name, str(version.id), problem))
