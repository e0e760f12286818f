"""A whole run: places, servers and tools are set up, measured in turn, and taken down again."""

import contextlib
import dataclasses
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tools.benchmark.dataset import build, remove
from tools.benchmark.ends import BenchmarkError, End, Meter, control_group
from tools.benchmark.figures import OURS, cell
from tools.benchmark.machine import SshServer, settle
from tools.benchmark.registry import TOOLS
from tools.benchmark.results import Cell, Dataset, Reading
from tools.benchmark.steps import Bench, Step, unmount
from tools.benchmark.tool import Site, Tool

UNTOUCHED_S = 3
"""A file that was changed a moment ago is read again by every tool that knows how coarse clocks are."""


def say(text: str) -> None:
    """Tell how it goes, on standard error."""
    print(text, file=sys.stderr, flush=True)


@dataclasses.dataclass(frozen=True)
class Ground:
    """What a run stands on.

    Attributes:
        directory: For everything; on a real disk.
        clients: The client's end of each tool: one's mount is not counted for another.
        servers: The server's end of each tool, for the same reason.
        ssh: The command by which each tool but ours reaches its server.
    """

    directory: Path
    clients: dict[str, End]
    servers: dict[str, End]
    ssh: dict[str, Sequence[str]]

    def meter(self, tool: str) -> Meter:
        """Measures a tool."""
        return Meter(self.clients[tool], self.servers[tool], self.directory)

    def site(self, tool: str, place: str) -> Site:
        """Where a tool works, in a directory of this name."""
        return Site(
            self.directory / place, self.clients[tool], self.servers[tool], self.ssh.get(tool, ())
        )


@contextlib.contextmanager
def ground(directory: Path) -> Iterator[Ground]:
    """Both ends and an sshd for each tool, in the namespaces of this process; nothing is left running."""
    with contextlib.ExitStack() as stack:
        group = stack.enter_context(control_group(directory.name))

        def end(name: str) -> End:
            made = End(group / name)
            stack.callback(made.close)
            return made

        clients = {name: end(f"client-of-{name}") for name in TOOLS}
        servers = {name: end(f"server-of-{name}") for name in TOOLS}
        ssh = {
            name: SshServer(directory / f"ssh-{name}", servers[name]).command
            for name in TOOLS
            if name != OURS
        }
        yield Ground(directory, clients, servers, ssh)


@contextlib.contextmanager
def tools_at(place: Ground, names: Sequence[str], label: str) -> Iterator[list[Tool]]:
    """Tools with empty stores, which are gone afterwards."""
    tools: list[Tool] = []
    with contextlib.ExitStack() as stack:
        for name in names:
            site = place.site(name, f"{name}-{label}")
            stack.callback(remove, site.directory)
            tool = TOOLS[name](site)
            tool.prepare()
            stack.callback(tool.close)
            tools.append(tool)
        yield tools


def warm_up(place: Ground, names: Sequence[str]) -> None:
    """Let each tool back up a tiny tree: its program is in memory from then on."""
    tiny = place.directory / "tiny"
    build(tiny, files=20, big_mb=1)
    with tools_at(place, names, "warm-up") as tools:
        for tool in tools:
            for _ in range(2):
                place.meter(tool.name).run([tool.backup(tiny)], tool.environment, tiny)
    remove(tiny)


class Round:
    """Does the steps as often as asked for, the tools in turn, each time another one first.

    Attributes:
        readings: What was measured, by step and tool.
        failures: What went wrong: a tool that failed a step, or did not do its work, has no reading of it.
    """

    def __init__(self, place: Ground, names: Sequence[str], steps: Sequence[Step]) -> None:
        self._place = place
        self._names = names
        self._steps = steps
        self.readings: dict[tuple[str, str], list[Reading]] = {}
        self.failures: list[str] = []

    def run(self, repetition: int, *, is_quick: bool) -> None:
        """Do all steps once. What steps throw away is deleted after the last of them (see `settle`)."""
        place = self._place
        if not is_quick:
            settle(place.directory / "source")
        with tools_at(place, self._names, str(repetition)) as tools:
            first = repetition % len(tools)
            meters = {name: place.meter(name) for name in self._names}
            source = place.directory / "source"
            bench = Bench(place.directory, source, meters, repetition, is_quick)
            try:
                for step in self._steps:
                    if step.edit is not None:
                        step.edit(source, repetition)
                        time.sleep(UNTOUCHED_S)
                    for tool in (*tools[first:], *tools[:first]):
                        self._act(step, bench, tool)
            finally:
                _tidy(bench, tools)

    def _act(self, step: Step, bench: Bench, tool: Tool) -> None:
        label = f"{bench.repetition + 1}: {step.name:16} {tool.name:7}"
        try:
            reading = step.act(bench, tool)
        except BenchmarkError as error:
            self.failures.append(f"{tool.name}, {step.name}: {error}")
            say(f"  {label} FAILED: {error}")
            return
        if reading is not None:
            say(f"  {label} {reading.wall_s:8.2f} s")
            self.readings.setdefault((step.name, tool.name), []).append(reading)

    def cells(self, wanted: Sequence[str]) -> dict[str, dict[str, Cell]]:
        """Medians by step and tool, of the wanted steps."""
        found: dict[str, dict[str, Cell]] = {}
        for (step, tool), readings in self.readings.items():
            if step in wanted:
                found.setdefault(step, {})[tool] = cell(readings)
        return found


def _tidy(bench: Bench, tools: Sequence[Tool]) -> None:
    for tool in tools:
        unmount(bench, tool)
        remove(bench.restored(tool))
    remove(bench.aside)


def prepare_source(place: Ground, files: int, big_mb: int) -> Dataset:
    """Build the tree to back up, and let a moment pass."""
    dataset = build(place.directory / "source", files, big_mb)
    time.sleep(UNTOUCHED_S)
    return dataset
