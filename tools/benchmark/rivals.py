"""rsync, borg and restic, each used as its makers mean it to be: a client backs up over the wire, encrypted.

borg and restic have no server of their own here and do everything from the client, over ssh and over sftp; rsync, like
ssfs, has its versions on the server, so there they are looked at and removed. rsync goes without -z, as ssfs does with
--compress off; borg and restic keep their defaults, and compress.
"""

import json
import re
import shlex
from pathlib import Path
from typing import ClassVar

from typing_extensions import override

from tools.benchmark.dataset import entries
from tools.benchmark.machine import run
from tools.benchmark.tool import Command, Tool

PASSWORD = "benchmark"  # noqa: S105


class Rsync(Tool):
    """The yardstick: a tree for each version, hard links to the one before, over ssh."""

    name: ClassVar[str] = "rsync"
    packages: ClassVar[tuple[str, ...]] = ("rsync", "openssh-client", "openssh-server")

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

    name: ClassVar[str] = "borg"
    packages: ClassVar[tuple[str, ...]] = (
        "borgbackup",
        "python3-llfuse",
        "openssh-client",
        "openssh-server",
    )

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
        return run("borg", *arguments, environment=self.environment)

    @override
    def backup(self, source: Path) -> Command:
        """See Tool."""
        self.versions += 1
        return ("borg", "create", f"{self._repository}::v{self.versions}", ".")

    @override
    def entries_of(self, version: int, said: str) -> int:
        """See Tool."""
        return (
            self._run("list", "--short", f"{self._repository}::v{version}").count("\n") - 1
        )  # the root is an entry too

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

    name: ClassVar[str] = "restic"
    packages: ClassVar[tuple[str, ...]] = ("restic", "fuse3", "openssh-client", "openssh-server")

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
        return run(*self._restic, *arguments, environment=self.environment)

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
        # Older ones end with 1 where a symlink is there already, and leave it: whether the tree is right
        # is looked at afterwards.
        script = '"$@" || test $? = 1'
        restore = ("restore", "latest", "--target", target)
        return ("sh", "-c", script, "restic", *self._restic, *restore)

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
        wait = 'until [ -d "$0/ids" ]; do kill -0 $! || exit 1; sleep 0.01; done'
        script = f'"$@" >/dev/null 2>&1 & {wait}'
        return ("sh", "-c", script, mountpoint, *self._restic, "mount", mountpoint)

    @override
    def mounted_tree(self, mountpoint: Path) -> Path:
        """See Tool."""
        return mountpoint / "ids" / self._ids()[self.versions][:8]
