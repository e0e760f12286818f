"""Stores, sync points and tasks: the directories above the versions.

Opening one reads its text file and nothing else. Versions are `ssfs.store.version`'s, what is being received is
`ssfs.store.staging`'s.
"""

import contextlib
import datetime
import os
import pwd
import re
import secrets
import zoneinfo
from collections.abc import Callable

import msgspec

from ssfs.clock import Clock
from ssfs.errors import ConfigError, CorruptStore, StoreError, StoreLocked
from ssfs.fsio.disk import (
    fsync,
    make_directory,
    open_directory,
    store_error,
    store_errors,
)
from ssfs.fsio.lock import DirectoryLock, FileLock, check_no_directory
from ssfs.model.policy import KEEP_EVERYTHING, Policy
from ssfs.model.version import PointSettings, StoreSettings, TaskSettings
from ssfs.store.probe import check_hard_links
from ssfs.store.textfile import FORMAT, read_text_file, write_text_file
from ssfs.store.version import Version, list_versions

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}")
_UNKNOWN_SETTINGS = PointSettings(FORMAT, KEEP_EVERYTHING)
_LEFT_BY_INIT = {"points", ".store.toml.new", ".ssfs-probe-1", ".ssfs-probe-2"}
"""What an `init` that broke off may leave; the next one goes on from there."""


def check_name(name: str, what: str) -> str:
    """`name` if it may name a point or task.

    Raises:
        ConfigError: It may not.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} cannot name a {what}",
            remedy="use letters, digits, '.', '_' and '-', not starting with '.' or '-'",
        )
    return name


class Store:
    """A store on this machine.

    Attributes:
        path: Its directory.
        settings: Its store.toml.
        zone: The time zone of its dates.
    """

    def __init__(self, path: bytes, settings: StoreSettings) -> None:
        self.path = path
        self.settings = settings
        self.zone = zoneinfo.ZoneInfo(settings.timezone)

    @classmethod
    def create(cls, path: bytes, policy: Policy, timezone: str, clock: Clock) -> "Store":
        """Make a store in a new or empty directory.

        Raises:
            ConfigError: The directory is in use, or the time zone unknown.
            StoreError: The file system is read-only, full, or makes no hard links.
        """
        check_time_zone(timezone)
        with store_errors(path):
            if not os.path.isdir(path):
                os.mkdir(path, 0o700)
            fd = open_directory(path)
            try:
                names = set(os.listdir(fd)) - {"lost+found"}
                if "store.toml" in names:
                    raise ConfigError("Already a store", path=path)
                if names - _LEFT_BY_INIT or _has_names(path, b"points"):
                    raise ConfigError(
                        "The directory is not empty", path=path, remedy="name a new or empty one"
                    )
                check_hard_links(path, fd)
                settings = StoreSettings(
                    FORMAT, secrets.token_hex(16), _whole_second(clock.now()), timezone, policy
                )
                points = make_directory(b"points", dir_fd=fd)
                fsync(points)
                os.close(points)
                write_text_file(b"store.toml", settings, dir_fd=fd)
            finally:
                os.close(fd)
        return cls(path, settings)

    @classmethod
    def open(cls, path: bytes) -> "Store":
        """Open a store for reading.

        Raises:
            StoreError: There is none, or a newer ssfs made it.
        """
        try:
            settings = read_text_file(b"store.toml", StoreSettings, directory=path)
        except (FileNotFoundError, NotADirectoryError) as error:
            if _has_names(path, b"points"):
                raise CorruptStore(
                    "The settings of the store are lost",
                    path=os.path.join(path, b"store.toml"),
                    remedy="`ssfs recover` makes new ones",
                ) from error
            raise StoreError("Not a store", path=path, remedy="`ssfs init` makes one") from error
        except OSError as error:
            raise store_error(error, path) from error
        try:
            return cls(path, settings)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError) as error:
            raise StoreError(
                f"The store's time zone {settings.timezone!r} is unknown here",
                path=path,
                remedy="install tzdata",
            ) from error

    def become_owner(self) -> None:
        """Turn this process into the store's owner for good; see `become_owner`."""
        become_owner(self.path)

    def points(self) -> list["Point"]:
        """The sync points, by name."""
        with store_errors(self.path):
            directory = os.path.join(self.path, b"points")
            names = sorted(os.listdir(directory))
        return [self.point(os.fsdecode(name)) for name in names if self._is_point(name)]

    def _is_point(self, name: bytes) -> bool:
        """Whether a directory is a sync point, and not just being made, or half-made.

        Its text file comes last, the tasks after it: where there are tasks, it was lost.
        """
        path = os.path.join(self.path, b"points", name)
        return os.path.exists(os.path.join(path, b"point.toml")) or _has_names(path, b"tasks")

    def point(self, name: str) -> "Point":
        """A sync point.

        One whose point.toml is lost or damaged goes on, and keeps everything: its versions are not to suffer.

        Raises:
            ConfigError: There is none of this name.
        """
        check_name(name, "sync point")
        path = os.path.join(self.path, b"points", name.encode())
        try:
            settings = read_text_file(b"point.toml", PointSettings, directory=path)
        except CorruptStore as error:
            return Point(self, name, path, _UNKNOWN_SETTINGS, error.problem)
        except FileNotFoundError as error:
            if _has_names(path, b"tasks"):
                return Point(self, name, path, _UNKNOWN_SETTINGS, "It is missing")
            raise ConfigError(
                f"No sync point {name!r} in the store",
                path=self.path,
                remedy="`ssfs points` lists them, `ssfs point` makes one",
            ) from error
        return Point(self, name, path, settings)

    def create_point(self, name: str, policy: Policy | None = None) -> "Point":
        """The sync point, made with the store's default policy if there is none yet."""
        check_name(name, "sync point")
        points = os.path.join(self.path, b"points")
        # Several clients may come with their first backups at once.
        with store_errors(self.path), DirectoryLock(points) as guard:
            guard.exclusive()
            fd = make_directory(name.encode(), dir_fd=guard.fd)
            try:
                if not self._is_point(name.encode()):
                    os.close(make_directory(b"tasks", dir_fd=fd))
                    settings = PointSettings(FORMAT, policy or self.settings.policy)
                    write_text_file(b"point.toml", settings, dir_fd=fd, is_sealed=True)
                fsync(guard.fd)
            finally:
                os.close(fd)
        return self.point(name)


class Point:
    """A named place in a store that takes backups.

    Attributes:
        store: Where it is.
        name: Its name.
        path: Its directory.
        settings: Its point.toml.
        fault: What is wrong with that, "" if nothing is.
    """

    def __init__(
        self, store: Store, name: str, path: bytes, settings: PointSettings, fault: str = ""
    ) -> None:
        self.store = store
        self.name = name
        self.path = path
        self.settings = settings
        self.fault = fault

    @property
    def held(self) -> str:
        """Why nothing expires here by itself, if its settings are lost; else ""."""
        if not self.fault:
            return ""
        return (
            f"Everything is kept: the settings of sync point {self.name!r} are lost "
            "(`ssfs recover` makes new ones, `ssfs point` sets them)"
        )

    def set_policy(self, policy: Policy) -> None:
        """Keep by another policy from now on; expires nothing by itself."""
        self.update_settings(lambda current: msgspec.structs.replace(current, policy=policy))

    def update_settings(self, change: Callable[[PointSettings], PointSettings]) -> PointSettings:
        """Replace point.toml by what `change` makes of it as it is now; nobody else does meanwhile.

        Returns:
            The settings as they were before.
        """
        with store_errors(self.path), DirectoryLock(self.path) as guard:
            guard.exclusive()
            try:
                before = read_text_file(b"point.toml", PointSettings, directory=self.path)
            except (CorruptStore, FileNotFoundError) as error:
                raise CorruptStore(
                    f"The settings of sync point {self.name!r} are lost",
                    path=os.path.join(self.path, b"point.toml"),
                    remedy="`ssfs recover` makes new ones, by which everything is kept",
                ) from error
            self.settings = change(before)
            if self.settings != before:
                self.write_settings(self.settings, guard)
        return before

    def write_settings(self, settings: PointSettings, guard: DirectoryLock) -> None:
        """Replace point.toml; the caller holds the sync point's lock."""
        write_text_file(b"point.toml", settings, dir_fd=guard.fd, is_sealed=True)
        self.settings, self.fault = settings, ""

    def tasks(self) -> list["Task"]:
        """Its tasks, by name, but those whose settings are lost (`lost_tasks`)."""
        with store_errors(self.path):
            names = sorted(os.listdir(os.path.join(self.path, b"tasks")))
        tasks = []
        for name in names:
            path = os.path.join(self.path, b"tasks", name)
            if os.path.exists(os.path.join(path, b"task.toml")):
                # One that is damaged must not stand in the way of the others.
                with contextlib.suppress(CorruptStore):
                    tasks.append(self.task(os.fsdecode(name)))
        return tasks

    def lost_tasks(self) -> list[str]:
        """The names of tasks with versions whose task.toml is lost or damaged: `tasks` leaves them out."""
        known = {task.name for task in self.tasks()}
        with store_errors(self.path):
            names = sorted(os.listdir(os.path.join(self.path, b"tasks")))
        return [
            os.fsdecode(name)
            for name in names
            if os.fsdecode(name) not in known
            and _has_names(os.path.join(self.path, b"tasks", name), b"versions")
        ]

    def task(self, name: str) -> "Task":
        """A task.

        Raises:
            ConfigError: There is none of this name.
        """
        check_name(name, "task")
        path = os.path.join(self.path, b"tasks", name.encode())
        try:
            settings = read_text_file(b"task.toml", TaskSettings, directory=path)
        except FileNotFoundError as error:
            raise ConfigError(
                f"No task {name!r} in sync point {self.name!r}",
                path=self.store.path,
                remedy="`ssfs points` lists them",
            ) from error
        return Task(self, name, path, settings)

    def claim_task(self, name: str, owner: str, source: str, clock: Clock) -> "Task":
        """The task, made if there is none; it must be of this owner and source.

        Raises:
            ConfigError: It is somebody else's.
        """
        check_name(name, "task")
        with store_errors(self.path), DirectoryLock(self.path) as guard:
            guard.exclusive()
            tasks = make_directory(b"tasks", dir_fd=guard.fd)
            try:
                fd = make_directory(name.encode(), dir_fd=tasks)
                try:
                    place = os.fsencode(f"/proc/self/fd/{fd}")
                    if b"task.toml" not in os.listdir(place):
                        if _has_names(place, b"versions"):
                            raise CorruptStore(
                                f"Nobody knows whose task {name!r} is: its settings are lost",
                                path=os.path.join(self.path, b"tasks", name.encode(), b"task.toml"),
                                remedy="`ssfs recover` makes them anew from its versions",
                            )
                        for part in (b"versions", b"trash"):
                            os.close(make_directory(part, dir_fd=fd))
                        created = _whole_second(clock.now())
                        settings = TaskSettings(
                            FORMAT, secrets.token_hex(16), owner, source, created
                        )
                        write_text_file(b"task.toml", settings, dir_fd=fd, is_sealed=True)
                        fsync(tasks)
                        fsync(guard.fd)
                finally:
                    os.close(fd)
            finally:
                os.close(tasks)
        task = self.task(name)
        task.check_is_of(owner, source)
        return task


class Task:
    """One client's source inside a sync point; its versions are one history.

    Attributes:
        point: Where it is.
        name: Its name.
        path: Its directory.
        settings: Its task.toml.
    """

    def __init__(self, point: Point, name: str, path: bytes, settings: TaskSettings) -> None:
        self.point = point
        self.name = name
        self.path = path
        self.settings = settings

    @property
    def label(self) -> str:
        """POINT/TASK, for messages."""
        return f"{self.point.name}/{self.name}"

    def check_is_of(self, owner: str, source: str) -> None:
        """Refuse another client, and another source of the same one.

        Raises:
            ConfigError: It is somebody else's.
        """
        if (self.settings.owner, self.settings.source) != (owner, source):
            raise ConfigError(
                f"Task {self.name!r} backs up {self.settings.source!r} of "
                f"{self.settings.owner!r}, not {source!r} of {owner!r}",
                remedy="name another TASK in the location; `--source-id` is for one source "
                "whose path changes",
            )

    def has_versions(self) -> bool:
        """Whether the directory of its versions is there, with or without any: every task is made with one."""
        return os.path.isdir(os.path.join(self.path, b"versions"))

    def versions(self) -> list[Version]:
        """Its committed versions, by sequence.

        Raises:
            CorruptStore: Their directory is lost.
        """
        with store_errors(self.path):
            return list_versions(self.path)

    def lock_for_writing(self, holder: str) -> FileLock:
        """The lock of the one process that makes a version here.

        Raises:
            StoreLocked: Somebody is at it; the error says who.
        """
        with store_errors(self.path):
            path = os.path.join(self.path, b"lock")
            check_no_directory(path)
            lock = FileLock(path)
            if not lock.exclusive_nowait():
                who = lock.read_holder()
                lock.close()
                raise StoreLocked(
                    f"Another sync of task {self.label!r} is running: {who}",
                    remedy="wait until it has ended",
                )
            lock.write_holder(holder)
        return lock

    def guard(self) -> DirectoryLock:
        """The lock for short changes: task.toml, pins, what is in versions/; waits for it."""
        with store_errors(self.path):
            lock = DirectoryLock(self.path)
            lock.exclusive()
        return lock

    def update_settings(self, guard: DirectoryLock, **changes: int) -> None:
        """Change fields of task.toml; the caller holds the guard."""
        current = read_text_file(b"task.toml", TaskSettings, directory=self.path)
        self.settings = msgspec.structs.replace(current, **changes)
        with store_errors(self.path):
            write_text_file(b"task.toml", self.settings, dir_fd=guard.fd, is_sealed=True)

    def next_sequence(self) -> int:
        """The sequence number of the next version: never one that was used before."""
        # Read again: another process may have deleted the newest version since we opened the task.
        settings = read_text_file(b"task.toml", TaskSettings, directory=self.path)
        used = [version.id.sequence for version in list_versions(self.path)]
        used += [version.id.sequence for version in list_versions(self.path, b"trash")]
        return max([*used, settings.last_sequence]) + 1


def become_owner(path: bytes, name: bytes = b"store.toml") -> None:
    """Turn this process into the owner of the store in a directory for good: call it before any write.

    A file of another owner could not be linked (protected_hardlinks), so everything in a store
    has one owner (DESIGN.md section 3.3); that of `name` tells who it is.

    Raises:
        StoreError: We are neither the owner nor root.
    """
    with store_errors(path):
        owner = os.stat(os.path.join(path, name))
    if os.geteuid() == owner.st_uid:
        return
    if os.geteuid() != 0:
        try:
            who = pwd.getpwuid(owner.st_uid).pw_name
        except KeyError:
            who = str(owner.st_uid)
        raise StoreError(
            f"The store belongs to {who!r}", path=path, remedy=f"run as {who!r} or root"
        )
    os.setgroups([])
    os.setgid(owner.st_gid)
    os.setuid(owner.st_uid)


def check_time_zone(name: str) -> None:
    """Raise ConfigError for what is no IANA time zone."""
    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ConfigError(
            f"Unknown time zone {name!r}", remedy="use a name like Europe/Berlin or UTC"
        ) from error


def _whole_second(time: datetime.datetime) -> datetime.datetime:
    return time.replace(microsecond=0)


def _has_names(path: bytes, name: bytes) -> bool:
    """Whether there is anything in a directory of another one."""
    try:
        return bool(os.listdir(os.path.join(path, name)))
    except (FileNotFoundError, NotADirectoryError):
        return False
