r"""What commands print: text for people, JSON for programs, complaints on stderr.

A path appears as text. A byte of it that is not UTF-8 is written `\xHH`, and a backslash `\\`, in JSON and
in tables alike, so that every path has one spelling and every spelling leads back to one path (JSON
allows no such bytes, and lone surrogates break its parsers). For people, control characters are
spelled `\xHH` too: a file's name must not drive a terminal.

A reader that goes away (`ssfs versions | head -1`) is no error: the rest is printed to nobody.
"""

import os
import sys
from collections.abc import Iterable

import click
import msgspec

from ssfs.errors import ConfigError
from ssfs.model.problem import EntryProblem
from ssfs.model.size import bytes_text as bytes_text  # commands take all they print with from here
from ssfs.model.spelling import path_text as path_text

_MAX_LISTED_PROBLEMS = 20


class ProblemLine(msgspec.Struct, frozen=True):
    """An entry problem as JSON."""

    path: str
    problem: str


def safe_text(text: str) -> str:
    """Text that moves no cursor: control characters and what cannot be encoded are spelled out."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else _spelled(character) for character in text
    )


def _spelled(character: str) -> str:
    return (
        character.encode("unicode_escape").decode()
        if ord(character) > 0xFF
        else (f"\\x{ord(character):02x}")
    )


def problem_lines(problems: list[EntryProblem]) -> list[ProblemLine]:
    """Entry problems for JSON."""
    return [ProblemLine(path_text(item.path), item.problem) for item in problems]


def emit(text: str) -> None:
    """Print lines for people on stdout."""
    _write(text.encode("utf-8", "backslashreplace") + b"\n")


def emit_json(value: object) -> None:
    """Print one JSON value on stdout."""
    _write(msgspec.json.encode(value, enc_hook=str) + b"\n")


def emit_object_with_list(value: msgspec.Struct, key: str, items: Iterable[bytes] | None) -> None:
    """Print one JSON object whose last key holds a list of any length, or null.

    Args:
        value: The other keys.
        key: The last one.
        items: The list, each item encoded.
    """
    head = msgspec.json.encode(value, enc_hook=str)[:-1]
    if items is None:
        _write(head + f',"{key}":null}}\n'.encode())
        return
    _write(head + f',"{key}":['.encode())
    separator = b""
    for item in items:
        _write(separator + item)
        separator = b","
    _write(b"]}\n")


def _write(content: bytes) -> None:
    try:
        sys.stdout.flush()
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        # Nobody reads any more. What is left in the buffer must not fail at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        raise ConfigError(
            f"Output cannot be written ({(error.strerror or '').lower()})",
            remedy="the command itself was carried out",
        ) from error


def complain(text: str) -> None:
    """Print one line on stderr."""
    click.echo(f"ssfs: {safe_text(text)}", err=True)


def complain_of(problems: list[EntryProblem], *, listed: bool) -> None:
    """Name problems on stderr, the first twenty of them.

    Args:
        problems: All of them.
        listed: Each was named when it happened, so their number is enough.
    """
    if not problems:
        return
    shown = 0 if listed else _MAX_LISTED_PROBLEMS
    for problem in problems[:shown]:
        complain(problem_text(problem))
    rest = len(problems) - shown
    if listed:
        complain(f"{counted(len(problems), 'problem')} in all")
    elif rest > 0:
        complain(f"... and {counted(rest, 'more problem')} (-v or --json lists all)")


def problem_text(problem: EntryProblem) -> str:
    """An entry problem in one line."""
    return f"{path_text(problem.path) or '.'}: {problem.problem}"


def counted(count: int, noun: str) -> str:
    """`1 version`, `2,000 versions`."""
    plural = f"{noun[:-1]}ies" if noun.endswith("ry") else f"{noun}s"
    return f"{count:,} {noun if count == 1 else plural}"


def seconds_text(seconds: float) -> str:
    """A length of time: `0.3 s`, `12 s`, `4:05`, `3:04:05`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
