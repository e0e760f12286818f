"""What is left out: gitignore-style patterns (pathspec), cache directories, other file systems."""

import os
from typing import TYPE_CHECKING

import msgspec

from ssfs.errors import ConfigError

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

_CACHE_TAG = b"CACHEDIR.TAG"
_CACHE_SIGNATURE = b"Signature: 8a477f597d28d172789f06886806bc55"


class ExcludeOptions(msgspec.Struct, frozen=True):
    """What the user asked to leave out.

    Attributes:
        patterns: Gitignore-style, relative to the source's root; later ones win.
        one_file_system: Do not go into directories of other file systems.
        caches: Of directories marked by a CACHEDIR.TAG (bford.info/cachedir), keep only the mark.
    """

    patterns: tuple[str, ...] = ()
    one_file_system: bool = False
    caches: bool = False


class Excluder:
    """Decides for each path whether it is left out."""

    def __init__(self, options: ExcludeOptions) -> None:
        """Compile the patterns.

        Raises:
            ConfigError: One cannot be understood.
        """
        self.options = options
        self.has_patterns = bool(options.patterns)
        self._spec = _compiled(options.patterns) if options.patterns else None

    def is_excluded(self, path: bytes, *, is_directory: bool) -> bool:
        """Whether a pattern leaves out this path (below the source's root)."""
        if self._spec is None:
            return False
        text = os.fsdecode(path)
        return self._spec.match_file(text + "/" if is_directory else text)

    def keep_in_cache(self, names: list[bytes], fd: int) -> list[bytes]:
        """The names to keep of a directory: all, or the mark alone if it is marked as a cache."""
        if not self.options.caches or _CACHE_TAG not in names:
            return names
        try:
            tag = os.open(_CACHE_TAG, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=fd)
        except OSError:
            return names
        try:
            marked = os.read(tag, len(_CACHE_SIGNATURE)) == _CACHE_SIGNATURE
        except OSError:
            marked = False
        finally:
            os.close(tag)
        return [_CACHE_TAG] if marked else names


def _compiled(patterns: tuple[str, ...]) -> "GitIgnoreSpec":
    # A twentieth of the start-up of a sync that leaves nothing out.
    from pathspec import GitIgnoreSpec  # noqa: PLC0415

    try:
        return GitIgnoreSpec.from_lines(patterns)
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"Exclude pattern cannot be understood ({error})",
            remedy="patterns are written as in a .gitignore file",
        ) from error


def read_pattern_file(path: bytes) -> list[str]:
    """The patterns in a file, one a line; empty lines and lines with `#` first do nothing.

    Raises:
        ConfigError: It cannot be read.
    """
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as lines:
            return [line.rstrip("\n") for line in lines]
    except OSError as error:
        raise ConfigError(
            f"Pattern file cannot be read ({error.strerror})", path=path, remedy="--exclude-from"
        ) from error
