"""The real programs, as a user, an administrator and cron start them."""

import contextlib
import json
import os
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


def difference(one: Path, other: Path) -> list[str]:
    """What differs between two trees: names, kind, mode, owner, mtime to the nanosecond, content."""
    wrong = []
    for directory, names, files in os.walk(os.fsencode(one)):
        below = os.path.relpath(directory, os.fsencode(one))
        there = os.path.join(os.fsencode(other), below)
        if sorted(os.listdir(directory)) != sorted(os.listdir(there)):
            wrong.append(f"{below!r}: other names")
            continue
        for name in [b".", *names, *files]:
            a, b = os.lstat(os.path.join(directory, name)), os.lstat(os.path.join(there, name))
            is_link = (a.st_mode & 0o170000) == 0o120000
            if (a.st_mode, a.st_uid, a.st_gid, a.st_mtime_ns) != (
                b.st_mode,
                b.st_uid,
                b.st_gid,
                b.st_mtime_ns,
            ):
                wrong.append(f"{below!r}/{name!r}: {a} is not {b}")
            if is_link and os.readlink(os.path.join(directory, name)) != os.readlink(
                os.path.join(there, name)
            ):
                wrong.append(f"{below!r}/{name!r}: other target")
    with contextlib.suppress(AssertionError):
        run("diff", "-r", "--no-dereference", one, other)
        return wrong
    return [*wrong, "diff -r finds differences"]
