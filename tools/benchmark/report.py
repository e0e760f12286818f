"""The tables that are printed: what was measured, the promises, and growth. Markdown, to be pasted.

`python -m tools.benchmark.report RESULTS.json` prints them again; with `--summary` the short one of README.md.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from tools.benchmark.figures import OURS, YARDSTICK, ratio
from tools.benchmark.results import Cell, Limits, Results, ScalePoint, Verdict, read


def text(results: Results) -> str:
    """All there is to say about a run."""
    return "\n".join(_lines(results)) + "\n"


def summary(results: Results) -> str:
    """A line for each step: what ssfs took, and what part of the others' that is."""
    rivals = [name for name in results.versions if name != OURS]
    columns = ["step", "wall", *(f"to {name}" for name in rivals), "wire"]
    columns += [
        *(f"to {name}" for name in rivals),
        "peak memory",
        *(f"to {name}" for name in rivals),
    ]
    lines = [f"| {' | '.join(columns)} |", f"| --- |{' --: |' * (len(columns) - 1)}"]
    for step, cells in results.steps.items():
        if (ours := cells.get(OURS)) is None:
            continue
        said = [step]
        for measure, shown in (
            ("wall", seconds(ours.median.wall_s)),
            ("wire", size(ours.median.wire_bytes)),
            ("rss", size(ours.median.peak_rss_bytes)),
        ):
            said += [shown, *(_ratio(ratio(ours, cells.get(name), measure)) for name in rivals)]
        lines.append(f"| {' | '.join(said)} |")
    return "\n".join(lines) + "\n"


def _lines(results: Results) -> Iterator[str]:
    machine = results.machine
    memory_gb = machine.memory_bytes / 1e9
    yield (
        f"{results.date}, {machine.cpus} CPUs ({machine.cpu_model}), {memory_gb:.0f} GB, "
        f"{machine.file_system}, Linux {machine.kernel}, Python {machine.python}; "
        f"load before: {machine.load_before:.1f}"
    )
    yield f"{', '.join(results.versions.values())}; medians of {results.repeat}"
    if results.dataset is not None:
        yield (
            f"{results.dataset.small_files} small files ({size(results.dataset.small_bytes)}), "
            f"{size(results.dataset.big_bytes)} of large ones, {results.dataset.entries} entries"
        )
    if results.steps:
        yield ""
        yield from _table(results)
    if results.limits is not None:
        yield ""
        yield _limits(results.limits)
    if results.scale:
        yield ""
        yield from _growth(results.scale)
    yield ""
    yield from _targets(results.targets)
    for failure in results.failures:
        yield f"FAILED: {failure}"


def _table(results: Results) -> Iterator[str]:
    yield (
        f"| step | tool | wall | to {YARDSTICK} | with sync | CPU client + server | peak RSS "
        f"| wire | to {YARDSTICK} | store |"
    )
    yield "| --- | --- | --: | --: | --: | --: | --: | --: | --: | --: |"
    for step, cells in results.steps.items():
        for tool, each in cells.items():
            yield _row(step, tool, each, cells.get(YARDSTICK))


def _row(step: str, tool: str, each: Cell, yardstick: Cell | None) -> str:
    median = each.median
    stored = "" if median.store_bytes is None else size(median.store_bytes)
    columns = [
        *(step, tool, seconds(median.wall_s), _ratio(ratio(each, yardstick, "wall"))),
        seconds(median.wall_s + median.sync_s),
        f"{median.client_cpu_s:.2f} + {median.server_cpu_s:.2f} s",
        *(size(median.peak_rss_bytes), size(median.wire_bytes)),
        *(_ratio(ratio(each, yardstick, "wire")), stored),
    ]
    return f"| {' | '.join(columns)} |"


def _limits(limits: Limits) -> str:
    return (
        f"Without a backup tool: cp -al {seconds(limits.hard_link_copy_s)}, cp -a and AES-256-GCM "
        f"{seconds(limits.encrypted_copy_s)}, scandir and stat {seconds(limits.walk_s)}."
    )


def _growth(points: Sequence[ScalePoint]) -> Iterator[str]:
    yield "| entries | clients | tool | step | wall | CPU client + server | peak RSS | wire | store |"
    yield "| --: | --: | --- | --- | --: | --: | --: | --: | --: |"
    for point in points:
        median = point.cell.median
        columns = [
            *(str(point.entries), str(point.clients), point.tool, point.step),
            seconds(median.wall_s),
            f"{median.client_cpu_s:.2f} + {median.server_cpu_s:.2f} s",
            *(size(median.peak_rss_bytes), size(median.wire_bytes), size(median.store_bytes or 0)),
        ]
        yield f"| {' | '.join(columns)} |"


def _targets(verdicts: Sequence[Verdict]) -> Iterator[str]:
    yield "| target | step | at most | measured | |"
    yield "| --- | --- | --: | --: | --- |"
    for each in verdicts:
        said = {True: "met", False: "MISSED", None: "not measured"}[each.met]
        measured = "" if each.value is None else _number(each.value)
        yield f"| {each.what} | {each.step} | {_number(each.limit)} | {measured} | {said} |"


def _number(value: float) -> str:
    return f"{value:.2f}" if value < 1000 else f"{value:,.0f}"


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}" if value >= 0.01 else f"{value:.4f}"


def seconds(value: float) -> str:
    """A time, as a person reads it."""
    return f"{value:.2f} s"


def size(value: int) -> str:
    """A number of bytes, as a person reads it; it may be negative."""
    for unit, scale in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if abs(value) >= scale:
            return f"{value / scale:.{2 if unit == 'GB' else 1}f} {unit}"
    return f"{value} B"


def main() -> None:
    """Print the tables of a run that was kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("--summary", action="store_true")
    options = parser.parse_args()
    results = read(options.results)
    print(summary(results) if options.summary else text(results), end="")


if __name__ == "__main__":
    main()
