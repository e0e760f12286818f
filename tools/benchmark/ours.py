"""ssfs itself: `ssfs serve`, and a client that has enrolled there, over TLS."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

from typing_extensions import override

from tools.benchmark.ends import BenchmarkError
from tools.benchmark.machine import free_port, run, wait_for_port
from tools.benchmark.tool import Command, Tool, environment


class Ssfs(Tool):
    """This project: `ssfs serve`, over TLS."""

    name: ClassVar[str] = "ssfs"
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
        return run(*self.program, *arguments, environment=self.environment)

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
    def mend(self, target: Path) -> Command:
        """See Tool. By itself ssfs reads what is there."""
        return (*self.restore(target), "--quick-check")

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
