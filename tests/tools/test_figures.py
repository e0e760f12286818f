"""Medians, ratios, promises and tables of the benchmark."""

from pathlib import Path

import msgspec
import pytest

from tools.benchmark import figures, report, results
from tools.benchmark.results import Cell, Limits, Machine, Reading, Results, ScalePoint


def reading(wall_s: float = 1.0, **others: float | None) -> Reading:
    usual = Reading(wall_s, 0.5, 0.3, 0.2, 50_000_000, 10_000, None)
    return msgspec.structs.replace(usual, **others)


def cell(wall_s: float = 1.0, **others: float | None) -> Cell:
    return figures.cell([reading(wall_s, **others)])


def whole(steps: dict[str, dict[str, Cell]], **others: object) -> Results:
    machine = Machine(2, "a processor", 8_000_000_000, "6.1", "ext4", "3.11", 0.1)
    limits = Limits(0.4, 9.0, 0.2)
    fields = {
        "date": "2026-01-02T03:04:05+00:00",
        "quick": False,
        "repeat": 3,
        "machine": machine,
        "versions": {"ssfs": "ssfs 1", "rsync": "rsync 3"},
        "dataset": None,
        "limits": limits,
        "steps": steps,
        "ratios": figures.ratios(steps),
        "targets": figures.verdicts(steps, limits),
        "scale": [],
        "failures": [],
    }
    return Results(**(fields | others))


def test_each_measure_has_its_own_median() -> None:
    found = figures.cell(
        [
            reading(3.0, wire_bytes=1, store_bytes=70),
            reading(1.0, wire_bytes=3, store_bytes=-7),
            reading(2.0, wire_bytes=2, store_bytes=7),
        ]
    )
    assert found.median.wall_s == 2.0
    assert found.median.wire_bytes == 2
    assert found.median.store_bytes == 7
    assert [each.wall_s for each in found.readings] == [3.0, 1.0, 2.0]


def test_median_of_two_sizes_is_one_that_was_measured() -> None:
    found = figures.cell([reading(1.0, wire_bytes=10), reading(2.0, wire_bytes=20)])
    assert found.median.wire_bytes == 10
    assert found.median.wall_s == 1.5
    assert found.median.store_bytes is None


def test_ratios_are_to_rsync_and_left_out_where_there_is_none() -> None:
    steps = {
        "initial": {"ssfs": cell(2.0, wire_bytes=50), "rsync": cell(8.0, wire_bytes=100)},
        "mount": {"ssfs": cell()},
        "expire": {"ssfs": cell(store_bytes=-5), "rsync": cell(wire_bytes=0, store_bytes=-5)},
    }
    found = figures.ratios(steps)
    assert found["initial"]["ssfs"]["wall"] == 0.25
    assert found["initial"]["ssfs"]["wire"] == 0.5
    assert found["initial"]["rsync"]["wall"] == 1.0
    assert "store" not in found["initial"]["ssfs"]
    assert "mount" not in found
    assert not {"wire", "store"} & set(found["expire"]["ssfs"])


def test_durable_ratio_counts_the_disk_after_the_program() -> None:
    steps = {"edits": {"ssfs": cell(2.0, sync_s=0.0), "rsync": cell(1.0, sync_s=3.0)}}
    assert figures.ratios(steps)["edits"]["ssfs"]["durable"] == 0.5
    assert figures.ratios(steps)["edits"]["ssfs"]["wall"] == 2.0


def verdict(step: str, what: str, steps: dict[str, dict[str, Cell]]) -> results.Verdict:
    found = figures.verdicts(steps, Limits(0.4, 9.0, 0.2))
    return next(each for each in found if (each.step, each.what) == (step, what))


@pytest.mark.parametrize(("wall_s", "met"), [(4.5, True), (4.6, False)])
def test_target_is_met_up_to_its_limit(wall_s: float, met: bool) -> None:
    steps = {"initial": {"ssfs": cell(wall_s), "rsync": cell(10.0)}}
    found = verdict("initial", "wall to rsync", steps)
    assert found.limit == 0.45
    assert found.value == wall_s / 10
    assert found.met is met


def test_target_without_a_measurement_is_neither_met_nor_missed() -> None:
    assert verdict("initial", "wall to rsync", {"initial": {"ssfs": cell()}}).met is None
    assert verdict("nothing", "wire, bytes", {}).met is None


def test_wire_of_a_quiet_run_is_counted_in_bytes() -> None:
    for carried, met in ((20_000, True), (20_001, False)):
        steps = {"nothing": {"ssfs": cell(wire_bytes=carried)}}
        assert verdict("nothing", "wire, bytes", steps).met is met


def test_quiet_run_is_held_against_a_copy_of_hard_links() -> None:
    found = verdict("nothing", "wall to cp -al", {"nothing": {"ssfs": cell(1.0)}})
    assert found.value == pytest.approx(2.5)
    assert found.met is False


def test_rivals_are_to_be_beaten_in_time_wire_and_memory() -> None:
    steps = {"edits": {"ssfs": cell(2.0), "borg": cell(1.0, peak_rss_bytes=60_000_000)}}
    assert verdict("edits", "wall to borg", steps).met is False
    assert verdict("edits", "wire to borg", steps).met is True
    assert verdict("edits", "rss to borg", steps).met is True


def test_growth_is_held_against_the_smaller_tree_and_memory_against_every_size() -> None:
    def point(entries: int, wall_s: float, peak: int, step: str = "nothing") -> ScalePoint:
        return ScalePoint("ssfs", step, entries, 1, cell(wall_s, peak_rss_bytes=peak))

    points = [point(100_000, 2.0, 60), point(1_000_000, 26.0, 250_000_001)]
    times, memory = figures.growth_verdicts(points)
    assert (times.value, times.met) == (13.0, False)
    assert (memory.value, memory.met) == (250_000_001, False)
    assert [each.met for each in figures.growth_verdicts(points[:1])] == [None, True]


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    before = whole({"initial": {"ssfs": cell(2.0, store_bytes=5), "rsync": cell(8.0)}})
    results.write(before, tmp_path / "results.json")
    assert results.read(tmp_path / "results.json") == before


def test_table_says_ratio_and_verdict_and_what_failed() -> None:
    steps = {"initial": {"ssfs": cell(2.0), "rsync": cell(8.0)}}
    text = report.text(whole(steps, failures=["borg, expire: it did not"]))
    row = next(line for line in text.splitlines() if line.startswith("| initial | ssfs |"))
    assert row.startswith("| initial | ssfs | 2.00 s | 0.25 | 2.50 s | 0.30 + 0.20 s | 50.0 MB |")
    assert "| wall to rsync | initial | 0.45 | 0.25 | met |" in text
    assert "| wall to rsync | edits | 0.40 |  | not measured |" in text
    assert "FAILED: borg, expire: it did not" in text


def test_summary_has_a_line_for_each_step_of_ours() -> None:
    steps = {
        "initial": {"ssfs": cell(2.0), "rsync": cell(8.0, peak_rss_bytes=10_000_000)},
        "expire": {"rsync": cell()},
    }
    assert report.summary(whole(steps)).splitlines() == [
        "| step | wall | to rsync | wire | to rsync | peak memory | to rsync |",
        "| --- | --: | --: | --: | --: | --: | --: |",
        "| initial | 2.00 s | 0.25 | 10.0 kB | 1.00 | 50.0 MB | 5.00 |",
    ]


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (-2_500, "-2.5 kB"), (3_400_000, "3.4 MB"), (10**9, "1.00 GB")],
)
def test_sizes_are_written_for_people(count: int, text: str) -> None:
    assert report.size(count) == text
