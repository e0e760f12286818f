"""borg and restic, fetched from Debian for one bench: unpacked into a directory, not installed."""

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.mount.mounts import is_mounted, wait_until

_PACKAGES = {
    "borg": (
        "borgbackup",
        "python3-msgpack",
        "python3-packaging",
        "python3-llfuse",
        "libfuse2",
        "libxxhash0",
    ),
    "restic": ("restic",),
}


class NotFetched(Exception):
    """This machine cannot reach the packages, or not use them."""


class Rival:
    """Another program that can mount what it has backed up."""

    def __init__(self, name: str, directory: Path) -> None:
        """Fetch it.

        Raises:
            NotFetched: That was not possible.
        """
        self.name = name
        self._root = directory / name
        self._repository = directory / f"{name}-repository"
        self._root.mkdir()
        usr = self._root / "usr"
        libraries = f"{usr}/lib/x86_64-linux-gnu:{self._root}/lib/x86_64-linux-gnu"
        self._environment = {
            **os.environ,
            "PYTHONPATH": str(usr / "lib" / "python3" / "dist-packages"),
            "LD_LIBRARY_PATH": libraries,
            "BORG_BASE_DIR": str(directory),
            "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
            "RESTIC_PASSWORD": "bench",
            "RESTIC_CACHE_DIR": str(directory / "cache"),
            "RESTIC_REPOSITORY": str(self._repository),
        }
        try:
            subprocess.run(
                ["apt-get", "download", "-q", *_PACKAGES[name]],
                cwd=self._root,
                check=True,
                capture_output=True,
                timeout=120,
            )
            for package in self._root.glob("*.deb"):
                subprocess.run(["dpkg-deb", "-x", package, self._root], check=True)
            self._run("--version" if name == "borg" else "version")
        except (OSError, subprocess.SubprocessError) as error:
            raise NotFetched(f"{name} cannot be had: {error}") from error

    def _words(self, *words: str | Path) -> list[str]:
        program = str(self._root / "usr" / "bin" / self.name)
        return [
            *(["/usr/bin/python3", program] if self.name == "borg" else [program]),
            *map(str, words),
        ]

    def _run(self, *words: str | Path, cwd: Path | None = None) -> None:
        subprocess.run(
            self._words(*words),
            check=True,
            cwd=cwd,
            env=self._environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )

    def back_up(self, source: Path) -> None:
        """Take in a tree."""
        if self.name == "borg":
            self._run("init", "--encryption=none", self._repository)
            self._run("create", f"{self._repository}::one", ".", cwd=source)
        else:
            self._run("init")
            self._run("backup", ".", cwd=source)

    @contextlib.contextmanager
    def mounted(self, mountpoint: Path) -> Iterator[Path]:
        """The tree in a mount that was just made."""
        mountpoint.mkdir(exist_ok=True)
        words: tuple[str | Path, ...] = ("mount", "-f", f"{self._repository}::one", mountpoint)
        if self.name == "restic":
            words = ("mount", mountpoint)
        process = subprocess.Popen(
            self._words(*words),
            env=self._environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            wait_until(lambda: process.poll() is not None or is_mounted(mountpoint), 120)
            time.sleep(1)
            if self.name == "borg":
                yield mountpoint
            else:
                yield mountpoint / "snapshots" / "latest"
        finally:
            subprocess.run(["umount", "-l", mountpoint], check=False)
            process.terminate()
            process.wait(30)
