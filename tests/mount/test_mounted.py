"""A real mount under the tools people use on it."""

import errno
import hashlib
import mmap
import os
import random
import shutil
import stat
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ssfs.model.entry import ROOT_ID, Kind
from ssfs.store.store import Task
from tests.fakes.comparing import assert_same_tree
from tests.fakes.syncs import Backup
from tests.fakes.trees import build_tree
from tests.mount.mounts import errno_of, is_mounted, mounted, run
from tests.mount.stores import (
    DAY,
    NEXT_DAY,
    add_task,
    add_version,
    directory,
    entry,
    make_store,
    make_task,
)

pytestmark = [pytest.mark.needs_fuse, pytest.mark.slow]

BIG_BYTES = 20_000_000


def make_source(path: Path) -> Path:
    """A tree with a little of everything that a store keeps."""
    path.mkdir()
    deep = path / "a" / ("b" * 255) / "c"
    deep.mkdir(parents=True)
    (deep / "file").write_bytes(b"deep")
    (path / "empty").touch()
    (path / "empty dir").mkdir()
    (path / "big").write_bytes(random.Random(1).randbytes(BIG_BYTES))
    (path / "link").symlink_to("a/none")
    (path / "up").symlink_to("../../elsewhere")
    os.mkdir(os.fsencode(path) + b"/\xff\xfe dir")
    with open(os.fsencode(path) + b"/\xff\xfe dir/new\nline \xe4", "wb") as file:
        file.write(b"not UTF-8")
    os.mkfifo(path / "pipe")
    for number in range(600):
        (path / "a" / f"{number:04d}").write_text(str(number))
    (path / "a" / "0001").chmod(0o4711)
    (path / "a" / "0002").chmod(0o000)
    os.chown(path / "a" / "0003", 12345, 54321)
    os.utime(path / "a" / "0004", ns=(0, -1_500_000_001))
    os.utime(path / "a" / "0005", ns=(0, 123_456_789))
    os.utime(path / "link", ns=(0, 987_654_321), follow_symlinks=False)
    os.utime(path / "a", ns=(0, 86_400_000_000_007))
    path.chmod(0o750)
    return path


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    return make_source(tmp_path_factory.mktemp("mounted") / "source")


@pytest.fixture(scope="module")
def task(source) -> Task:
    task = make_task(source.parent / "store")
    add_version(task, source)
    return task


@pytest.fixture(scope="module")
def dated(source, task) -> Iterator[Path]:
    """The dated directory of a mount of `source`."""
    mountpoint = source.parent / "mnt"
    with mounted(task, mountpoint):
        yield mountpoint / "2024-05-01"


def test_mounted_version_is_the_source(source, dated):
    assert_same_tree(source, dated)


@pytest.mark.parametrize(
    "command",
    [
        ["cp", "-a", "{mount}/.", "{out}"],
        # By itself it leaves the time of what it made in the same second, be it a directory or a FIFO.
        ["rsync", "-a", "--modify-window=-1", "{mount}/", "{out}/"],
        ["sh", "-c", "tar -C {mount} --format=posix -cf - . | tar -C {out} -xpf -"],
    ],
    ids=["cp", "rsync", "tar"],
)
def test_copies_are_whole(source, dated, tmp_path, command):
    out = tmp_path / "out"
    out.mkdir()
    run(*(word.format(mount=dated, out=out) for word in command))
    assert_same_tree(source, out)
    assert (out / "big").read_bytes() == (source / "big").read_bytes()


def test_find_and_ls_see_everything(source, dated):
    def listing(top):
        lines = run("find", top, "-printf", "%P %y %s\n").stdout.splitlines()
        return sorted(line for line in lines if " d " not in line)

    assert listing(dated) == listing(source)
    lines = run("ls", "-ln", "--time-style=+%s", dated / "a").stdout.splitlines()
    assert len(lines) == 602
    assert any(line.startswith("-rws--x--x 1") and line.endswith(" 0001") for line in lines)
    assert any("12345 54321" in line for line in lines)


def test_du_and_df_say_something_sane(task, dated):
    used = int(run("du", "-s", "--block-size=1", dated).stdout.split()[0])
    assert BIG_BYTES < used < 2 * BIG_BYTES + 1000 * 4096
    of_mount, of_store = os.statvfs(dated), os.statvfs(task.path)
    assert (of_mount.f_frsize, of_mount.f_blocks) == (of_store.f_frsize, of_store.f_blocks)
    assert of_mount.f_flag & os.ST_RDONLY
    assert run("df", dated).stdout.splitlines()[1].endswith(str(dated.parent))


def test_special_files_are_shown_as_they_are(dated):
    assert stat.S_ISFIFO(os.lstat(dated / "pipe").st_mode)


def test_latest_leads_to_the_newest(dated):
    assert os.readlink(dated.parent / "latest") == "2024-05-01"
    assert (dated.parent / "latest" / "a" / "0007").read_text() == "7"


@pytest.mark.parametrize(
    ("inside", "name"),
    [("..", "latest"), ("", "empty"), ("a", "0000"), ("../.history", "empty")],
    ids=["above", "in a version", "nested", "in the history"],
)
def test_nothing_can_be_changed(dated, inside, name):
    top = dated / inside
    attempts = [
        lambda: os.open(top / "new", os.O_CREAT | os.O_WRONLY),
        lambda: os.mkdir(top / "new"),
        lambda: os.unlink(top / name),
        lambda: os.rmdir(dated / "empty dir"),
        lambda: os.rename(top / name, top / "new"),
        lambda: os.symlink("x", top / "new"),
        lambda: os.link(top / name, top / "new", follow_symlinks=False),
        lambda: os.mkfifo(top / "new"),
        lambda: os.mknod(top / "new"),
        lambda: os.utime(top / name, follow_symlinks=False),
        lambda: os.chmod(top, 0o777),
        lambda: os.chown(top, 1, 1),
        lambda: os.open(dated / "big", os.O_WRONLY),
        lambda: os.open(dated / "big", os.O_RDWR),
        lambda: os.truncate(dated / "big", 0),
        lambda: os.setxattr(top, "user.x", b"y"),
        lambda: os.removexattr(top, "user.x"),
    ]
    for attempt in attempts:
        assert errno_of(attempt) == errno.EROFS


def test_reads_at_random_are_exact(source, dated):
    content = (source / "big").read_bytes()
    chance = random.Random(7)
    fd = os.open(dated / "big", os.O_RDONLY)
    try:
        for _ in range(300):
            offset = chance.randrange(BIG_BYTES + 10_000)
            size = chance.choice([1, 100, 4096, 70_000, 1_500_000])
            assert os.pread(fd, size, offset) == content[offset : offset + size]
    finally:
        os.close(fd)


def test_mapped_file_is_exact(source, dated):
    with open(dated / "big", "rb") as file:
        with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
            assert mapped[:] == (source / "big").read_bytes()


def test_readers_side_by_side_get_right_bytes(source, dated):
    wanted = hashlib.sha256((source / "big").read_bytes()).digest()
    wrong: list[str] = []

    def read() -> None:
        for _ in range(3):
            names = sorted(os.listdir(dated / "a"))
            if len(names) != 601:
                wrong.append("listing")
            wrong.extend(
                name for name in names[:100] if int((dated / "a" / name).read_text()) != int(name)
            )
            if hashlib.sha256((dated / "big").read_bytes()).digest() != wanted:
                wrong.append("big")

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_listing_can_be_left_and_resumed(dated):
    run(
        "perl",
        "-e",
        """opendir(my $d, $ARGV[0]) or die; my (@names, @at);
        while (1) { push @at, telldir $d; my $n = readdir $d; last unless defined $n; push @names, $n }
        for my $i (reverse 0 .. $#names) {
            seekdir $d, $at[$i]; my $n = readdir $d;
            die "$i: $n, not $names[$i]" unless $n eq $names[$i];
        }
        rewinddir $d; my @again = readdir $d; die "rewind" unless "@again" eq "@names";""",
        dated / "a",
    )


def test_inode_numbers_repeat_for_no_two_entries(dated):
    found = run("find", dated.parent, "-printf", "%i\n").stdout.split()
    assert len(set(found)) == len(found) > 600


@pytest.fixture
def public_mountpoint() -> Iterator[Path]:
    """A mountpoint that everybody can reach, unlike pytest's own directories."""
    path = Path(tempfile.mkdtemp(prefix="ssfs-"))
    path.chmod(0o755)
    yield path / "mnt"
    shutil.rmtree(path)


@pytest.mark.needs_root
def test_permissions_hold_for_others(task, public_mountpoint):
    as_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    with mounted(task, public_mountpoint, "allow_other"):
        assert run(*as_nobody, "ls", public_mountpoint).stdout.split() == [
            "2024-05-01",
            "latest",
            "yesterday",
        ]
        refused = run(*as_nobody, "ls", public_mountpoint / "2024-05-01", check=False)
        assert "Permission denied" in refused.stderr
    with mounted(task, public_mountpoint):
        assert run(*as_nobody, "ls", public_mountpoint, check=False).returncode != 0


def test_hundred_thousand_entries_in_one_directory(tmp_path):
    task = make_task(tmp_path / "store")
    rows = [directory(ROOT_ID, 0, b"")]
    rows += [entry(n, 1, b"file-%06d" % n, Kind.FILE, size=n) for n in range(2, 100_002)]
    add_version(task, rows)
    with mounted(task, tmp_path / "mnt", is_fresh=True) as process:
        dated = tmp_path / "mnt" / "2024-05-01"
        names = os.listdir(dated)
        assert names == [f"file-{n:06d}" for n in range(2, 100_002)]
        with os.scandir(dated) as items:
            assert sum(item.stat().st_size for item in items) == sum(range(2, 100_002))
        status = Path(f"/proc/{process.pid}/status").read_text()
        (peak,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
        assert int(peak) < 100_000, "kB"


def test_kernel_options_are_accepted(task, tmp_path):
    with mounted(task, tmp_path / "mnt", "noexec,noatime,sync,dirsync,async,exec,noexec"):
        line = next(
            line
            for line in Path("/proc/self/mountinfo").read_text().splitlines()
            if str(tmp_path / "mnt") in line
        )
    for option in ("ro", "nosuid", "nodev", "noexec", "noatime"):
        assert option in line.split()[5].split(",")
    assert "fuse.ssfs" in line


def test_store_mount_shows_all_levels(tmp_path):
    store = make_store(tmp_path / "the, store ü")
    add_version(add_task(store, "main", "docs"), [directory(ROOT_ID, 0, b"")], DAY)
    add_version(add_task(store, "photos", "nas1"), [directory(ROOT_ID, 0, b"")], NEXT_DAY)
    with mounted(store, tmp_path / "mnt"):
        found = run("find", tmp_path / "mnt", "-printf", "%P\n").stdout.split()
    assert sorted(found) == [
        "main",
        "main/docs",
        "main/docs/2024-05-01",
        "main/docs/latest",
        "main/docs/yesterday",
        "photos",
        "photos/nas1",
        "photos/nas1/2024-05-02",
        "photos/nas1/latest",
        "photos/nas1/yesterday",
    ]
    with mounted(store.point("photos"), tmp_path / "mnt"):
        assert os.listdir(tmp_path / "mnt" / "nas1") == ["2024-05-02", "latest", "yesterday"]
    assert not is_mounted(tmp_path / "mnt")


@pytest.mark.needs_root
def test_store_that_cannot_be_written_can_be_mounted(source, tmp_path):
    add_version(make_task(tmp_path / "store"), source)
    frozen = tmp_path / "frozen"
    frozen.mkdir()
    run("mount", "--bind", tmp_path / "store", frozen)
    try:
        run("mount", "-o", "remount,bind,ro", frozen)
        with pytest.raises(OSError, match="Read-only"):
            (frozen / "x").touch()
        from_frozen = type(make_store(tmp_path / "unused")).open(os.fsencode(frozen))
        with mounted(from_frozen, tmp_path / "mnt"):
            dated = tmp_path / "mnt" / "main" / "docs" / "2024-05-01"
            assert (dated / "big").read_bytes() == (source / "big").read_bytes()
    finally:
        run("umount", frozen)


def test_damaged_catalog_is_an_error_of_its_version_only(source, tmp_path):
    task = make_task(tmp_path / "store")
    damaged = add_version(task, source, DAY)
    add_version(task, source, NEXT_DAY)
    catalog = Path(os.fsdecode(damaged.path)) / "catalog.db"
    catalog.chmod(0o600)
    catalog.write_bytes(b"\0" * 5000)
    with mounted(task, tmp_path / "mnt"):
        assert len(os.listdir(tmp_path / "mnt")) == 4
        for _ in range(3):
            assert errno_of(lambda: os.listdir(tmp_path / "mnt" / "2024-05-01")) == errno.EIO
        assert (tmp_path / "mnt" / "2024-05-02" / "a" / "0007").read_text() == "7"


def test_catalog_with_a_flipped_bit_is_an_error_of_its_version_only(tmp_path):
    backup = Backup(tmp_path / "store")
    source = build_tree(tmp_path / "source", 1)
    (source / "name-of-a-file").write_text("x")
    for _ in range(2):
        backup.sync(source)
    damaged, other = backup.versions()
    catalog = Path(os.fsdecode(damaged.path)) / "catalog.db"
    content = catalog.read_bytes()
    # SQLite reads it as before, and so does a look at its format.
    catalog.chmod(0o600)
    catalog.write_bytes(content.replace(b"name-of-a-file", b"name-of-b-file"))
    assert catalog.read_bytes() != content
    names = [version.record().name for version in (damaged, other)]
    with mounted(backup.task(), tmp_path / "mnt"):
        for _ in range(2):
            assert errno_of(lambda: os.listdir(tmp_path / "mnt" / names[0])) == errno.EIO
            assert "name-of-a-file" in os.listdir(tmp_path / "mnt" / names[1])
    catalog.write_bytes(content)
    with mounted(backup.task(), tmp_path / "mnt"):
        assert "name-of-a-file" in os.listdir(tmp_path / "mnt" / names[0])
