"""Mountpoints: what may be mounted on, what is mounted where, and unmounting.

A mount whose process was killed leaves its mountpoint behind: it is in the kernel's table, and every access
says "Transport endpoint is not connected". Unmounting clears it, and so does the next mount in its place.
"""

import errno
import logging
import os
import re
import shutil
import subprocess
from typing import NamedTuple

from ssfs.errors import ConfigError

SUBTYPE = "ssfs"
_DEAD = (errno.ENOTCONN, errno.ECONNABORTED)
_log = logging.getLogger(__name__)
_OCTAL = re.compile(rb"\\([0-7]{3})")


class MountEntry(NamedTuple):
    """A line of the kernel's table of mounts.

    Attributes:
        device: Its number, `MAJOR:MINOR`.
        path: Where it is mounted.
        kind: Type of its file system.
    """

    device: str
    path: bytes
    kind: bytes


def find_mount(resolved: bytes) -> MountEntry | None:
    """What is mounted on a path; the topmost, if several are.

    Args:
        resolved: The path, absolute and without symlinks. It is not touched: the process of a mount
            that asked its own mountpoint anything would wait for itself.
    """
    found = None
    with open("/proc/self/mountinfo", "rb") as lines:
        for line in lines:
            left, _, right = line.partition(b" - ")
            fields = left.split()
            mounted_on = _decoded(fields[4])
            if mounted_on == resolved:
                found = MountEntry(fields[2].decode(), mounted_on, right.split()[0])
    return found


def table_name(location: str) -> str:
    """What the kernel's table calls a location: pyfuse3 takes ASCII only, and libfuse splits at commas."""
    return "".join(c if c.isascii() and c not in ",\\" else "?" for c in location)


def find_mounts_of(location: str) -> list[bytes]:
    """Where a location is mounted, as far as the kernel's table tells."""
    wanted = os.fsencode(table_name(location))
    found = []
    with open("/proc/self/mountinfo", "rb") as lines:
        for line in lines:
            left, _, right = line.partition(b" - ")
            kind, source = right.split(b" ")[:2]
            if kind == b"fuse." + SUBTYPE.encode() and _decoded(source) == wanted:
                found.append(_decoded(left.split()[4]))
    return found


def _decoded(field: bytes) -> bytes:
    return _OCTAL.sub(lambda match: bytes([int(match[1], 8)]), field)


def is_ours(entry: MountEntry | None) -> bool:
    """Whether it is a mount of ssfs."""
    return entry is not None and entry.kind == b"fuse." + SUBTYPE.encode()


def clear_dead_mounts(path: bytes) -> None:
    """Take away what is left on a path of mounts of ssfs whose processes have died.

    Raises:
        ConfigError: It is somebody else's, and cannot be taken away.
    """
    # A mount that was put on a dead one by other means hides it until it dies too.
    while _is_dead(path) and is_ours(find_mount(os.path.realpath(path))):
        umount(path)
        _log.warning("Cleared what was left of a mount that had died: %r", os.fsdecode(path))


def check_mountpoint(path: bytes) -> bytes:
    """The absolute path of a mountpoint that is fit to be mounted on.

    Raises:
        ConfigError: It is not.
    """
    try:
        _touch(path)
        if is_ours(find_mount(os.path.realpath(path))):
            raise ConfigError(
                "Something is mounted there already",
                path=path,
                remedy=f"`ssfs umount {os.fsdecode(path)}` unmounts it",
            )
        names = os.listdir(path)
    except FileNotFoundError as error:
        raise ConfigError("The mountpoint does not exist", path=path, remedy="make it") from error
    except NotADirectoryError as error:
        raise ConfigError("The mountpoint is not a directory", path=path) from error
    except OSError as error:
        if error.errno in _DEAD:
            raise ConfigError(
                "What is mounted there is dead", path=path, remedy="unmount it, with -l if need be"
            ) from error
        text = (error.strerror or str(error)).lower()
        raise ConfigError(f"The mountpoint cannot be used: {text}", path=path) from error
    if names:
        raise ConfigError("The mountpoint is not empty", path=path, remedy="name an empty one")
    return os.path.realpath(path)


def check_fuse() -> None:
    """Whether this machine and this user can mount at all.

    Raises:
        ConfigError: They cannot.
    """
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        remedy = "`modprobe fuse` loads it; a container needs the device passed in"
        if isinstance(error, PermissionError):
            remedy = "mount as root, or let this user read and write it"
        text = (error.strerror or str(error)).lower()
        raise ConfigError(
            f"FUSE cannot be used: {text}", path=b"/dev/fuse", remedy=remedy
        ) from error
    if os.geteuid() != 0 and shutil.which("fusermount3") is None:
        raise ConfigError("fusermount3 is missing", remedy="install the package fuse3")


def umount(mountpoint: bytes) -> None:
    """Unmount a mount of ssfs, or clear what is left of one whose process has died.

    Raises:
        ConfigError: There is none, or it is in use.
    """
    entry = find_mount(os.path.realpath(mountpoint))
    if entry is None or not is_ours(entry):
        raise ConfigError("Not a mountpoint of ssfs", path=mountpoint)
    # A dead one may have open files and working directories, all of them of no use any more.
    flags = _flags_of_command(is_dead=_is_dead(entry.path))
    run = subprocess.run(  # noqa: S603 - a fixed command; the path comes from the kernel
        [*flags, os.fsdecode(entry.path)],
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        errors="replace",
    )
    if run.returncode == 0:
        return
    text = " ".join(run.stderr.split())
    if "busy" in text:
        raise ConfigError(
            "The mount is in use",
            path=mountpoint,
            remedy="close the programs and leave the directories that use it",
        )
    raise ConfigError(f"Unmounting failed: {text}", path=mountpoint)


def _flags_of_command(*, is_dead: bool) -> list[str]:
    if os.geteuid() == 0:
        return ["umount", *(["-l"] if is_dead else []), "--"]
    return ["fusermount3", "-u", *(["-z"] if is_dead else []), "--"]


def _is_dead(path: bytes) -> bool:
    try:
        _touch(path)
    except OSError as error:
        return error.errno in _DEAD
    return False


def _touch(path: bytes) -> None:
    """Ask whoever serves a directory: stat could be answered from what the kernel remembers."""
    os.close(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
