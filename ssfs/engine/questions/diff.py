"""`diff` of two versions of a store; of a version and a directory: `ssfs.engine.questions.live`."""

import contextlib

from ssfs.engine.questions.difference import Comparer, DifferenceList
from ssfs.engine.questions.history import plain_path
from ssfs.engine.selection import choose_task, choose_version
from ssfs.errors import ConfigError
from ssfs.fsio.disk import store_errors
from ssfs.model.peer import Peer
from ssfs.protocol.questions import CompareVersions, DiffReport
from ssfs.store.catalog.difference import Differences
from ssfs.store.store import Store


def compare_versions(store: Store, peer: Peer, request: CompareVersions) -> DiffReport:
    """The differences of two versions.

    Raises:
        ConfigError: There is no such task or version, or neither has the path.
        TrustError: The peer may not read the task.
        StoreError: A version cannot be read, or is just being deleted.
    """
    task = choose_task(store, peer, request.point, request.task)
    old, new = choose_version(task, request.old), choose_version(task, request.new)
    below = plain_path(request.path)
    found = DifferenceList(request.limit)
    with contextlib.ExitStack() as stack:
        stack.enter_context(store_errors(task.path))
        for version in (old, new):
            stack.enter_context(version.share())
        older, newer = (stack.enter_context(version.catalog()) for version in (old, new))
        if older.resolve(below) is None and newer.resolve(below) is None:
            raise ConfigError(
                "Neither version has it",
                path=request.path,
                remedy="paths are those below the root of a version",
            )
        differences = Differences(older, newer)
        stack.callback(differences.close)
        Comparer(differences, found, below=below).run()
    return DiffReport(
        task=task.label,
        old_version=str(old.id),
        new_version=str(new.id),
        differences=found.listed(),
        counts=found.counts(),
        truncated=found.is_truncated,
    )
