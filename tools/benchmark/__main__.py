"""Measure ssfs against other backup tools: the same bytes, over loopback, encrypted, in turn.

Prints tables; needs root, for namespaces and control groups of its own. It says on standard error how it goes, and
leaves nothing behind but what it was asked to write.
"""

import argparse
import dataclasses
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from ssfs.clock import SystemClock
from tools.benchmark import limits, machine, report, scale
from tools.benchmark.dataset import workplace
from tools.benchmark.ends import BenchmarkError
from tools.benchmark.figures import OURS, growth_verdicts, ratios, verdicts
from tools.benchmark.installation import install_packages, install_python
from tools.benchmark.registry import TOOLS
from tools.benchmark.results import Cell, Dataset, Limits, Results, ScalePoint, write
from tools.benchmark.running import (
    Ground,
    Round,
    ground,
    prepare_source,
    say,
    warm_up,
)
from tools.benchmark.steps import STEPS, needed
from tools.benchmark.tool import Command, environment

DONE, FAILED, INTERRUPTED = 0, 1, 130
EPILOG = """
Steps: {steps}.
Exit codes: 0 done, also with targets missed; 1 a tool failed, or did not do its work; 2 wrong options;
130 interrupted.

Examples:
  tools/bench                                   everything, against all: about half an hour
  tools/bench --quick --against rsync           one small round, a minute
  tools/bench --only nothing,edits --repeat 5
  tools/bench --scale --against rsync --json growth.json
"""


def main() -> int:
    """Run it; the exit code."""
    options = _parsed(sys.argv[1:])
    try:
        with machine.terminable():
            failures = _run(options)
    except BenchmarkError as error:
        say(f"bench: {error}")
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    return FAILED if failures else DONE


class Options(argparse.Namespace):
    """What was asked for."""

    quick: bool
    against: list[str]
    files: int
    big: int
    entries: int
    only: list[str]
    repeat: int
    scale: bool
    json: Path | None
    plot: Path | None
    dir: Path | None


def _list_of(*allowed: str) -> Callable[[str], list[str]]:
    def chosen(text: str) -> list[str]:
        names = [name for name in text.split(",") if name]
        for name in names:
            if name not in allowed:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(allowed)}")
        return names

    return chosen


def _parsed(arguments: Sequence[str]) -> Options:
    names = [step.name for step in STEPS]
    rivals = [name for name in TOOLS if name != OURS]
    parser = argparse.ArgumentParser(
        prog="tools/bench",
        description=__doc__,
        epilog=EPILOG.format(steps=", ".join(names)),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--quick",
        action="store_true",
        help="less of everything, once, without warm-up; leaves the kernel's caches alone",
    )
    add(
        "--against",
        type=_list_of(*rivals),
        default=rivals,
        metavar="TOOL,...",
        help=f"of {', '.join(rivals)} (all); ratios need rsync",
    )
    add("--files", type=_positive, help="small files (60000; quick: 2000)")
    add("--big", type=_positive, metavar="MB", help="size of the large files (1000; quick: 20)")
    add("--entries", type=_positive, help="with --scale: the largest tree (1000000; quick: 10000)")
    add("--only", type=_list_of(*names), default=names, metavar="STEP,...", help="measure these")
    add("--repeat", type=_positive, metavar="N", help="medians of so many (3; quick: 1)")
    add("--scale", action="store_true", help="measure growth with entries and clients instead")
    add("--json", type=Path, metavar="FILE", help="write what was found")
    add("--plot", type=Path, metavar="FILE", help="draw it as PNG")
    add(
        "--dir",
        type=Path,
        help="work in a directory below this one, on the disk to be measured (/var/tmp)",
    )
    options = parser.parse_args(arguments, namespace=Options())
    options.files = options.files or (2000 if options.quick else 60_000)
    options.big = options.big or (20 if options.quick else 1000)
    options.entries = options.entries or (10_000 if options.quick else 1_000_000)
    options.repeat = options.repeat or (1 if options.quick else 3)
    return options


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _run(options: Options) -> list[str]:
    names = [OURS, *options.against]
    install_packages(package for name in names for package in TOOLS[name].packages)
    if options.plot is not None:
        install_python("matplotlib")
    machine.isolate()
    with workplace(options.dir) as directory:
        described = machine.described(directory)
        with ground(directory) as place:
            found = (
                _scaled(place, names, options) if options.scale else _stepped(place, names, options)
            )
    results = Results(
        date=SystemClock().now().isoformat(timespec="seconds"),
        quick=options.quick,
        repeat=options.repeat,
        machine=described,
        versions={name: TOOLS[name].release() for name in names},
        dataset=found.dataset,
        limits=found.limits,
        steps=found.steps,
        ratios=ratios(found.steps),
        targets=growth_verdicts(found.scale)
        if options.scale
        else verdicts(found.steps, found.limits),
        scale=found.scale,
        failures=found.failures,
    )
    print(report.text(results), end="")
    if options.json is not None:
        write(results, options.json)
    if options.plot is not None:
        _draw(results, options.plot)
    return results.failures


@dataclasses.dataclass(frozen=True)
class _Found:
    steps: dict[str, dict[str, Cell]] = dataclasses.field(default_factory=dict)
    scale: list[ScalePoint] = dataclasses.field(default_factory=list)
    dataset: Dataset | None = None
    limits: Limits | None = None
    failures: list[str] = dataclasses.field(default_factory=list)


def _stepped(place: Ground, names: Sequence[str], options: Options) -> _Found:
    say(f"building {options.files} small files and {options.big} MB of large ones")
    dataset = prepare_source(place, options.files, options.big)
    source = place.directory / "source"
    if not options.quick:
        machine.settle(source)
    measured = limits.measure(source, place.directory / "limits", dataset)
    if not options.quick:
        say("warming up")
        warm_up(place, names)
    rounds = Round(place, names, list(needed(options.only)))
    for repetition in range(options.repeat):
        rounds.run(repetition, is_quick=options.quick)
    return _Found(
        rounds.cells(options.only), dataset=dataset, limits=measured, failures=rounds.failures
    )


def _scaled(place: Ground, names: Sequence[str], options: Options) -> _Found:
    points = scale.measure(place, names, most_entries=options.entries, repeat=options.repeat)
    return _Found(scale=list(points))


def _draw(results: Results, plot: Path) -> None:
    """In a process of its own: the library is large, and only some have it."""
    with tempfile.TemporaryDirectory() as at:
        path = Path(at, "results.json")
        write(results, path)
        command: Command = (sys.executable, "-m", "tools.benchmark.plot", path, plot)
        subprocess.run(command, check=True, env=environment())


if __name__ == "__main__":
    sys.exit(main())
