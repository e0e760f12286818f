"""A backup over its life, at random: edits, syncs, cut syncs, expiries, deletes, pins, restores.

Beside the store lie plain copies of the source, one for each version, made when the version was. Whatever is done to the
source and the store, every version that is still there must restore equal to its copy, field by field
(`tests.fakes.comparing`), locally and through a server, and be whole in catalog and tree.
"""

import contextlib
import datetime
import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from ssfs.clock import SystemClock
from ssfs.engine.commands import answer
from ssfs.engine.restore.local import restore_version
from ssfs.errors import ConfigError, ConnectionLost
from ssfs.model.peer import LOCAL
from ssfs.model.policy import Policy
from ssfs.monitor import NullMonitor
from ssfs.protocol.requests import DeleteVersions, ExpireVersions, SetPin
from ssfs.store.version import Version
from tests.fakes.arenas import memory_directory
from tests.fakes.clock import FrozenClock
from tests.fakes.comparing import assert_same_tree
from tests.fakes.copying import copy_tree
from tests.fakes.edits import EDITS, Edits
from tests.fakes.restores import restore_remotely
from tests.fakes.syncs import Backup
from tests.fakes.trees import compare_with_version, verify_version

EXAMPLES = 40
STEPS = 40
POLICY = Policy(days=3, weeks=2, months=1, keep_last=2)

NUMBERS = st.integers(0, 60)
EDIT_LISTS = st.lists(st.tuples(st.sampled_from(EDITS), NUMBERS, NUMBERS), min_size=1, max_size=12)


class Backups(RuleBasedStateMachine):
    """One history of one source.

    The source is on a disk, which gives a deleted file's inode number to the next one. The store and all copies are
    in memory where possible: nothing here is about power cuts.
    """

    def __init__(self, disk: Path, memory: Path) -> None:
        super().__init__()
        self.source = Path(tempfile.mkdtemp(dir=disk))
        self.place = Path(tempfile.mkdtemp(dir=memory))
        os.environ["SSFS_CACHE_DIR"] = str(self.place / "cache")
        self.edits = Edits(self.source)
        self.clock = FrozenClock(SystemClock().now() + datetime.timedelta(days=1))
        self.backup = Backup(self.place / "store", POLICY, self.clock)
        self.copies: dict[str, Path] = {}
        self.pinned: set[str] = set()
        self.restores = 0

    # -- the source -------------------------------------------------------------------------------

    @initialize(edits=st.sampled_from((0, 40, 120)))
    def start(self, edits):
        choice = random.Random(edits)
        self.edit([(choice.choice(EDITS), *choice.choices(range(60), k=2)) for _ in range(edits)])

    @rule(edits=EDIT_LISTS)
    def edit(self, edits):
        for edit, first, second in edits:
            self.edits.do(edit, first, second)

    # -- the store --------------------------------------------------------------------------------

    @rule(edits=EDIT_LISTS, is_settled=st.booleans(), days=st.sampled_from((0, 1, 1, 8, 40)))
    def sync(self, edits, is_settled, days):
        self.edit(edits)
        self._pass(is_settled, datetime.timedelta(days=days, seconds=1))
        assert not self.backup.sync(self.source).problems
        self._committed()

    @rule(edits=EDIT_LISTS, is_settled=st.booleans(), cut_after=st.integers(0, 400_000))
    def sync_that_is_cut(self, edits, is_settled, cut_after):
        self.edit(edits)
        self._pass(is_settled, datetime.timedelta(seconds=1))
        before = self._versions()
        with contextlib.suppress(ConnectionLost):
            self.backup.sync(self.source, cut_after=cut_after)
        # It may have come through; or the version is there, and only the word of it was lost.
        if self._versions()[-1:] != before[-1:]:
            self._committed()
        else:
            assert self._versions() == before

    def _pass(self, is_settled: bool, time: datetime.timedelta) -> None:
        """Let time pass. If nothing has settled, the client's clock is that of the files: all is read again."""
        self.clock.advance(time)
        self.backup.client_clock = None if is_settled else SystemClock()

    @precondition(lambda self: self.copies)
    @rule()
    def expire(self):
        request = ExpireVersions("main", "task", dry_run=False, apply=True)
        report = answer(self.backup.store, LOCAL, request, self.clock)
        (task,) = report.tasks
        assert not {*task.expired} & self.pinned
        self._gone(task.expired)

    @precondition(lambda self: len(self.copies) > 2)
    @rule(number=NUMBERS)
    def delete(self, number):
        version = str(self._pick(number).id)
        if version not in self.pinned:
            request = DeleteVersions("main", "task", (version,), (version,), apply=True)
            assert answer(self.backup.store, LOCAL, request, self.clock).versions == (version,)
            self._gone([version])

    @precondition(lambda self: self.copies)
    @rule(number=NUMBERS, is_pinned=st.booleans())
    def pin(self, number, is_pinned):
        version = str(self._pick(number).id)
        answer(self.backup.store, LOCAL, SetPin("main", "task", version, is_pinned), self.clock)
        (self.pinned.add if is_pinned else self.pinned.discard)(version)

    @rule()
    def lose_the_cache(self):
        shutil.rmtree(self.place / "cache", ignore_errors=True)

    # -- what must hold ---------------------------------------------------------------------------

    @precondition(lambda self: self.copies)
    @rule(number=NUMBERS, remotely=st.booleans())
    def restore(self, number, remotely):
        self._check(self._pick(number), remotely)

    def _check(self, version: Version, remotely: bool) -> None:
        """The version restores equal to its copy."""
        self.restores += 1
        target = self.place / f"restored-{self.restores}"
        if remotely:
            result = restore_remotely(version, target)
        else:
            target_path = os.fsencode(target)
            result = restore_version(version, (), target_path, NullMonitor(), self.clock)
        assert not result.problems
        assert_same_tree(self.copies[str(version.id)], target)
        shutil.rmtree(target)

    def _committed(self) -> None:
        """A version was made: what it must be is what the source is now."""
        newest = self.backup.newest()
        assert str(newest.id) not in self.copies
        copy = self.place / str(newest.id)
        copy_tree(self.source, copy)
        assert_same_tree(self.source, copy, ignoring={"holes elsewhere"})
        self.copies[str(newest.id)] = copy
        expired = self.copies.keys() - {*self._versions()}
        assert not expired & self.pinned
        self._gone(expired)
        compare_with_version(copy, newest)
        verify_version(newest)

    def _gone(self, versions) -> None:
        for version in versions:
            shutil.rmtree(self.copies.pop(version))
        assert self._versions() == sorted(self.copies)

    def _versions(self) -> list[str]:
        # Before the first sync there is no task.
        with contextlib.suppress(ConfigError):
            return [str(version.id) for version in self.backup.versions()]
        return []

    def _pick(self, number: int) -> Version:
        versions = self.backup.versions()
        return versions[number % len(versions)]

    def teardown(self) -> None:
        try:
            for number, version in enumerate(self.backup.versions() if self.copies else []):
                verify_version(version)
                self._check(version, remotely=bool(number % 2))
        finally:
            shutil.rmtree(self.place)
            shutil.rmtree(self.source)


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A directory in memory, if it has extended attributes there."""
    with memory_directory() as place:
        yield place if _has_attributes(place) else tmp_path


def _has_attributes(place: Path) -> bool:
    try:
        os.setxattr(place, "user.probe", b"")
    except OSError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.needs_root
def test_every_version_stays_what_the_source_was(tmp_path: Path, memory: Path) -> None:
    run_state_machine_as_test(
        lambda: Backups(tmp_path, memory),
        settings=settings(
            deadline=None,
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            suppress_health_check=list(HealthCheck),
        ),
    )
