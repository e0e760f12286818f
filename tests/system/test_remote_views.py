"""What a mount of a server has beside dates: `.history`, the view for Samba, and how full the disk is."""

import contextlib
import errno
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ssfs.store.catalog.reader import CatalogReader
from tests.fakes.menagerie import ACCESS
from tests.mount.mounts import errno_of, may_pass, mounted, run, wait_until
from tests.mount.smbd import smbd
from tests.mount.stores import collect, expire
from tests.mount.test_mounted_rights import ANN, BOB, CAT, USERS, allowed, named
from tests.system.remote_mounts import TIMEOUT_S, Mounts, fails_within

pytestmark = [pytest.mark.slow, pytest.mark.needs_fuse]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mounts]:
    """A source with a past."""
    made = Mounts(tmp_path_factory.mktemp("made"))
    source = made.source
    report = source / "many" / "report.txt"
    for state in ("one", "two", "three"):
        report.write_text(state)
        os.setxattr(report, "user.state", state.encode())
        (source / "many" / f"only in {state}").write_text(state)
        made.sync()
        (source / "many" / f"only in {state}").unlink()
    made.sync()
    # A night in which nothing happens, and one in which much does.
    made.sync()
    (source / "many").rename(source / "moved")
    (source / "moved" / "1").rename(source / "moved" / "parked")
    (source / "moved" / "2").rename(source / "moved" / "1")
    (source / "moved" / "parked").rename(source / "moved" / "2")
    (source / "moved" / "3").unlink()
    (source / "moved" / "3").mkdir()
    (source / "dir-0").chmod(0o750)
    made.sync()
    (source / "many").mkdir()
    (source / "many" / "report.txt").write_text("another one")
    made.sync()
    yield made
    made.server.stop()
    assert not [line for line in made.server.log if "Traceback" in line], made.server.log


@pytest.fixture
def mounts(made: Mounts, tmp_path: Path) -> Iterator[Mounts]:
    """What all tests of this file share; only where a server is killed is it not waited for."""
    for mounts in made.for_test(tmp_path):
        mounts.timeout_s = 60.0
        yield mounts


def seen(top: Path) -> list[tuple[object, ...]]:
    """All that is to be seen below a directory, inode numbers and devices aside."""
    found: list[tuple[object, ...]] = []
    for directory, names, files in os.walk(top):
        names.sort()
        for path in [Path(directory), *(Path(directory, name) for name in sorted(files))]:
            status = path.lstat()
            content: object = None
            if path.is_symlink():
                content = os.readlink(path)
            elif path.is_file():
                content = path.read_bytes()
            xattrs = {
                name: os.getxattr(path, name, follow_symlinks=False)
                for name in os.listxattr(path, follow_symlinks=False)
            }
            shown = (status.st_mode, status.st_uid, status.st_gid, status.st_nlink)
            sizes = (status.st_size, status.st_blocks, status.st_mtime_ns, status.st_rdev)
            found.append((os.fspath(path.relative_to(top)), *shown, *sizes, content, xattrs))
    return found


def test_history_of_a_server_is_that_of_its_own_mount(mounts: Mounts):
    with mounts.mounted(), mounted(mounts.task(), mounts.directory / "local"):
        remote = seen(mounts.mountpoint / ".history")
        local = seen(mounts.directory / "local" / ".history")
        assert len(local) > 600
        assert remote == local
        states = mounts.mountpoint / ".history" / "moved" / "report.txt"
        assert [state.read_text() for state in states.iterdir()] == ["one", "two", "three"]


def whole_catalogs(cache: Path) -> list[Path]:
    """Files of the catalogs that are here whole; ask when no mount uses them."""
    found = []
    for path in cache.glob("mount_cache/*/*.db"):
        with contextlib.closing(sqlite3.connect(path)) as database:
            if database.execute("SELECT 1 FROM complete WHERE directory = 0").fetchone():
                found.append(path)
    return found


def test_catalogs_are_fetched_when_history_is_looked_at_and_once(mounts: Mounts):
    cache = mounts.directory / "cache"
    with mounts.mounted(options="show_history", cache=cache):
        assert ".history" in os.listdir(mounts.mountpoint)
        assert (mounts.latest / "moved" / "4").read_bytes() == b"4"
    assert whole_catalogs(cache) == []
    with mounts.mounted(options="show_history", cache=cache):
        assert ".history" in os.listdir(mounts.mountpoint)
        assert (mounts.mountpoint / ".history").stat().st_mode & 0o777 == 0o755
        assert (mounts.latest / "moved" / "4").read_bytes() == b"4"
    fetched = whole_catalogs(cache)
    # Quiet nights have the catalog of the one before.
    digests = {version.record().catalog_digest for version in mounts.task().versions()}
    assert {path.name.split(".")[0] for path in fetched} == digests
    inodes = {path.stat().st_ino for path in fetched}
    with mounts.mounted(cache=cache):
        assert ".history" not in os.listdir(mounts.mountpoint)
        assert "report.txt" in os.listdir(mounts.mountpoint / ".history" / "many")
    assert {path.stat().st_ino for path in whole_catalogs(cache)} == inodes
    with mounts.mounted(options="plain", cache=cache):
        assert errno_of((mounts.mountpoint / ".history").stat) == errno.ENOENT


def test_programs_walk_and_copy_a_history(mounts: Mounts):
    with mounts.mounted(mounts.server.url("")):
        history = mounts.mountpoint / "main" / "docs" / ".history"
        run("cp", "-a", history / "moved", mounts.directory / "copy")
        copied = mounts.directory / "copy" / "report.txt"
        assert {path.read_text() for path in copied.iterdir()} == {"one", "two", "three"}
        there = run("sh", "-c", f"cd '{history}/many/7' && cd ../.. && pwd -P && ls -a").stdout
        assert there.splitlines()[0] == str(history)
        state = next((history / "moved" / "report.txt").iterdir())
        assert os.getxattr(state, "user.ssfs.version").startswith(b"000002-")
        assert errno_of((history / "none").stat) == errno.ENOENT
        assert errno_of((history / "new").mkdir) == errno.EROFS


def test_states_come_and_go_while_somebody_looks(mounts: Mounts):
    mounts.own("states")
    report = mounts.source / "report"
    report.write_text("1")
    mounts.sync()
    with mounts.mounted(options="idle=0.5"):
        states = mounts.mountpoint / ".history" / "report"
        assert [state.read_text() for state in states.iterdir()] == ["1"]
        report.write_text("22")
        mounts.sync()
        wait_until(lambda: len(os.listdir(states)) == 2, 5)
        assert sorted(state.read_text() for state in states.iterdir()) == ["1", "22"]
        expire(mounts.task(), mounts.task().versions()[0])
        wait_until(lambda: len(os.listdir(states)) == 1, 5)
        assert [state.read_text() for state in states.iterdir()] == ["22"]


def test_look_at_a_history_keeps_no_version_from_being_deleted(mounts: Mounts):
    mounts.own("kept")
    for state in ("1", "22"):
        (mounts.source / "report").write_text(state)
        mounts.sync()
    with mounts.mounted():
        states = mounts.mountpoint / ".history" / "report"
        first, second = states.iterdir()
        assert (first.stat().st_size, second.stat().st_size) == (1, 2)
        task = mounts.task()
        expire(task, task.versions()[0])
        wait_until(lambda: collect(task) == 1)
        wait_until(lambda: len(os.listdir(states)) == 1)
        (second,) = states.iterdir()
        # Who reads a state has its version kept, as everywhere.
        with open(second, "rb") as file:
            assert file.read(1) == b"2"
            (mounts.source / "report").write_text("333")
            mounts.sync()
            expire(task, task.versions()[0])
            assert collect(task) == 0


@pytest.mark.needs_root
def test_users_get_to_no_state_that_was_closed_to_them(mounts: Mounts):
    mounts.own("rights")
    mounts.source.chmod(0o755)
    for name, before, after in (("open", 0o755, 0o755), ("closed", 0o700, 0o755)):
        folder = mounts.source / name
        folder.mkdir(mode=before)
        (folder / "file").write_text(name)
        (folder / "file").chmod(0o644)
        mounts.sync()
        folder.chmod(after)
    listed = mounts.source / "listed"
    listed.mkdir(mode=0o700)
    listed.chmod(0o700)
    os.setxattr(listed, ACCESS, named(5, 5, 5))
    (listed / "file").write_text("for some")
    mounts.sync()
    local = mounts.directory / "local"
    may_pass(*mounts.directory.parents, mounts.directory)
    with (
        mounts.mounted(options="allow_other"),
        mounted(mounts.task(), local, "allow_other"),
    ):
        history = mounts.mountpoint / ".history"
        paths = [name for name, *_ in seen(history)]
        assert len(paths) > 9
        may = {}
        for user in USERS:
            may[user] = allowed(user, history, paths)
            assert may[user] == allowed(user, local / ".history", paths)
        assert "list" in may[ANN]["open/file"]
        assert "stat" not in may[ANN]["closed/file"]
        assert [user for user in USERS if "list" in may[user]["listed/file"]] == [BOB, CAT]


# -- one end is killed, or damaged ------------------------------------------------------------------


def test_server_killed_while_its_history_is_fetched_gives_errors_in_time(mounts: Mounts):
    mounts.timeout_s = TIMEOUT_S
    with mounts.mounted(cache=mounts.directory / "cache"):
        history = mounts.mountpoint / ".history"
        os.listdir(mounts.mountpoint)
        os.kill(mounts.server.process.pid, signal.SIGSTOP)
        look = [sys.executable, "-c", "import os, sys; os.listdir(sys.argv[1])", history]
        with subprocess.Popen(look, stderr=subprocess.PIPE) as looking:
            # Its question is under way, or not even asked: neither may hang.
            mounts.kill_server()
            _, said = looking.communicate(timeout=TIMEOUT_S + 10)
        assert b"Input/output error" in said
        fails_within(lambda: os.listdir(history), errno.EIO, TIMEOUT_S + 3)
        mounts.start_server()
        wait_until(lambda: errno_of_listing(history) == 0)
        assert len(os.listdir(history / "moved" / "report.txt")) == 3
        mounts.kill_server()
        # What is here is not shown as if it were all there is, once it is no longer known.
        wait_until(lambda: errno_of_listing(history / "moved") == errno.EIO)


def errno_of_listing(path: Path) -> int:
    try:
        os.listdir(path)
    except OSError as error:
        return error.errno or -1
    return 0


def test_server_killed_between_two_looks_at_a_history_is_not_noticed(mounts: Mounts):
    with mounts.mounted(cache=mounts.directory / "cache"):
        history = mounts.mountpoint / ".history"
        os.listdir(mounts.mountpoint)
        mounts.kill_server()
        with subprocess.Popen(["ls", history / "moved"], stdout=subprocess.PIPE) as looking:
            mounts.start_server()
            assert b"report.txt" in looking.stdout.read()


def test_version_whose_catalog_is_damaged_is_left_out_as_by_a_local_mount(mounts: Mounts):
    mounts.own("damaged")
    for state in ("1", "22", "333"):
        (mounts.source / "report").write_text(state)
        mounts.sync()
    damaged = Path(os.fsdecode(mounts.task().versions()[1].path), "catalog.db")
    damaged.chmod(0o600)
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    local = mounts.directory / "local"
    with mounts.mounted() as process, mounted(mounts.task(), local):
        states = mounts.mountpoint / ".history" / "report"
        assert [state.read_text() for state in sorted(states.iterdir())] == ["1", "333"]
        assert seen(states) == seen(local / ".history" / "report")
        process.terminate()
        assert "is left out of histories" in process.communicate()[1]


def test_damaged_catalog_in_the_cache_is_fetched_again(mounts: Mounts):
    cache = mounts.directory / "cache"
    with mounts.mounted(cache=cache):
        before = seen(mounts.mountpoint / ".history" / "many")
    for path in whole_catalogs(cache):
        content = path.read_bytes()
        # Its first page says that it is a catalog, and the others nothing.
        path.write_bytes(content[:4096] + bytes(len(content) - 4096))
    with mounts.mounted(cache=cache):
        assert seen(mounts.mountpoint / ".history" / "many") == before


def test_catalog_made_of_a_wrong_one_is_fetched_whole(mounts: Mounts):
    mounts.own("wrong")
    for number in range(50):
        (mounts.source / f"{number}").write_text("x" * number)
    mounts.sync()
    cache = mounts.directory / "cache"
    with mounts.mounted(cache=cache):
        assert len(os.listdir(mounts.mountpoint / ".history")) == 50
    (wrong,) = whole_catalogs(cache)
    with contextlib.closing(sqlite3.connect(wrong)) as database, database:
        changed = database.execute("UPDATE entry SET mode = mode - 1 WHERE id = 1")
        assert changed.rowcount == 1
    # The root, which has another time then, is not what the digest of the copy was made of.
    (mounts.source / "new").write_text("new")
    mounts.sync()
    with mounts.mounted(cache=cache):
        assert len(os.listdir(mounts.mountpoint / ".history")) == 51
    newest = mounts.task().versions()[-1].record().catalog_digest
    (made,) = [path for path in whole_catalogs(cache) if path.name.startswith(newest)]
    with CatalogReader.open(os.fsencode(made)) as catalog:
        assert catalog.recomputed_digest().hex() == newest


@pytest.mark.needs_root
def test_full_cache_disk_gives_errors_and_goes_on_with_more_room(mounts: Mounts):
    mounts.own("full")
    (mounts.source / "many").mkdir()
    for number in range(2500):
        (mounts.source / "many" / f"name that is a little longer {number:0100d}").touch()
    for state in ("1", "22"):
        (mounts.source / "report").write_text(state)
        mounts.sync()
    disk = mounts.directory / "disk"
    disk.mkdir()
    # There is room for one of two catalogs.
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1500k", "none", disk], check=True)
    try:
        with mounts.mounted(cache=disk) as process:
            states = mounts.mountpoint / ".history" / "report"
            assert errno_of(lambda: os.listdir(states)) == errno.EIO
            assert (mounts.latest / "report").read_bytes() == b"22"
            subprocess.run(["mount", "-o", "remount,size=20m", disk], check=True)
            wait_until(lambda: errno_of_listing(states) == 0)
            assert [state.read_text() for state in states.iterdir()] == ["1", "22"]
            process.terminate()
            assert "No space" in process.communicate()[1]
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def test_killed_mount_leaves_nothing_that_is_taken_for_a_catalog(mounts: Mounts):
    cache = mounts.directory / "cache"
    with mounts.mounted(cache=cache) as process:
        os.listdir(mounts.mountpoint / ".history")
        process.kill()
        process.wait()
        (shelf,) = cache.glob("mount_cache/*")
        (shelf / "fetched-0").write_bytes(b"half of one")
        with mounts.mounted(cache=cache):
            assert "moved" in os.listdir(mounts.mountpoint / ".history")
            assert not list(shelf.glob("fetched-*"))


# -- Samba ------------------------------------------------------------------------------------------


def test_view_for_samba_has_the_names_of_a_local_mount(mounts: Mounts):
    local = mounts.directory / "local"
    with mounts.mounted(options="samba"), mounted(mounts.task(), local, "samba"):
        assert ".samba" not in os.listdir(mounts.mountpoint)
        view = mounts.mountpoint / ".samba"
        names = sorted(os.listdir(view))
        assert names == sorted(os.listdir(local / ".samba"))
        assert len(names) == len(mounts.task().versions())
        for name in names:
            found = os.getxattr(view / name / "large", "user.ssfs.version")
            assert found == os.getxattr(local / ".samba" / name / "large", "user.ssfs.version")
        assert errno_of((view / "@GMT-2001.01.01-00.00.00").stat) == errno.ENOENT
    with mounts.mounted():
        assert errno_of((mounts.mountpoint / ".samba").stat) == errno.ENOENT


@pytest.mark.needs_root
@pytest.mark.skipif(
    not (shutil.which("smbd") and shutil.which("smbclient")) and not os.environ.get("CI"),
    reason="smbd or smbclient is missing",
)
def test_samba_shows_previous_versions_out_of_a_servers_store(mounts: Mounts):
    may_pass(*mounts.directory.parents, mounts.directory)
    mounts.own("shared")
    for state in ("one", "two"):
        (mounts.source / "report").write_text(state)
        mounts.sync()
    (mounts.source / "report").write_text("now")
    config = mounts.client.ssfs("samba-config", mounts.url(), "home").stdout
    assert f"{mounts.url()}  /mnt/smartsync  fuse.ssfs  allow_other,samba,nofail,_netdev" in config
    with mounts.mounted(options="allow_other,samba"):
        config = mounts.client.ssfs("samba-config", mounts.url(), "home").stdout
        assert f"shadow:snapdir = {mounts.mountpoint}/.samba" in config
        with smbd(mounts.directory / "smbd", [config]) as samba:
            out = mounts.directory / "out"
            newest, oldest = samba.previous_versions("home", "report")
            assert samba.fetch("home", rf"{oldest}\report", out) == b"one"
            assert samba.fetch("home", rf"{newest}\report", out) == b"two"
            assert samba.fetch("home", "report", out) == b"now"


# -- how full the disk is ---------------------------------------------------------------------------


def test_sizes_of_the_servers_disk_are_shown_also_while_it_is_away(mounts: Mounts):
    with mounts.mounted():
        shown, there = os.statvfs(mounts.mountpoint), os.statvfs(mounts.server.path)
        assert shown.f_blocks * shown.f_frsize == there.f_blocks * there.f_frsize
        assert shown.f_files == there.f_files
        assert 0 < shown.f_bavail <= shown.f_bfree < shown.f_blocks
        mounts.kill_server()
        assert os.statvfs(mounts.mountpoint).f_blocks == shown.f_blocks
