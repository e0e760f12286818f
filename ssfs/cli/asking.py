"""Questions before something is lost for good: asked on a terminal, and only there."""

import sys

import click

from ssfs.cli.output import complain


def agrees(question: str, *, yes: bool) -> bool:
    """Whether to go on. Without a terminal, or with `--yes`, the command was answer enough."""
    if yes or not sys.stdin.isatty():
        return True
    # On stderr: stdout may be read by a program.
    if click.confirm(question, err=True):
        return True
    complain("Nothing was changed")
    return False
