"""Patterns of paths, as `ssfs find` takes them: much as in a .gitignore file.

A pattern without a slash matches a name, wherever it is; one with a slash the whole path from the root on. `*` is
any part of a name, `?` one character, `[a-z]` one of these, `[!a-z]` none of them, `**` between slashes any
number of directories; a backslash takes the next character as it is. A slash at the end: directories only.

A pattern may come from a peer: no pattern takes more than its length times a name's to match.
"""

import re
from collections.abc import Callable, Sequence

from ssfs.errors import ConfigError

_ANY = "**"

_Part = Callable[[str], object]


class PathPattern:
    """A pattern, ready to match.

    Attributes:
        literal: What the last name of all paths that match has, for a quick look before
            `matches_name`. ASCII if case is ignored; may be empty.
        where: Where the name has it: as `CatalogReader.names` takes it.
        wants_directory: Only directories match.
        has_place: Whether the directory that a name is in matters: ask `matches_place` too.
    """

    def __init__(self, pattern: bytes, *, ignore_case: bool = False) -> None:
        """Compile it.

        Raises:
            ConfigError: It cannot be understood.
        """
        parts = _text(pattern).split("/")
        self.wants_directory = len(parts) > 1 and not parts[-1]
        if self.wants_directory:
            del parts[-1]
        self.has_place = len(parts) > 1
        parts = [part for part in parts if part not in ("", ".")]
        if not parts:
            raise ConfigError(
                "The pattern is empty", remedy="name a file, or a pattern like '*.odt'"
            )
        if parts[-1] == _ANY:
            parts.append("*")  # what is below, not the directory itself
        flags = re.DOTALL | (re.IGNORECASE if ignore_case else 0)
        try:
            matchers: list[_Part | None] = [
                None if part == _ANY else re.compile(_translated(part), flags).fullmatch
                for part in parts
            ]
        except re.error as error:
            raise ConfigError(
                f"Pattern {_text(pattern)!r} cannot be understood ({error})",
                remedy="a backslash before a special character takes it as it is",
            ) from error
        *self._place, self._name = matchers
        self.has_place = self.has_place and self._place != [None]
        # Most directories are told apart by this alone.
        where, beginning = _literal(parts[0], ignore_case=ignore_case)
        self._beginning = beginning if self._place and where == "whole" else b""
        self.where, self.literal = _literal(parts[-1], ignore_case=ignore_case)

    def matches_name(self, name: bytes) -> bool:
        """Whether the last name of a path does."""
        return self._name is None or self._name(_text(name)) is not None

    def matches_place(self, directory: bytes) -> bool:
        """Whether the path of the directory that it is in does."""
        if not directory.startswith(self._beginning):
            return False
        return _match(self._place, _text(directory).split("/") if directory else [])


def _text(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")


def _match(parts: Sequence[_Part | None], names: Sequence[str]) -> bool:
    """Whether parts, None among them for any number of names, match all names."""
    part = name = after_any = retry = 0
    while name < len(names):
        wanted = parts[part] if part < len(parts) else None
        if part < len(parts) and wanted is None:
            part += 1
            after_any, retry = part, name
        elif wanted is not None and wanted(names[name]):
            part += 1
            name += 1
        elif after_any:
            # The last `**` takes one name more; those before it need not be tried again.
            retry += 1
            part, name = after_any, retry
        else:
            return False
    return all(left is None for left in parts[part:])


def _tokens(part: str) -> list[str]:
    """The pattern of a name in pieces: `*`, or the regular expression of one character."""
    tokens: list[str] = []
    at = 0
    while at < len(part):
        character = part[at]
        end = at + 1
        if character == "\\" and end < len(part):
            end += 1
            tokens.append(re.escape(part[at + 1]))
        elif (
            character == "["
            and (closing := part.find("]", at + 2 + (part[end : end + 1] in _NOT))) > 0
        ):
            end = closing + 1
            tokens.append(_character_set(part[at + 1 : closing]))
        elif character == "?":
            tokens.append(".")
        else:
            tokens.append("*" if character == "*" else re.escape(character))
        at = end
    return tokens


_NOT = ("!", "^")


def _character_set(content: str) -> str:
    sign = ""
    if content[0] in _NOT:
        sign, content = "^", content[1:]
    # Python has plans for doubled signs in a set, and warns of them.
    escaped = re.sub(r"[\\\[\]^&~|]", r"\\\g<0>", content).replace("--", r"-\-")
    return f"[{sign}{escaped}]"


def _translated(part: str) -> str:
    """The regular expression of a name. Each `*` is settled for good by what follows it: no backtracking."""
    pieces: list[list[str]] = [[]]
    for expression in _tokens(part):
        if expression == "*":
            pieces.append([])
        else:
            pieces[-1].append(expression)
    first, *others = ["".join(piece) for piece in pieces]
    if not others:
        return first
    return first + "".join(f"(?>.*?{piece})" for piece in others[:-1]) + ".*" + others[-1]


def _literal(part: str, *, ignore_case: bool) -> tuple[str, bytes]:
    """The longest run of characters that mean themselves, and where a name has it."""
    runs = [""]
    for expression in _tokens(part):
        character = expression[-1] if _is_character(expression) else ""
        if character and not (ignore_case and not character.isascii()):
            runs[-1] += character
        else:
            runs.append("")
    longest = max(runs, key=len)
    if not longest:
        where = ""
    elif ignore_case:
        where = "any case"
    elif len(runs) == 1:
        where = "whole"
    elif longest in (runs[0], runs[-1]):
        where = "start" if longest == runs[0] else "end"
    else:
        where = "anywhere"
    return where, longest.encode("utf-8", "surrogateescape")


def _is_character(expression: str) -> bool:
    """Whether the regular expression means one character, perhaps escaped."""
    return expression not in (".", "*") and (len(expression) == 1 or expression[0] == "\\")
