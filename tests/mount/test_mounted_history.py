"""`.history` as programs and users find it on a real mount."""

import datetime
import os
from pathlib import Path

import pytest

from tests.fakes.clock import FrozenClock
from tests.fakes.syncs import Backup
from tests.mount.mounts import may_pass, mounted, run, wait_until
from tests.mount.stores import expire
from tests.mount.test_mounted_rights import ANN, BOB, CAT, STAFF, allowed

pytestmark = [pytest.mark.needs_fuse, pytest.mark.needs_root]

START = datetime.datetime(2024, 5, 1, 12, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)


class Nights:
    """A source, and a backup of it each day at noon."""

    def __init__(self, path: Path) -> None:
        self.source = path / "source"
        self.source.mkdir()
        self.clock = FrozenClock(START)
        self.backup = Backup(path / "store", clock=self.clock)

    def night(self) -> None:
        self.backup.sync(self.source)
        self.clock.advance(DAY)

    def owned(self, path: str, mode: int, *, owner: int = ANN.number, group: int = STAFF) -> None:
        os.chown(self.source / path, owner, group)
        os.chmod(self.source / path, mode)


@pytest.fixture
def nights(tmp_path: Path, cache_dir: Path) -> Nights:
    return Nights(tmp_path)


def test_programs_find_the_states_of_a_file(nights, tmp_path):
    folder = nights.source / "a folder"
    folder.mkdir()
    report = folder / "report.txt"
    os.link(_written(report, "one"), folder / "linked")
    os.setxattr(report, "user.colour", b"red")
    nights.night()
    (folder / "linked").unlink()
    report.write_text("second")
    nights.night()
    report.rename(folder / "final.txt")
    (folder / "only-here").write_text("x")
    nights.night()
    (folder / "only-here").unlink()
    _written(folder / "final.txt", "the third")
    nights.night()
    mountpoint = tmp_path / "mnt"
    with mounted(nights.backup.task(), mountpoint):
        assert ".history" not in os.listdir(mountpoint)
        history = mountpoint / ".history"
        names = ["2024-05-01.txt", "2024-05-02.txt", "2024-05-04.txt"]
        states = history / "a folder" / "final.txt"
        assert os.listdir(states) == names
        assert [(states / name).read_text() for name in names] == ["one", "second", "the third"]
        assert os.getxattr(states / names[0], "user.colour") == b"red"
        assert os.getxattr(states / names[0], "user.ssfs.version").startswith(b"000001-")
        version = mountpoint / "2024-05-02_120000"
        assert os.path.samefile(states / names[1], version / "a folder/report.txt")
        found = run("find", history, "-type", "f").stdout.splitlines()
        assert len(found) == 3 + 3 + 1 + 1
        assert (history / "a folder/only-here/2024-05-03").read_text() == "x"
        run("cp", "-a", history, tmp_path / "copy")
        assert (tmp_path / "copy/a folder/report.txt/2024-05-01.txt").read_text() == "one"
        long = run("ls", "-la", states).stdout.splitlines()
        assert [line.split()[-1] for line in long[1:]] == names
        there = run("sh", "-c", f"cd '{states}' && cd .. && pwd -P && ls").stdout.splitlines()
        assert there == [
            str(history / "a folder"),
            "final.txt",
            "linked",
            "only-here",
            "report.txt",
        ]
    with mounted(nights.backup.store, mountpoint, "show_history"):
        assert ".history" in os.listdir(mountpoint / "main/task")
    with mounted(nights.backup.task(), mountpoint, "plain"):
        assert not (mountpoint / ".history").exists()


def _written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_states_come_and_go_while_somebody_looks(nights, tmp_path):
    note = _written(nights.source / "note", "1")
    nights.night()
    mountpoint = tmp_path / "mnt"
    with mounted(nights.backup.task(), mountpoint, "idle=0.5"):
        states = mountpoint / ".history/note"
        here = os.open(states, os.O_RDONLY | os.O_DIRECTORY)
        try:
            assert os.listdir(here) == ["2024-05-01"]
            first = os.open("2024-05-01", os.O_RDONLY, dir_fd=here)
            note.write_text("22")
            nights.night()
            wait_until(lambda: os.listdir(states) == ["2024-05-01", "2024-05-02"], 3)
            assert os.listdir(here) == ["2024-05-01", "2024-05-02"]
            assert os.stat(states).st_ino == os.fstat(here).st_ino
            expire(nights.backup.task(), nights.backup.versions()[0])
            wait_until(lambda: os.listdir(states) == ["2024-05-02"], 3)
            assert os.pread(first, 10, 0) == b"1"
            os.close(first)
            wait_until(lambda: not (states / "2024-05-01").exists(), 3)
            assert (states / "2024-05-02").read_text() == "22"
        finally:
            os.close(here)


def test_three_users_get_nothing_that_no_version_gave_them(nights, tmp_path):
    """What a user can do by way of `.history` is what that user could do in a version of that day."""
    for name, mode in (("open", 0o755), ("closing", 0o755), ("opening", 0o700), ("mine", 0o700)):
        (nights.source / name).mkdir()
        _written(nights.source / name / "file", "1")
        nights.owned(f"{name}/file", 0o644)
        nights.owned(name, mode)
    _written(nights.source / "mine/secret", "s")
    nights.owned("mine/secret", 0o644)
    _written(nights.source / "open/payroll", "p")
    nights.owned("open/payroll", 0o640)
    nights.night()
    nights.owned("closing", 0o700)
    nights.owned("opening", 0o755)
    nights.owned("open", 0o755, owner=BOB.number)
    (nights.source / "mine/secret").rename(nights.source / "open/published")
    for name in ("open/file", "closing/file", "opening/file", "mine/file", "open/payroll"):
        with open(nights.source / name, "a", encoding="utf-8") as more:
            more.write("2")
    _written(nights.source / "open/published", "s2")
    nights.night()
    mountpoint = tmp_path / "mnt"
    with mounted(nights.backup.task(), mountpoint, "allow_other"):
        may_pass(*mountpoint.parents)
        history = mountpoint / ".history"
        states = {
            str(path.relative_to(history)): path for path in history.rglob("*") if path.is_file()
        }
        assert len(states) == 12
        in_version = {
            shown: os.fspath(_in_version(mountpoint, path).relative_to(mountpoint))
            for shown, path in states.items()
        }
        may = {}
        for user in (ANN, BOB, CAT):
            here = allowed(user, history, sorted(states))
            there = allowed(user, mountpoint, sorted(in_version.values()))
            for shown, done in here.items():
                assert set(done) <= set(there[in_version[shown]]), (user, shown)
            may[user] = {shown for shown, done in here.items() if "read" in done}
        # And what all versions gave, they get.
        everywhere = {shown for shown in states if shown.startswith("open/file/")}
        assert len(everywhere) == 2
        assert "open/published/2024-05-02" in states
        assert "open/published/2024-05-01" not in states, "the way to it was ann's alone"
        assert "mine/secret/2024-05-01" in states
        assert may[CAT] == everywhere | {"open/published/2024-05-02"}
        assert may[BOB] == may[CAT] | {s for s in states if s.startswith("open/payroll/")}
        assert may[ANN] == set(states)


def _in_version(mountpoint: Path, state: Path) -> Path:
    """Where a state is in the version that it is shown from."""
    version = os.getxattr(state, "user.ssfs.version").decode()
    names = {
        os.getxattr(mountpoint / name, "user.ssfs.version").decode(): name
        for name in os.listdir(mountpoint)
    }
    inode = os.stat(state).st_ino % (1 << 40)
    for path in (mountpoint / names[version]).rglob("*"):
        if os.stat(path).st_ino % (1 << 40) == inode:
            return path
    raise AssertionError(f"{state} is in no version")
