"""The real programs, as a user, an administrator and cron start them."""

import contextlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.fakes.commands import run_command

TIMEOUT_S = 300


def run_ssfs(
    *arguments: str | Path, expect: int = 0, environment: dict[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end."""
    done = run_command(arguments, timeout_s=TIMEOUT_S, environment=environment)
    assert done.code == expect, (arguments, *done)
    return subprocess.CompletedProcess(
        arguments, done.code, done.out.decode(), done.err.decode(errors="replace")
    )


def ssfs(*arguments: str | Path, expect: int = 0) -> str:
    """Run a command; its standard output."""
    return run_ssfs(*arguments, expect=expect).stdout


def sync(source: Path, location: str | Path, *options: str, expect: int = 0) -> dict:
    """Run `ssfs sync --json`."""
    return json.loads(ssfs("sync", source, location, "--json", *options, expect=expect))


@contextlib.contextmanager
def mounted(location: str | Path, mountpoint: Path, *options: str) -> Iterator[Path]:
    """Mount for as long as the block lasts."""
    mountpoint.mkdir(exist_ok=True)
    ssfs("mount", location, mountpoint, *options)
    try:
        yield mountpoint
    finally:
        ssfs("umount", mountpoint)


def run(*command: str | Path) -> str:
    """Run another program, which must succeed."""
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert done.returncode == 0, (
        command,
        done.returncode,
        done.stdout[-2000:],
        done.stderr[-2000:],
    )
    return done.stdout
