"""Versions that are nothing but a record: enough for whatever asks for dates, names and pins only."""

import datetime
import os
from pathlib import Path

from ssfs.model.policy import Policy
from ssfs.model.version import (
    Counts,
    RootMetadata,
    VersionId,
    VersionRecord,
    free_shift,
    timed_name,
)
from ssfs.store.store import Store, Task
from ssfs.store.textfile import FORMAT
from ssfs.store.version import Version, encode_record
from tests.fakes.clock import FrozenClock

FIRST = datetime.datetime(2024, 1, 1, 2, 0, tzinfo=datetime.UTC)
DAYS = 60
KEEP_ALL = Policy(days=10_000, weeks=0, months=0, keep_last=2)


def make_store(path: Path, policy: Policy = KEEP_ALL) -> Store:
    """A store of its own."""
    return Store.create(os.fsencode(path), policy, "UTC", FrozenClock(FIRST))


def make_task(store: Store, name: str = "task", owner: str = "nas1", point: str = "main") -> Task:
    """A task without versions."""
    found = store.create_point(point)
    return found.claim_task(name, owner, f"/srv/{name}", FrozenClock(FIRST))


def add_version(task: Task, time: datetime.datetime) -> Version:
    """A version with a record, and no tree or catalog."""
    version_id = VersionId(task.next_sequence(), time)
    others = [version.record() for version in task.versions() if version.is_intact()]
    taken = [other.name for other in others]
    record = VersionRecord(
        format=FORMAT,
        id=str(version_id),
        sequence=version_id.sequence,
        time=time,
        committed=time,
        name=timed_name(time, task.point.store.zone, version_id.sequence, taken),
        seconds=1.5,
        client=task.settings.owner,
        source=task.settings.source,
        base="",
        catalog_digest="00",
        counts=Counts(entries=2, bytes=2_000, new_bytes=1_000),
        root=RootMetadata(0o755, 0, 0, "root", "root", 0, 0),
        shift_s=free_shift(time, (other.second for other in others)),
    )
    path = Path(os.fsdecode(task.path), "versions", str(version_id))
    path.mkdir()
    (path / "lock").touch()
    (path / "version.toml").write_bytes(encode_record(record))
    return Version(version_id, os.fsencode(path))


def add_two_months(task: Task) -> Task:
    """A version for each day since New Year (1 to 60), and a second one on the last (61)."""
    for day in range(DAYS):
        add_version(task, FIRST + datetime.timedelta(days=day))
    add_version(task, FIRST + datetime.timedelta(days=DAYS - 1, hours=12, minutes=30))
    return task
