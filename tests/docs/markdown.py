"""Finds what a Markdown document names: paths, dotted names, calls, classes, commands, links.

Kept apart from the tests so that it can be tested itself. Every finding is a `Mention`, which
knows its line, for a message that can be clicked on.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_PATH = re.compile(r"(?<![\w./~-])(?:ssfs|tests|tools|\.ci)/[\w./*-]*(?![<{\w./*-])")
_DOTTED = re.compile(r"(?<![\w./@-])ssfs(?:\.[A-Za-z_]\w*)+(?![\w/])")
_FILE_NAME = re.compile(r"ssfs\.(?:md|py|toml|json|log|conf|service|timer|sqlite|db)")
_CODE_SPAN = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)")
_CALL = re.compile(r"(?:\w+\.)*(\w+)\(.*\)")
_CLASS = re.compile(r"(?:\w+\.)*((?:[A-Z][a-z0-9]+){2,})")
_COMMAND = re.compile(r"(?:^|[\s/(;&|])ssfs +([^#;&|>`)]*)")
_COMMENT = re.compile(r"(?:^|\s)#.*")
_LINK = re.compile(r"(?<!!)\[[^\]\n]*\]\(([^)\s]+)[^)]*\)")
_SHELL_FENCES = {"", "sh", "bash", "shell", "console"}


@dataclass(frozen=True)
class Mention:
    """Something that a document names."""

    text: str
    line: int


@dataclass(frozen=True)
class Line:
    """One line; `fence` is the language of the code block around it, None in prose."""

    text: str
    number: int
    fence: str | None


def read_lines(path: Path) -> list[Line]:
    """Every line of a document except the fences themselves."""
    lines = []
    fence: str | None = None
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if text.lstrip().startswith("```"):
            fence = text.strip().strip("`").strip() if fence is None else None
        else:
            lines.append(Line(text, number, fence))
    return lines


def find_paths(lines: list[Line]) -> Iterator[Mention]:
    """Paths of the repository, in prose and in code."""
    for line in lines:
        for match in _PATH.finditer(line.text):
            yield Mention(match.group().rstrip("."), line.number)


def find_dotted_names(lines: list[Line]) -> Iterator[Mention]:
    """Names such as `ssfs.engine.sender.send_version`, in prose and in code."""
    for line in lines:
        for match in _DOTTED.finditer(line.text):
            if not _FILE_NAME.fullmatch(match.group()):
                yield Mention(match.group(), line.number)


def find_code_spans(lines: list[Line]) -> Iterator[Mention]:
    """What stands between backticks in prose."""
    for line in lines:
        if line.fence is None:
            for match in _CODE_SPAN.finditer(line.text):
                yield Mention(match.group(2).strip(), line.number)


def find_calls(lines: list[Line]) -> Iterator[Mention]:
    """The last part of the name in spans such as `finish()` or `VersionWriter.finish()`."""
    for span in find_code_spans(lines):
        match = _CALL.fullmatch(span.text)
        if match:
            yield Mention(match.group(1), span.line)


def find_classes(lines: list[Line]) -> Iterator[Mention]:
    """Spans such as `StoreFull`: two humps at least, so that plain words are not taken."""
    for span in find_code_spans(lines):
        match = _CLASS.fullmatch(span.text)
        if match:
            yield Mention(match.group(1), span.line)


def find_commands(lines: list[Line]) -> Iterator[Mention]:
    """What follows `ssfs` on a command line, in code spans and in blocks of shell code."""
    shell_lines = [Mention(line.text, line.number) for line in lines if line.fence in _SHELL_FENCES]
    for place in [*find_code_spans(lines), *shell_lines]:
        for match in _COMMAND.finditer(_COMMENT.sub("", place.text)):
            yield Mention(match.group(1).strip(), place.line)


def split_command(text: str) -> list[str]:
    """The words of a command line; brackets and dots of a synopsis are dropped.

    >>> split_command("sync SOURCE [--exclude PATTERN]... --days=3")
    ['sync', 'SOURCE', '--exclude', 'PATTERN', '--days']
    """
    plain = re.sub(r"[\[\]]|\.\.\.|…", " ", text)
    try:
        words = shlex.split(plain)
    except ValueError:  # a quote without its partner
        words = plain.split()
    return [word.split("=")[0] if word.startswith("-") else word for word in words]


def find_links(lines: list[Line]) -> Iterator[Mention]:
    """Targets of links to other files, without the anchor."""
    for line in lines:
        if line.fence is not None:
            continue
        for match in _LINK.finditer(_CODE_SPAN.sub("", line.text)):
            target = match.group(1).split("#")[0]
            if target and not re.match(r"[a-z][a-z+.-]*:", target):
                yield Mention(target, line.number)
