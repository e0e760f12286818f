"""Restore from a store of this machine."""

import contextlib
import os

from ssfs.clock import Clock
from ssfs.engine.restore.contents import TreeContents
from ssfs.engine.restore.options import DEFAULT_OPTIONS, RestoreOptions
from ssfs.engine.restore.restorer import Destination, RestoreResult, restore_into
from ssfs.engine.restore.wanted import check_last_names, find_wanted
from ssfs.errors import CorruptStore
from ssfs.fsio.disk import open_directory, raise_descriptor_limit, store_errors
from ssfs.monitor import Monitor
from ssfs.store.damage import Damage
from ssfs.store.tree import Tree
from ssfs.store.version import Version


def restore_version(
    version: Version,
    paths: tuple[bytes, ...],
    target: bytes,
    monitor: Monitor,
    clock: Clock,
    options: RestoreOptions = DEFAULT_OPTIONS,
) -> RestoreResult:
    """Copy a version's content into the directory `target`.

    Args:
        version: What to restore; it cannot be deleted meanwhile.
        paths: Entries that appear in `target` under their own names; none, or the root among them:
            the whole content of the version.
        target: Made if it does not exist; merged with what it holds.
        monitor: Hears of progress and problems.
        clock: For the duration, and for access times, which no catalog has.
        options: How.

    Raises:
        ConfigError: A path is not in the version, two have the same name, or the target cannot
            be used; nothing was written.
        StoreError: The version is damaged or gone.
    """
    raise_descriptor_limit()
    with contextlib.ExitStack() as stack:
        with store_errors(version.path):
            stack.enter_context(version.share())
            damage = version.damage()
            fault = check_usable(version, damage, damaged_ok=options.damaged_ok)
            catalog = stack.enter_context(version.catalog())
            tree = Tree(catalog, open_directory(os.path.join(version.path, b"tree")))
        stack.callback(tree.close)
        contents = TreeContents(tree, damage, damaged_ok=options.damaged_ok)
        wanted = find_wanted(catalog, paths)
        if not options.in_place:
            check_last_names(wanted)
        if not wanted:
            _expect(version, monitor)
        destination = Destination(target, options, fault)
        return restore_into(destination, wanted, catalog, contents, monitor, clock)


def check_usable(version: Version, damage: Damage, *, damaged_ok: bool = False) -> str:
    """Refuse a version whose catalog is known to be damaged, or seen to be: its rows may say anything.

    Returns:
        What is wrong with it, if that is `damaged_ok`; "" for nothing.

    Raises:
        CorruptStore: It is damaged.
    """
    problem = damage.catalog
    if not problem and version.is_intact():
        try:
            version.check_catalog_file()
        except CorruptStore:
            problem = "some of its bytes are not those that were committed"
        except OSError as error:
            problem = f"cannot be read: {(error.strerror or 'unknown error').lower()}"
    if problem and not damaged_ok:
        raise CorruptStore(
            f"The catalog of version {version.id} is damaged: {problem}",
            path=version.path,
            remedy="choose another version; --damaged-ok restores what it says all the same",
        )
    return problem


def _expect(version: Version, monitor: Monitor) -> None:
    with contextlib.suppress(CorruptStore):
        counts = version.record().counts
        monitor.expect(counts.entries, counts.bytes)
