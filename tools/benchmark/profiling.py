"""Where a step's time goes at each end: `tools/profile STEP`.

The step is done twice on the benchmark's tree, each time in a history of its own. Once under py-spy, which looks at the
stacks of both processes two hundred times a second; only what runs is counted, not what waits. Once under
`strace -c -f`, which counts system calls and slows everything down: its counts are right, its times only say what is
large.
"""

import argparse
import contextlib
import dataclasses
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from typing_extensions import override

from tools.benchmark import machine
from tools.benchmark.dataset import entries, workplace
from tools.benchmark.ends import BenchmarkError
from tools.benchmark.figures import OURS
from tools.benchmark.installation import install_packages, install_python
from tools.benchmark.ours import Ssfs
from tools.benchmark.rivals import Rsync
from tools.benchmark.running import UNTOUCHED_S, Ground, ground, prepare_source, say
from tools.benchmark.steps import STEPS, Bench, Step, needed, unmount
from tools.benchmark.tool import Command

RATE = 200
SHOWN = 25
INSTRUMENTS = ("py-spy", "strace")
ATTACH_WITHIN_S = 30

WAITS = ("EpollIOManager.get_events ", "WorkerThread._work ", "Channel._wait_to_send ")
"""Functions that py-spy may count as running while they wait for a descriptor or a lock."""

NO_FRAME = "(no Python frame)"

_CALL = re.compile(r"^\s*[\d.]+\s+([\d.]+)\s+\d+\s+(\d+)\s+(?:\d+\s+)?(\w+)$", re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Spent:
    """What one function took.

    Attributes:
        function: Its name and file.
        own: Samples in it.
        total: Samples in it and what it called.
    """

    function: str
    own: int
    total: int


def spent(folded: str) -> list[Spent]:
    """Sum up stacks, one a line: frames from the outermost on, joined by `;`, and a number of samples.

    Those that end in one of WAITS are left out.

    Returns:
        Every function, that with most samples of its own first.
    """
    own: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for line in folded.splitlines():
        stack, _, number = line.rpartition(" ")
        frames = (stack or NO_FRAME).split(";")
        if frames[-1].startswith(WAITS):
            continue
        own[frames[-1]] += int(number)
        for frame in set(frames):
            total[frame] += int(number)
    found = [Spent(frame, own[frame], total[frame]) for frame in total]
    return sorted(found, key=lambda each: (-each.own, -each.total, each.function))


def calls(summary: str) -> dict[str, tuple[int, float]]:
    """What `strace -c` counted: number and seconds of each system call, the most frequent first."""
    found = {name: (int(count), float(took)) for took, count, name in _CALL.findall(summary)}
    found.pop("total", None)
    return dict(sorted(found.items(), key=lambda each: -each[1][0]))


class _Watched(Ssfs):
    """ssfs with a client that runs under an instrument, once one is set."""

    instrument: Command = ()

    @override
    def backup(self, source: Path) -> Command:
        return (*self.instrument, *super().backup(source))

    @override
    def entries_of(self, version: int, said: str) -> int:
        # An instrument may have said something before it.
        return super().entries_of(version, said[said.index("{") :].partition("\n")[0])

    @override
    def restore(self, target: Path) -> Command:
        return (*self.instrument, *super().restore(target))

    @override
    def expire(self, version: int) -> Command:
        return (*self.instrument, *super().expire(version))


def _client(instrument: str, out: Path) -> Command:
    if instrument == "strace":
        return ("strace", "-c", "-f", "-o", out)
    return ("py-spy", "record", "-r", str(RATE), "-F", "-f", "raw", "-o", out, "--")


def _server(instrument: str, out: Path, pid: int) -> Command:
    if instrument == "strace":
        return ("strace", "-c", "-f", "-o", out, "-p", str(pid))
    how = ("-r", str(RATE), "-F", "-d", "unlimited", "-f", "raw")
    return ("py-spy", "record", *how, "-o", out, "-p", str(pid))


@contextlib.contextmanager
def _attached(command: Command) -> Iterator[None]:
    """An instrument on a running process, until the block ends."""
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        try:
            time.sleep(1)  # neither says when it has begun
            if process.poll() is not None:
                said = process.stdout.read().decode() if process.stdout else ""
                raise BenchmarkError(f"{command[0]} does not run here: {said}")
            yield
        finally:
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(ATTACH_WITHIN_S)
            process.kill()


def profile(place: Ground, step: Step, instrument: str) -> dict[str, str]:
    """Do a step under an instrument, and what it needs without.

    Returns:
        What the instrument wrote, of client and server.
    """
    source = place.directory / "source"
    outs = {end: place.directory / f"{instrument}-{end}" for end in ("client", "server")}
    tool = _Watched(place.site(OURS, f"ssfs-{instrument}"))
    seed = INSTRUMENTS.index(instrument)
    bench = Bench(place.directory, source, {OURS: place.meter(OURS)}, seed, is_quick=True)
    with contextlib.ExitStack() as stack:
        tool.prepare()
        stack.callback(tool.close)
        stack.callback(unmount, bench, tool)
        for each in needed([step.name]):
            if each.edit is not None:
                each.edit(source, seed)
                time.sleep(UNTOUCHED_S)
            if each is not step:
                each.act(bench, tool)
        tool.instrument = _client(instrument, outs["client"])
        with _attached(_server(instrument, outs["server"], tool.server_pid)):
            reading = step.act(bench, tool)
    if reading is not None:
        say(f"{step.name} under {instrument}: {reading.wall_s:.2f} s")
    return {end: out.read_text() if out.exists() else "" for end, out in outs.items()}


def _shown(instrument: str, end: str, text: str, count: int) -> Iterator[str]:
    yield f"\n== {end}, {instrument}"
    if instrument == "strace":
        yield "    calls  per entry   seconds  system call"
        for name, (number, took) in list(calls(text).items())[:SHOWN]:
            yield f"{number:9} {number / count:10.2f} {took:9.3f}  {name}"
        return
    found = spent(text)
    samples = max(1, sum(each.own for each in found))
    yield f"{samples / RATE:.2f} s of running; own and total in per cent of it"
    by_total = sorted(found, key=lambda each: -each.total)
    for each in sorted({*found[:SHOWN], *by_total[:SHOWN]}, key=found.index):
        own, total = each.own / samples, each.total / samples
        yield f"{own:7.1%} {total:7.1%}  {each.function}"


def main(arguments: Sequence[str]) -> int:
    """Profile what was asked for; the exit code."""
    names = [step.name for step in STEPS if not step.name.startswith("mount")]
    parser = argparse.ArgumentParser(prog="tools/profile", description=__doc__)
    parser.add_argument("step", choices=names, metavar="STEP", help=", ".join(names))
    parser.add_argument("--files", type=int, default=20_000, help="small files (%(default)s)")
    parser.add_argument(
        "--big", type=int, default=200, metavar="MB", help="large ones (%(default)s)"
    )
    parser.add_argument("--dir", type=Path, help="work below this directory (/var/tmp)")
    options = parser.parse_args(arguments)
    step = next(each for each in STEPS if each.name == options.step)
    try:
        with (
            machine.terminable(),
            workplace(options.dir) as directory,
        ):
            install_packages([*Rsync.packages, "strace"])
            install_python("py-spy")
            machine.isolate()
            with ground(directory) as place:
                prepare_source(place, options.files, options.big)
                count = entries(place.directory / "source")
                for instrument in INSTRUMENTS:
                    for end, text in profile(place, step, instrument).items():
                        print("\n".join(_shown(instrument, end, text, count)), flush=True)
    except BenchmarkError as error:
        say(f"profile: {error}")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
