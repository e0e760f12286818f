"""The benchmark as somebody runs it, on a tiny tree and against rsync alone."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.benchmark.figures import MEASURES

pytestmark = [pytest.mark.slow, pytest.mark.needs_root, pytest.mark.needs_fuse]

_ROOT = Path(__file__).resolve().parent.parent.parent
_TINY = ("--quick", "--against", "rsync", "--files", "200", "--big", "2")
_STEPS = ("initial", "edits", "restore", "mount-find-cold", "expire")
_TIMEOUT_S = 300


def start(*arguments: str | Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "tools.benchmark", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(_ROOT)},
    )


def control_groups(name: str) -> Iterator[Path]:
    """Those of this name, in any hierarchy."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        group = Path(line.split()[4], name)
        if " - cgroup2 " in line and group.exists():
            yield group


def traces(place: Path) -> list[str]:
    """What a run in a directory has left behind: files, and processes that know of it."""
    left = [str(path) for path in place.iterdir()]
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = process.read_bytes()
        except OSError:
            continue
        if os.fsencode(place) + b"/ssfs-bench-" in words:
            left.append(words.decode(errors="replace"))
    return left


@pytest.mark.timeout(_TIMEOUT_S)
def test_quick_run_measures_every_step_and_leaves_nothing(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    found = tmp_path / "found.json"
    run = start(*_TINY, "--only", ",".join(_STEPS), "--json", found, "--dir", place)
    out, err = run.communicate(timeout=_TIMEOUT_S)
    assert run.returncode == 0, err
    assert traces(place) == []

    told = json.loads(found.read_bytes())
    assert set(told) == {
        *("date", "quick", "repeat", "machine", "versions", "dataset", "limits"),
        *("steps", "ratios", "targets", "scale", "failures"),
    }
    assert told["quick"] is True
    assert set(told["versions"]) == {"ssfs", "rsync"}
    assert told["dataset"]["small_files"] == 200
    assert tuple(told["steps"]) == _STEPS
    for step, cells in told["steps"].items():
        assert set(cells) == {"ssfs", "rsync"}
        for tool, cell in cells.items():
            assert len(cell["readings"]) == 1
            median = cell["median"]
            assert median["wall_s"] > 0, (step, tool)
            assert median["client_cpu_s"] > 0, (step, tool)
            assert median["peak_rss_bytes"] > 1_000_000, (step, tool)
    assert all(value > 0 for value in told["limits"].values())
    assert {"wall", "cpu", "rss", "wire", "store"} <= set(told["ratios"]["initial"]["ssfs"])
    assert set(told["ratios"]["initial"]["ssfs"]) <= set(MEASURES)

    content = told["dataset"]["small_bytes"] + told["dataset"]["big_bytes"]
    for tool in ("ssfs", "rsync"):
        # Nothing is compressed: what crosses the wire is the tree, and hardly more.
        for step in ("initial", "restore"):
            wire = told["steps"][step][tool]["median"]["wire_bytes"]
            assert content < wire < content * 1.2, (step, tool)
        assert told["steps"]["initial"][tool]["median"]["store_bytes"] > content
        assert told["steps"]["edits"][tool]["median"]["wire_bytes"] < content
        assert told["steps"]["expire"][tool]["median"]["store_bytes"] < 0
        assert told["steps"]["initial"][tool]["median"]["server_cpu_s"] > 0

    assert {each["met"] for each in told["targets"]} <= {True, False, None}
    for step in _STEPS:
        assert re.search(rf"^\| {step} \| ssfs \| [\d.]+ s \| [\d.]+ \|", out, re.MULTILINE), out
    assert "| wall to rsync | initial | 0.45 |" in out


def test_interrupted_run_leaves_nothing(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    run = start(*_TINY, "--only", "initial", "--repeat", "50", "--dir", place)
    for line in run.stderr:
        if "initial" in line:
            break
    (working,) = place.iterdir()
    groups = list(control_groups(working.name))
    assert len(groups) == 1
    run.send_signal(signal.SIGINT)
    _, err = run.communicate(timeout=_TIMEOUT_S)
    assert run.returncode == 130, err
    assert "Traceback" not in err
    assert traces(place) == []
    assert not groups[0].exists()


@pytest.mark.parametrize(
    "options", [("--only", "nothing,lunch"), ("--against", "cp"), ("--files", "0")]
)
def test_wrong_options_are_refused_before_anything_is_done(options: tuple[str, ...]) -> None:
    run = start(*options)
    out, err = run.communicate(timeout=_TIMEOUT_S)
    assert run.returncode == 2
    assert out == ""
    assert "error: argument" in err
