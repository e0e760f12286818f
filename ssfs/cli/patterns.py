"""`--exclude` and `--include` of one command line, as one list of patterns in the order they were written."""

import click
from typing_extensions import override

from ssfs.errors import ConfigError

_INCLUDE = "--include"

exclude_option = click.option(
    "--exclude",
    "patterns",
    multiple=True,
    metavar="PATTERN",
    help="Leave alone what matches, as in a .gitignore file in the version's root: it is neither "
    "restored nor deleted. Of several patterns that match, the last one decides.",
)
include_option = click.option(
    _INCLUDE,
    expose_value=False,
    multiple=True,
    metavar="PATTERN",
    help="Take in again what an --exclude before it leaves out (not from a directory left out).",
)


class PatternCommand(click.Command):
    """A command for which `--include PATTERN` is `--exclude !PATTERN`: their order counts."""

    @override
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Rewrite one as the other."""
        rewritten: list[str] = []
        rest = iter(args)
        for word in rest:
            if word == "--":
                return super().parse_args(ctx, [*rewritten, word, *rest])
            if word == _INCLUDE and (pattern := next(rest, None)) is not None:
                rewritten += ["--exclude", f"!{pattern}"]
            elif word.startswith(f"{_INCLUDE}="):
                rewritten += ["--exclude", f"!{word.removeprefix(f'{_INCLUDE}=')}"]
            else:
                rewritten.append(word)
        return super().parse_args(ctx, rewritten)


def check_patterns(patterns: tuple[str, ...]) -> tuple[str, ...]:
    """The patterns, if the first leaves something out.

    Raises:
        ConfigError: There is nothing that it could take in again.
    """
    if patterns and patterns[0].startswith("!"):
        raise ConfigError(
            f"--include {patterns[0][1:]!r} comes before any --exclude",
            remedy="it takes in again what an --exclude before it leaves out",
        )
    return patterns
