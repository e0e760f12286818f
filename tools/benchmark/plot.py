"""Draw what a run found: `python -m tools.benchmark.plot RESULTS.json PLOT.png`.

Needs matplotlib (the extra `bench`). Bars are ratios to rsync, on a logarithmic axis; growth is lines.
"""

import argparse
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt

from tools.benchmark.figures import LEAD_STEPS, YARDSTICK
from tools.benchmark.results import Results, read

COLOURS = {"ssfs": "#1b7f5c", "rsync": "#888888", "borg": "#c25b3f", "restic": "#4a6fb3"}
INCHES = (9, 6.5)
MEASURES = (("wall", "wall time"), ("wire", "bytes on the wire"), ("rss", "peak memory"))


def draw(results: Results, path: Path) -> None:
    """Write the plot of a run's ratios, or of its growth, as PNG."""
    mpl.use("Agg")
    if results.scale:
        _draw_growth(results)
    else:
        _draw_ratios(results)
    plt.tight_layout()
    plt.savefig(path, dpi=90)
    plt.close()


def _draw_ratios(results: Results) -> None:
    steps = [step for step in (*LEAD_STEPS, "expire") if step in results.ratios]
    tools = [tool for tool in results.versions if tool != YARDSTICK]
    _, panes = plt.subplots(len(MEASURES), 1, figsize=INCHES, sharex=True)
    width = 0.8 / max(1, len(tools))
    for pane, (measure, title) in zip(panes, MEASURES, strict=True):
        for number, tool in enumerate(tools):
            heights = [results.ratios[step].get(tool, {}).get(measure) for step in steps]
            at = [
                (place + (number - (len(tools) - 1) / 2) * width, height)
                for place, height in enumerate(heights)
                if height
            ]
            pane.bar(
                [place for place, _ in at],
                # From rsync's line up or down: a logarithmic axis has no zero to stand on.
                [height - 1 for _, height in at],
                width,
                bottom=1,
                label=tool,
                color=COLOURS[tool],
            )
        pane.axhline(1, color=COLOURS[YARDSTICK], linewidth=1)
        pane.set_yscale("log")
        pane.set_ylabel(f"{title}\n({YARDSTICK} = 1)")
    panes[0].legend(ncols=len(tools), fontsize="small")
    panes[-1].set_xticks(range(len(steps)), steps, rotation=20, ha="right")
    date = results.date.partition("T")[0]
    panes[0].set_title(f"Lower is better; {date}, {results.machine.cpus} CPUs, loopback")


def _draw_growth(results: Results) -> None:
    _, (times, memory, crowd) = plt.subplots(1, 3, figsize=INCHES)
    for tool in results.versions:
        for step, line in (("initial", "--"), ("nothing", "-")):
            mine = [point for point in results.scale if (point.tool, point.step) == (tool, step)]
            alone = sorted((each for each in mine if each.clients == 1), key=lambda p: p.entries)
            sizes = [each.entries for each in alone]
            how = {"color": COLOURS[tool], "linestyle": line, "marker": "o"}
            label = f"{tool}, {step}"
            times.plot(sizes, [p.cell.median.wall_s for p in alone], label=label, **how)
            memory.plot(sizes, [p.cell.median.peak_rss_bytes / 1e6 for p in alone], **how)
            least = min((each.entries for each in mine), default=0)
            many = sorted((p for p in mine if p.entries == least), key=lambda p: p.clients)
            crowd.plot([p.clients for p in many], [p.cell.median.wall_s for p in many], **how)
    for pane, name, along in (
        (times, "wall time, s", "entries"),
        (memory, "peak memory, MB", "entries"),
        (crowd, "wall time, s", "clients at once"),
    ):
        pane.set_ylabel(name)
        pane.set_xlabel(along)
        pane.set_xscale("linear" if pane is crowd else "log")
        pane.set_yscale("log")
    times.legend()


def main() -> None:
    """Read results, write a plot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("plot", type=Path)
    options = parser.parse_args()
    draw(read(options.results), options.plot)


if __name__ == "__main__":
    main()
