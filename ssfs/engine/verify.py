"""Verify: what lies in a store, read and held against what was recorded of it.

Each data file is read once, however many versions link it; catalogs and trees are compared both ways. Damage is written down
in every version that has it (`ssfs.store.damage`), and what turns out to be whole is taken off those lists. Backups,
expiry and mounts go on meanwhile: a version being looked at is locked like any that is read, and one that leaves meanwhile
is nobody's damage.
"""

import contextlib
import os
import random
from collections.abc import Iterable, Iterator

import msgspec

from ssfs.clock import Clock
from ssfs.engine.staging_check import fault_of_staging
from ssfs.errors import CorruptStore, StoreError, StoreLocked
from ssfs.fsio.disk import store_errors
from ssfs.fsio.lock import FileLock, check_no_directory
from ssfs.model.entry import Entry
from ssfs.model.spelling import path_text
from ssfs.model.version import PointSettings, StoreSettings, TaskSettings, parse_version_id
from ssfs.monitor import Monitor
from ssfs.protocol.verification import Damaged, VerifyReport
from ssfs.store.catalog.reader import CatalogReader
from ssfs.store.damage import (
    CATALOG,
    MOST_LISTED,
    RECORD,
    TREE,
    Damage,
    DamagedEntry,
    DamagedPart,
    change_damage,
)
from ssfs.store.healing import Gather, heal, heal_with
from ssfs.store.inspection import Finding, TreeInspection, fault_of_catalog, fault_of_record
from ssfs.store.roll import read_roll
from ssfs.store.store import Point, Store, Task
from ssfs.store.stored import fault_of, open_stored
from ssfs.store.textfile import FORMAT, fault_of_text
from ssfs.store.verified import VerifiedFiles
from ssfs.store.version import Version

_HASHED = 1 << 32


class VerifyOptions(msgspec.Struct, frozen=True):
    """How much is read.

    Attributes:
        sample: Which part of the data files, at random; 1: all.
        older_than_s: Leave out what was verified within so many seconds.
        reads_content: Whether data files are read at all, or only looked for.
    """

    sample: float = 1.0
    older_than_s: int | None = None
    reads_content: bool = True


class Verification:
    """One run over a store, or parts of it.

    Attributes:
        report: What was found so far.
    """

    def __init__(
        self, store: Store, options: VerifyOptions, monitor: Monitor, clock: Clock, *, records: bool
    ) -> None:
        """Verify; damage is written down if `records` (then this process owns the store)."""
        self.report = VerifyReport(recorded=records, damaged=[])
        self._store = store
        self._options = options
        self._monitor = monitor
        self._clock = clock
        self._now = clock.now().replace(microsecond=0)
        self._known: dict[tuple[str, str, str], Damaged] = {}

    # -- the store -------------------------------------------------------------------------------

    @contextlib.contextmanager
    def timed(self) -> Iterator[None]:
        """What is done meanwhile took the time that the report tells."""
        started_s = self._clock.monotonic_s()
        try:
            yield
        finally:
            self.report.seconds = round(self._clock.monotonic_s() - started_s, 3)

    def run_store(self, names: Iterable[str] | None = None) -> list[Task]:
        """Verify all of the store, or of some sync points; the tasks that were found.

        Raises:
            ConfigError: There is no such sync point.
            StoreError: The store cannot be read.
        """
        with store_errors(self._store.path):
            self._text(self._store.path, "", b"store.toml", StoreSettings)
            points = self._store.points() if names is None else map(self._store.point, names)
            tasks = [task for one in points for task in self._tasks(one)]
            self._expect(tasks)
            for task in tasks:
                self._task(task, task.versions(), is_whole=True)
        return tasks

    def run_task(self, task: Task, versions: list[Version] | None) -> None:
        """Verify a task, or some of its versions."""
        with store_errors(task.path):
            self._expect([task])
            chosen = task.versions() if versions is None else versions
            self._task(task, chosen, is_whole=versions is None)

    def _expect(self, tasks: Iterable[Task]) -> None:
        records = [v.record() for task in tasks for v in task.versions() if v.is_intact()]
        self._monitor.expect(sum(record.counts.entries for record in records), 0)

    def _tasks(self, point: Point) -> Iterator[Task]:
        """The tasks of a sync point that can be opened; what cannot is damage."""
        self._text(point.path, f"points/{point.name}", b"point.toml", PointSettings)
        directory = os.path.join(point.path, b"tasks")
        for name in sorted(os.listdir(directory)):
            where = f"points/{point.name}/tasks/{os.fsdecode(name)}"
            path = os.path.join(directory, name)
            if not os.path.exists(os.path.join(path, b"task.toml")):
                if os.path.isdir(os.path.join(path, b"versions")) and os.listdir(
                    os.path.join(path, b"versions")
                ):
                    self._found("", f"{where}/task.toml", "missing")
                continue
            if self._text(path, where, b"task.toml", TaskSettings):
                task = point.task(os.fsdecode(name))
                try:
                    task.versions()
                except CorruptStore as error:
                    self._found(task.label, "versions", error.problem)
                else:
                    yield task

    def _text(self, directory: bytes, where: str, name: bytes, kind: type[msgspec.Struct]) -> bool:
        """Look at a text file; whether it can be read at all."""
        problem = fault_of_text(name, kind, directory=directory)
        if problem:
            place = f"{where}/{name.decode()}" if where else name.decode()
            self._found("", place, problem)
        return not problem or problem.startswith("holds ")

    def _found(self, task: str, path: str, problem: str, version: Version | None = None) -> None:
        key = (task, path, problem)
        item = self._known.get(key)
        if item is None:
            item = self._known[key] = Damaged(task, path, problem, [])
            self.report.damaged.append(item)
        if version is not None:
            item.versions.append(str(version.id))

    # -- a task ----------------------------------------------------------------------------------

    def _task(self, task: Task, versions: list[Version], *, is_whole: bool) -> None:
        with contextlib.ExitStack() as stack:
            verified = stack.enter_context(self._verified(task, is_whole=is_whole))
            judge = _Judge(self._options, verified, self._monitor, self.report)
            if is_whole:
                self._surroundings(task)
            for version in reversed(versions):
                self._version(task, version, judge)
            done = {version.id for version in versions}
            others = [version for version in task.versions() if version.id not in done]
            if judge.bad and others:
                judge.only_known = True
                for version in reversed(others):
                    self._version(task, version, judge)
            if is_whole and self._options.sample >= 1 and self._options.reads_content:
                verified.finish()

    @contextlib.contextmanager
    def _verified(self, task: Task, *, is_whole: bool) -> Iterator[VerifiedFiles]:
        """What was verified of a task; nobody else verifies it meanwhile."""
        with contextlib.ExitStack() as stack:
            keeps = self.report.recorded and self._options.reads_content
            if keeps:
                path = os.path.join(task.path, b"verify.lock")
                check_no_directory(path)
                lock = stack.enter_context(FileLock(path))
                if not lock.exclusive_nowait():
                    raise StoreLocked(
                        f"Another verify of task {task.label!r} is running",
                        remedy="wait until it has ended",
                    )
            verified = VerifiedFiles(task.path if keeps else None)
            stack.callback(verified.close)
            is_whole = is_whole and self._options.sample >= 1
            now = int(self._clock.now().timestamp() * 1_000_000)
            verified.begin(now, self._options.older_than_s, is_whole=is_whole)
            self.report.resumed = self.report.resumed or verified.is_resumed
            yield verified

    def _surroundings(self, task: Task) -> None:
        """What of a task lies around its versions."""
        try:
            roll = read_roll(task)
        except (CorruptStore, OSError):
            self._found(task.label, "versions.toml", "damaged")
            roll = frozenset()
        names = [os.fsdecode(name) for name in os.listdir(os.path.join(task.path, b"versions"))]
        for name in sorted(roll - set(names)):
            # Not if it has left since the roll was read.
            if name in read_roll(task):
                self._found(task.label, f"versions/{name}", "the version is lost")
        for name in sorted(names):
            if parse_version_id(name) is None:
                self._found(task.label, f"versions/{name}", "not the name of a version")
        fault = fault_of_staging(task)
        if fault:
            self._found(task.label, "staging", fault)

    # -- a version -------------------------------------------------------------------------------

    def _version(self, task: Task, version: Version, judge: "_Judge") -> None:
        self._monitor.phase(f"verifying {task.label} {version.id}")
        try:
            lock = version.share()
        except StoreLocked:
            return
        except OSError as error:
            if os.path.isdir(version.path):
                reason = (error.strerror or "unknown error").lower()
                self._found(task.label, "lock", f"cannot be used: {reason}", version)
                self._look_at(task, version, judge)
            return
        with lock:
            self._look_at(task, version, judge)

    def _look_at(self, task: Task, version: Version, judge: "_Judge") -> None:
        """All of a version that stays where it is."""
        self.report.versions += not judge.only_known
        parts = {RECORD: fault_of_record(version), CATALOG: fault_of_catalog(version)}
        findings: list[Finding] = []
        # Where its catalog is of no use, nobody can look.
        unseen: frozenset[int] = version.damage().ids
        if not parts[CATALOG]:
            try:
                with version.catalog() as catalog:
                    unseen = self._look_at_tree(version, catalog, judge, findings)
            except CorruptStore as error:
                parts[CATALOG] = error.problem
            except OSError as error:
                parts[TREE] = f"cannot be opened: {(error.strerror or 'unknown error').lower()}"
        # It may have left meanwhile.
        if os.path.isdir(version.path):
            self._report(task, version, parts, findings, unseen)
            if self.report.recorded:
                self._record(task, version, parts, findings, unseen)

    def _report(
        self,
        task: Task,
        version: Version,
        parts: dict[str, str],
        findings: list[Finding],
        unseen: frozenset[int],
    ) -> None:
        """Put what is damaged in a version into the report."""
        for name, problem in parts.items():
            if problem:
                self._found(task.label, name, problem, version)
        for finding in findings:
            self._found(task.label, path_text(finding.path), finding.problem, version)
        found = {finding.id for finding in findings}
        for item in version.damage().entries:
            # Known, and not looked at this time.
            if item.id in unseen - found:
                self._found(task.label, item.path, item.problem, version)

    def _look_at_tree(
        self, version: Version, catalog: CatalogReader, judge: "_Judge", findings: list[Finding]
    ) -> frozenset[int]:
        """Put what is wrong with a tree into `findings`; known damage that nobody looked at."""
        inspection = TreeInspection(version, catalog, judge, version.damage().ids)
        with contextlib.closing(inspection):
            for finding in inspection.run():
                # The lists end there (`Damage.bounded`), and memory must, too.
                if len(findings) <= MOST_LISTED:
                    findings.append(finding)
            findings[:] = [item for item in findings if inspection.is_still_there(item)]
        return frozenset(inspection.unseen)

    def _record(
        self,
        task: Task,
        version: Version,
        parts: dict[str, str],
        findings: list[Finding],
        unseen: frozenset[int],
    ) -> None:
        """Write down what is damaged, and take off the list what is not."""

        def change(before: Damage) -> Damage:
            known = {(item.id, item.path): item for item in before.entries}
            found = []
            for finding in findings:
                entry = DamagedEntry(
                    finding.id, path_text(finding.path), finding.problem, self._now
                )
                old = known.get((entry.id, entry.path))
                found.append(old if old and old.problem == entry.problem else entry)
            met = {item.id for item in found}
            rest = [item for item in before.entries if item.id in unseen - met]
            since = {(part.name, part.problem): part.found for part in before.parts}
            damaged = tuple(
                DamagedPart(name, problem, since.get((name, problem), self._now))
                for name, problem in parts.items()
                if problem
            )
            return Damage(FORMAT, damaged, (*found, *rest))

        # It may have left, and its damage with it.
        with contextlib.suppress(FileNotFoundError), task.guard():
            change_damage(version.path, change)


class _Judge:
    """Reads data files, each inode once.

    Attributes:
        bad: Inodes that are not what a digest says: the digest, and what is wrong.
        only_known: Look for those only.
    """

    def __init__(
        self,
        options: VerifyOptions,
        verified: VerifiedFiles,
        monitor: Monitor,
        report: VerifyReport,
    ) -> None:
        self.bad: dict[int, tuple[bytes, str]] = {}
        self.only_known = not options.reads_content
        self._part = int(options.sample * _HASHED)
        self._salt = random.getrandbits(64)
        self._verified = verified
        self._monitor = monitor
        self._report = report

    def judge(self, entry: Entry, dir_fd: int, ino: int) -> str | None:
        """See `ssfs.store.inspection.Judge`."""
        digest, problem = self.bad.get(ino, (b"", ""))
        if problem and digest == entry.digest:
            return problem
        if self.only_known:
            return self._look(entry, dir_fd)
        if self._verified.has(ino, entry.digest):
            return ""
        # By inode, so that a file is in the sample of every version that links it.
        if hash((ino, self._salt)) % _HASHED >= self._part:
            return self._look(entry, dir_fd)
        problem = self._read(entry, dir_fd)
        if problem:
            self.bad[ino] = (entry.digest, problem)
            self._verified.remove(ino)
        else:
            self._verified.add(ino, entry.digest, entry.size)
        return problem

    def _look(self, entry: Entry, dir_fd: int) -> str | None:
        """What can be seen without reading."""
        try:
            size = os.stat(entry.name, dir_fd=dir_fd, follow_symlinks=False).st_size
        except OSError as error:
            return f"cannot be looked at: {(error.strerror or 'unknown error').lower()}"
        if size != entry.size:
            return f"{size:,} bytes long instead of {entry.size:,}"
        return None

    def _read(self, entry: Entry, dir_fd: int) -> str:
        try:
            fd = open_stored(entry.name, dir_fd)
        except OSError as error:
            return f"cannot be opened: {(error.strerror or 'unknown error').lower()}"
        try:
            self._report.files += 1
            return fault_of(fd, entry, self._advance_bytes)
        finally:
            os.close(fd)

    def _advance_bytes(self, piece: memoryview, _position: int) -> None:
        self._report.bytes += len(piece)
        self._monitor.advance(0, len(piece), b"")

    def advance(self, entries: int, path: bytes) -> None:
        """See `ssfs.store.inspection.Judge`."""
        self._monitor.advance(entries, 0, path)


def heal_from(
    report: VerifyReport, tasks: Iterable[Task], source: Iterable[Version] | Gather
) -> None:
    """Heal what is damaged in these tasks, and count that in the report.

    Args:
        report: Of what was found damaged.
        tasks: Whose versions are healed.
        source: Versions of any store of this machine, or what brings content from another one.

    Raises:
        PeerError: The other machine went away, refused or broke the rules; what was healed so far is.
    """
    for task in tasks:
        with contextlib.suppress(StoreError), store_errors(task.path):
            for healed in heal_with(task, source) if callable(source) else heal(task, source):
                name = str(healed.version.id)
                with healed.version.catalog() as catalog:
                    paths = {
                        path_text(b"/".join(catalog.path_names(entry_id) or []))
                        for entry_id in healed.ids
                    }
                for item in report.damaged:
                    if item.task == task.label and item.path in paths and name in item.versions:
                        item.healed += 1


def versions_of(store: Store, point: str | None, task: str | None) -> list[Version]:
    """The versions of a store or a part of it, each task's newest first: where content may still be."""
    found: list[Version] = []
    points = [store.point(point)] if point else store.points()
    for one in points:
        for each in [one.task(task)] if task else one.tasks():
            found += reversed(each.versions())
    return found
