"""The real programs, as a user, an administrator and cron start them."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

TIMEOUT_S = 300


def ssfs(*arguments: str | Path, expect: int = 0) -> str:
    """Run a command; its standard output."""
    done = subprocess.run(
        [sys.executable, "-m", "ssfs", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == expect, (arguments, done.returncode, done.stdout, done.stderr)
    return done.stdout


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
