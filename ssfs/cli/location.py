"""Places as they are written on the command line, on this machine and on others.

    /path/store[::POINT[/TASK]]                            a store of this machine
    ssfs://HOST[:PORT][/POINT[/TASK]]                      a server's store, over TLS
    ssh://[USER@]HOST[:PORT]/path/store[::POINT[/TASK]]    a store on a machine one can log in to

The sync point is `main` unless another is named, and the task, where one is needed, is the only one of its sync
point. The last `::` of a text counts; a store whose path holds `::` is written with a sync point behind
it. An IPv6 address is written in brackets.
"""

import ipaddress
import os
import re
from typing import NamedTuple

from ssfs.engine.selection import choose_task
from ssfs.errors import ConfigError
from ssfs.fsio.disk import store_errors
from ssfs.model.peer import LOCAL
from ssfs.store.store import Point, Store, Task, check_name

DEFAULT_POINT = "main"
DEFAULT_PORT = 7433

_SEPARATOR = b"::"
_TLS = b"ssfs://"
_SSH = b"ssh://"
_LOCAL_FORM = "write /path/store[::POINT[/TASK]]"
_TLS_FORM = "write ssfs://HOST[:PORT]/POINT[/TASK]"
_SSH_FORM = "write ssh://[USER@]HOST[:PORT]/path/store[::POINT[/TASK]]"
# Neither may begin with a dash: ssh would take it for an option.
_USER = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.@+$\\-]*")
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_HOST_AND_PORT = re.compile(r"(?:\[([^\]]*)\]|([^:\[\]]*))(?::([0-9]{1,5}))?")
_MAX_PORT = 65535


class LocalPlace(NamedTuple):
    """A place in a store of this machine.

    Attributes:
        store: Absolute path of the store.
        point: Name of the sync point, None if the text names none.
        task: Name of the task, None if the text names none.
    """

    store: bytes
    point: str | None
    task: str | None


class TlsPlace(NamedTuple):
    """A place in the store of a server.

    Attributes:
        host: Its name or address, without brackets.
        port: Its TCP port.
        point: Name of the sync point, None if the text names none.
        task: Name of the task, None if the text names none.
    """

    host: str
    port: int
    point: str | None
    task: str | None


class SshPlace(NamedTuple):
    """A place in a store of a machine to log in to.

    Attributes:
        user: Whom to be there, None for what ssh chooses.
        host: Its name or address, without brackets; not beginning with a dash.
        port: Its TCP port, None for what ssh chooses.
        store: Absolute path of the store there.
        point: Name of the sync point, None if the text names none.
        task: Name of the task, None if the text names none.
    """

    user: str | None
    host: str
    port: int | None
    store: bytes
    point: str | None
    task: str | None


Place = LocalPlace | TlsPlace | SshPlace


def parse_location(text: bytes) -> Place:
    """The place a text spells; opens nothing.

    Raises:
        ConfigError: It spells none.
    """
    if text.startswith(_TLS):
        return _parse_tls(text)
    if text.startswith(_SSH):
        return _parse_ssh(text)
    path, point, task = _split_store(text)
    if not path:
        raise ConfigError("The location names no store", path=text, remedy=_LOCAL_FORM)
    try:
        return LocalPlace(os.path.abspath(path), point, task)
    except FileNotFoundError as error:
        raise ConfigError(
            "The current directory is gone",
            path=text,
            remedy="write the whole path, or change to another",
        ) from error


def _parse_tls(text: bytes) -> TlsPlace:
    where, _, rest = os.fsdecode(text.removeprefix(_TLS)).partition("/")
    host, port = _parse_host(where, text, _TLS_FORM)
    point, slash, task = rest.partition("/")
    if slash and not point:
        raise ConfigError("The location names no sync point", path=text, remedy=_TLS_FORM)
    return TlsPlace(host, port or DEFAULT_PORT, *_checked(point, task))


def _parse_ssh(text: bytes) -> SshPlace:
    where, _, rest = text.removeprefix(_SSH).partition(b"/")
    user, at, host_and_port = os.fsdecode(where).rpartition("@")
    if at and not _USER.fullmatch(user):
        raise ConfigError(f"{user!r} cannot name a user", path=text, remedy=_SSH_FORM)
    host, port = _parse_host(host_and_port, text, _SSH_FORM)
    path, point, task = _split_store(rest)
    path = path.strip(b"/")
    if not path:
        raise ConfigError("The location names no store", path=text, remedy=_SSH_FORM)
    return SshPlace(user or None, host, port, b"/" + path, point, task)


def _split_store(text: bytes) -> tuple[bytes, str | None, str | None]:
    """The path of a store, and what is named inside it."""
    path, separator, rest = text.rpartition(_SEPARATOR)
    if not separator:
        path, rest = text, b""
    point, _, task = os.fsdecode(rest).partition("/")
    return path, *_checked(point, task)


def _checked(point: str, task: str) -> tuple[str | None, str | None]:
    if point:
        check_name(point, "sync point")
    if task:
        check_name(task, "task")
    return point or None, task or None


def _parse_host(where: str, text: bytes, form: str) -> tuple[str, int | None]:
    match = _HOST_AND_PORT.fullmatch(where)
    host = (match[1] or match[2] or "") if match else where
    if match is None or not (_HOST.fullmatch(host) if match[1] is None else _is_ipv6(host)):
        raise ConfigError(
            f"{host!r} is no name or address of a host" if host else "The location names no host",
            path=text,
            remedy=f"{form}, an IPv6 address in brackets",
        )
    port = int(match[3]) if match[3] else None
    if port is not None and not 0 < port <= _MAX_PORT:
        raise ConfigError(f"There is no port {port}", path=text, remedy=form)
    return host, port


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return text.isascii() and text.isprintable()


def parse_store_location(text: bytes) -> Place:
    """The place of a whole store, where no sync point may be named.

    Raises:
        ConfigError: The text names more than a store, or none.
    """
    place = parse_location(text)
    if place.point is not None:
        part = "/POINT" if isinstance(place, TlsPlace) else "::POINT"
        raise ConfigError(
            "Name the store alone, without a sync point", path=text, remedy=f"leave out '{part}'"
        )
    return place


def parse_store(text: bytes) -> bytes:
    """The absolute path of a store of this machine; raises as `parse_store_location`."""
    return local_place(parse_store_location(text)).store


def local_place(place: Place, remedy: str = "") -> LocalPlace:
    """A place that must be on this machine.

    Raises:
        ConfigError: It is on another one.
    """
    if not isinstance(place, LocalPlace):
        raise ConfigError(
            f"This is done on the store's own machine, not from here: {spell(place)}",
            remedy=remedy or "use a path of this machine: /path/store[::POINT[/TASK]]",
        )
    return place


def point_of(place: Place) -> str:
    """The sync point that is meant."""
    return place.point or DEFAULT_POINT


def spell(place: Place, point: str | None = None, task: str | None = None) -> str:
    """The location of a place, or of a sync point and task in its store, as a user would type it."""
    inside = "/".join(name for name in (point or place.point, task or place.task) if name)
    match place:
        case LocalPlace(store):
            return f"{os.fsdecode(store)}::{inside}" if inside else os.fsdecode(store)
        case TlsPlace(host, port):
            text = f"ssfs://{_bracketed(host)}"
            text += f":{port}" if port != DEFAULT_PORT else ""
            return f"{text}/{inside}" if inside else text
        case SshPlace(user, host, ssh_port, store):
            text = f"ssh://{user}@" if user else "ssh://"
            text += _bracketed(host) + (f":{ssh_port}" if ssh_port else "") + os.fsdecode(store)
            return f"{text}::{inside}" if inside else text


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def open_task(place: Place) -> Task:
    """The one task of this machine that a place means.

    Raises:
        ConfigError: There is none of this name, or it names none and the sync point has not
            exactly one, or it is on another machine.
        StoreError: There is no store, or it cannot be read.
    """
    here = local_place(place)
    return choose_task(Store.open(here.store), LOCAL, point_of(here), here.task or "")


def open_target(place: Place) -> Store | Point | Task:
    """What a mount shows, no more and no less than is named: a whole store, a sync point or a task.

    Raises:
        ConfigError: There is no such thing, or it is on another machine.
        StoreError: There is no store, or it cannot be read.
    """
    here = local_place(
        place, "mount it there, or copy out with `ssfs restore` what is wanted of a version"
    )
    store = Store.open(here.store)
    if here.point is None:
        return store
    if here.task is None:
        with store_errors(store.path):
            return store.point(here.point)
    return open_task(here)


def is_inside(path: bytes, directory: bytes) -> bool:
    """Whether a path is a directory or lies below it, wherever symlinks lead."""
    outer = os.path.realpath(directory)
    return os.path.commonpath((os.path.realpath(path), outer)) == outer
