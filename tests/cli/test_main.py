"""The command line as a whole: help, exit codes, streams, signals."""

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ssfs import __version__, errors
from ssfs.cli.exit_codes import ExitCode, exit_code_of
from ssfs.cli.main import COMMANDS
from tests.cli.support import COMMAND, environment, run, ssfs

HEAVY = ("pyfuse3", "trio", "cryptography")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.ConfigError, 2),
        (errors.TrustError, 4),
        (errors.PeerError, 5),
        (errors.RemoteProtocolError, 5),
        (errors.ConnectionLost, 5),
        (errors.PeerBusy, 5),
        (errors.StoreError, 6),
        (errors.StoreLocked, 6),
        (errors.StoreFull, 6),
        (errors.CorruptStore, 6),
        (errors.SourceError, 7),
    ],
)
def test_every_family_has_its_exit_code(error, code):
    assert exit_code_of(error("Wrong")) == code


def test_exit_codes_are_the_documented_ones():
    assert sorted(ExitCode) == [0, 1, 2, 3, 4, 5, 6, 7, 130]


def test_version_is_said():
    assert ssfs("--version") == f"ssfs {__version__}\n"


def test_help_lists_every_command_without_loading_them():
    text = ssfs("--help")
    for name, purpose in COMMANDS.items():
        assert f"  {name}" in text
        assert purpose in text
    assert "130 interrupted" in text


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_shows_an_example_and_exit_codes(command: str):
    text = ssfs(command, "--help")
    assert f"Usage: ssfs {command} " in text
    assert re.search(rf"^    ssfs {command}\b", text.partition("Example")[2], re.MULTILINE)
    assert "Exit codes: 0 " in " ".join(text.split())
    for option in ("-q, --quiet", "-v, --verbose", "-h, --help"):
        assert option in text


@pytest.mark.parametrize("command", ["sync", "versions", "points", "point", "expire", "restore"])
def test_commands_that_report_have_json(command: str):
    assert "--json" in ssfs(command, "--help")


def test_no_command_shows_the_help():
    outcome = run(expect=2)
    assert "Commands:" in outcome.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--bogus"],
        ["bogus"],
        ["sync"],
        ["sync", "/usr"],
        ["sync", "/usr", "/store", "more"],
        ["sync", "--exclude"],
        ["versions", "/store", "--bogus"],
        ["init", "/nowhere/store", "--days", "many"],
        ["init", "/nowhere/store", "--days", "-1"],
        ["init", "/nowhere/store", "--keep-last", "0"],
        ["point", "/store", "--weeks", "1e3"],
        ["restore", "/store", "latest"],
        ["delete", "/store"],
        ["pin", "/store"],
        ["mount", "/store"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_one_line_and_exit_2(arguments: list[str]):
    assert "help`)" in run(*arguments, expect=2).error


@pytest.mark.parametrize("arguments", ["--help", "sync --help", "sync {source} {store}"])
def test_a_sync_loads_nothing_a_mount_needs(arguments: str, source: Path, store: Path):
    words = shlex.split(arguments.format(source=source, store=store))
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "ssfs", *words],
        capture_output=True,
        check=True,
        text=True,
        env=environment(),
    )
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "click" in loaded
    assert not loaded & set(HEAVY)


def test_reader_that_goes_away_is_no_error(read_only_history: Path):
    for command in (f"versions {read_only_history}", f"versions -q {read_only_history}"):
        done = subprocess.run(
            ["bash", "-c", f"set -o pipefail; {shlex.join(COMMAND)} {command} | head -1"],
            capture_output=True,
            text=True,
            env=environment(),
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.count("\n") == 1


def test_output_that_cannot_be_written_is_said(read_only_history: Path):
    for options in ([], ["--json"]):
        with open("/dev/full", "wb") as full:
            done = subprocess.run(
                [*COMMAND, "versions", read_only_history, *options],
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                env=environment(),
                check=False,
            )
        assert done.returncode == 2
        assert done.stderr.startswith("ssfs: Output cannot be written (no space left on device)")
        assert done.stderr.count("\n") == 1


def test_ascii_terminal_is_no_error(store: Path, tmp_path: Path):
    source = tmp_path / "sch\u00f6n"
    source.mkdir()
    env = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0"}
    run("sync", source, store, env=env, expect=0)
    run("points", store, env=env, expect=0)
    assert run("sync", tmp_path / "\u00fcberall", store, env=env, expect=7).error


def test_our_own_bug_is_exit_1_with_a_traceback(store: Path, tmp_path: Path):
    (tmp_path / "sitecustomize.py").write_text(
        "import ssfs.store.store\n"
        "def points(self):\n"
        "    raise RuntimeError('a bug')\n"
        "ssfs.store.store.Store.points = points\n"
    )
    path = f"{tmp_path}:{environment()['PYTHONPATH']}"
    outcome = run("points", store, env={"PYTHONPATH": path}, expect=1)
    assert "RuntimeError: a bug" in outcome.err
    assert outcome.err.endswith("ssfs: This is a bug in ssfs; please report the lines above\n")


@pytest.mark.parametrize(
    ("number", "whole_group"),
    [(signal.SIGINT, True), (signal.SIGTERM, True), (signal.SIGTERM, False)],
    ids=["Ctrl-C", "service stop", "kill"],
)
def test_interrupted_sync_says_so_and_the_next_one_succeeds(
    tmp_path: Path, store: Path, number: int, whole_group: bool
):
    source = tmp_path / "large"
    source.mkdir()
    with open(source / "file", "wb") as file:
        file.writelines(bytes(1 << 20) for _ in range(256))  # takes a while
    process = subprocess.Popen(
        [*COMMAND, "sync", source, store],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        start_new_session=True,
    )
    incoming = store / "points" / "main" / "tasks"
    while process.poll() is None and not _has_partials(incoming):
        pass
    (os.killpg if whole_group else os.kill)(process.pid, number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err == "ssfs: Interrupted: what has arrived is kept, the next sync goes on from there\n"
    run("sync", source, store, expect=0)


def _has_partials(tasks: Path) -> bool:
    try:
        return any(tasks.glob("*/staging/partials/*"))
    except FileNotFoundError:
        return False  # what is looked into comes and goes


@pytest.mark.parametrize("command", ["sync", "restore", "versions", "point", "expire"])
def test_a_command_that_stays_here_loads_nothing_of_the_network(command):
    script = (
        f"import sys, ssfs.cli.{command}\n"
        "print([name for name in ('trio', 'cryptography', 'ssl', 'pyfuse3') if name in sys.modules])"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout
    assert loaded == "[]\n"
