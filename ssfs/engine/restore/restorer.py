"""Restore: put a version, or parts of it, into a directory.

Directories are made on the way down (`ssfs.engine.restore.directories`); what the target has already is looked at
(`ssfs.engine.restore.existing`), what else is to come is put there (`ssfs.engine.restore.entries`). A directory gets its
metadata when nothing is left to do in it, deepest first, so that nothing disturbs its times.

What fails for one entry is an `EntryProblem`, and the run goes on (`ssfs.engine.restore.failures`).
"""

import contextlib
import os
from typing import NamedTuple

import msgspec

from ssfs.clock import Clock
from ssfs.engine.restore.contents import Contents
from ssfs.engine.restore.deletion import Deletion
from ssfs.engine.restore.directories import Directories
from ssfs.engine.restore.entries import Entries
from ssfs.engine.restore.failures import Failures
from ssfs.engine.restore.links import Links
from ssfs.engine.restore.options import NS, Action, Actions, RestoreOptions
from ssfs.engine.restore.run import Run
from ssfs.engine.restore.target import Target, open_target
from ssfs.errors import StoreError
from ssfs.model.entry import Entry
from ssfs.model.problem import EntryProblem
from ssfs.monitor import Monitor
from ssfs.store.catalog.reader import CatalogReader
from ssfs.store.tree import Tree


class Destination(NamedTuple):
    """The directory that is restored into, and how.

    `fault` is what is wrong with the catalog of what is restored all the same; "" for nothing.
    """

    path: bytes
    options: RestoreOptions
    fault: str = ""


class RestoreResult(msgspec.Struct, frozen=True):
    """What became of a restore; of a dry run, what would.

    Attributes:
        entries: Entries of the version that are in the target now.
        size_bytes: Content of its files.
        created: Entries that were not there before.
        replaced: Entries that took another one's place.
        metadata_only: Entries that only lacked the right owner, mode or times.
        unchanged: Entries that were right.
        kept: Entries that are not the version's, and were to stay.
        deleted: What the version does not have, and is gone.
        owners_not_set: Entries that belong to us because only root may give files away.
        xattrs_not_set: Extended attributes (ACLs too) that only root, or no one here, may set.
        seconds: How long it took.
        problems: What could not be restored as it is.
    """

    entries: int
    size_bytes: int
    created: int
    replaced: int
    metadata_only: int
    unchanged: int
    kept: int
    deleted: int
    owners_not_set: int
    xattrs_not_set: int
    seconds: float
    problems: list[EntryProblem]


def restore_into(
    destination: Destination,
    wanted: dict[bytes, Entry],
    catalog: CatalogReader,
    contents: Contents,
    monitor: Monitor,
    clock: Clock,
) -> RestoreResult:
    """Put what is wanted into a directory.

    Args:
        destination: Made if it does not exist; merged with what it holds.
        wanted: As `ssfs.engine.restore.wanted.find_wanted` found it; nothing: the whole version.
        catalog: Of the version, or of that part of it.
        contents: Where the content of its files comes from.
        monitor: Hears of progress and problems.
        clock: For the duration, and for access times.

    Raises:
        ConfigError: The target cannot be used; nothing was written.
        StoreError: The catalog is damaged, or the target is not to be reached any more.
    """
    started_s = clock.monotonic_s()
    options = destination.options
    actions, failures = Actions(options.on_action), Failures(monitor)
    deletion = Deletion(catalog, options, actions, failures)
    target_fd, is_new = open_target(
        destination.path, in_place=options.in_place, dry_run=options.dry_run
    )
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, target_fd)
        failures.look_at(target_fd)
        if destination.fault:
            what = f"restored as the version's damaged catalog says it: {destination.fault}"
            failures.report(b"", what)
        target = Target(catalog, options.owners, int(clock.now().timestamp() * NS))
        run = Run(catalog, target, options, actions, failures, deletion, monitor)
        places = stack.enter_context(contextlib.closing(Tree(catalog, os.dup(target_fd))))
        if not options.in_place:
            for entry in wanted.values():
                places.add_root(entry.parent, os.dup(target_fd))
        directories = Directories(run, wanted, target_fd, is_new=is_new)
        try:
            Entries(run, contents, Links(catalog, places)).restore(directories)
        except OSError as error:
            reason = (error.strerror or "unknown error").lower()
            raise StoreError(
                f"The restore cannot go on: {reason}", path=destination.path
            ) from error
        failures.end_row()
    return RestoreResult(
        entries=actions.entries,
        size_bytes=actions.size_bytes,
        created=actions.counts[Action.CREATE],
        replaced=actions.counts[Action.REPLACE],
        metadata_only=actions.counts[Action.METADATA],
        unchanged=actions.unchanged,
        kept=actions.kept,
        deleted=actions.counts[Action.DELETE],
        owners_not_set=target.owners_not_set,
        xattrs_not_set=target.xattrs_not_set,
        seconds=clock.monotonic_s() - started_s,
        problems=failures.problems,
    )
