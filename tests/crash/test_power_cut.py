"""The power fails while syncs go on: what was acknowledged is there and right when it is back.

The store is on a disk of its own; source and cache are not, as on a client whose server's power fails. Moments: at
random in a run, just when a run commits, and just after one was acknowledged. The last test holds
the harness to account: with a store whose syncs do nothing it has to find damage.
"""

import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import time
from pathlib import Path

import pytest

from ssfs.errors import SsfsError
from tests.crash.disks import Disk, mounted_disk
from tests.crash.support import HANG_S, Process, Rig, checkpointing, is_stopped
from tests.fakes.trees import build_tree, edit_tree

pytestmark = [pytest.mark.slow, pytest.mark.needs_root, pytest.mark.timeout(1800)]

_CUTS = 20
_DISK_BYTES = 200 << 20
_CHECKPOINT_BYTES = 100_000
_LARGE_BYTES = 1 << 20
_NO_SYNCS = [
    *("strace", "-f", "--seccomp-bpf", "-o", "/dev/null"),
    *("-e", "trace=fsync,fdatasync,syncfs", "-e", "inject=fsync,fdatasync,syncfs:retval=0"),
]
_NO_MORE_S = 20
# The sender stops three quarters through: or on a busy machine it has ended before the power is cut.
_HALTING = f"""
import os, signal
import ssfs.engine.outgoing as outgoing

outgoing.CHECKPOINT_BYTES = {_CHECKPOINT_BYTES}
listen = outgoing.Outgoing.listen

halted = []

def halt(self):
    listen(self)
    if self._checkpoints == 30 and not halted:
        halted.append(True)
        os.kill(os.getpid(), signal.SIGSTOP)

outgoing.Outgoing.listen = halt
"""


class PowerCuts:
    """Syncs into a store on a disk whose power fails now and then."""

    def __init__(self, directory: Path, disk: Disk, seed: str, wrapper: list[str]) -> None:
        self._disk = disk
        self._wrapper = wrapper
        self._rng = random.Random(seed)
        self._edits = 0
        self.rig = Rig(directory, disk.mountpoint / "store")
        build_tree(self.rig.source, 11, directories=6, files=30, large_bytes=_LARGE_BYTES)
        self.rig.init()
        os.sync()

    def cut(self) -> str:
        """Sync until the power fails, wait until it is back; the kind of moment."""
        moment = self._rng.choice(("any", "any", "commit", "acknowledged"))
        # Some syncs, so that things are under way; the last one meets the cut.
        for _ in range(self._rng.randrange(2)):
            self._edit()
            ended = self.rig.run(*self.rig.sync_arguments, wrapper=self._wrapper)
            assert ended.returncode == 0, ended
            self.rig.acknowledge(ended, self.image)
        self._edit()
        before = checkpointing(_CHECKPOINT_BYTES if self._rng.random() < 0.5 else None)
        process = self.rig.start(self.rig.sync_arguments, before=before, wrapper=self._wrapper)
        self._wait(process, moment)
        self._disk.cut_power()
        try:
            process.wait(_NO_MORE_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        self.rig.acknowledge(self.rig.finish(process), self.image)
        self._disk.unmount()
        self._disk.mount()
        return moment

    def _edit(self) -> None:
        self._edits += 1
        edit_tree(self.rig.source, self._edits, 6, large_bytes=_LARGE_BYTES)
        self.image = self.rig.look()

    def _wait(self, process: Process, moment: str) -> None:
        if moment == "acknowledged":
            process.wait(HANG_S)
            return
        staging = self.rig.task_path / "staging"
        sought = staging / "version.toml" if moment == "commit" else staging
        while process.poll() is None and not sought.exists():
            time.sleep(0.0005)
        delay_s = self._rng.uniform(0, 0.01 if moment == "commit" else 0.1)
        time.sleep(delay_s)


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_what_was_acknowledged_survives_power_cuts(tmp_path, kind):
    with mounted_disk(tmp_path, kind, _DISK_BYTES) as disk:
        cuts = PowerCuts(tmp_path, disk, kind, [])
        rig = cuts.rig
        for number in range(_CUTS):
            moment = cuts.cut()
            try:
                rig.check(cuts.image, newest=5)
                rig.sync()
            except AssertionError as error:
                error.add_note(f"after cut {number}, moment {moment!r}")
                raise
            rig.accept(cuts.image)
        rig.check()


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_the_harness_finds_damage_where_nothing_is_synced(tmp_path, kind):
    with mounted_disk(tmp_path, kind, _DISK_BYTES) as disk:
        cuts = PowerCuts(tmp_path, disk, kind, _NO_SYNCS)
        for _ in range(_CUTS):
            try:
                # A sync that fails over what the cut before has left has met damage, too.
                cuts.cut()
                cuts.rig.check(cuts.image)
            except (AssertionError, SsfsError, sqlite3.Error, OSError):
                return
    pytest.fail(f"{_CUTS} cuts without any sync did no harm")


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_interrupted_staging_is_resumed_after_a_power_cut(tmp_path, kind):
    with mounted_disk(tmp_path, kind, _DISK_BYTES) as disk:
        rig = Rig(tmp_path, disk.mountpoint / "store")
        rng = random.Random(kind)
        for number in range(40):
            directory = rig.source / f"{number:02}"
            directory.mkdir(parents=True)
            for name in ("small", "large"):
                (directory / name).write_bytes(
                    rng.randbytes(40_000 if name == "small" else 400_000)
                )
        rig.init()
        os.sync()
        process = rig.start(rig.sync_arguments, before=_HALTING)
        received = rig.task_path / "staging" / "tree" / "20" / "large"
        while process.poll() is None and not (is_stopped(process.pid) and received.exists()):
            time.sleep(0.0005)
        disk.cut_power()
        process.send_signal(signal.SIGCONT)
        ended = rig.finish(process)
        assert ended.returncode == 6, ended
        disk.unmount()
        disk.mount()

        staged = _staged_files(rig)
        assert 10 < staged < 80
        summary = rig.sync(before=checkpointing(_CHECKPOINT_BYTES))
        total = 40 * 440_000
        assert isinstance(summary["bytes_sent"], int)
        assert summary["bytes_sent"] < total - (staged - 10) // 2 * 440_000


def _staged_files(rig: Rig) -> int:
    """How many files the interrupted staging is sure of."""
    catalog = rig.task_path / "staging" / "catalog.db"
    with contextlib.closing(sqlite3.connect(f"file:{catalog}?mode=rw", uri=True)) as database:
        (count,) = database.execute("SELECT count(*) FROM staged").fetchone()
    return int(count)
