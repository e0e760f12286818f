"""The reader of documents finds what it should, and lets prose be prose."""

from collections.abc import Callable, Iterable
from pathlib import Path

import click
import pytest

from tests.docs import markdown
from tests.docs.markdown import Line, Mention
from tests.docs.test_docs import explain_command, resolve

DOCUMENT = """\
See `ssfs/engine/SYNC.md`, tools/test. Globs: `tests/*/test_<module>.py`, `ssfs/**/*.md`.
Not ours: /var/cache/ssfs/x, `https://example.org/ssfs/y`, ~/ssfs/z, .ssfs/lock.
Names: `ssfs.errors.StoreFull`, `finish()`, `XWriter.finish(a, b)`, `StoreFull`, `NEED`, `Hello`.
Files: `ssfs.toml`. [a link](docs/a.md#part), [web](https://example.org), `[no](link.md)`.
Run `ssfs sync --dry-run SRC` or `ssfs sync SOURCE [--exclude PATTERN]...`.

```sh
sudo .venv/bin/ssfs mount -o allow_other A B  # ssfs explains
tools/quickstart && ssfs versions A | grep ssfs
```

```text
ssfs prose in a drawing; ssfs.errors.Nothing
```
"""


@pytest.fixture
def lines(tmp_path: Path) -> list[Line]:
    path = tmp_path / "document.md"
    path.write_text(DOCUMENT)
    return markdown.read_lines(path)


@pytest.mark.parametrize(
    ("find", "found"),
    [
        (
            markdown.find_paths,
            ["ssfs/engine/SYNC.md", "tools/test", "ssfs/**/*.md", "tools/quickstart"],
        ),
        (markdown.find_dotted_names, ["ssfs.errors.StoreFull", "ssfs.errors.Nothing"]),
        (markdown.find_calls, ["finish", "finish"]),
        (markdown.find_classes, ["StoreFull", "StoreFull"]),
        (markdown.find_links, ["docs/a.md"]),
        (
            markdown.find_commands,
            [
                "sync --dry-run SRC",
                "sync SOURCE [--exclude PATTERN]...",
                "mount -o allow_other A B",
                "versions A",
            ],
        ),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_finds_what_is_named(
    lines: list[Line], find: Callable[[list[Line]], Iterable[Mention]], found: list[str]
) -> None:
    assert [mention.text for mention in find(lines)] == found


def test_mention_knows_its_line(lines: list[Line]) -> None:
    assert [mention.line for mention in markdown.find_links(lines)] == [4]


@click.group()
@click.option("-q", "--quiet", is_flag=True)
def program(*, quiet: bool) -> None:
    """Stand for the real program."""


@program.command()
@click.option("--exclude", multiple=True)
@click.option("--cross/--no-cross")
def sync(exclude: tuple[str, ...], *, cross: bool) -> None:
    """Stand for a real command."""


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("sync A B --exclude '*.o' --no-cross", None),
        ("-q sync --help", None),
        ("COMMAND --help", None),
        ("sync A [--exclude=PATTERN]...", None),
        ("sink A B", "`ssfs` has no command sink"),
        ("sync A --fast", "`ssfs sync` has no option --fast"),
    ],
)
def test_command_lines_are_judged(text: str, fault: str | None) -> None:
    assert explain_command(program, text) == fault


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("ssfs.errors.StoreFull", ("ssfs.errors.StoreFull", None)),
        ("ssfs.errors.SsfsError.__str__", ("ssfs.errors.SsfsError.__str__", None)),
        ("ssfs.errors.Nothing", ("ssfs.errors", "Nothing")),
        ("ssfs.nowhere.at_all", ("ssfs", "nowhere")),
    ],
)
def test_dotted_name_is_followed(name: str, answer: tuple[str, str | None]) -> None:
    assert resolve(name) == answer
