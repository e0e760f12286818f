"""A server with a task, a client that may read it, and mounts of that client."""

import contextlib
import copy
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from ssfs.store.store import Store
from tests.fakes.trees import build_tree
from tests.mount.mounts import end, errno_of, is_mounted, wait_until
from tests.system.servers import Machine, ServedStore

TIMEOUT_S = 1.5
LARGE = os.urandom(3_000_000)


class Mounts:
    """A server with a task, a client that may read it, and mounts of that client.

    Attributes:
        source: What was backed up.
        task_name: Into which task.
        mountpoint: Where it is mounted.
        timeout_s: For how long a mount waits for a server that says nothing, unless the test says otherwise.
    """

    timeout_s = TIMEOUT_S

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.source = directory / "source"
        build_tree(self.source, 1)
        (self.source / "large").write_bytes(LARGE)
        (self.source / "many").mkdir()
        for number in range(300):
            (self.source / "many" / f"{number}").write_bytes(b"%d" % number)
        os.link(self.source / "large", self.source / "dir-0" / "linked")
        os.mkfifo(self.source / "fifo")
        os.setxattr(self.source / "many", "user.of-a-directory", b"1")
        with open(self.source / "sparse", "wb") as file:
            file.truncate(3 << 20)
            os.pwrite(file.fileno(), b"in the middle", 1_600_000)
        self.server = ServedStore(directory / "store", "--keep-last", "10")
        self.client = Machine(directory / "client", "nas1").enrol(self.server)
        self.mountpoint = directory / "mount"
        self.task_name = "docs"
        self.sync()

    def own(self, name: str) -> None:
        """From now on a task of this name, and an empty source, of the test's own."""
        self.source = self.directory / "own"
        self.source.mkdir()
        self.task_name = name

    def sync(self) -> None:
        self.client.sync(self.source, self.url())

    def url(self) -> str:
        return self.server.url(f"main/{self.task_name}")

    @contextlib.contextmanager
    def mounted(
        self,
        location: str = "",
        options: str = "",
        *,
        cache: Path | None = None,
        variables: dict[str, str] | None = None,
    ) -> Iterator[subprocess.Popen[str]]:
        """A mount in the foreground, of the task unless another location is given."""
        environment = {**self.client.environment, **(variables or {})}
        if cache is not None:
            environment["SSFS_CACHE_DIR"] = str(cache)
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "ssfs", "mount", location or self.url()),
                *(self.mountpoint, "--foreground", "-o", f"timeout={self.timeout_s},{options}"),
            ],
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        try:
            # What a killed one has left is a mountpoint, too.
            wait_until(lambda: process.poll() is not None or is_served(self.mountpoint))
            assert process.poll() is None, process.communicate()[1]
            yield process
        finally:
            end(self.mountpoint, process)

    def for_test(self, directory: Path) -> Iterator["Mounts"]:
        """The same at a mountpoint and with a cache of its own; a server that was killed is started again."""
        mounts = copy.copy(self)
        mounts.directory = directory
        mounts.mountpoint = directory / "mount"
        mounts.mountpoint.mkdir()
        try:
            yield mounts
        finally:
            end(mounts.mountpoint)
            if self.server.process.poll() is not None:
                self.server.start(self.server.port)

    @property
    def latest(self) -> Path:
        return self.mountpoint / "latest"

    def kill_server(self) -> None:
        self.server.stop(signal.SIGKILL)

    def start_server(self) -> None:
        self.server.start(self.server.port)

    def task(self):
        return Store.open(os.fsencode(self.server.path)).point("main").task(self.task_name)


def is_readable(path: Path) -> bool:
    with contextlib.suppress(OSError):
        path.read_bytes()
        return True
    return False


def is_served(mountpoint: Path) -> bool:
    with contextlib.suppress(OSError):
        os.listdir(mountpoint)
        return is_mounted(mountpoint)
    return False


def fails_within(attempt, number: int, seconds: float) -> None:
    begun = time.monotonic()
    assert errno_of(attempt) == number
    assert time.monotonic() - begun < seconds
