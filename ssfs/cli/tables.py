"""Tables for people. A table is never cut to a width when it goes into a file or a pipe."""

import io
from collections.abc import Iterable, Sequence

# Not later: a process that has become the store's owner may not be able to read modules any more.
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ssfs.cli.output import emit, safe_text

_NO_LIMIT = 100_000


def emit_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print aligned columns on stdout; a column whose title begins with `>` is flush right."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for title in columns:
        table.add_column(
            title.lstrip(">"), justify="right" if title.startswith(">") else "left", no_wrap=True
        )
    for row in rows:
        table.add_row(*(Text(safe_text(cell)) for cell in row))
    # Rendered by rich, but written by us: a reader that goes away is dealt with in one place.
    target = Console()
    rendered = io.StringIO()
    Console(
        file=rendered,
        width=_NO_LIMIT,
        force_terminal=target.is_terminal and not target.is_dumb_terminal,
        color_system="auto" if target.is_terminal else None,
    ).print(table)
    emit("\n".join(line.rstrip() for line in rendered.getvalue().splitlines()))
