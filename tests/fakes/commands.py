"""Commands of ssfs, each in a process of its own that is forked from one in which all modules are loaded.

That process is what `ssfs` is once Python has started: exit codes, signals, descriptors and what
becomes of the process are the real ones, a third of a second sooner. What is about the start itself, about terminals
or about another user starts `python -m ssfs` (`tests.cli.support`).
"""

import multiprocessing
import multiprocessing.process
import os
import pathlib
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
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
_starting = threading.Lock()


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
    with Running(arguments, environment=environment, directory=directory) as process:
        try:
            code = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise TimeoutError(arguments) from None
        return Finished(code, *process.output())


class Running:
    """`ssfs ARGUMENTS` in a process that goes on, with nothing on stdin; to be used as `subprocess.Popen`.

    Attributes:
        args: The arguments.
        pid: Of the process, whose parent is another one.
    """

    def __init__(
        self,
        arguments: Sequence[str | bytes | os.PathLike],
        *,
        environment: dict[str, str] | None = None,
        directory: str | os.PathLike | None = None,
        before: Callable[[], object] | None = None,
        program: Callable[[], object] | None = None,
        start_new_session: bool = False,
    ) -> None:
        """Start it.

        Args:
            arguments: Of the command.
            environment: Instead of this process's.
            directory: Where it runs, instead of where this process is.
            before: What the process does first; it is pickled.
            program: What it does instead of `ssfs`; pickled, too.
            start_new_session: As for `subprocess.Popen`.
        """
        self._held: list[int] = []
        self._code: int | None = None
        self._said: tuple[str, str] | None = None
        self.args = [os.fsdecode(argument) for argument in arguments]
        self._outputs = [os.memfd_create(name, os.MFD_CLOEXEC) for name in ("stdout", "stderr")]
        # Held by the process and all its forks: it reads as ended when the last of them has.
        self._alive, held = os.pipe()
        self._held += [*self._outputs, self._alive]
        steps = [os.setsid] if start_new_session else []
        steps += [before] if before is not None else []
        steps.append(program or _main)
        try:
            self._process = _context.Process(
                target=_Command(
                    self.args,
                    dict(os.environ) if environment is None else environment,
                    os.fspath(directory or os.getcwd()),
                    [*self._outputs, held],
                    steps,
                )
            )
            # multiprocessing asks all it knows of whether they have ended when another one starts:
            # two threads that ask take the answer from each other.
            with _starting:
                self._process.start()
                multiprocessing.process._children.discard(self._process)
        except BaseException:
            self._close()
            raise
        finally:
            os.close(held)
        self.pid: int = self._process.pid

    def __del__(self) -> None:
        self._close()

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *_: object) -> None:
        if self.poll() is None:
            self.kill()
            self.wait()
        self._close()

    def _close(self) -> None:
        while self._held:
            os.close(self._held.pop())

    @property
    def returncode(self) -> int | None:
        """The exit code; None while it runs."""
        return self.poll()

    def poll(self) -> int | None:
        if self._code is None and (code := self._process.exitcode) is not None:
            self._code = code
            self._process.close()
        return self._code

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended, its forks or not; the exit code.

        Raises:
            subprocess.TimeoutExpired: It has not.
        """
        if self._code is None:
            self._process.join(timeout)
        code = self.poll()
        if code is None:
            assert timeout is not None
            raise subprocess.TimeoutExpired(self.args, timeout)
        return code

    def send_signal(self, number: int) -> None:
        """Nothing happens if it has ended: its number may be another's."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def output(self) -> tuple[bytes, bytes]:
        """What it has written to stdout and stderr so far."""
        out, err = (os.pread(fd, os.fstat(fd).st_size, 0) for fd in self._outputs)
        return out, err

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait until it and its forks have ended; all its output.

        Raises:
            subprocess.TimeoutExpired: They have not.
        """
        if self._said is not None:
            return self._said
        alive = select.poll()
        alive.register(self._alive, select.POLLIN)
        if not alive.poll(None if timeout is None else timeout * 1000):
            assert timeout is not None
            raise subprocess.TimeoutExpired(self.args, timeout)
        self.wait()
        out, err = (text.decode(errors="surrogateescape") for text in self.output())
        self._close()
        self._said = out, err
        return self._said


class _Command:
    """What the process does; it travels there."""

    def __init__(
        self,
        arguments: list[str],
        environment: dict[str, str],
        directory: str,
        descriptors: list[int],
        steps: list[Callable[[], object]],
    ) -> None:
        self._arguments = arguments
        self._environment = environment
        self._directory = directory
        self._descriptors = descriptors
        self._steps = steps

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_descriptors": [DupFd(fd) for fd in self._descriptors]}

    def __call__(self) -> None:
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        *outputs, held = (one.detach() for one in self._descriptors)
        os.set_inheritable(held, False)
        for standard, fd in enumerate(outputs, 1):
            os.dup2(fd, standard)
            os.close(fd)
        os.chdir(self._directory)
        os.environ.clear()
        os.environ.update(self._environment)
        time.tzset()
        sys.argv = ["ssfs", *self._arguments]
        *before, program = self._steps
        for step in before:
            step()
        sys.exit(program())


def _main() -> int:
    from ssfs.cli.main import main

    return main()
