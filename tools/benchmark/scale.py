"""How time and memory grow: with the entries of one tree, and with clients that come at the same time.

The trees are of tiny files, so that it is entries that count. Each client has a tree and a task or directory of its own;
all of them reach one server. A crowd is measured as one: from the first start to the last end.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from tools.benchmark.dataset import build_counted, entries, remove
from tools.benchmark.ends import BenchmarkError
from tools.benchmark.figures import cell
from tools.benchmark.machine import settle
from tools.benchmark.results import Reading, ScalePoint
from tools.benchmark.running import Ground, say, tools_at
from tools.benchmark.steps import allocated_bytes
from tools.benchmark.tool import Tool

SIZES = (10_000, 100_000, 1_000_000)
CROWDS = (1, 2, 4, 8)
CROWD_ENTRIES = 10_000
STEPS = ("initial", "nothing")


def measure(
    place: Ground, names: Sequence[str], *, most_entries: int, repeat: int
) -> Iterator[ScalePoint]:
    """Measure all sizes up to `most_entries`, then all crowds."""
    sizes = [size for size in SIZES if size <= most_entries] or [most_entries]
    shapes = [(size, 1) for size in sizes]
    shapes += [(min(CROWD_ENTRIES, most_entries), clients) for clients in CROWDS]
    for size, clients in dict.fromkeys(shapes):
        sources = [place.directory / f"source-{number}" for number in range(clients)]
        try:
            for source in sources:
                build_counted(source, size)
            yield from _at_size(place, names, sources, repeat)
        finally:
            for source in sources:
                remove(source)


def _at_size(
    place: Ground, names: Sequence[str], sources: Sequence[Path], repeat: int
) -> Iterator[ScalePoint]:
    size = entries(sources[0])
    found: dict[tuple[str, str], list[Reading]] = {}
    for repetition in range(repeat):
        settle(*sources)
        with tools_at(place, names, f"scale-{repetition}") as tools:
            for tool in tools:
                crowd = [tool, *(tool.member(number) for number in range(1, len(sources)))]
                for step in STEPS:
                    reading = _together(place, crowd, sources)
                    say(
                        f"  {size} entries, {len(crowd)} at once: {step:8} {tool.name:7} "
                        f"{reading.wall_s:8.2f} s, {reading.peak_rss_bytes / 1e6:.0f} MB"
                    )
                    found.setdefault((tool.name, step), []).append(reading)
    for (name, step), readings in found.items():
        yield ScalePoint(name, step, size, len(sources), cell(readings))


def _together(place: Ground, crowd: Sequence[Tool], sources: Sequence[Path]) -> Reading:
    """Each makes its next version at the same time; each must have all entries of its source."""
    name = crowd[0].name
    stores = list(dict.fromkeys(tool.store for tool in crowd))
    before = sum(allocated_bytes(store) for store in stores)
    commands = [
        ("env", "-C", source, *_settings(tool), *tool.backup(source))
        for tool, source in zip(crowd, sources, strict=True)
    ]
    reading, texts = place.meter(name).run(commands, crowd[0].environment, place.directory)
    for tool, source, said in zip(crowd, sources, texts, strict=True):
        there, expected = tool.entries_of(tool.versions, said), entries(source)
        if there != expected:
            raise BenchmarkError(f"{name} has {there} entries in its version, not {expected}")
    grown = sum(allocated_bytes(store) for store in stores) - before
    return msgspec.structs.replace(reading, store_bytes=grown)


def _settings(tool: Tool) -> list[str]:
    """What is in this tool's environment, as arguments of env(1)."""
    return [f"{name}={setting}" for name, setting in tool.environment.items()]
