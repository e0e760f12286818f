"""Places as they are written on the command line: `/path/store[::POINT[/TASK]]`.

What a location names is opened here and nowhere else, so that every command defaults alike: the
sync point is `main` unless another is named, and the task, where one is needed, is the only one of
its sync point. The last `::` of the text counts; a store whose path holds `::` is written with a
sync point behind it.
"""

import os
from typing import NamedTuple

from ssfs.errors import ConfigError
from ssfs.fsio.disk import store_errors
from ssfs.store.store import Point, Store, Task, check_name

DEFAULT_POINT = "main"

_SEPARATOR = b"::"
_REMOTE = (b"ssfs://", b"ssh://")


class Location(NamedTuple):
    """A place in a store of this machine.

    Attributes:
        store: Absolute path of the store.
        point: Name of the sync point, None if the text names none.
        task: Name of the task, None if the text names none.
    """

    store: bytes
    point: str | None
    task: str | None


def parse_location(text: bytes) -> Location:
    """The location a text spells; opens nothing.

    Raises:
        ConfigError: It spells none, or one on another machine.
    """
    if text.startswith(_REMOTE):
        raise ConfigError(
            "Stores on other machines are not supported yet",
            path=text,
            remedy="use a path of this machine: /path/store[::POINT[/TASK]]",
        )
    path, separator, rest = text.rpartition(_SEPARATOR)
    if not separator:
        path, rest = text, b""
    if not path:
        raise ConfigError(
            "The location names no store", path=text, remedy="write /path/store[::POINT[/TASK]]"
        )
    point, _, task = os.fsdecode(rest).partition("/")
    if point:
        check_name(point, "sync point")
    if task:
        check_name(task, "task")
    return Location(os.path.abspath(path), point or None, task or None)


def parse_store(text: bytes) -> bytes:
    """The absolute path of a store, where no sync point may be named.

    Raises:
        ConfigError: The text names more than a store, or none.
    """
    location = parse_location(text)
    if location.point is not None:
        raise ConfigError(
            "Name the store alone, without a sync point", path=text, remedy="leave out '::POINT'"
        )
    return location.store


def open_point(location: Location) -> Point:
    """The sync point of a location.

    Raises:
        ConfigError: There is none of this name.
        StoreError: There is no store, or it cannot be read.
    """
    store = Store.open(location.store)
    with store_errors(location.store):
        return store.point(location.point or DEFAULT_POINT)


def open_tasks(location: Location) -> list[Task]:
    """The task of a location, or all of its sync point where it names none; raises as `open_task`."""
    point = open_point(location)
    with store_errors(location.store):
        return [point.task(location.task)] if location.task else point.tasks()


def open_task(location: Location) -> Task:
    """The one task a location means.

    Raises:
        ConfigError: There is none of this name, or it names none and the sync point has not
            exactly one.
        StoreError: There is no store, or it cannot be read.
    """
    tasks = open_tasks(location)
    if len(tasks) == 1:
        return tasks[0]
    point = location.point or DEFAULT_POINT
    if not tasks:
        raise ConfigError(
            f"Sync point {point!r} has no task yet",
            path=location.store,
            remedy="`ssfs sync SOURCE LOCATION` makes the first",
        )
    names = ", ".join(task.name for task in tasks)
    raise ConfigError(
        f"Sync point {point!r} has several tasks: {names}",
        remedy=f"name one: {os.fsdecode(location.store)}::{point}/{tasks[0].name}",
    )


def open_target(location: Location) -> Store | Point | Task:
    """What a location names, no more and no less: a whole store, a sync point or a task."""
    if location.point is None:
        return Store.open(location.store)
    if location.task is None:
        return open_point(location)
    return open_task(location)


def spell(task: Task) -> str:
    """The location of a task, as a user would type it."""
    return f"{os.fsdecode(task.point.store.path)}::{task.label}"


def is_inside(path: bytes, directory: bytes) -> bool:
    """Whether a path is a directory or lies below it, wherever symlinks lead."""
    outer = os.path.realpath(directory)
    return os.path.commonpath((os.path.realpath(path), outer)) == outer
