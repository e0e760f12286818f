"""Arguments and options that several commands share, so that they read alike everywhere."""

import click

PATH = click.Path(path_type=bytes, readable=False)

location_argument = click.argument("location", type=PATH)
version_argument = click.argument("version")

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON value on stdout, for programs."
)
quiet_option = click.option("-q", "--quiet", is_flag=True, help="Say nothing but what went wrong.")
verbose_option = click.option("-v", "--verbose", is_flag=True, help="Say more.")
yes_option = click.option(
    "--yes", is_flag=True, help="Do not ask. (Without a terminal nothing is asked anyway.)"
)

_COUNT = click.IntRange(0, 100_000)
days_option = click.option(
    "--days", type=_COUNT, metavar="X", help="Keep the newest version of each of the last X days."
)
weeks_option = click.option(
    "--weeks", type=_COUNT, metavar="Y", help="And of each of the Y weeks before those days."
)
months_option = click.option(
    "--months", type=_COUNT, metavar="Z", help="And of each of the Z months before those weeks."
)
keep_last_option = click.option(
    "--keep-last",
    type=click.IntRange(1, 100_000),
    metavar="N",
    help="And the N newest versions, whatever their day.",
)


def examples(*commands: str) -> str:
    """The last part of a help page; click keeps the lines of what begins with a backspace."""
    title = "Example:" if len(commands) == 1 else "Examples:"
    return "\n".join(["\b", title, *(f"  {command}" for command in commands)])
