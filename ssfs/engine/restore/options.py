"""What a restore may do with what it finds in the target: one frozen value."""

import enum
import os
from collections.abc import Callable

import msgspec

from ssfs.model.entry import Entry, mtime_ns_of

NS = 1_000_000_000


class Action(enum.StrEnum):
    """What is done, or in a dry run would be done, with one path."""

    CREATE = "create"
    REPLACE = "replace"
    METADATA = "metadata"
    DELETE = "delete"


class Overwrite(enum.StrEnum):
    """Which entries of the target are replaced by those of the version."""

    NEVER = "never"
    IF_NEWER = "if-newer"
    IF_CHANGED = "if-changed"
    ALWAYS = "always"


class OwnerMap(msgspec.Struct, frozen=True):
    """Whose a restored file is, other than by the recorded name.

    Attributes:
        numeric: Recorded numbers count, and no names.
        users: What a user is called in the version (its name, or its number as text), and the number
            it is to have here. A name goes before a number.
        groups: Likewise for groups.
    """

    numeric: bool = False
    users: dict[str, int] = {}
    groups: dict[str, int] = {}


class RestoreOptions(msgspec.Struct, frozen=True):
    """How to restore.

    Attributes:
        overwrite: What becomes of entries that are in the target already.
        quick_check: A file of the recorded size and modification time (to the nanosecond) is taken for right
            without being read; its other metadata is compared all the same.
        deletes: Remove from restored directories what the version does not have.
        dry_run: Write nothing.
        in_place: The target is where the version came from: each wanted path goes to its own place
            below it instead of to its last name, and a restored root gets its metadata. No part of
            the target's own path may be a symlink.
        exclude: Gitignore-style patterns, relative to the version's root; later ones win. What
            matches is neither restored nor deleted.
        owners: Whose the files are.
        damaged_ok: Restore what is damaged in the store as it is; it is a problem of the result all the
            same. (A server is asked for it in `Fetch`.)
        cache: Where syncs of this machine keep their catalogs (`ssfs.engine.cache`): what is there a server need not
            send. None for nowhere.
        spared: Directories (paths) that are never deleted, nor what holds them.
        on_action: Hears of each path that is changed, as it happens.
    """

    overwrite: Overwrite = Overwrite.IF_CHANGED
    quick_check: bool = False
    deletes: bool = False
    dry_run: bool = False
    in_place: bool = False
    exclude: tuple[str, ...] = ()
    owners: OwnerMap = OwnerMap()
    damaged_ok: bool = False
    cache: bytes | None = None
    spared: tuple[bytes, ...] = ()
    on_action: Callable[[Action, bytes], None] | None = None

    def keeps(self, entry: Entry, status: os.stat_result) -> bool:
        """Whether what is in the target stays, whatever the version has there."""
        if self.overwrite is Overwrite.IF_NEWER:
            return mtime_ns_of(entry) <= status.st_mtime_ns
        return self.overwrite is Overwrite.NEVER


DEFAULT_OPTIONS = RestoreOptions()


class Actions:
    """Counts what is done.

    Attributes:
        entries: Entries of the version that are in the target now, or in a dry run would be.
        size_bytes: Content of its files.
        counts: How many times each was.
        unchanged: Entries that were right already.
        kept: Entries that are others than the version's, and stayed so because they were to.
    """

    def __init__(self, on_action: Callable[[Action, bytes], None] | None) -> None:
        self.entries = 0
        self.size_bytes = 0
        self.counts = dict.fromkeys(Action, 0)
        self.unchanged = 0
        self.kept = 0
        self._on_action = on_action

    def add(self, action: Action | None, path: bytes) -> None:
        """This was done with a path; None: it was right already."""
        if action is None:
            self.unchanged += 1
            return
        self.counts[action] += 1
        if self._on_action is not None:
            self._on_action(action, path)
