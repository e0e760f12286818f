"""`--pre-command` and `--post-command` of a sync: a snapshot is made before it and removed after it.

Both run through the shell, with what they need to know in the environment. Their output goes to standard error:
standard output is the sync's own. The post-command runs whatever happened, so that no snapshot stays
behind.
"""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import msgspec

from ssfs.cli.exit_codes import ExitCode, exit_code_of
from ssfs.cli.output import complain
from ssfs.errors import SourceError, SsfsError


class Outcome(msgspec.Struct):
    """How a run ends, as its post-command is told it.

    Attributes:
        code: Exit code so far.
        version: Id of the version that was made; "" for none.
        post_failed: The post-command failed.
    """

    code: ExitCode = ExitCode.DONE
    version: str = ""
    post_failed: bool = False


@contextlib.contextmanager
def commands_around(
    pre: str | None, post: str | None, source: bytes, location: bytes
) -> Iterator[Outcome]:
    """Run one command before the block and one after it.

    Args:
        pre: Shell command; None for none.
        post: Likewise. It runs too if `pre` or the block failed or was interrupted.
        source: SSFS_SOURCE of both, made absolute.
        location: SSFS_LOCATION of both.

    Yields:
        What the post-command is told (SSFS_STATUS, SSFS_VERSION); the block fills it in.

    Raises:
        SourceError: The pre-command failed.
    """
    environment = {
        **os.environb,
        b"SSFS_SOURCE": os.path.abspath(source),
        b"SSFS_LOCATION": location,
    }
    outcome = Outcome()
    try:
        if pre is not None:
            _prepare(pre, environment)
        yield outcome
    except BaseException as error:
        outcome.code = _code_of(error)
        raise
    finally:
        if post is not None:
            environment[b"SSFS_STATUS"] = b"%d" % outcome.code
            environment[b"SSFS_VERSION"] = outcome.version.encode()
            if status := _run(post, environment):
                outcome.post_failed = True
                complain(f"The post-command failed ({_status_text(status)}): {post!r}")


def _prepare(command: str, environment: dict[bytes, bytes]) -> None:
    if status := _run(command, environment):
        raise SourceError(
            f"The pre-command failed ({_status_text(status)}), no version was made",
            path=os.fsencode(command),
        )


def _run(command: str, environment: dict[bytes, bytes]) -> int:
    """A shell command's exit status; negative: the signal that ended it."""
    sys.stdout.flush()
    sys.stderr.flush()
    with subprocess.Popen(  # noqa: S602  # a shell command line is what was asked for
        command,
        shell=True,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        env=environment,
        process_group=0,
    ) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            # With all it has started; it may undo what it began, leaving the block waits for it.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            raise


def _status_text(status: int) -> str:
    return f"exit status {status}" if status > 0 else f"ended by signal {-status}"


def _code_of(error: BaseException) -> ExitCode:
    match error:
        case SsfsError():
            return exit_code_of(error)
        case KeyboardInterrupt():
            return ExitCode.INTERRUPTED
        case _:
            return ExitCode.BUG
