"""Questions before something is lost for good: asked on a terminal, and only there."""

import sys

import click

from ssfs.cli.output import complain


def will_ask(*, yes: bool) -> bool:
    """Whether there is somebody to ask, and `--yes` has not answered already."""
    return not yes and sys.stdin.isatty()


def agrees(question: str, *, yes: bool) -> bool:
    """Whether to go on. Without a terminal, or with `--yes`, the command was answer enough."""
    if not will_ask(yes=yes):
        return True
    # On stderr: stdout may be read by a program.
    if click.confirm(question, err=True):
        return True
    complain("Nothing was changed")
    return False
