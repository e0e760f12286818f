"""`ssfs samba-config`: the lines of smb.conf with which Windows shows a task's versions as Previous Versions."""

import os
import re
import shlex
from typing import NamedTuple

import click
import msgspec

from ssfs.cli.exit_codes import ExitCode
from ssfs.cli.location import LocalPlace, Place, parse_location, point_of, spell
from ssfs.cli.options import (
    PATH,
    examples,
    json_option,
    location_argument,
    quiet_option,
    verbose_option,
)
from ssfs.cli.output import complain, emit, emit_json
from ssfs.cli.session import open_session
from ssfs.errors import ConfigError
from ssfs.mount.mountpoint import find_mounts_of
from ssfs.mount.samba import FORMAT, VIEW
from ssfs.protocol.requests import ListPoints, PointLine, TaskLine

_MOUNTPOINT = b"/mnt/smartsync"
# What Samba takes in the name of a share, and not one that means something else to it.
_SHARE = re.compile(r'[^\x00-\x1f\x7f%<>*?|/\\+=;:",\[\]]{1,80}')
_SPECIAL = frozenset({"global", "homes", "printers", "print$", "ipc$"})


class SambaConfig(msgspec.Struct, frozen=True):
    """What is printed.

    Attributes:
        task: The task, with its sync point.
        mountpoint: Where its versions are mounted, or are to be.
        mounted: Whether they are, as Samba needs them.
        fstab: The line of /etc/fstab for it.
        lines: Those of smb.conf.
    """

    task: str
    mountpoint: str
    mounted: bool
    fstab: str
    lines: list[str]


class _View(NamedTuple):
    location: str
    mountpoint: bytes
    directory: bytes


@click.command(
    "samba-config",
    epilog=examples(
        "ssfs samba-config /srv/backup home",
        "ssfs samba-config /srv/backup::main/nas1-home ann --path /home/ann --mountpoint /mnt/home",
        "ssfs samba-config ssfs://nas2/main/nas1-home home",
    ),
)
@location_argument
@click.argument("share")
@click.option("--path", "path", type=PATH, help="The share's directory; the source unless given.")
@click.option(
    "--mountpoint",
    type=PATH,
    help="Where LOCATION is mounted, or is to be. (Unless given: where it is, else /mnt/smartsync.)",
)
@json_option
@quiet_option
@verbose_option
def samba_config(
    *,
    location: bytes,
    share: str,
    path: bytes | None,
    mountpoint: bytes | None,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> ExitCode:
    """Print what smb.conf needs so that Windows shows the versions of a task as Previous Versions.

    SHARE is the name of the share: of the source's directory, or of one in it (--path). The lines
    go into its section; a share that has `vfs objects` already gets shadow_copy2 added to them. The
    versions must be mounted with `-o allow_other,samba`, on the machine where Samba runs; LOCATION is
    as it is mounted there, a server's too.

    With -q: no comments. With -v: the command that mounts, too. With --json: one object with the keys task, mountpoint, mounted (bool), fstab
    (a line), lines (a list).

    Exit codes: 0 done; 2 no such task, or it cannot be shared like that; 4 the server is not trusted, or
    does not let us; 5 it cannot be reached; 6 no store there, or it cannot be read.
    """
    if not _SHARE.fullmatch(share) or share != share.strip() or share.lower() in _SPECIAL:
        raise ConfigError(f"{share!r} cannot name a share here", remedy="name an ordinary one")
    place = parse_location(location)
    with open_session(place) as session:
        task = _choose(place, session.ask(ListPoints()).points)
    inside = f"{point_of(place)}/{task.task}"
    source, directory = _directories(inside, task, path)
    views = _views(place, task.task, mountpoint)
    view = next((view for view in views if os.path.isdir(view.directory)), views[0])
    config = SambaConfig(
        inside,
        os.fsdecode(view.mountpoint),
        os.path.isdir(view.directory),
        _fstab_line(place, view),
        _smb_conf(share, source, directory, _plain(view.directory)),
    )
    if as_json:
        emit_json(config)
        return ExitCode.DONE
    if not quiet:
        emit(f"# Previous Versions of {directory}, from task {inside}.")
        emit("# The versions must be mounted; the line for /etc/fstab is")
        emit(f"#   {config.fstab}")
    if verbose:
        words = ["ssfs", "mount", view.location, config.mountpoint, "-o", "allow_other,samba"]
        emit(f"# By hand: {shlex.join(words)}")
    emit("\n".join(config.lines))
    if not config.mounted:
        complain(f"{config.mountpoint} does not show {inside} yet, with -o allow_other,samba")
    return ExitCode.DONE


def _choose(place: Place, points: tuple[PointLine, ...]) -> TaskLine:
    """The task that is meant, or the only one of the sync point."""
    point = point_of(place)
    tasks = [task for line in points if line.point == point for task in line.tasks]
    found = [task for task in tasks if place.task in (None, task.task)]
    if len(found) == 1:
        return found[0]
    if not found:
        what = f"task {place.task!r}" if place.task else "task"
        raise ConfigError(f"There is no {what} in sync point {point!r}")
    names = ", ".join(task.task for task in found)
    raise ConfigError(f"Sync point {point!r} has several tasks: {names}", remedy="name one of them")


def _directories(inside: str, task: TaskLine, path: bytes | None) -> tuple[str, str]:
    """The source's directory and the share's, as smb.conf may name them."""
    share = None if path is None else _plain(os.path.normpath(path))
    if not task.source.startswith("/"):
        if share is None:
            raise ConfigError(
                f"Task {inside!r} is a backup of {task.source!r}, which names no directory",
                remedy="say with --path which one that is",
            )
        return share, share
    source = _plain(os.fsencode(task.source))
    if share is None:
        share = source
    if os.path.commonpath((source, share)) != source:
        raise ConfigError(
            f"The share is not inside {source!r}, the source", path=path, remedy="name one that is"
        )
    return source, share


def _plain(path: bytes) -> str:
    """An absolute path that means itself in smb.conf.

    Raises:
        ConfigError: It would mean something else there.
    """
    text = os.fsdecode(path)
    if not text.isprintable() or text != text.strip() or set(text) & set('%\\"'):
        raise ConfigError("smb.conf cannot name that directory", path=path)
    if not text.startswith("/"):
        raise ConfigError("The path must be absolute", path=path)
    return text


def _views(place: Place, task: str, mountpoint: bytes | None) -> list[_View]:
    """Where the task's view for Samba is, or may be, the best guess first."""
    point = point_of(place)
    store = spell(place._replace(point=None, task=None))
    below = {
        spell(place, point, task): [],
        spell(place._replace(point=None, task=None), point): [task],
        store: [point, task],
    }
    named = spell(place)

    def view(location: str, where: bytes) -> _View:
        parts = [os.fsencode(part) for part in (*below[location], VIEW)]
        return _View(location, where, os.path.join(where, *parts))

    if mountpoint is not None:
        return [view(named, os.path.realpath(mountpoint))]
    found = [view(location, where) for location in below for where in find_mounts_of(location)]
    return found or [view(named, _MOUNTPOINT)]


def _fstab_line(place: Place, view: _View) -> str:
    def field(text: str) -> str:
        return re.sub(r"[\s\\]", lambda match: f"\\{ord(match[0]):03o}", text)

    options = "allow_other,samba,nofail"
    if not isinstance(place, LocalPlace):
        options += ",_netdev"
    elif b"," not in place.store:
        options += f",x-systemd.requires-mounts-for={field(os.fsdecode(place.store))}"
    where = field(os.fsdecode(view.mountpoint))
    return f"{field(view.location)}  {where}  fuse.ssfs  {options}  0  0"


def _smb_conf(share: str, source: str, directory: str, snapdir: str) -> list[str]:
    if directory == source:
        inside = f"shadow:basedir = {source}"
    else:
        inside = f"shadow:snapsharepath = {os.path.relpath(directory, source)}"
    return [
        f"[{share}]",
        f"    path = {directory}",
        "    vfs objects = shadow_copy2",
        f"    shadow:snapdir = {snapdir}",
        f"    {inside}",
        f"    shadow:format = {FORMAT}",
        "    shadow:localtime = no",
        "    shadow:sort = desc",
        # A mount is a file system of its own, and no two versions in it share an inode number.
        "    shadow:fixinodes = no",
    ]
