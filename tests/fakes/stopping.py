"""A disk that stops: at the Nth call that changes it, and for good."""

import contextlib
import os
from collections.abc import Iterator

import pytest

_CALLS = ("rename", "unlink", "rmdir", "fsync", "write", "mkdir")


@contextlib.contextmanager
def stopped_at(number: int) -> Iterator[None]:
    """Let that call, and all after it, fail with EIO: nothing more reaches the disk."""
    made = 0

    def counted(name: str):
        real = getattr(os, name)

        def call(*arguments, **options):
            nonlocal made
            made += 1
            if made >= number:
                raise OSError(5, "stopped")
            return real(*arguments, **options)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in _CALLS:
            patch.setattr(os, name, counted(name))
        yield
