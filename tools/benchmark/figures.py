"""Medians, ratios and verdicts: pure functions over readings."""

import statistics
from collections.abc import Mapping, Sequence

from tools.benchmark.results import Cell, Limits, Reading, ScalePoint, Verdict

OURS = "ssfs"
YARDSTICK = "rsync"

MEASURES = ("wall", "durable", "cpu", "rss", "wire", "store")
"""What is compared: durable is wall time and the disk's afterwards, cpu that of both ends."""

RATIO_TARGETS = (
    ("initial", "wall", 0.45),
    ("initial", "wire", 1.0),
    ("nothing", "wall", 0.20),
    ("edits", "wall", 0.40),
    ("edits", "wire", 1.0),
    ("reorganisation", "wall", 0.20),
    ("restore", "wall", 0.60),
    ("restore", "wire", 1.0),
    ("restore-damaged", "wall", 0.40),
    ("restore-damaged", "wire", 1.0),
    ("restore-quick", "wall", 0.40),
    ("restore-quick", "wire", 1.0),
    ("expire", "wall", 1.0),
)
"""Step, measure, and what part of rsync's it may be. Expiring is `rm -rf` there."""

WIRE_TARGETS = (("nothing", 20_000), ("reorganisation", 100_000))
"""Step, and how many bytes may cross the wire."""

LEAD_STEPS = (
    "initial",
    "nothing",
    "edits",
    "reorganisation",
    "restore",
    "restore-damaged",
    "restore-quick",
)
LEAD_MEASURES = ("wall", "wire", "rss")
QUIET_TO_HARD_LINK_COPY = 2.0
GROWTH_OF_QUIET_RUN = 12.0
GROWTH_ENTRIES = (100_000, 1_000_000)
PEAK_RSS_BYTES = 250_000_000

Steps = Mapping[str, Mapping[str, Cell]]


def value(reading: Reading, measure: str) -> float | None:
    """A measure of a reading; None if there is none."""
    match measure:
        case "wall":
            return reading.wall_s
        case "durable":
            return reading.wall_s + reading.sync_s
        case "cpu":
            return reading.client_cpu_s + reading.server_cpu_s
        case "rss":
            return reading.peak_rss_bytes
        case "wire":
            return reading.wire_bytes
        case "store":
            return reading.store_bytes
        case _:
            raise ValueError(f"No such measure: {measure!r}")


def cell(readings: Sequence[Reading]) -> Cell:
    """The medians of at least one reading.

    A median of an even number of sizes is the lower of the middle two: one that was measured.
    """
    grown = [each.store_bytes for each in readings if each.store_bytes is not None]
    median = Reading(
        wall_s=statistics.median(each.wall_s for each in readings),
        sync_s=statistics.median(each.sync_s for each in readings),
        client_cpu_s=statistics.median(each.client_cpu_s for each in readings),
        server_cpu_s=statistics.median(each.server_cpu_s for each in readings),
        peak_rss_bytes=statistics.median_low(each.peak_rss_bytes for each in readings),
        wire_bytes=statistics.median_low(each.wire_bytes for each in readings),
        store_bytes=statistics.median_low(grown) if grown else None,
    )
    return Cell(median, list(readings))


def ratio(ours: Cell | None, theirs: Cell | None, measure: str) -> float | None:
    """One median to another; None if one is lacking or there is nothing to divide by."""
    if ours is None or theirs is None:
        return None
    mine, yours = value(ours.median, measure), value(theirs.median, measure)
    if mine is None or not yours or yours < 0:
        return None
    return mine / yours


def ratios(steps: Steps) -> dict[str, dict[str, dict[str, float]]]:
    """Each tool's medians to rsync's: step, tool, measure. What cannot be said is left out."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for step, cells in steps.items():
        for tool, mine in cells.items():
            said = {name: ratio(mine, cells.get(YARDSTICK), name) for name in MEASURES}
            known = {name: each for name, each in said.items() if each is not None}
            if known:
                found.setdefault(step, {})[tool] = known
    return found


def verdicts(steps: Steps, limits: Limits | None) -> list[Verdict]:
    """The promises about one tree, in the order of the table."""
    found = [_against_yardstick(steps, *target) for target in RATIO_TARGETS]
    found += [_wire(steps, *target) for target in WIRE_TARGETS]
    quiet = steps.get("nothing", {}).get(OURS)
    to_copy = quiet.median.wall_s / limits.hard_link_copy_s if quiet and limits else None
    found.append(_verdict("nothing", "wall to cp -al", QUIET_TO_HARD_LINK_COPY, to_copy))
    rivals = {tool for cells in steps.values() for tool in cells} - {OURS, YARDSTICK}
    for rival in sorted(rivals):
        for step in LEAD_STEPS:
            cells = steps.get(step, {})
            for measure in LEAD_MEASURES:
                to_rival = ratio(cells.get(OURS), cells.get(rival), measure)
                found.append(_verdict(step, f"{measure} to {rival}", 1.0, to_rival))
    return found


def growth_verdicts(points: Sequence[ScalePoint]) -> list[Verdict]:
    """The promises about growth: a quiet run's time, and memory at every size."""
    alone = {
        point.entries: point.cell.median
        for point in points
        if point.tool == OURS and point.step == "nothing" and point.clients == 1
    }
    small, large = (alone.get(entries) for entries in GROWTH_ENTRIES)
    times = large.wall_s / small.wall_s if small and large else None
    found = [_verdict("nothing", "wall at 1M to 100k", GROWTH_OF_QUIET_RUN, times)]
    peaks = [p.cell.median.peak_rss_bytes for p in points if p.tool == OURS and p.clients == 1]
    most = max(peaks) if peaks else None
    found.append(_verdict("all sizes", "peak RSS, bytes", PEAK_RSS_BYTES, most))
    return found


def _against_yardstick(steps: Steps, step: str, measure: str, limit: float) -> Verdict:
    cells = steps.get(step, {})
    measured = ratio(cells.get(OURS), cells.get(YARDSTICK), measure)
    return _verdict(step, f"{measure} to {YARDSTICK}", limit, measured)


def _wire(steps: Steps, step: str, limit: int) -> Verdict:
    ours = steps.get(step, {}).get(OURS)
    return _verdict(step, "wire, bytes", limit, ours.median.wire_bytes if ours else None)


def _verdict(step: str, what: str, limit: float, measured: float | None) -> Verdict:
    return Verdict(step, what, limit, measured, None if measured is None else measured <= limit)
