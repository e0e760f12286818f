"""Where `ssfs restore --in-place` goes: the directory that a task is the backup of, if that is on this machine.

A store of this machine is believed. What a server says is believed where the task's name, as the user typed it,
says the same (`nas1-home` is /home of nas1); otherwise somebody is asked first, so that no server
chooses where files are written.
"""

import os
from typing import NamedTuple

from ssfs.cli.asking import agrees, will_ask
from ssfs.cli.location import Place, SshPlace, TlsPlace, point_of
from ssfs.cli.remote import client_name_at
from ssfs.engine.commands import ask
from ssfs.errors import ConfigError
from ssfs.net.channel import Channel
from ssfs.protocol.requests import ListPoints, TaskLine
from ssfs.source.identity import client_name, default_task
from ssfs.store.store import Task

_USE_TO = "use --to DIR"


class SourcePlace(NamedTuple):
    """The task that is restored in place.

    Attributes:
        task: Its name.
        directory: Its source.
    """

    task: str
    directory: bytes


def find_source_here(task: Task) -> bytes:
    """The directory that a task of a store of this machine is the backup of.

    Raises:
        ConfigError: It is on another machine, or has no directory of its own.
    """
    return _directory(task.label, task.settings.owner, task.settings.source, client_name())


def find_source_there(
    channel: Channel, place: TlsPlace | SshPlace, *, asks: bool, yes: bool
) -> SourcePlace | None:
    """The same for a task of a server; the channel is ready for the restore then.

    Args:
        channel: A session in the state `READY`.
        place: The task that is meant.
        asks: Whether a directory that only the server knows of must be agreed to.
        yes: It is.

    Returns:
        None if the user said no.

    Raises:
        ConfigError: As `find_source_here`; or there is no such task; or there is nobody to ask.
        SsfsError: What the server raised, or the way there.
    """
    point = point_of(place)
    points = [line for line in ask(channel, ListPoints()).points if line.point == point]
    tasks = [task for line in points for task in line.tasks if place.task in (None, task.task)]
    if len(tasks) != 1:
        names = ", ".join(task.task for task in tasks)
        raise ConfigError(
            f"Sync point {point!r} has several tasks: {names}"
            if tasks
            else f"There is no task of ours in sync point {point!r}",
            remedy="name one of them" if tasks else "",
        )
    client = client_name_at(place)
    directory = _directory(f"{point}/{tasks[0].task}", tasks[0].owner, tasks[0].source, client)
    if asks and not _is_believed(place, tasks[0], client, directory):
        shown = os.fsdecode(directory)
        if not (yes or will_ask(yes=yes)):
            raise ConfigError(
                f"The server says that the task is a backup of {shown!r}; its name does not",
                remedy="--yes if that is right; or use --to DIR",
            )
        if not agrees(f"The server says this is a backup of {shown}. Restore into it?", yes=yes):
            return None
    return SourcePlace(tasks[0].task, directory)


def _is_believed(place: Place, task: TaskLine, client: str, directory: bytes) -> bool:
    return place.task == task.task == default_task(client, directory, None)


def _directory(label: str, owner: str, source: str, client: str) -> bytes:
    if owner != client:
        raise ConfigError(
            f"Task {label!r} is a backup of {owner!r}, and this machine is {client!r}",
            remedy=_USE_TO,
        )
    # A backslash may stand for a byte that is not UTF-8.
    if not source.startswith("/") or "\\" in source:
        raise ConfigError(
            f"Task {label!r} is a backup of {source!r}, which names no directory", remedy=_USE_TO
        )
    return os.fsencode(source)
