"""A place where spoilt sessions are let loose on real code, and where every trace of them is seen.

    arena = Arena(directory)            directory/live is what sessions work on, from a template
    before = arena.image()
    ...                                 a session
    changed_paths(before, arena.image())

The directory is in memory where possible: ten thousand sessions would otherwise wait for a disk, which is not what they test.
"""

import contextlib
import os
import shutil
import socket
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from ssfs.clock import SystemClock
from ssfs.engine.session import Visitor, serve_session
from ssfs.net.channel import Channel
from ssfs.protocol.states import Role
from ssfs.store.store import Store
from tests.fakes.scripts import Frame, Tap, recorded

CLOCK = SystemClock()
Image = dict[str, tuple[int, ...]]


@contextlib.contextmanager
def memory_directory() -> Iterator[Path]:
    """A directory that is gone afterwards, in memory if this machine has such."""
    shm = "/dev/shm"
    base = shm if os.path.ismount(shm) and os.access(shm, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="ssfs-test-", dir=base) as directory:
        yield Path(directory)


def image_of(directory: Path) -> Image:
    """Everything below a directory, but for the times of directories: by path what a write would change."""
    image: Image = {}
    pending = [str(directory)]
    skipped = len(str(directory)) + 1
    while pending:
        with os.scandir(pending.pop()) as found:
            for item in found:
                status = item.stat(follow_symlinks=False)
                is_directory = stat.S_ISDIR(status.st_mode)
                if is_directory:
                    pending.append(item.path)
                image[item.path[skipped:]] = (
                    (status.st_mode, status.st_uid)
                    if is_directory
                    else (
                        *(status.st_mode, status.st_uid, status.st_ino),
                        *(status.st_size, status.st_mtime_ns),
                    )
                )
    return image


def changed_paths(before: Image, after: Image) -> list[str]:
    """What is new, gone or different, sorted."""
    return sorted(
        path for path in before.keys() | after.keys() if before.get(path) != after.get(path)
    )


def copy_tree(source: Path, target: Path) -> None:
    """As `cp -a`: with times, and hard links as they are."""
    copied: dict[int, str] = {}

    def copy(one: str, other: str) -> None:
        status = os.lstat(one)
        if status.st_nlink > 1 and status.st_ino in copied:
            os.link(copied[status.st_ino], other)
        else:
            shutil.copy2(one, other)
            copied[status.st_ino] = other

    shutil.copytree(source, target, symlinks=True, copy_function=copy)


class Arena:
    """A copy of a template that sessions change, and that is put right again.

    Attributes:
        live: Where it is.
    """

    def __init__(self, template: Path, live: Path) -> None:
        self.live = live
        self._template = template
        copy_tree(template, live)
        self._pristine = image_of(live)
        self._links: dict[int, list[str]] = {}
        for path in self._pristine:
            status = os.lstat(template / path)
            if stat.S_ISREG(status.st_mode) and status.st_nlink > 1:
                self._links.setdefault(status.st_ino, []).append(path)

    def changes(self) -> list[str]:
        """What is other than in the template, sorted."""
        return changed_paths(self._pristine, image_of(self.live))

    def is_new(self, path: str) -> bool:
        """Whether the template has no such path."""
        return path not in self._pristine

    def put_right(self, changes: list[str]) -> None:
        """Undo changes."""
        for path in reversed(changes):
            found = self.live / path
            if found.is_dir() and not found.is_symlink():
                found.rmdir()
            else:
                found.unlink(missing_ok=True)
        for path in changes:
            if path in self._pristine:
                self._copy(path)
        now = image_of(self.live)
        for path in changes:
            if path in self._pristine:
                self._pristine[path] = now[path]
        assert now == self._pristine

    def _copy(self, path: str) -> None:
        original, copy = self._template / path, self.live / path
        status = os.lstat(original)
        if stat.S_ISDIR(status.st_mode):
            copy.mkdir()
            shutil.copystat(original, copy)
            return
        for other in self._links.get(status.st_ino, []):
            if other != path and (self.live / other).exists():
                os.link(self.live / other, copy)
                return
        shutil.copy2(original, copy, follow_symlinks=False)


def record_session(
    store: Path, visitor: Visitor, act: Callable[[Channel], object]
) -> dict[str, list[Frame]]:
    """Have a real session with a store; its frames, by direction: "sent" by the client, or "heard"."""
    ours, theirs = socket.socketpair()
    ended: list[str | Exception] = []

    def serve() -> None:
        try:
            with Channel(theirs, Role.SERVER) as channel:
                opened = Store.open(os.fsencode(store))
                ended.append(serve_session(channel, opened, visitor, CLOCK, lambda _: None))
        except Exception as error:
            ended.append(error)

    server = threading.Thread(target=serve)
    server.start()
    tap = Tap(ours)
    try:
        with Channel(tap, Role.CLIENT) as channel:
            act(channel)
    finally:
        server.join()
    assert not isinstance(ended[0], Exception), ended
    return {which: recorded(tap.events, which) for which in ("sent", "heard")}
