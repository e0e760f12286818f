"""Real mounts: each by a process of its own, each unmounted at the end whatever happens."""

import contextlib
import functools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ssfs.mount.mountpoint import find_mount
from ssfs.store.store import Point, Store, Task
from tests.fakes.commands import Running

Process = Running | subprocess.Popen[str]

_SERVE = """
import sys
from ssfs.errors import SsfsError
from ssfs.mount.process import mount, parse_options
from ssfs.store.store import Store
path, point, task, mountpoint, options, how = sys.argv[1:]
target = Store.open(path.encode())
if point:
    target = target.point(point)
if task:
    target = target.task(task)
try:
    mount(target, mountpoint.encode(), parse_options(options), foreground=how == "foreground")
except SsfsError as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


def command(
    target: Store | Point | Task, mountpoint: Path, options: str, *, foreground: bool
) -> list[str]:
    """The command line of a process that mounts."""
    point = target.point if isinstance(target, Task) else target
    store = point.store if isinstance(point, Point) else point
    names = [
        os.fsdecode(store.path),
        point.name if isinstance(point, Point) else "",
        target.name if isinstance(target, Task) else "",
    ]
    how = "foreground" if foreground else "background"
    return [sys.executable, "-c", _SERVE, *names, str(mountpoint), options, how]


def start(
    target: Store | Point | Task, mountpoint: Path, options: str = "", *, is_fresh: bool = False
) -> Process:
    """Mount in the foreground; returns once it serves.

    `is_fresh`: by a process that has loaded what it needs, and no more, for those who measure it.
    """
    words = command(target, mountpoint, options, foreground=True)
    process: Process
    if is_fresh:
        process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    else:
        process = Running(words[3:], program=functools.partial(exec, _SERVE, {}))
    wait_until(lambda: process.poll() is not None or is_mounted(mountpoint))
    if process.poll() is not None:
        raise AssertionError(process.communicate()[1])
    os.stat(mountpoint)
    return process


def is_mounted(mountpoint: Path) -> bool:
    return find_mount(os.path.realpath(os.fsencode(mountpoint))) is not None


def wait_until(condition, timeout_s: float = 20.0) -> float:
    """Wait for something to become true; how many seconds that took."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < timeout_s, "It did not happen"
        time.sleep(0.005)
    return time.monotonic() - begun


def may_pass(*directories: Path) -> None:
    """Let everybody through to a mountpoint in pytest's own directories."""
    for above in directories:
        if above.owner() == "root" and above.stat().st_mode & 0o1001 == 0:
            os.chmod(above, above.stat().st_mode | 0o111)


def errno_of(attempt: Callable[[], object]) -> int:
    """How something fails that must fail."""
    try:
        attempt()
    except OSError as error:
        return error.errno or 0
    raise AssertionError("It did not fail")


def end(mountpoint: Path, process: Process | None = None) -> None:
    """Unmount and stop, whatever state they are in."""
    if process is not None:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
    for _ in range(3):
        if is_mounted(mountpoint):
            unmount = ["umount", "-l"] if os.geteuid() == 0 else ["fusermount3", "-u", "-z"]
            subprocess.run([*unmount, mountpoint], check=False)


@contextlib.contextmanager
def mounted(
    target: Store | Point | Task, mountpoint: Path, options: str = "", *, is_fresh: bool = False
) -> Iterator[Process]:
    """A mount served by a process in the foreground."""
    mountpoint.mkdir(exist_ok=True)
    process = None
    try:
        process = start(target, mountpoint, options, is_fresh=is_fresh)
        yield process
    finally:
        end(mountpoint, process)


def run(*words: str | Path, check: bool = True) -> subprocess.CompletedProcess:
    """Run a tool on a mount, in the C locale."""
    environment = {**os.environ, "LC_ALL": "C"}
    return subprocess.run(
        [str(word) for word in words],
        check=check,
        capture_output=True,
        text=True,
        errors="surrogateescape",
        env=environment,
    )
