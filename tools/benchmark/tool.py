"""The tools that are measured, each behind one interface.

Each is used as its makers mean it to be: a client backs up over the wire, encrypted. borg and restic have no server of
their own here and do everything from the client, over ssh and over sftp; ssfs and rsync have their versions as trees or
behind a local mount on the server, so their versions are looked at and removed there. None compresses on the wire that
need not: rsync without -z, ssfs with --compress off. borg and restic keep their defaults.
"""

import abc
import dataclasses
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from typing_extensions import override

from tools.benchmark.dataset import entries
from tools.benchmark.ends import BenchmarkError, End
from tools.benchmark.machine import free_port, run, wait_for_port

ROOT = Path(__file__).resolve().parent.parent.parent
PASSWORD = "benchmark"  # noqa: S105

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

    name: str
    packages: tuple[str, ...] = ()

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
        """End the mount."""
        run("fusermount3", "-u", mountpoint)

    def member(self, number: int) -> "Tool":
        """Another client of the same server with a history of its own, ready to back up."""
        directory = self.site.directory / f"client-{number}"
        other = type(self)(dataclasses.replace(self.site, directory=directory))
        other.prepare()
        return other

    def close(self) -> None:  # noqa: B027
        """End what `prepare` started; a tool may have nothing to end."""


class Ssfs(Tool):
    """This project: `ssfs serve`, over TLS."""

    name = "ssfs"
    program: Command = (sys.executable, "-m", "ssfs")

    @classmethod
    @override
    def release(cls) -> str:
        """See Tool."""
        done = subprocess.run(
            [*cls.program, "--version"], capture_output=True, env=environment(), check=True
        )
        return done.stdout.decode().strip()

    @override
    def prepare(self) -> None:
        """See Tool."""
        self._remember("nas1")
        self._run("init", self.store, "--keep-last", "99", "--timezone", "UTC")
        port = free_port()
        serve = ("serve", self.store, "--listen", f"127.0.0.1:{port}", "-q")
        self._server = subprocess.Popen(
            self.site.server.command(*self.program, *serve),
            env=self.environment,
            stdin=subprocess.DEVNULL,
        )
        wait_for_port(port, self._server)
        self._enrol(f"127.0.0.1:{port}")

    def _remember(self, client: str) -> None:
        self._client = client
        self.environment |= {
            "SSFS_CONFIG_DIR": str(self.site.directory / "config"),
            "SSFS_CACHE_DIR": str(self.site.directory / "cache"),
        }

    def _enrol(self, address: str) -> None:
        self._address = address
        code = self._run("invite", self.store, self._client, "--address", address, "-q")
        self._run("enroll", code.strip(), "-q")
        self._location = f"ssfs://{address}/main/{self._client}"
        self._local = f"{self.store}::main/{self._client}"

    @override
    def member(self, number: int) -> "Ssfs":
        """See Tool. The server is the same one."""
        other = Ssfs(dataclasses.replace(self.site, directory=self.site.directory / f"{number}"))
        other.store = self.store
        other._server = self._server
        other._remember(f"member{number}")
        other._enrol(self._address)
        return other

    def _run(self, *arguments: str | Path) -> str:
        done = subprocess.run(
            [*self.program, *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        if done.returncode != 0:
            raise BenchmarkError(f"ssfs {arguments} ended with {done.returncode}: {done.stderr}")
        return done.stdout

    @property
    def server_pid(self) -> int:
        """The server's process (the shell before it has become it)."""
        return self._server.pid

    @override
    def backup(self, source: Path) -> Command:
        """See Tool."""
        self.versions += 1
        return (*self.program, "sync", source, self._location, "--compress", "off", "--json")

    @override
    def entries_of(self, version: int, said: str) -> int:
        """See Tool."""
        summary = json.loads(said)
        if summary["problems"] or not summary["version"].startswith(f"{version:06}-"):
            raise BenchmarkError(f"ssfs made another version than asked for: {said}")
        return int(summary["entries"]) - 1  # the root is an entry too

    @override
    def restore(self, target: Path) -> Command:
        """See Tool."""
        how = ("--to", target, "--compress", "off", "--json")
        return (*self.program, "restore", self._location, "latest", *how)

    @override
    def expire(self, version: int) -> Command:
        """See Tool."""
        return (*self.program, "delete", self._local, str(version), "--yes")

    @override
    def has_version(self, version: int) -> bool:
        """See Tool. What lies in the trash has freed nothing yet."""
        listed = json.loads(self._run("versions", self._local, "--json"))
        trash = self.store / "points" / "main" / "tasks" / self._client / "trash"
        left = [each["version"] for each in listed] + [each.name for each in trash.glob("*")]
        return any(name.startswith(f"{version:06}-") for name in left)

    @override
    def mount(self, mountpoint: Path) -> Command:
        """See Tool."""
        return (*self.program, "mount", self._local, mountpoint)

    @override
    def mounted_tree(self, mountpoint: Path) -> Path:
        """See Tool."""
        return (mountpoint / "latest").resolve()

    @override
    def unmount(self, mountpoint: Path) -> None:
        """See Tool."""
        self._run("umount", mountpoint)

    @override
    def close(self) -> None:
        """See Tool."""
        self._server.terminate()
        self._server.wait()


class Rsync(Tool):
    """The yardstick: a tree for each version, hard links to the one before, over ssh."""

    name = "rsync"
    packages = ("rsync", "openssh-client", "openssh-server")

    @classmethod
    @override
    def release(cls) -> str:
        """See Tool."""
        return " ".join(run("rsync", "--version").split()[:3])

    @override
    def prepare(self) -> None:
        """See Tool."""
        self.store.mkdir()

    def _rsync(self, *arguments: str | Path) -> Command:
        return ("rsync", "-aH", "--delete", "-e", shlex.join(self.site.ssh), *arguments)

    @override
    def backup(self, source: Path) -> Command:
        """See Tool."""
        basis = [f"--link-dest=../{self.versions}"] if self.versions else []
        self.versions += 1
        return self._rsync(*basis, f"{source}/", f"nas2:{self.store}/{self.versions}/")

    @override
    def entries_of(self, version: int, said: str) -> int:
        """See Tool."""
        return entries(self.store / str(version))

    @override
    def restore(self, target: Path) -> Command:
        """See Tool."""
        return self._rsync(f"nas2:{self.store}/{self.versions}/", f"{target}/")

    @override
    def expire(self, version: int) -> Command:
        """See Tool."""
        return ("rm", "-rf", self.store / str(version))

    @override
    def has_version(self, version: int) -> bool:
        """See Tool."""
        return (self.store / str(version)).exists()

    @override
    def mount(self, mountpoint: Path) -> None:
        """See Tool. The trees lie there."""

    @override
    def mounted_tree(self, mountpoint: Path) -> Path:
        """See Tool."""
        return self.store / str(self.versions)

    @override
    def unmount(self, mountpoint: Path) -> None:
        """See Tool."""


class Borg(Tool):
    """borg over ssh, with a repository key as `borg init` recommends."""

    name = "borg"
    packages = ("borgbackup", "python3-llfuse", "openssh-client", "openssh-server")

    @classmethod
    @override
    def release(cls) -> str:
        """See Tool."""
        return run("borg", "--version").strip()

    @override
    def prepare(self) -> None:
        """See Tool."""
        self.environment |= {
            "BORG_RSH": shlex.join(self.site.ssh),
            "BORG_PASSPHRASE": PASSWORD,
            "BORG_BASE_DIR": str(self.site.directory),
        }
        del self.environment["PYTHONPATH"]
        self._repository = f"ssh://nas2{self.store}"
        self._run("init", "--encryption", "repokey-blake2", self._repository)

    def _run(self, *arguments: str) -> str:
        done = subprocess.run(
            ["borg", *arguments], env=self.environment, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise BenchmarkError(f"borg {arguments} ended with {done.returncode}: {done.stderr}")
        return done.stdout

    @override
    def backup(self, source: Path) -> Command:
        """See Tool."""
        self.versions += 1
        return ("borg", "create", f"{self._repository}::v{self.versions}", ".")

    @override
    def entries_of(self, version: int, said: str) -> int:
        """See Tool. The root is an entry too."""
        return self._run("list", "--short", f"{self._repository}::v{version}").count("\n")

    @override
    def restore(self, target: Path) -> Command:
        """See Tool."""
        return ("borg", "extract", f"{self._repository}::v{self.versions}")

    @override
    def expire(self, version: int) -> Command:
        """See Tool."""
        script = 'borg delete "$0::$1" && borg compact "$0"'
        return ("sh", "-c", script, self._repository, f"v{version}")

    @override
    def has_version(self, version: int) -> bool:
        """See Tool."""
        return f"v{version}" in self._run("list", "--short", self._repository).split()

    @override
    def mount(self, mountpoint: Path) -> Command:
        """See Tool."""
        return ("borg", "mount", f"{self._repository}::v{self.versions}", mountpoint)

    @override
    def mounted_tree(self, mountpoint: Path) -> Path:
        """See Tool."""
        return mountpoint


class Restic(Tool):
    """restic over sftp."""

    name = "restic"
    packages = ("restic", "fuse3", "openssh-client", "openssh-server")

    @classmethod
    @override
    def release(cls) -> str:
        """See Tool."""
        return " ".join(run("restic", "version").split()[:2])

    @override
    def prepare(self) -> None:
        """See Tool."""
        self.environment |= {
            "RESTIC_PASSWORD": PASSWORD,
            "RESTIC_CACHE_DIR": str(self.site.directory / "cache"),
        }
        sftp = shlex.join([*self.site.ssh, "nas2", "-s", "sftp"])
        where = ("-r", f"sftp:nas2:{self.store}", "-o", f"sftp.command={sftp}")
        self._restic: Command = ("restic", *where)
        self._run("init")

    def _run(self, *arguments: str) -> str:
        done = subprocess.run(
            [*self._restic, *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise BenchmarkError(f"restic {arguments} ended with {done.returncode}: {done.stderr}")
        return done.stdout

    def _ids(self) -> dict[int, str]:
        """Snapshots by the numbers of their versions, which are their tags."""
        listed = json.loads(self._run("snapshots", "--json")) or []
        return {int(each["tags"][0]): each["id"] for each in listed}

    @override
    def backup(self, source: Path) -> Command:
        """See Tool."""
        self.versions += 1
        return (*self._restic, "backup", "--quiet", "--tag", str(self.versions), ".")

    @override
    def entries_of(self, version: int, said: str) -> int:
        """See Tool."""
        listed = self._run("ls", "--json", self._ids()[version])
        return len(re.findall(r'"struct_type":"node"', listed))

    @override
    def restore(self, target: Path) -> Command:
        """See Tool."""
        return (*self._restic, "restore", "latest", "--target", target)

    @override
    def expire(self, version: int) -> Command:
        """See Tool."""
        return (*self._restic, "forget", self._ids()[version], "--prune")

    @override
    def has_version(self, version: int) -> bool:
        """See Tool."""
        return version in self._ids()

    @override
    def mount(self, mountpoint: Path) -> Command:
        """See Tool. It stays in the foreground: wait until it has something to show."""
        wait = 'until [ -d "$0/ids" ]; do sleep 0.01; done'
        script = f'"$@" >/dev/null 2>&1 & {wait}'
        return ("sh", "-c", script, mountpoint, *self._restic, "mount", mountpoint)

    @override
    def mounted_tree(self, mountpoint: Path) -> Path:
        """See Tool."""
        return mountpoint / "ids" / self._ids()[self.versions][:8]


TOOLS: Mapping[str, type[Tool]] = {each.name: each for each in (Ssfs, Rsync, Borg, Restic)}
