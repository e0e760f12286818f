"""Commands of ssfs, each in a process of its own that is forked from one in which all modules are loaded.

That process is what `ssfs` is once Python has started: exit codes, signals, descriptors and what
becomes of the process are the real ones, a third of a second sooner. What is about the start itself, about terminals
or about another user starts `python -m ssfs` (`tests.cli.support`).
"""

import multiprocessing
import os
import pathlib
import sys
import time
from collections.abc import Sequence
from multiprocessing.reduction import DupFd
from typing import NamedTuple

import ssfs.cli

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    [
        f"ssfs.cli.{path.stem}"
        for path in sorted(pathlib.Path(ssfs.cli.__path__[0]).glob("*.py"))
        if path.stem != "__init__"
    ]
)


class Finished(NamedTuple):
    """What a command left behind."""

    code: int
    out: bytes
    err: bytes


def run_command(
    arguments: Sequence[str | bytes | os.PathLike],
    *,
    timeout_s: float,
    environment: dict[str, str] | None = None,
    directory: str | os.PathLike | None = None,
) -> Finished:
    """Run `ssfs ARGUMENTS`, with nothing on stdin; what is wrong with it is in the result, as for subprocess.

    Raises:
        TimeoutError: It took longer; it was killed.
    """
    descriptors = [os.memfd_create(name, os.MFD_CLOEXEC) for name in ("stdout", "stderr")]
    try:
        process = _context.Process(
            target=_Command(
                [os.fsdecode(argument) for argument in arguments],
                dict(os.environ) if environment is None else environment,
                os.fspath(directory or os.getcwd()),
                descriptors,
            )
        )
        process.start()
        process.join(timeout_s)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise TimeoutError(arguments)
        code = process.exitcode
        process.close()
        return Finished(code, *map(_content, descriptors))
    finally:
        for fd in descriptors:
            os.close(fd)


class _Command:
    """What the process does; it travels there."""

    def __init__(
        self, arguments: list[str], environment: dict[str, str], directory: str, outputs: list[int]
    ) -> None:
        self._arguments = arguments
        self._environment = environment
        self._directory = directory
        self._outputs = outputs

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_outputs": [DupFd(fd) for fd in self._outputs]}

    def __call__(self) -> None:
        from ssfs.cli.main import main

        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        for standard, output in enumerate(self._outputs, 1):
            fd = output.detach()
            os.dup2(fd, standard)
            os.close(fd)
        os.chdir(self._directory)
        os.environ.clear()
        os.environ.update(self._environment)
        time.tzset()
        sys.argv = ["ssfs", *self._arguments]
        sys.exit(main())


def _content(fd: int) -> bytes:
    return os.pread(fd, os.fstat(fd).st_size, 0)
