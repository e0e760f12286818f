"""The two ends of a backup on one machine, and what they use.

An `End` is a control group of version 2: every process that is started in it and all that those start, also what has
gone to the background or has ended, is counted by the kernel, and can be ended together. `Meter` runs one program at
the client's end and reads what both ends used meanwhile.

Peak memory is each process's high-water mark (VmHWM), looked at fifty times a second: what a process takes in its very
last hundredth of a second may be missed, what it took before is not.
"""

import contextlib
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tools.benchmark.results import Reading

LOOK_EVERY_S = 0.02
END_WITHIN_S = 10

_COMPLAINT_CHARACTERS = 2000
_ENTER = 'echo $$ > "$0/cgroup.procs" && exec "$@"'


class BenchmarkError(Exception):
    """The benchmark cannot go on: what went wrong, in one line or with a program's own words."""


class End:
    """One end: a client or a server."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir()

    def command(self, *arguments: str | Path) -> list[str]:
        """The same command, to be run in this end."""
        return ["/bin/sh", "-c", _ENTER, str(self._directory), *map(str, arguments)]

    def cpu_s(self) -> float:
        """CPU time used so far, user and system, of the living and the dead."""
        for line in (self._directory / "cpu.stat").read_text().splitlines():
            name, _, number = line.partition(" ")
            if name == "usage_usec":
                return int(number) / 1e6
        raise BenchmarkError("This kernel does not count the CPU time of a control group")

    def processes(self) -> list[int]:
        """Who lives in it now."""
        return [int(line) for line in (self._directory / "cgroup.procs").read_text().split()]

    def forget_peaks(self) -> None:
        """Let the high-water marks of what runs already begin anew."""
        for pid in self.processes():
            with contextlib.suppress(OSError):
                Path(f"/proc/{pid}/clear_refs").write_text("5")

    def peak_rss_bytes(self) -> int:
        """The largest high-water mark of those that live now."""
        return max((_high_water_bytes(pid) for pid in self.processes()), default=0)

    def close(self) -> None:
        """End all that lives in it, at once."""
        ends_at = time.monotonic() + END_WITHIN_S
        while self.processes() and time.monotonic() < ends_at:
            for pid in self.processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            # Those that are our own children stay in the group until somebody waits for them.
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG) != (0, 0):
                    pass
            time.sleep(LOOK_EVERY_S)
        self._directory.rmdir()


def _high_water_bytes(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:  # it has ended
        return 0
    _, found, rest = text.partition("VmHWM:")
    return int(rest.split(maxsplit=1)[0]) * 1024 if found else 0


@contextlib.contextmanager
def control_group(name: str) -> Iterator[Path]:
    """A control group of this name to make ends in; they must be closed at the end, and it is gone.

    Raises:
        BenchmarkError: There is no cgroup v2 here, or it cannot be written to.
    """
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        if " - cgroup2 " in line:
            mounted = Path(line.split()[4])
            break
    else:
        raise BenchmarkError("No cgroup v2 is mounted here: mount one, or use a newer system")
    group = mounted / name
    try:
        group.mkdir()
    except OSError as error:
        raise BenchmarkError(f"Cannot make a control group in {mounted}: {error}") from error
    try:
        yield group
    finally:
        group.rmdir()


def wire_bytes() -> int:
    """What loopback of this network namespace has carried so far; each packet counts once."""
    for line in Path("/proc/thread-self/net/dev").read_text().splitlines():
        name, _, counters = line.partition(":")
        if name.strip() == "lo":
            return int(counters.split()[0])
    raise BenchmarkError("There is no loopback here")


def written_s(directory: Path) -> float:
    """Have the file system of a directory write all it holds; how long that took."""
    began = time.perf_counter()
    subprocess.run(["sync", "-f", directory], check=True)
    return time.perf_counter() - began


class _Peaks:
    """Looks at the memory of ends until it is stopped."""

    def __init__(self, ends: Sequence[End]) -> None:
        self._ends = ends
        self._over = threading.Event()
        self._most = 0
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        while not self._over.wait(LOOK_EVERY_S):
            self._most = max(self._most, *(end.peak_rss_bytes() for end in self._ends))

    def stop(self) -> int:
        self._over.set()
        self._thread.join()
        return max(self._most, *(end.peak_rss_bytes() for end in self._ends))


class Meter:
    """Measures programs of a client against one server's end."""

    def __init__(self, client: End, server: End, directory: Path) -> None:
        self._client = client
        self._server = server
        self._directory = directory

    def run(
        self,
        commands: Sequence[Sequence[str | Path]],
        environment: Mapping[str, str],
        directory: Path,
    ) -> tuple[Reading, list[str]]:
        """Run one program, or several at the same time, to their ends.

        Returns:
            What it took, and what each wrote to standard output.

        Raises:
            BenchmarkError: One of them failed.
        """
        written_s(self._directory)
        ends = [self._client, self._server]
        for end in ends:
            end.forget_peaks()
        with contextlib.ExitStack() as stack:
            files = [stack.enter_context(_Output(self._directory)) for _ in commands]
            wires, cpus = wire_bytes(), [end.cpu_s() for end in ends]
            peaks = _Peaks(ends)
            running: list[subprocess.Popen[bytes]] = []
            try:
                began = time.perf_counter()
                for command, output in zip(commands, files, strict=True):
                    running.append(
                        subprocess.Popen(
                            self._client.command(*command),
                            cwd=directory,
                            env=dict(environment),
                            stdin=subprocess.DEVNULL,
                            stdout=output.out,
                            stderr=output.err,
                        )
                    )
                codes = [process.wait() for process in running]
                wall_s = time.perf_counter() - began
            finally:
                most = peaks.stop()
                for process in running:
                    process.kill()  # does nothing to one that was waited for
                    process.wait()
            carried = wire_bytes() - wires
            sync_s = written_s(self._directory)
            # A server may be busy a moment longer than its client.
            used = [end.cpu_s() - before for end, before in zip(ends, cpus, strict=True)]
            for command, code, output in zip(commands, codes, files, strict=True):
                if code != 0:
                    raise BenchmarkError(f"{command} ended with {code}:\n{output.complaint()}")
            texts = [output.text() for output in files]
        return Reading(wall_s, sync_s, used[0], used[1], most, carried), texts


class _Output:
    """What a program writes, in files: a pipe would have to be read meanwhile."""

    def __init__(self, directory: Path) -> None:
        self.out = tempfile.TemporaryFile("w+", dir=directory)  # noqa: SIM115
        self.err = tempfile.TemporaryFile("w+", dir=directory)  # noqa: SIM115

    def __enter__(self) -> "_Output":
        return self

    def __exit__(self, *_: object) -> None:
        self.out.close()
        self.err.close()

    def text(self) -> str:
        """What it wrote to standard output."""
        self.out.seek(0)
        return self.out.read()

    def complaint(self) -> str:
        """The end of what it wrote to standard error, and to standard output."""
        self.err.seek(0)
        return (self.err.read() + self.text())[-_COMPLAINT_CHARACTERS:]
