"""What all crash tests share: a source, a store and a client's cache, with the command line between.

A `Rig` knows what was acknowledged: the versions that a `sync` which ended with 0 or 3 printed, and what
the source was then. `Rig.check` holds the store to it. It also knows what the runs since then have seen, of
which a killed one may have left a part in staging/: `check_continuity` judges by that what stayed.
"""

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ssfs.model.policy import Policy
from ssfs.store.store import Store, Task
from ssfs.store.version import Version
from tests.fakes.commands import Running
from tests.fakes.trees import (
    SourceImage,
    compare_with_version,
    entries_by_path,
    remember,
    tree_inodes,
    verify_version,
)

HANG_S = 240
"""No run here takes that long: one that does waits for a process that is dead.

A run may have to wait for what others write: syncfs writes all of a disk that tests share.
"""

DONE = (0, 3)

_MAIN = """
import sys
from ssfs.cli.main import main
sys.exit(main())
"""


def checkpointing(checkpoint_bytes: int | None = None) -> str:
    """What a run does first to make a checkpoint after so many bytes instead of the usual 48 MiB."""
    if checkpoint_bytes is None:
        return ""
    return (
        f"import ssfs.engine.outgoing as outgoing; outgoing.CHECKPOINT_BYTES = {checkpoint_bytes}"
    )


Process = Running | subprocess.Popen[str]


class Rig:
    """One source that is backed up into one store, as task main/t.

    Attributes:
        source: Root of the source.
        store: The store's directory.
        cache: The client's cache.
        acknowledged: What the source was, by the id of each version that was acknowledged.
    """

    def __init__(self, directory: Path, store: Path | None = None) -> None:
        self.directory = directory
        self.source = directory / "source"
        self.store = store or directory / "store"
        self.cache = directory / "cache"
        self.acknowledged: dict[str, SourceImage] = {}
        self._seen: list[SourceImage] = []

    @property
    def location(self) -> str:
        return f"{self.store}::main/t"

    @property
    def sync_arguments(self) -> list[str]:
        return ["sync", str(self.source), self.location, "--json", "--allow-shrink"]

    def copy(self, directory: Path) -> "Rig":
        """Another rig with a copy of store and cache, and the same source."""
        directory.mkdir(parents=True)
        other = Rig(directory)
        other.source = self.source
        for mine, theirs in ((self.store, other.store), (self.cache, other.cache)):
            if mine.exists():
                subprocess.run(["cp", "-a", mine, theirs], check=True)
        other.acknowledged = dict(self.acknowledged)
        other._seen = list(self._seen)
        return other

    def remove(self) -> None:
        """Remove everything but the source."""
        shutil.rmtree(self.store)
        shutil.rmtree(self.cache, ignore_errors=True)

    # -- running -----------------------------------------------------------------------------------

    def start(
        self,
        arguments: Sequence[str],
        *,
        before: str | Callable[[], object] = "",
        command: Sequence[str] | None = None,
        wrapper: Sequence[str] = (),
    ) -> Process:
        """Start the command line in a session of its own.

        Args:
            arguments: Of `ssfs`.
            before: What the process does first; a text is Python.
            command: What is started instead of `ssfs`.
            wrapper: What starts it, with the text as an argument.
        """
        environment = {**os.environ, "SSFS_CACHE_DIR": str(self.cache)}
        if command is None and not wrapper:
            first = functools.partial(exec, before, {}) if isinstance(before, str) else before
            return Running(arguments, environment=environment, before=first, start_new_session=True)
        if command is None:
            assert isinstance(before, str)
            command = [sys.executable, "-c", before + _MAIN]
        return subprocess.Popen(
            [*wrapper, *command, *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def finish(
        self, process: Process, timeout_s: float = HANG_S
    ) -> "subprocess.CompletedProcess[str]":
        """Wait until it *and its child* have ended: both hold the same pipes.

        Raises:
            AssertionError: One of them hangs; both are ended then.
        """
        try:
            stdout, stderr = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise AssertionError(f"hangs: {process.args}, {process.communicate()}") from None
        assert process.returncode is not None
        return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)

    def run(
        self,
        *arguments: str,
        before: str | Callable[[], object] = "",
        wrapper: Sequence[str] = (),
    ) -> "subprocess.CompletedProcess[str]":
        """Run the command line to its end."""
        return self.finish(self.start(arguments, before=before, wrapper=wrapper))

    def init(self, keep_last: int = 1000) -> None:
        """Make the store."""
        made = self.run("init", str(self.store), "--keep-last", str(keep_last), "--timezone", "UTC")
        assert made.returncode == 0, made

    def sync(self, *, before: str = "") -> dict[str, object]:
        """A sync that has to succeed; its summary. What it made is checked."""
        image = self.look()
        seen = self._seen
        ended = self.run(*self.sync_arguments, before=before)
        assert ended.returncode == 0, f"the sync did not succeed: {ended}"
        summary = self.acknowledge(ended, image)
        assert summary is not None
        assert summary["problems"] == []
        newest = self.versions()[-1]
        assert str(newest.id) == summary["version"]
        verify_version(newest)
        compare_with_version(image, newest)
        if len(self.versions()) > 1:
            check_continuity(self.versions()[-2], newest, seen)
        assert not (self.task_path / "staging").exists()
        assert list((self.task_path / "trash").iterdir()) == []
        return summary

    def look(self) -> SourceImage:
        """What the source is now. To be called before each run that may leave a staging."""
        image = remember(self.source)
        self._seen.append(image)
        return image

    def acknowledge(
        self, ended: "subprocess.CompletedProcess[str]", image: SourceImage
    ) -> dict[str, object] | None:
        """Note the version a run has acknowledged, if it has; its summary."""
        if ended.returncode not in DONE:
            return None
        summary: dict[str, object] = json.loads(ended.stdout)
        self.acknowledged[str(summary["version"])] = image
        self._seen = []
        for expired in summary["expired"]:  # type: ignore[attr-defined]
            self.acknowledged.pop(expired, None)
        return summary

    def accept(self, image: SourceImage) -> None:
        """Hold the store from now on to the versions that nobody was told of, too.

        Args:
            image: What the source was when they were made.
        """
        for version in self.versions():
            if str(version.id) not in self.acknowledged:
                self.acknowledged[str(version.id)] = image
                self._seen = []

    # -- looking -----------------------------------------------------------------------------------

    @property
    def task_path(self) -> Path:
        return self.store / "points" / "main" / "tasks" / "t"

    def task(self) -> Task:
        return Store.open(os.fsencode(self.store)).point("main").task("t")

    def set_policy(self, keep_last: int) -> None:
        """Keep so many versions of one day from now on."""
        Store.open(os.fsencode(self.store)).point("main").set_policy(Policy(keep_last=keep_last))

    def versions(self) -> list[Version]:
        """What is in versions/, where nothing but versions may be."""
        versions = self.task().versions()
        assert len(versions) == len(list((self.task_path / "versions").iterdir()))
        return versions

    def check(self, now: SourceImage | None = None, *, newest: int | None = None) -> None:
        """Every acknowledged version is there and right; what else is listed is whole.

        Args:
            now: What the source was in a run that was cut: a version that was not
                acknowledged must hold this.
            newest: Look only at so many of the newest ones.
        """
        if not (self.task_path / "task.toml").exists():
            assert not self.acknowledged
            return
        versions = self.versions()
        lost = self.acknowledged.keys() - {str(version.id) for version in versions}
        assert not lost, f"acknowledged and lost: {sorted(lost)}"
        for version in versions[-newest:] if newest else versions:
            verify_version(version)
            image = self.acknowledged.get(str(version.id), now)
            assert image is not None, f"nobody asked for {version.id}"
            compare_with_version(image, version)


def check_continuity(older: Version, newer: Version, seen: Sequence[SourceImage]) -> None:
    """What stayed in the source is the same entry and the same inode in two following versions.

    A path keeps its id while its kind stays, and its inode while its content stays (FORMAT.md, "Entry
    ids"). Whether it stayed is for the runs to say, the killed ones too: a file that one of them saw as a
    directory, and has staged so, is a new entry in the next version, even if it has got its old inode
    number back. The two versions alone do not tell.

    Args:
        older: The version that `newer` began as.
        newer: The one right after it.
        seen: What the source was in each run since `older`.

    Raises:
        AssertionError: It is not; a sync that started from nothing makes it so.
    """
    before, after = entries_by_path(older), entries_by_path(newer)
    inodes_before, inodes_after = tree_inodes(older), tree_inodes(newer)
    wrong = []
    for path in before.keys() & after.keys():
        was, is_now = before[path], after[path]
        met = [image.get(path) for image in seen]
        if was.kind != is_now.kind or any(one is None or one.kind != was.kind for one in met):
            continue
        if was.id != is_now.id:
            wrong.append(f"{path!r}: id {was.id} has become {is_now.id}")
        digests = {is_now.digest, *(one.digest for one in met if one is not None)}
        if digests == {was.digest} and inodes_before.get(path) != inodes_after.get(path):
            wrong.append(f"{path!r} was stored again")
    assert not wrong, "\n".join(sorted(wrong))


def fork_of(pid: int) -> int:
    """The pid of the child that is a fork of this process; 0 if it has none (yet).

    Other children run other programs (finding a shared library starts some).
    """
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        ours = Path(f"/proc/{pid}/cmdline").read_bytes()
        for child in children:
            # A child that is about to run another program looks like a fork for a moment.
            looks = [_look(child) for _ in range(3)]
            if all(look == ours for look in looks):
                return int(child)
    except (FileNotFoundError, ProcessLookupError):
        pass
    return 0


def _look(pid: str) -> bytes:
    time.sleep(0.001)
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def has_ended(pid: int) -> bool:
    """Whether a process has ended, waited for or not."""
    return _state(pid) in "ZX"


def is_stopped(pid: int) -> bool:
    """Whether a process is stopped by SIGSTOP."""
    return _state(pid) == "T"


def _state(pid: int) -> str:
    """The letter the kernel has for what a process does; "X" if it is gone."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return "X"
    return status.rpartition(")")[2].split()[0]
