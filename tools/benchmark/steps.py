"""The steps of a run, in their order: what is done to the source, what each tool then does, and what it must have done.

All tools back up the same source, which is edited once before all of them take their turn. A step that is not asked
for is done all the same where a later one needs it, but not reported.
"""

import dataclasses
import os
import random
import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from tools.benchmark import edits
from tools.benchmark.comparison import require_same
from tools.benchmark.dataset import DATABASE, IMAGES, SMALL, entries
from tools.benchmark.ends import BenchmarkError, Meter
from tools.benchmark.machine import forget_caches, run
from tools.benchmark.results import Reading
from tools.benchmark.tool import Command, Tool

COPIED_FILES = 5000
_OTHER_SEED = 1000


@dataclasses.dataclass
class Bench:
    """What the steps work with.

    Attributes:
        directory: Has room for restored and copied trees.
        source: What is backed up.
        meters: One for each tool, by its name.
        repetition: From 0; the seed of edits.
        is_quick: Leave the kernel's caches alone: what is cold is the mount only.
    """

    directory: Path
    source: Path
    meters: dict[str, Meter]
    repetition: int
    is_quick: bool

    def restored(self, tool: Tool) -> Path:
        """Where a tool restores to."""
        return self.directory / f"restored-{tool.name}"

    def mountpoint(self, tool: Tool) -> Path:
        """Where a tool mounts."""
        return self.directory / f"mount-{tool.name}"

    @property
    def aside(self) -> Path:
        """Where trees lie that are to be deleted after the last step."""
        return self.directory / "aside"

    def set_aside(self, tree: Path) -> None:
        """Have a tree out of the way, if it is there."""
        if tree.exists():
            self.aside.mkdir(exist_ok=True)
            tree.rename(self.aside / f"{len(os.listdir(self.aside))}")

    def measure(self, tool: Tool, *command: str | Path, at: Path | None = None) -> Reading:
        """Run a tool's program."""
        return self.told(tool, *command, at=at)[0]

    def told(self, tool: Tool, *command: str | Path, at: Path | None = None) -> tuple[Reading, str]:
        """Run a tool's program; also what it printed."""
        where = at or self.directory
        reading, said = self.meters[tool.name].run([command], tool.environment, where)
        return reading, said[0]


Act = Callable[[Bench, Tool], Reading | None]


@dataclasses.dataclass(frozen=True)
class Step:
    """One step.

    Attributes:
        name: What it is called on the command line and in results.
        act: What a tool does; None where it has nothing to do.
        needs: Steps that must have been before.
        edit: What happens to the source before it; by the number of the repetition.
    """

    name: str
    act: Act
    needs: tuple[str, ...] = ("initial",)
    edit: Callable[[Path, int], None] | None = None


def allocated_bytes(tree: Path) -> int:
    """What a tree takes on the disk, each inode once."""
    return int(run("du", "-s", "--block-size=1", tree).split()[0])


def back_up(bench: Bench, tool: Tool) -> Reading:
    """Make a version; it must have as many entries as the source."""
    before = allocated_bytes(tool.store)
    command = tool.backup(bench.source)
    reading, said = bench.told(tool, *command, at=bench.source)
    grown = allocated_bytes(tool.store) - before
    there, expected = tool.entries_of(tool.versions, said), entries(bench.source)
    if there != expected:
        raise BenchmarkError(f"{tool.name} has {there} entries in its version, not {expected}")
    return msgspec.structs.replace(reading, store_bytes=grown)


def _restore_empty(bench: Bench, tool: Tool) -> Reading:
    target = bench.restored(tool)
    bench.set_aside(target)
    target.mkdir()
    return _restore(bench, tool, target)


def _restore_damaged(bench: Bench, tool: Tool) -> Reading:
    target = bench.restored(tool)
    edits.damage(target, bench.repetition)
    return _restore(bench, tool, target)


def _restore_quick(bench: Bench, tool: Tool) -> Reading:
    target = bench.restored(tool)
    edits.damage(target, bench.repetition + _OTHER_SEED)
    return _restore(bench, tool, target, tool.mend(target))


def _restore(bench: Bench, tool: Tool, target: Path, command: Command | None = None) -> Reading:
    reading = bench.measure(tool, *(command or tool.restore(target)), at=target)
    require_same(bench.source, target, tool.name)
    return reading


def _mount(bench: Bench, tool: Tool) -> Reading | None:
    mountpoint = bench.mountpoint(tool)
    mountpoint.mkdir(exist_ok=True)
    command = tool.mount(mountpoint)
    return bench.measure(tool, *command) if command else None


def unmount(bench: Bench, tool: Tool) -> None:
    """End a tool's mount, if there is one."""
    if bench.mountpoint(tool).is_mount():
        tool.unmount(bench.mountpoint(tool))


def _find(bench: Bench, tool: Tool) -> Reading:
    tree = tool.mounted_tree(bench.mountpoint(tool))
    command = ("find", tree, "-mindepth", "1", "-printf", "%s\\n")
    reading, said = bench.told(tool, *command)
    found, expected = said.count("\n"), entries(bench.source)
    if found != expected:
        raise BenchmarkError(f"{tool.name} shows {found} entries, not {expected}")
    return reading


def _find_cold(bench: Bench, tool: Tool) -> Reading:
    _cool(bench)
    return _find(bench, tool)


def _cool(bench: Bench) -> None:
    if not bench.is_quick:
        forget_caches()


def _copy(bench: Bench, tool: Tool) -> Reading:
    """Copy some thousand files out, chosen all over the tree, as a person's file manager does."""
    target = bench.directory / "copied"
    bench.set_aside(target)
    target.mkdir()
    files = edits.regular_files(bench.source / SMALL)
    random.Random(bench.repetition).shuffle(files)
    chosen = sorted(path.relative_to(bench.source) for path in files[:COPIED_FILES])
    listed = bench.directory / "chosen"
    listed.write_text("".join(f"{path}\0" for path in chosen))
    script = f'xargs -0 -a "$0" cp --preserve=all --parents -t {shlex.quote(str(target))}'
    tree = tool.mounted_tree(bench.mountpoint(tool))
    reading = bench.measure(tool, "sh", "-c", script, listed, at=tree)
    for path in chosen:
        if (target / path).read_bytes() != (bench.source / path).read_bytes():
            raise BenchmarkError(f"{tool.name} shows other content in {path}")
    bench.set_aside(target)
    return reading


def _read(bench: Bench, tool: Tool) -> Reading:
    """Read images and database from beginning to end; they must be the source's."""
    big = edits.find_big(bench.source)
    names = [str((big / each).relative_to(bench.source)) for each in (*IMAGES, DATABASE)]
    tree = tool.mounted_tree(bench.mountpoint(tool))
    script = 'cat "$@" | dd of=/dev/null bs=1M status=none'
    reading = bench.measure(tool, "sh", "-c", script, "cat", *names, at=tree)
    for name in names:
        run("cmp", tree / name, bench.source / name)
    return reading


def _read_cold(bench: Bench, tool: Tool) -> Reading:
    _cool(bench)
    return _read(bench, tool)


def _expire(bench: Bench, tool: Tool) -> Reading:
    """Remove the oldest version: it must be gone, and the newest must not."""
    unmount(bench, tool)
    before = allocated_bytes(tool.store)
    reading = bench.measure(tool, *tool.expire(1))
    if tool.has_version(1) or not tool.has_version(tool.versions):
        raise BenchmarkError(f"{tool.name} did not remove the oldest version alone")
    freed = before - allocated_bytes(tool.store)
    return msgspec.structs.replace(reading, store_bytes=-freed)


STEPS: Sequence[Step] = (
    Step("initial", back_up, needs=()),
    Step("nothing", back_up),
    Step("edits", back_up, edit=edits.one_day),
    Step("reorganisation", back_up, edit=edits.reorganise),
    Step("restore", _restore_empty),
    Step("restore-damaged", _restore_damaged, needs=("initial", "restore")),
    Step("restore-quick", _restore_quick, needs=("initial", "restore")),
    Step("mount", _mount),
    Step("mount-find-cold", _find_cold, needs=("initial", "mount")),
    Step("mount-find-warm", _find, needs=("initial", "mount", "mount-find-cold")),
    Step("mount-copy", _copy, needs=("initial", "mount")),
    Step("mount-read-cold", _read_cold, needs=("initial", "mount")),
    Step("mount-read-warm", _read, needs=("initial", "mount", "mount-read-cold")),
    Step("expire", _expire, needs=("initial", "nothing")),
)


def needed(names: Sequence[str]) -> Iterator[Step]:
    """The steps asked for, and those that they need, in order."""
    wanted = {need for step in STEPS if step.name in names for need in (step.name, *step.needs)}
    yield from (step for step in STEPS if step.name in wanted)
