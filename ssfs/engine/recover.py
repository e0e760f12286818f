"""Recover: what of a damaged store can be had back, and what is lost.

Nothing is guessed. What comes back is what checksums prove: a record, if the catalog beside it is whole; a catalog, if rows
can be found whose logical digest is the one in the record; a file, if its content is somewhere in the store with the
right digest; a name, if the record says it. Settings have no second copy: new ones keep everything. All else is
said to be lost, and stays marked as damaged. Nothing is deleted but names in a tree that do not belong to its version,
and those only if that is asked for.
"""

import contextlib
import os
import secrets
import stat
import tempfile
from collections.abc import Iterator

import msgspec

from ssfs.clock import Clock
from ssfs.engine.expire import files_before
from ssfs.engine.receiver import root_metadata
from ssfs.engine.verify import Verification, VerifyOptions, heal_from
from ssfs.errors import CorruptStore, SsfsError, StoreError
from ssfs.fsio.disk import (
    digest_content,
    fsync,
    make_directory,
    open_directory,
    open_fd,
    rename,
    replace_file,
    store_errors,
)
from ssfs.fsio.lock import DirectoryLock, FileLock
from ssfs.fsio.removal import remove_tree
from ssfs.model.policy import KEEP_EVERYTHING
from ssfs.model.spelling import path_bytes
from ssfs.model.version import (
    Counts,
    PointSettings,
    Shrink,
    StoreSettings,
    TaskSettings,
    VersionRecord,
    free_shift,
    parse_version_id,
    timed_name,
)
from ssfs.monitor import Monitor
from ssfs.pki.certificate import read_certificate, to_der
from ssfs.protocol.verification import Damaged
from ssfs.retention.shrink import judge_shrink
from ssfs.store.damage import Damage, change_damage
from ssfs.store.inspection import fault_of_catalog
from ssfs.store.rebuild import rebuild_catalog
from ssfs.store.roll import read_roll, settle_roll, strike_lost
from ssfs.store.store import Point, Store, Task, become_owner, check_name
from ssfs.store.textfile import FORMAT, fault_of_text, write_text_file
from ssfs.store.version import Version, encode_record, list_versions, read_record

_STRAY = "not in the catalog"
_PARTS = ("catalog.db", "version.toml", "lock")
_REBUILT = b"catalog.db.rebuilt"


class Outcome(msgspec.Struct, frozen=True):
    """One thing that was damaged, and what became of it."""

    path: str
    outcome: str


class RecoverReport(msgspec.Struct):
    """What became of it.

    Attributes:
        dry_run: Whether it is only what would become of it.
        recovered: What is right again.
        lost: What is not.
    """

    dry_run: bool
    recovered: list[Outcome] = []
    lost: list[Outcome] = []


class Recovery:
    """One run over a store.

    Attributes:
        report: What became of it so far.
    """

    def __init__(
        self, path: bytes, monitor: Monitor, clock: Clock, *, dry_run: bool, drops_strays: bool
    ) -> None:
        """Recover the store in a directory; `drops_strays` deletes what belongs to no version."""
        self.report = RecoverReport(dry_run, [], [])
        self._path = path
        self._monitor = monitor
        self._clock = clock
        self._dry_run = dry_run
        self._drops_strays = drops_strays
        self._now = clock.now().replace(microsecond=0)

    def run(self) -> None:
        """Do it, from the outside in.

        Raises:
            StoreError: There is no store, or it cannot be read or written.
        """
        with store_errors(self._path):
            if not os.path.isdir(os.path.join(self._path, b"points")):
                raise StoreError("Not a store", path=self._path)
            if not self._dry_run:
                become_owner(self._path, b"points")
            self._store_file()
            with contextlib.suppress(CorruptStore):
                # A dry run stops here if there is no store.toml to go on with.
                store = Store.open(self._path)
                for point in self._points(store):
                    for task in self._tasks(point):
                        self._versions(task)
                self._data(store)

    def _recovered(self, path: str, outcome: str) -> None:
        self.report.recovered.append(Outcome(path, outcome))

    def _lost(self, path: str, outcome: str) -> None:
        self.report.lost.append(Outcome(path, outcome))

    # -- settings --------------------------------------------------------------------------------

    def _store_file(self) -> None:
        fault = fault_of_text(b"store.toml", StoreSettings, directory=self._path)
        if not fault or fault.startswith(("holds", "made by")):
            return
        settings = StoreSettings(FORMAT, self._store_id(), self._now, "UTC", KEEP_EVERYTHING)
        self._write(self._path, b"store.toml", settings, is_sealed=False)
        self._recovered(
            "store.toml",
            f"{fault}: made anew. Lost are its time zone (UTC now), the policy of new sync points "
            "(everything is kept) and what was set by hand",
        )

    def _store_id(self) -> str:
        """The id that its certificates name, or a new one."""
        with contextlib.suppress(OSError, SsfsError):
            with open(os.path.join(self._path, b"pki", b"ca.pem"), "rb") as file:
                name = read_certificate(to_der(file.read())).name
            prefix, _, store_id = name.partition(" ")
            if prefix == "ssfs" and store_id:
                return store_id
        return secrets.token_hex(16)

    def _points(self, store: Store) -> Iterator[Point]:
        for point in store.points():
            where = f"points/{point.name}/point.toml"
            fault = fault_of_text(b"point.toml", PointSettings, directory=point.path)
            if fault:
                self._write(point.path, b"point.toml", PointSettings(FORMAT, KEEP_EVERYTHING))
                self._recovered(
                    where,
                    f"{fault}: made anew. Lost are its policy (everything is kept now) and its limits "
                    "(none but the usual); `ssfs point` sets them",
                )
            yield point

    def _tasks(self, point: Point) -> Iterator[Task]:
        directory = os.path.join(point.path, b"tasks")
        for name in sorted(os.fsdecode(one) for one in os.listdir(directory)):
            path = os.path.join(directory, os.fsencode(name))
            where = f"points/{point.name}/tasks/{name}"
            with contextlib.suppress(SsfsError, NotADirectoryError):
                check_name(name, "task")
                if self._task_file(path, where):
                    yield point.task(name)

    def _task_file(self, path: bytes, where: str) -> bool:
        """Put a task's directory right; whether it can be opened then."""
        for part in (b"versions", b"trash"):
            if _is_something_else(os.path.join(path, part)):
                self._lost(
                    f"{where}/{part.decode()}", "something else is in its place: move it away"
                )
                return False
        if self._dry_run and not os.path.lexists(os.path.join(path, b"versions")):
            self._lost(
                f"{where}/versions", "missing, with all versions: an empty one is to be made"
            )
            return False
        if not self._dry_run:
            fd = open_directory(path)
            try:
                for part in (b"versions", b"trash"):
                    os.close(make_directory(part, dir_fd=fd))
            finally:
                os.close(fd)
        fault = fault_of_text(b"task.toml", TaskSettings, directory=path)
        if not fault:
            return True
        records = [version.record() for version in list_versions(path) if version.is_intact()]
        owners = {(record.client, record.source) for record in records}
        if len(owners) != 1:
            if list_versions(path) or fault != "missing":
                self._lost(
                    f"{where}/task.toml", f"{fault}, and its versions do not say whose it is"
                )
            return False
        ((client, source),) = owners
        used = [
            v.id.sequence for part in (b"versions", b"trash") for v in list_versions(path, part)
        ]
        settings = TaskSettings(
            FORMAT, secrets.token_hex(16), client, source, records[0].time, max(used, default=0)
        )
        self._write(path, b"task.toml", settings)
        self._recovered(
            f"{where}/task.toml",
            f"{fault}: made anew from its versions, which say that it backs up {source!r} of {client!r}",
        )
        return not self._dry_run

    def _write(
        self, directory: bytes, name: bytes, value: msgspec.Struct, *, is_sealed: bool = True
    ) -> None:
        if self._dry_run:
            return
        with DirectoryLock(directory) as guard:
            guard.exclusive()
            write_text_file(name, value, dir_fd=guard.fd, is_sealed=is_sealed)

    # -- versions --------------------------------------------------------------------------------

    def _versions(self, task: Task) -> None:
        self._monitor.phase(f"looking at {task.label}")
        with contextlib.ExitStack() as stack:
            if not self._dry_run:
                try:
                    lock = task.lock_for_writing(f"recover, process {os.getpid()}")
                except CorruptStore as error:
                    # Nothing can be done about this task, and whoever asks must hear it.
                    raise StoreError(error.problem, path=error.path, remedy=error.remedy) from error
                stack.enter_context(lock)
            self._parts(task)

    def _parts(self, task: Task) -> None:
        """Everything of a task's versions but their data."""
        self._names(task)
        for version in task.versions():
            where = f"{task.label} {version.id}"
            if not os.path.exists(os.path.join(version.path, b"lock")):
                if not self._dry_run:
                    FileLock(os.path.join(version.path, b"lock")).close()
                self._recovered(f"{where}: lock", "was missing")
            fault = fault_of_catalog(version)
            if not version.is_intact():
                self._record(task, version, where, fault)
            elif fault:
                self._catalog(task, version, where, fault)
        self._roll(task)

    def _names(self, task: Task) -> None:
        """Directories get the names that their records say."""
        directory = os.path.join(task.path, b"versions")
        for name in sorted(os.listdir(directory)):
            where = f"{task.label} versions/{os.fsdecode(name)}"
            try:
                record = read_record(os.path.join(directory, name))
            except (SsfsError, OSError):
                if parse_version_id(os.fsdecode(name)) is None:
                    self._lost(where, "nothing says which version it was")
                continue
            right = os.fsencode(record.id)
            if right == name or parse_version_id(record.id) is None:
                continue
            if os.path.lexists(os.path.join(directory, right)):
                self._lost(where, f"it says that it is version {record.id}, which is there already")
                continue
            if not self._dry_run:
                with task.guard() as guard:
                    fd = open_directory(b"versions", dir_fd=guard.fd)
                    try:
                        rename(name, fd, right, fd)
                        fsync(fd)
                    finally:
                        os.close(fd)
            self._recovered(where, f"is version {record.id} again, as its record says")

    def _record(self, task: Task, version: Version, where: str, fault: str) -> None:
        """Make a version.toml anew, if the catalog is one to believe."""
        if fault:
            self._lost(where, f"its record is damaged, and so is its catalog: {fault}")
            return
        others = [other.record() for other in task.versions() if other.is_intact()]
        taken = [other.name for other in others]
        with version.catalog() as catalog:
            sequence, time = version.id.sequence, version.id.time
            record = VersionRecord(
                format=FORMAT,
                id=str(version.id),
                sequence=sequence,
                time=time,
                committed=time,
                name=timed_name(time, task.point.store.zone, sequence, taken),
                seconds=0.0,
                client=task.settings.owner,
                source=task.settings.source,
                base="",
                catalog_digest=catalog.logical_digest().hex(),
                counts=Counts(entries=catalog.number("entries"), bytes=catalog.number("bytes")),
                root=root_metadata(catalog),
                shrunk=_shrunk(task, version, catalog.number("files")),
                shift_s=free_shift(time, (other.second for other in others)),
            )
        self._put_record(version, record)
        self._recovered(
            f"{where}: version.toml",
            "was damaged: made anew from the catalog. Lost are how long the sync took and what it did",
        )

    def _put_record(self, version: Version, record: VersionRecord) -> None:
        """Write a version's record, which says what the catalog beside it is, byte by byte."""
        if self._dry_run:
            return
        fd = open_directory(version.path)
        try:
            with open_fd(b"catalog.db", os.O_RDONLY, dir_fd=fd) as catalog:
                digest = digest_content(catalog).hex()
            content = encode_record(msgspec.structs.replace(record, catalog_file=digest))
            replace_file(b"version.toml", content, dir_fd=fd)
        finally:
            os.close(fd)

    def _catalog(self, task: Task, version: Version, where: str, fault: str) -> None:
        with contextlib.ExitStack() as stack:
            place = version.path
            if self._dry_run:
                place = os.fsencode(stack.enter_context(tempfile.TemporaryDirectory()))
            fd = open_directory(place)
            stack.callback(os.close, fd)
            remove_tree(_REBUILT, dir_fd=fd)
            source = rebuild_catalog(version, task.versions(), _REBUILT, fd)
            if source and not self._dry_run:
                rename(_REBUILT, fd, b"catalog.db", fd)
                fsync(fd)
                self._put_record(version, version.record())
        if not source:
            self._lost(
                f"{where}: catalog.db",
                f"{fault}, and nothing says the same. Lost is the metadata of its files; their names and "
                "content are in its tree/",
            )
            return
        self._recovered(f"{where}: catalog.db", f"was damaged: made anew from {source}")

    def _roll(self, task: Task) -> None:
        """Say which versions are lost, once."""
        try:
            roll = read_roll(task)
        except CorruptStore:
            roll = frozenset()
            self._recovered(
                f"{task.label} versions.toml", "was damaged: made anew from what is there"
            )
        present = {str(version.id) for version in task.versions()}
        for name in sorted(roll - present):
            self._lost(f"{task.label} {name}", "the whole version is gone")
        if not self._dry_run:
            with task.guard() as guard:
                strike_lost(task, guard)
                settle_roll(task, guard)

    # -- data ------------------------------------------------------------------------------------

    def _data(self, store: Store) -> None:
        """Heal what can be healed from elsewhere in the store; what is known, and what can be seen."""
        options = VerifyOptions(reads_content=False)
        run = Verification(store, options, self._monitor, self._clock, records=not self._dry_run)
        tasks = run.run_store()
        if not self._dry_run:
            self._monitor.phase("healing")
            for task in tasks:
                # Its own versions first: those are linked to, and no copy is made.
                heal_from(run.report, [task], _sources(store, task))
        for item in run.report.damaged:
            if not item.versions or item.path in _PARTS:
                continue
            where = f"{item.task}: {item.path}"
            if item.problem == _STRAY:
                self._stray(store, item)
            elif self._dry_run:
                self._lost(
                    where, f"{item.problem}; healed if its content is elsewhere in the store"
                )
            elif item.healed >= len(item.versions):
                self._recovered(where, f"was {item.problem}: made anew")
            else:
                versions = ", ".join(item.versions)
                self._lost(
                    where, f"{item.problem}, and nothing else in the store holds it ({versions})"
                )

    def _stray(self, store: Store, item: Damaged) -> None:
        """Something in a tree that is none of the version's: it goes to trash, or is named."""
        where = f"{item.task}: {item.path}"
        if not self._drops_strays or self._dry_run:
            self._lost(where, f"{item.problem}, so nobody is shown it; --yes deletes it")
            return
        point, _, name = item.task.partition("/")
        task = store.point(point).task(name)
        for version in task.versions():
            if str(version.id) in item.versions:
                with task.guard() as guard:
                    _discard_stray(version, item.path, guard)
        self._recovered(where, f"was {item.problem}: deleted")


def _shrunk(task: Task, version: Version, files: int) -> Shrink | None:
    """The flag of a version whose record is lost, judged anew: without it good versions would expire.

    Whether somebody had said that it is meant is lost, too; then expiry holds until it is said again.
    """
    for base in reversed(task.versions()):
        if base.id.sequence < version.id.sequence and base.is_intact():
            with contextlib.suppress(CorruptStore):
                return judge_shrink(files_before(task, base), files)
    return None


def _discard_stray(version: Version, path: str, guard: DirectoryLock) -> None:
    """Move a name of a tree to trash, and forget that it was there."""
    *above, name = path_bytes(path).split(b"/")
    with contextlib.ExitStack() as stack:
        fd = open_directory(os.path.join(version.path, b"tree"))
        stack.callback(os.close, fd)
        for step in above:
            fd = open_directory(step, dir_fd=fd)
            stack.callback(os.close, fd)
        trash = make_directory(b"trash", dir_fd=guard.fd)
        stack.callback(os.close, trash)
        rename(name, fd, b"stray-" + secrets.token_hex(8).encode(), trash)
        fsync(fd)

    def forget(before: Damage) -> Damage:
        rest = tuple(item for item in before.entries if item.id or item.path != path)
        return Damage(FORMAT, before.parts, rest)

    change_damage(version.path, forget)


def _sources(store: Store, task: Task) -> list[Version]:
    others = [
        version
        for point in store.points()
        for other in point.tasks()
        if other.path != task.path
        for version in reversed(other.versions())
    ]
    return [*reversed(task.versions()), *others]


def _is_something_else(path: bytes) -> bool:
    """Whether there is something, and no directory (a symlink to one is none)."""
    try:
        return not stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError:
        return False
