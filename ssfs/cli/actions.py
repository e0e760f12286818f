"""The list of what a dry run would do: on the disk until it is printed, for it may be as long as the version."""

import tempfile
from collections.abc import Iterator
from typing import IO

import msgspec

from ssfs.cli.output import path_text
from ssfs.engine.restore.options import Action
from ssfs.errors import ConfigError

_MEMORY_BYTES = 1 << 20


class ActionLine(msgspec.Struct, frozen=True):
    """An action as JSON."""

    action: Action
    path: str


class ActionList:
    """Actions in the order they were said."""

    def __init__(self) -> None:
        # Closed by `close`.
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(_MEMORY_BYTES)  # noqa: SIM115

    def add(self, action: Action, path: bytes) -> None:
        """One more.

        Raises:
            ConfigError: There is no room for it.
        """
        try:
            self._file.write(msgspec.json.encode(ActionLine(action, path_text(path))) + b"\n")
        except OSError as error:
            raise ConfigError(
                f"The list of actions cannot be kept ({(error.strerror or '').lower()})",
                remedy="set TMPDIR to a directory with more room",
            ) from error

    def encoded(self) -> Iterator[bytes]:
        """Each as JSON."""
        self._file.seek(0)
        for line in self._file:
            yield line.rstrip(b"\n")

    def lines(self) -> Iterator[ActionLine]:
        """Each."""
        return (msgspec.json.decode(line, type=ActionLine) for line in self.encoded())

    def close(self) -> None:
        """Forget them."""
        self._file.close()
