"""Documents name only what exists, so that they cannot drift from the code.

Read are README.md and every Markdown file in ssfs/. See `tests/docs/markdown.py` for what counts
as a name.
"""

import ast
import builtins
import importlib
import importlib.util
import itertools
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path

import click
import pytest

from tests.docs import markdown
from tests.docs.markdown import Line, Mention

ROOT = Path(__file__).resolve().parent.parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "ssfs").rglob("*.md"))]

every_document = pytest.mark.parametrize(
    "document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT))
)


def report(
    document: Path,
    find: Callable[[list[Line]], Iterable[Mention]],
    explain: Callable[[str], str | None],
) -> None:
    """Fail with one line for each mention that `explain` finds fault with."""
    faults = []
    for mention in find(markdown.read_lines(document)):
        fault = explain(mention.text)
        if fault is not None:
            faults.append(f"{document.relative_to(ROOT)}:{mention.line}: {fault}")
    if faults:
        pytest.fail("\n".join(dict.fromkeys(faults)), pytrace=False)


@every_document
def test_named_paths_exist(document: Path) -> None:
    def explain(path: str) -> str | None:
        found = any(ROOT.glob(path)) if "*" in path else (ROOT / path).exists()
        return None if found else f"`{path}` does not exist in this repository"

    report(document, markdown.find_paths, explain)


@every_document
def test_links_lead_somewhere(document: Path) -> None:
    def explain(target: str) -> str | None:
        if (document.parent / target).exists():
            return None
        return f"link to {target}: there is no such file beside the document"

    report(document, markdown.find_links, explain)


@every_document
def test_dotted_names_can_be_imported(document: Path) -> None:
    def explain(name: str) -> str | None:
        owner, lacking = resolve(name)
        return None if lacking is None else f"`{name}`: {owner} has no `{lacking}`"

    report(document, markdown.find_dotted_names, explain)


@every_document
def test_named_functions_exist(document: Path) -> None:
    def explain(name: str) -> str | None:
        if name in source_names().defined | source_names().used or hasattr(builtins, name):
            return None
        return f"`{name}()`: no function of this name is defined or called in ssfs/"

    report(document, markdown.find_calls, explain)


@every_document
def test_named_classes_exist(document: Path) -> None:
    def explain(name: str) -> str | None:
        if name in source_names().defined | source_names().used or hasattr(builtins, name):
            return None
        return f"`{name}`: no class of this name is defined or used in ssfs/"

    report(document, markdown.find_classes, explain)


@every_document
def test_named_commands_and_options_exist(document: Path) -> None:
    if not module_exists("ssfs.cli.main"):
        pytest.skip("ssfs.cli.main is not written yet")
    group = command_line()
    report(document, markdown.find_commands, lambda text: explain_command(group, text))


def resolve(name: str) -> tuple[str, str | None]:
    """Follow a dotted name: how far it leads, and the part that is missing there, if any."""
    parts = name.split(".")
    found: object = importlib.import_module(parts[0])
    for depth, part in enumerate(parts[1:], start=1):
        owner = ".".join(parts[:depth])
        if hasattr(found, part):
            found = getattr(found, part)
        elif module_exists(f"{owner}.{part}"):
            found = importlib.import_module(f"{owner}.{part}")
        elif part not in getattr(found, "__annotations__", {}):
            return owner, part
        else:  # a field without a default: nothing below it can be looked up
            break
    return name, None


def module_exists(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


class SourceNames:
    """The names that the source defines, and those it takes from elsewhere."""

    def __init__(self, sources: Iterable[Path]) -> None:
        self.defined: set[str] = set()
        self.used: set[str] = set()
        for path in sources:
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                self._add(node)

    def _add(self, node: ast.AST) -> None:
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                self.defined.add(name)
            case ast.ClassDef(name=name):
                self.defined.add(name)
            case ast.Name(id=name, ctx=ast.Store()):
                self.defined.add(name)
            case ast.Attribute(attr=name):
                self.used.add(name)
            case ast.alias(name=name):
                self.used.add(name)
            case _:
                pass


@cache
def source_names() -> SourceNames:
    return SourceNames((ROOT / "ssfs").rglob("*.py"))


def command_line() -> click.Group:
    """The group behind the console script, whether `main` is it or only calls it."""
    module = importlib.import_module("ssfs.cli.main")
    candidates = [getattr(module, "main", None), *vars(module).values()]
    groups = [value for value in candidates if isinstance(value, click.Group)]
    assert groups, "ssfs.cli.main holds no click group"
    return groups[0]


def explain_command(group: click.Group, text: str) -> str | None:
    """What is wrong with the command line `ssfs TEXT`, or None."""
    words = markdown.split_command(text)
    command: click.Command = group
    name = "ssfs"
    options = option_names(command)
    for word in words:
        if word.startswith("-") and word != "-":
            if word not in options and not is_number(word):
                return f"`{name}` has no option {word}"
        elif isinstance(command, click.Group) and is_command_word(word):
            chosen = command.commands.get(word)
            if chosen is None:
                return f"`{name}` has no command {word}"
            command, name = chosen, f"{name} {word}"
            options |= option_names(command)
    return None


def option_names(command: click.Command) -> set[str]:
    """Every spelling of every option of one command."""
    context = click.Context(command)
    params = command.get_params(context)
    return set(itertools.chain.from_iterable(spellings(param) for param in params))


def spellings(param: click.Parameter) -> Iterator[str]:
    yield from param.opts
    yield from param.secondary_opts


def is_command_word(word: str) -> bool:
    """A name of a command rather than a placeholder such as COMMAND."""
    return word.replace("-", "").isalpha() and word.islower()


def is_number(word: str) -> bool:
    return word.lstrip("-").isdigit()
