"""What a tool is to the benchmark: one interface for all of them, and where they work."""

import abc
import dataclasses
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from tools.benchmark.ends import END_WITHIN_S, BenchmarkError, End
from tools.benchmark.machine import run

ROOT = Path(__file__).resolve().parent.parent.parent

Command = Sequence[str | Path]


def environment() -> dict[str, str]:
    """For all programs: this one's, without what would slow a start of Python or ask a question."""
    kept = {name: each for name, each in os.environ.items() if not name.startswith("PYTHON")}
    return {**kept, "LC_ALL": "C.UTF-8", "PYTHONPATH": str(ROOT), "TZ": "UTC"}


@dataclasses.dataclass(frozen=True)
class Site:
    """Where a tool works.

    Attributes:
        directory: Of this tool alone; what it stores and remembers is below it.
        client: The client's end.
        server: The server's end.
        ssh: The command that reaches the server, as `nas2`.
    """

    directory: Path
    client: End
    server: End
    ssh: Sequence[str]


class Tool(abc.ABC):
    """A backup tool with one history of versions, numbered from 1.

    Attributes:
        name: What it is called.
        packages: Debian packages it needs.
        environment: For its programs.
        store: What it has on the server.
        versions: How many were made in this history, also those that are gone again.
    """

    name: ClassVar[str]
    packages: ClassVar[tuple[str, ...]] = ()

    def __init__(self, site: Site) -> None:
        self.site = site
        self.environment = environment()
        self.store = site.directory / "store"
        self.versions = 0
        site.directory.mkdir()

    @classmethod
    @abc.abstractmethod
    def release(cls) -> str:
        """Name and number of what is installed."""

    @abc.abstractmethod
    def prepare(self) -> None:
        """Make an empty store; start what must run."""

    @abc.abstractmethod
    def backup(self, source: Path) -> Command:
        """Make the next version; run in `source`."""

    @abc.abstractmethod
    def entries_of(self, version: int, said: str) -> int:
        """How many entries a version has.

        Args:
            version: Its number.
            said: What the backup printed.
        """

    @abc.abstractmethod
    def restore(self, target: Path) -> Command:
        """Bring the newest version into an existing directory; run in `target`."""

    def mend(self, target: Path) -> Command:
        """The same for a tree that is mostly there, believing sizes and times where the tool can be told to."""
        return self.restore(target)

    @abc.abstractmethod
    def expire(self, version: int) -> Command:
        """Remove a version and free its room."""

    @abc.abstractmethod
    def has_version(self, version: int) -> bool:
        """Whether it is still there."""

    @abc.abstractmethod
    def mount(self, mountpoint: Path) -> Command | None:
        """Show versions in an empty directory and return; None if nothing needs mounting."""

    @abc.abstractmethod
    def mounted_tree(self, mountpoint: Path) -> Path:
        """Where the newest version then is."""

    def unmount(self, mountpoint: Path) -> None:
        """End the mount, and wait for the process that served it: it may hold a lock."""
        run("fusermount3", "-u", mountpoint)
        ends_at = time.monotonic() + END_WITHIN_S
        while self.site.client.processes():
            if time.monotonic() > ends_at:
                raise BenchmarkError(f"The mount on {mountpoint} does not end")
            time.sleep(0.05)

    def member(self, number: int) -> "Tool":
        """Another client of the same server with a history of its own, ready to back up."""
        directory = self.site.directory / f"client-{number}"
        other = type(self)(dataclasses.replace(self.site, directory=directory))
        other.prepare()
        return other

    def close(self) -> None:  # noqa: B027
        """End what `prepare` started; a tool may have nothing to end."""
