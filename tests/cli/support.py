"""The real `ssfs`, as a user, a script and cron start it."""

import json
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.fakes.commands import Finished, run_command

COMMAND = [sys.executable, "-m", "ssfs"]
ROOT = Path(__file__).resolve().parent.parent.parent
_TIMEOUT_S = 120
_CONTROL = (b"\x03", b"\x04")
_POWERLESS = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]


class Outcome(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line it complained with; fails if there are more, or a traceback."""
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("ssfs: "), self.err
        return lines[0]


def environment(**changes: str) -> dict[str, str]:
    """Ours, with the project importable from any directory."""
    return {**os.environ, "PYTHONPATH": str(ROOT), **changes}


def run(
    *arguments: str | bytes | Path,
    expect: int | None = None,
    env: dict[str, str] | None = None,
    cwd: Path | None = None,
    powerless: bool = False,
) -> Outcome:
    """Run a command without a terminal; its exit code must be the expected one, if given.

    `powerless`: even as root it may read only what file modes allow.
    """
    variables = environment(**(env or {}))
    wrapper = _POWERLESS if powerless and os.geteuid() == 0 else []
    if wrapper or "PYTHONPATH" in (env or {}):
        done = _start([*wrapper, *COMMAND, *arguments], variables, cwd)
    else:
        done = run_command(arguments, timeout_s=_TIMEOUT_S, environment=variables, directory=cwd)
    outcome = Outcome(
        done.code, done.out.decode(errors="replace"), done.err.decode(errors="replace")
    )
    if expect is not None:
        assert outcome.code == expect, outcome
    assert outcome.code == 1 or "Traceback" not in outcome.err, outcome.err
    return outcome


def _start(
    command: Sequence[str | bytes | Path], variables: dict[str, str], cwd: Path | None
) -> Finished:
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=_TIMEOUT_S,
        check=False,
        env=variables,
        cwd=cwd,
    )
    return Finished(done.returncode, done.stdout, done.stderr)


def ssfs(*arguments: str | bytes | Path) -> str:
    """Run a command that must be done without complaint; its output."""
    outcome = run(*arguments, expect=0)
    assert not outcome.err, outcome.err
    return outcome.out


def ssfs_json(*arguments: str | bytes | Path, expect: int = 0):
    """Run a command with --json; the value it printed, which must be one line."""
    outcome = run(*arguments, "--json", expect=expect)
    assert outcome.out.count("\n") == 1, outcome.out
    return json.loads(outcome.out)


def run_on_terminal(
    arguments: Sequence[str | Path], answer: str = "", python_path: Path = ROOT
) -> Outcome:
    """Run a command with stdin and stderr on a terminal, and answer its question; stdout is a pipe."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        # What a session's first process opens becomes its terminal, so that Ctrl-C works.
        ["sh", "-c", 'exec "$@" <>"$0" 2>&0', os.ttyname(theirs), *COMMAND, *arguments],
        stdout=subprocess.PIPE,
        start_new_session=True,
        env=environment(TERM="xterm", COLUMNS="100", PYTHONPATH=f"{python_path}{os.pathsep}{ROOT}"),
    ) as process:
        shown = bytearray()
        control = b""
        again_at = float("inf")
        while select.select([ours], [], [], 0.02)[0] or process.poll() is None:
            if time.monotonic() >= again_at:
                # Between a prompt and its read() an interrupt does not wake the reader up, and an end
                # of input is lost when the terminal changes its mode: as a person would, try again.
                os.write(ours, control)
                again_at = time.monotonic() + 1
            if not select.select([ours], [], [], 0)[0]:
                continue
            shown += os.read(ours, 65536)
            if answer and b"[y/N]" in shown:
                os.write(ours, answer.encode())
                if answer.encode() in _CONTROL:
                    control, again_at = answer.encode(), time.monotonic() + 1
                answer = ""
        assert process.stdout is not None
        out = process.stdout.read().decode()
        code = process.wait(_TIMEOUT_S)
    os.close(theirs)
    os.close(ours)
    return Outcome(code, out, shown.decode(errors="replace"))
