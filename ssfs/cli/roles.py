"""Roles of clients as they are written on the command line: `backup,restore`."""

from ssfs.errors import ConfigError
from ssfs.model.peer import Role


def parse_roles(texts: tuple[str, ...]) -> frozenset[Role]:
    """The roles that the values of `--role` name together.

    Raises:
        ConfigError: One is none.
    """
    names = [name.strip() for text in texts for name in text.split(",")]
    try:
        return frozenset(map(Role, names))
    except ValueError:
        raise ConfigError(
            f"Unknown role in {','.join(names)!r}", remedy=f"use {', '.join(Role)}"
        ) from None
