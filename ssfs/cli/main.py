"""`ssfs`: the table of commands, and what becomes of what they raise.

Commands are loaded when they are called, so that `ssfs sync` from cron does not wait for what a mount
needs. A command returns its exit code (None: done) and raises `SsfsError` for what a person can act on;
everything else is a bug, and is shown as one.
"""

import importlib
import logging
import signal
import sys
import traceback
from collections.abc import Iterator, MutableMapping
from types import FrameType

import click
from typing_extensions import override

from ssfs import __version__
from ssfs.cli.exit_codes import ExitCode, exit_code_of
from ssfs.cli.output import complain
from ssfs.errors import SsfsError

COMMANDS = {
    "init": "Make a store.",
    "sync": "Back up a directory: make one version.",
    "versions": "List the versions of a task.",
    "points": "List sync points and tasks of a store.",
    "point": "Show or set what a sync point keeps, or make one.",
    "expire": "Let versions go by the policy, now.",
    "delete": "Delete versions, whatever the policy says.",
    "pin": "Hold a version: it stays until unpinned.",
    "unpin": "Let a pinned version go by the policy again.",
    "mount": "Show the versions as dated directories.",
    "umount": "Take a mount away.",
    "samba-config": "Print what Samba needs for Windows' Previous Versions.",
    "restore": "Copy a version, a directory or a file out.",
    "verify": "Read a store and say what is damaged.",
    "recover": "Put right what can be of a damaged store.",
    "find": "Find which versions have a file.",
    "history": "Show what has become of a file.",
    "diff": "Show how two versions differ, or a version and a directory.",
    "du": "Show what versions take, and what deleting one would free.",
    "serve": "Let other machines back up into a store.",
    "invite": "Print a code with which a client can enrol.",
    "enroll": "Use such a code: make this machine a client.",
    "revoke": "Take a client's access away.",
    "clients": "List clients of a store and open invitations.",
}
"""Every command and what it does; command NAME is the function NAME of the module ssfs.cli.NAME, with _ for -."""


class _Commands(MutableMapping[str, click.Command]):
    """The commands by name, each imported when it is asked for."""

    def __init__(self) -> None:
        self._loaded: dict[str, click.Command] = {}

    @override
    def __getitem__(self, name: str) -> click.Command:
        if name not in self._loaded:
            if name not in COMMANDS:
                raise KeyError(name)
            word = name.replace("-", "_")
            command: object = getattr(importlib.import_module(f"ssfs.cli.{word}"), word)
            if not isinstance(command, click.Command):
                raise TypeError(name)
            self._loaded[name] = command
        return self._loaded[name]

    @override
    def __setitem__(self, name: str, command: click.Command) -> None:
        self._loaded[name] = command

    @override
    def __delitem__(self, name: str) -> None:
        del self._loaded[name]

    @override
    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    @override
    def __len__(self) -> int:
        return len(COMMANDS)


class _LazyGroup(click.Group):
    """A group that lists its commands, in their order, without loading them."""

    @override
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    @override
    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


_EPILOG = """\b
To begin with:
  ssfs init /srv/store
  ssfs sync /home /srv/store
  ssfs mount /srv/store /mnt
  ls /mnt/main/*

\b
Exit codes: 0 done; 3 done, but some files had problems (listed);
2 usage or configuration; 4 trust; 5 peer or network; 6 store;
7 source missing; 130 interrupted; 1 a bug of ours.
"""


@click.group(
    cls=_LazyGroup,
    epilog=_EPILOG,
    commands=_Commands(),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="ssfs", message="%(prog)s %(version)s")
def ssfs() -> None:
    """Back up directories so that only what changed travels, and every version is a whole tree.

    LOCATION is /path/store[::POINT[/TASK]], ssfs://HOST[:PORT]/POINT[/TASK] (a server where this
    machine has enrolled), or ssh://[USER@]HOST/path/store[::POINT[/TASK]]. POINT is "main" unless
    named; TASK, where one is needed, is the only one of its point; `ssfs sync` names it after the
    machine and the source.

    VERSION is a version id or its number, a date or name that a mount shows (2024-05-01,
    2024-05-01_143000), "latest", or "latest~N" for the Nth version before that.
    """


def main() -> int:
    """Run the command line; the process's exit code."""
    # A text that cannot be encoded for the terminal is spelled out, and never an error.
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    logging.basicConfig(format="ssfs: %(message)s", level=logging.WARNING)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return _run(sys.argv[1:])
    except SsfsError as error:
        complain(str(error))
        return exit_code_of(error)
    except (KeyboardInterrupt, click.Abort) as error:
        complain(str(error) or "Interrupted")
        return ExitCode.INTERRUPTED
    except Exception:  # noqa: BLE001  # the last frame: whatever it is, it is our bug
        traceback.print_exc()
        complain("This is a bug in ssfs; please report the lines above")
        return ExitCode.BUG


def _run(arguments: list[str]) -> int:
    try:
        with ssfs.make_context("ssfs", list(arguments)) as context:
            outcome: object = ssfs.invoke(context)
    except click.exceptions.Exit as done:  # --help and --version
        return done.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return ExitCode.USAGE
    except click.ClickException as error:
        complain(_usage_text(error, arguments))
        return ExitCode.USAGE
    return outcome if isinstance(outcome, int) else ExitCode.DONE


def _usage_text(error: click.ClickException, arguments: list[str]) -> str:
    """What is wrong with the command line, in one line."""
    text = " ".join(error.format_message().split()).rstrip(".")
    command = f"ssfs {arguments[0]}" if arguments[0] in COMMANDS else "ssfs"
    return f"{text} (see `{command} --help`)"


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
