"""Mounts of a server: the same tree as on its own machine, and clean errors and restarts when one end is killed."""

import errno
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.comparing import differences
from tests.mount.mounts import errno_of, is_mounted, wait_until
from tests.mount.stores import collect, expire
from tests.system.namespaces import program_directory
from tests.system.remote_mounts import LARGE, TIMEOUT_S, Mounts, fails_within, is_readable
from tests.system.servers import Machine, run_ssfs

pytestmark = [pytest.mark.slow, pytest.mark.needs_fuse]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mounts]:
    made = Mounts(tmp_path_factory.mktemp("made"))
    yield made
    made.server.stop()
    assert not [line for line in made.server.log if "Traceback" in line], made.server.log


@pytest.fixture
def mounts(made: Mounts, tmp_path: Path) -> Iterator[Mounts]:
    """What all tests of this file share: it is not changed, but its server may be killed."""
    yield from made.for_test(tmp_path)


@pytest.fixture
def own(mounts: Mounts, tmp_path: Path) -> Mounts:
    """A task of the test's own, at that server."""
    mounts.source = tmp_path / "own"
    (mounts.source / "many").mkdir(parents=True)
    for number in (7, 8):
        (mounts.source / "many" / f"{number}").write_bytes(b"%d" % number)
    (mounts.source / "large").write_bytes(LARGE)
    mounts.task_name = re.sub("[^a-z]", "-", tmp_path.name)
    mounts.sync()
    return mounts


# -- the tree ---------------------------------------------------------------------------------------


def test_mount_of_a_server_shows_what_was_backed_up(mounts: Mounts):
    with mounts.mounted():
        assert (
            differences(mounts.source, mounts.latest, ignoring={"sockets", "holes", "root"}) == []
        )
        assert sorted(os.listdir(mounts.latest / "many")) == sorted(map(str, range(300)))
        assert errno_of((mounts.latest / "none").stat) == errno.ENOENT
        assert errno_of((mounts.latest / "new").mkdir) == errno.EROFS
        version = os.getxattr(mounts.latest / "large", "user.ssfs.version").decode()
        assert version.startswith("000001-")


def test_root_of_a_server_and_a_sync_point_can_be_mounted(mounts: Mounts):
    with mounts.mounted(mounts.server.url("")):
        assert os.listdir(mounts.mountpoint) == ["main"]
        assert os.listdir(mounts.mountpoint / "main") == ["docs"]
        assert (mounts.mountpoint / "main" / "docs" / "latest" / "large").read_bytes() == LARGE
    with mounts.mounted(mounts.server.url("main")):
        assert (mounts.mountpoint / "docs" / "latest" / "many" / "7").read_bytes() == b"7"


def test_reads_here_and_there_and_by_many_are_right(mounts: Mounts):
    with mounts.mounted(), open(mounts.latest / "large", "rb", buffering=0) as file:
        # Around where pieces begin, too.
        offsets = (
            2_999_000,
            5,
            1_500_000,
            262_143,
            524_287,
            1_048_575,
            2_000_000,
            0,
            261_000,
            263_000,
        )
        for offset in offsets:
            assert os.pread(file.fileno(), 3000, offset) == LARGE[offset : offset + 3000]
        readers = [
            subprocess.Popen(["cmp", mounts.latest / "large", mounts.source / "large"])
            for _ in range(8)
        ]
        assert [reader.wait(60) for reader in readers] == [0] * 8


def test_walk_through_a_large_tree_takes_few_questions(own: Mounts):
    for top in range(6):
        for inner in range(10):
            path = own.source / "wide" / f"{top}" / f"{inner}"
            path.mkdir(parents=True)
            for number in range(80):
                (path / f"{number}").touch()
    own.sync()
    begun = len(own.server.log)
    with own.mounted():
        found = sum(len(files) for _, _, files in os.walk(own.latest / "wide"))
        assert found == 6 * 10 * 80
    line = own.server.wait_for_log(r"browsed, \d+ answers", after=begun)
    # Of 67 directories; the mount has asked for versions too.
    answers = re.search(r"browsed, (\d+) answers", line)
    assert answers is not None
    assert int(answers[1]) < 30


def test_new_versions_show_and_expired_ones_go_within_a_second(own: Mounts):
    with own.mounted():
        assert (own.latest / "many" / "7").read_bytes() == b"7"
        (own.source / "many" / "7").write_bytes(b"changed")
        own.sync()
        assert wait_until(lambda: len(os.listdir(own.mountpoint)) == 3) < 1.5
        assert (own.latest / "many" / "7").read_bytes() == b"changed"
        task = own.task()
        expire(task, task.versions()[0])
        assert wait_until(lambda: len(os.listdir(own.mountpoint)) == 2) < 1.5


def test_version_that_is_read_is_not_deleted_before_it_is_let_go(own: Mounts):
    with own.mounted(options="idle=0.2"):
        with open(own.latest / "large", "rb", buffering=0) as file:
            assert file.read(10) == LARGE[:10]
            task = own.task()
            expire(task, task.versions()[0])
            time.sleep(0.6)
            assert collect(task) == 0
            assert os.pread(file.fileno(), 10, 2_000_000) == LARGE[2_000_000:2_000_010]
        wait_until(lambda: collect(task) == 1)


def test_damaged_file_is_an_error_and_the_others_are_read(own: Mounts):
    version = Path(os.fsdecode(own.task().versions()[0].path))
    with own.mounted() as process:
        data = version / "tree" / "large"
        changed = bytearray(LARGE)
        changed[2_900_000] ^= 1
        data.chmod(0o600)
        data.write_bytes(changed)
        # Read from start to end it is digested.
        assert errno_of((own.latest / "large").read_bytes) == errno.EIO
        os.truncate(version / "tree" / "many" / "7", 0)
        assert errno_of((own.latest / "many" / "7").read_bytes) == errno.EIO
        assert os.getxattr(own.latest / "many" / "7", "user.ssfs.damaged") == b"1"
        assert (own.latest / "many" / "8").read_bytes() == b"8"
        process.terminate()
        assert "is not what the catalog says" in process.communicate()[1]


# -- rights -----------------------------------------------------------------------------------------


def test_client_sees_only_tasks_that_it_may_read(mounts: Mounts):
    other = Machine(mounts.directory / "other", "nas9").enrol(mounts.server)
    url = mounts.server.url
    refused = other.ssfs("mount", url("main/docs"), mounts.mountpoint, expect=4)
    assert "may not read task" in refused.stderr
    assert "No task" in other.ssfs("mount", url("main/none"), mounts.mountpoint, expect=2).stderr
    assert other.ssfs("mount", url("no"), mounts.mountpoint, expect=4).stderr
    mounts.client = other
    with mounts.mounted(url("main")):
        assert os.listdir(mounts.mountpoint) == []
        assert errno_of((mounts.mountpoint / "docs").stat) == errno.ENOENT


def test_revoked_client_reads_nothing_more(own: Mounts):
    for number in range(300):
        (own.source / "many" / str(number)).write_bytes(b"%d" % number)
    own.sync()
    own.client = Machine(own.directory / "revoked", "nas2").enrol(own.server, "--role", "restore")
    with own.mounted():
        assert (own.latest / "many" / "7").read_bytes() == b"7"
        run_ssfs("revoke", own.server.path, "nas2")
        # Its session ends within a second; what is asked for until then, no file twice, is still answered.
        unread = (own.latest / "many" / str(number) for number in range(8, 299))
        wait_until(lambda: not is_readable(next(unread)), TIMEOUT_S + 3)
        fails_within((own.latest / "many" / "299").read_bytes, errno.EIO, TIMEOUT_S + 3)


def test_options_of_a_store_here_are_refused(mounts: Mounts):
    words = ("mount", mounts.server.url("main/docs"), mounts.mountpoint, "-o", "damaged_ok")
    assert (
        "'damaged_ok' is for a store of this machine" in mounts.client.ssfs(*words, expect=2).stderr
    )


# -- one end is killed ------------------------------------------------------------------------------


def test_killed_server_gives_errors_in_time_and_a_new_one_is_found(own: Mounts):
    with own.mounted(), open(own.latest / "large", "rb", buffering=0) as file:
        assert file.read(1000) == LARGE[:1000]
        own.kill_server()
        fails_within((own.latest / "many" / "7").read_bytes, errno.EIO, TIMEOUT_S + 3)
        fails_within(lambda: os.pread(file.fileno(), 9, 2_500_000), errno.EIO, TIMEOUT_S + 3)
        fails_within(lambda: os.listdir(own.mountpoint), errno.EIO, TIMEOUT_S + 3)
        own.start_server()
        wait_until(lambda: is_readable(own.latest / "many" / "7"))
        # What was open before goes on, and is kept from being deleted again.
        assert os.pread(file.fileno(), 9, 2_500_000) == LARGE[2_500_000:2_500_009]
        task = own.task()
        expire(task, task.versions()[0])
        assert collect(task) == 0


def test_short_outage_is_not_noticed(mounts: Mounts):
    with mounts.mounted(options="timeout=30"):
        assert (mounts.latest / "many" / "7").read_bytes() == b"7"
        mounts.kill_server()
        with subprocess.Popen(["cat", mounts.latest / "large"], stdout=subprocess.PIPE) as reader:
            mounts.start_server()
            assert reader.stdout.read() == LARGE


def test_server_that_hangs_gives_errors_in_time(mounts: Mounts):
    with mounts.mounted():
        assert (mounts.latest / "many" / "7").read_bytes() == b"7"
        os.kill(mounts.server.process.pid, signal.SIGSTOP)
        try:
            fails_within((mounts.latest / "many" / "8").read_bytes, errno.EIO, TIMEOUT_S + 3)
        finally:
            os.kill(mounts.server.process.pid, signal.SIGCONT)
        wait_until(lambda: is_readable(mounts.latest / "many" / "8"))


def test_version_deleted_while_the_server_was_away_is_stale(own: Mounts):
    (own.source / "new").write_bytes(b"new")
    own.sync()
    task = own.task()
    first = task.versions()[0]
    with own.mounted():
        path = own.mountpoint / first.record().name
        with open(path / "large", "rb", buffering=0) as file:
            assert file.read(1000) == LARGE[:1000]
            own.kill_server()
            expire(task, first)
            assert collect(task) == 1
            own.start_server()
            wait_until(lambda: is_readable(own.latest / "many" / "7"))
            assert errno_of(lambda: os.pread(file.fileno(), 9, 2_500_000)) == errno.ESTALE
        assert (own.latest / "new").read_bytes() == b"new"


def test_killed_mount_is_cleared_by_the_next_which_finds_its_cache(mounts: Mounts):
    with mounts.mounted() as process:
        assert len(list(mounts.latest.rglob("*"))) > 300
        process.kill()
        process.wait()
        with mounts.mounted():
            assert (
                differences(mounts.source, mounts.latest, ignoring={"sockets", "holes", "root"})
                == []
            )
    caches = list((mounts.client.directory / "cache" / "mount_cache").glob("*/*.db"))
    assert caches


@pytest.mark.needs_root
def test_full_cache_disk_gives_errors_and_a_clean_restart(own: Mounts):
    for number in range(3000):
        (own.source / "many" / f"name that is a little longer {number:0100d}").touch()
    own.sync()
    disk = own.directory / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "none", disk], check=True)
    try:
        with own.mounted(cache=disk) as process:
            assert "large" in os.listdir(own.latest)
            assert errno_of(lambda: os.listdir(own.latest / "many")) == errno.EIO
            # What has room is read all the same.
            assert (own.latest / "large").read_bytes() == LARGE
            subprocess.run(["mount", "-o", "remount,size=20m", disk], check=True)
            assert len(os.listdir(own.latest / "many")) == 3002
            process.terminate()
            assert "No space" in process.communicate()[1]
        with own.mounted(cache=disk):
            assert len(os.listdir(own.latest / "many")) == 3002
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


# -- as it is started -------------------------------------------------------------------------------


def test_mount_in_the_background_is_left_by_umount(mounts: Mounts):
    before = len(mounts.server.log)
    mounts.client.ssfs("mount", mounts.server.url("main/docs"), mounts.mountpoint)
    assert (mounts.latest / "many" / "7").read_bytes() == b"7"
    mounts.client.ssfs("umount", mounts.mountpoint)
    mounts.server.wait_for_log(r"browsed, (\d\d+|[2-9]) answers", after=before)


def test_line_of_fstab_may_name_a_server(mounts: Mounts):
    helper = [sys.executable, "-m", "ssfs.cli.mount_helper", mounts.url(), mounts.mountpoint]
    run = subprocess.run(
        [*helper, "-o", "rw,_netdev,nofail,timeout=60"],
        env=mounts.client.environment,
        capture_output=True,
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, b"")
    assert (mounts.latest / "many" / "7").read_bytes() == b"7"


def test_mount_over_ssh_connects_again_by_itself(mounts: Mounts):
    """The way of a real sshd is that of every command; here the far end is a shell of this machine."""
    program = mounts.directory / "fake-ssh"
    program.write_text(
        f'#!/bin/sh\nfor last; do :; done\necho $$ > {program}.pid\neval "exec $last"\n'
    )
    program.chmod(0o755)
    path = f"{program_directory(mounts.directory)}:{os.environ['PATH']}"
    variables = {"SSFS_SSH": str(program), "PATH": path}
    location = f"ssh://nas2{mounts.server.path}::main/docs"
    with mounts.mounted(location, variables=variables):
        assert (mounts.latest / "many" / "7").read_bytes() == b"7"
        os.kill(int(Path(f"{program}.pid").read_text()), signal.SIGKILL)
        wait_until(lambda: is_readable(mounts.latest / "many" / "8"))
        assert (mounts.latest / "large").read_bytes() == LARGE


def test_mount_that_cannot_reach_its_server_says_so_before_it_mounts(mounts: Mounts):
    mounts.kill_server()
    words = ("mount", mounts.server.url("main/docs"), mounts.mountpoint)
    assert "Cannot connect" in mounts.client.ssfs(*words, expect=5).stderr
    assert not is_mounted(mounts.mountpoint)
