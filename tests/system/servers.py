"""Backup servers and clients as the real programs: started, enrolled, stopped.

A `ServedStore` is a store with a running `ssfs serve`; a `Machine` is a client with a configuration and a cache of its own.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from tests.system.programs import TIMEOUT_S, run_ssfs

_LISTENING = re.compile(r"listening on (\S+):(\d+)")


class ServedStore:
    """A store and its server.

    Attributes:
        path: The store.
        port: Where the server listens, on 127.0.0.1.
        log: What it has logged so far.
    """

    def __init__(self, path: Path, *options: str, make: bool = True) -> None:
        self.path = path
        self.log: list[str] = []
        self._news = threading.Condition()
        if make:
            run_ssfs("init", path, "--timezone", "UTC", *options)
        self.start()

    def start(self, port: int = 0, command: tuple[str, ...] = ()) -> None:
        """Start the server and wait until it listens."""
        before = len(self.log)
        self.process = subprocess.Popen(
            [
                *command,
                *(sys.executable, "-m", "ssfs", "serve", str(self.path)),
                *("--listen", f"127.0.0.1:{port}"),
            ],
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()
        line = self.wait_for_log(_LISTENING.pattern, after=before)
        self.port = int(_LISTENING.search(line)[2])

    def _read_log(self) -> None:
        for line in self.process.stderr:
            with self._news:
                self.log.append(line.rstrip("\n"))
                self._news.notify_all()
        with self._news:
            self._news.notify_all()

    def wait_for_log(self, pattern: str, *, after: int = 0, timeout_s: float = 60) -> str:
        """The first logged line since line `after` that matches; waits for it."""
        with self._news:
            found: list[str] = []

            def is_there() -> bool:
                found[:] = [line for line in self.log[after:] if re.search(pattern, line)]
                return bool(found)

            assert self._news.wait_for(is_there, timeout_s), f"{pattern!r} not in {self.log}"
        return found[0]

    def url(self, place: str = "main") -> str:
        """A location on this server."""
        return f"ssfs://127.0.0.1:{self.port}/{place}"

    def invite(self, client: str, *options: str) -> str:
        """A code for a client."""
        address = f"127.0.0.1:{self.port}"
        return run_ssfs("invite", self.path, client, "--address", address, *options).stdout.strip()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Stop it; its exit code."""
        if self.process.poll() is None:
            os.kill(self.process.pid, number)
        code = self.process.wait(TIMEOUT_S)
        self._reader.join(TIMEOUT_S)
        self.process.stderr.close()
        return code


@contextlib.contextmanager
def served(path: Path, *options: str, make: bool = True) -> Iterator[ServedStore]:
    """A store that is served as long as the block lasts."""
    server = ServedStore(path, *options, make=make)
    try:
        yield server
    finally:
        server.stop()
    assert not [line for line in server.log if "Traceback" in line], "\n".join(server.log)


class Machine:
    """A client machine: its own name, configuration and cache.

    Attributes:
        name: What it was invited as.
        directory: Holds both.
    """

    def __init__(self, directory: Path, name: str) -> None:
        self.name = name
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "SSFS_CONFIG_DIR": str(self.directory / "config"),
            "SSFS_CACHE_DIR": str(self.directory / "cache"),
        }

    def enrol(self, server: ServedStore, *options: str) -> "Machine":
        """Invite it and use the code."""
        self.ssfs("enroll", server.invite(self.name, *options))
        return self

    def ssfs(self, *arguments: str | Path, expect: int = 0) -> subprocess.CompletedProcess[str]:
        """Run a command here."""
        return run_ssfs(*arguments, expect=expect, environment=self.environment)

    def sync(self, source: Path, location: str, *options: str, expect: int = 0) -> dict:
        """Run `ssfs sync --json`; its summary."""
        done = self.ssfs("sync", source, location, "--json", *options, expect=expect)
        return json.loads(done.stdout) if done.stdout else {}

    def start(self, *arguments: str | Path, **how: object) -> "subprocess.Popen[str]":
        """Start a command here."""
        return subprocess.Popen(
            [sys.executable, "-m", "ssfs", *map(str, arguments)],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **how,
        )
