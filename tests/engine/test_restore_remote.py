"""Restores over a channel: what travels, what does not, and who waits for whom."""

import contextlib
import errno
import os
import random
import socket
import tracemalloc
from pathlib import Path

import pytest

from ssfs.clock import SystemClock
from ssfs.delta.basis import Basis
from ssfs.engine import rows
from ssfs.engine.restore import answers, contents, requests, target, window
from ssfs.engine.restore.client import fetch_version
from ssfs.engine.restore.restorer import RestoreResult
from ssfs.errors import ConfigError, CorruptStore, TrustError
from ssfs.model.peer import Peer, Role
from ssfs.model.problem import EntryProblem
from ssfs.monitor import NullMonitor
from ssfs.protocol.restoring import Fetch, Fetched
from ssfs.store.catalog import writer
from ssfs.store.version import Version
from tests.fakes.comparing import assert_same_tree
from tests.fakes.restores import RestoreServer, request_of, store_of
from tests.fakes.syncs import Backup

MIB = 1 << 20
DAMAGED = "not restored: its content in the store is damaged"


class Line:
    """Restores of one version through a server, and what passed the line in the last one.

    Attributes:
        received_bytes: What the client took off the stream.
        sent_bytes: What it put on it.
    """

    def __init__(self, version: Version, **options):
        self.version = version
        self.server = RestoreServer(store_of(version), **options)
        self.received_bytes = self.sent_bytes = 0

    def restore(self, target: Path, *paths: str, monitor=None) -> RestoreResult:
        with self.server.session() as channel:
            _, result = fetch_version(
                channel,
                request_of(self.version, *paths),
                os.fsencode(target),
                monitor or NullMonitor(),
                SystemClock(),
            )
            self.received_bytes = channel.received_bytes
            self.sent_bytes = channel.sent_bytes
        assert not self.server.errors
        return result


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "source"
    root.mkdir()
    return root


@pytest.fixture
def out(tmp_path: Path) -> Path:
    directory = tmp_path / "out"
    directory.mkdir()
    return directory


def backed_up(tmp_path: Path, source: Path) -> Version:
    backup = Backup(tmp_path / "store")
    backup.sync(source)
    return backup.newest()


def content_of(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


# -- what the target has already ---------------------------------------------------------------------


def test_changed_large_file_travels_as_a_delta(tmp_path, source, out):
    content = noise(20 * MIB)
    (source / "image").write_bytes(content)
    (out / "image").write_bytes(content[: 7 * MIB] + b"other" * 100 + content[7 * MIB + 500 :])
    line = Line(backed_up(tmp_path, source))
    assert line.restore(out).problems == []
    assert (out / "image").read_bytes() == content
    assert line.received_bytes < 100_000
    assert line.sent_bytes < 30_000  # sums of 16 KiB


def test_file_of_another_length_is_a_basis_too(tmp_path, source, out):
    content = noise(5 * MIB)
    (source / "image").write_bytes(content)
    (out / "image").write_bytes(content[: 3 * MIB] + b"inserted" + content[3 * MIB :] + content)
    line = Line(backed_up(tmp_path, source))
    assert line.restore(out).problems == []
    assert (out / "image").read_bytes() == content
    assert line.received_bytes < 100_000


def test_right_large_file_is_not_sent_and_gets_its_metadata(tmp_path, source, out):
    (source / "image").write_bytes(noise(5 * MIB))
    (source / "image").chmod(0o640)
    os.utime(source / "image", ns=(0, 123_456_789))
    (out / "image").write_bytes(noise(5 * MIB))
    before = (out / "image").stat()
    line = Line(backed_up(tmp_path, source))
    result = line.restore(out)
    after = (out / "image").stat()
    assert (result.entries, result.size_bytes, result.problems) == (2, 5 * MIB, [])
    assert (line.received_bytes < 1000, line.sent_bytes < 200) == (True, True)
    assert after.st_ino == before.st_ino
    assert (after.st_mode & 0o7777, after.st_mtime_ns) == (0o640, 123_456_789)


def test_right_file_with_another_name_is_replaced_not_changed(tmp_path, source, out):
    (source / "image").write_bytes(noise(5 * MIB))
    (source / "image").chmod(0o600)
    (tmp_path / "elsewhere").write_bytes(noise(5 * MIB))
    (tmp_path / "elsewhere").chmod(0o644)
    os.link(tmp_path / "elsewhere", out / "image")
    line = Line(backed_up(tmp_path, source))
    assert line.restore(out).problems == []
    assert (tmp_path / "elsewhere").stat().st_mode & 0o777 == 0o644
    assert (out / "image").stat().st_mode & 0o777 == 0o600
    assert line.received_bytes < 10_000


@pytest.mark.needs_root
def test_right_file_of_a_stranger_is_replaced(tmp_path, source, out):
    # Who owns it may have it open for writing: it must not become root's with that.
    (source / "tool").write_bytes(noise(1 * MIB))
    (out / "tool").write_bytes(noise(1 * MIB))
    os.chown(out / "tool", 4711, 4711)
    before = (out / "tool").stat().st_ino
    assert Line(backed_up(tmp_path, source)).restore(out).problems == []
    assert ((out / "tool").stat().st_ino == before, (out / "tool").stat().st_uid) == (False, 0)


def test_right_small_file_is_not_sent_and_a_wrong_one_whole(tmp_path, source, out):
    for name in ("right", "wrong"):
        (source / name).write_bytes(noise(100_000))
        (out / name).write_bytes(noise(100_000, int(name == "wrong")))
    line = Line(backed_up(tmp_path, source))
    assert line.restore(out).problems == []
    assert content_of(out) == content_of(source)
    assert 100_000 < line.received_bytes < 101_000
    assert line.sent_bytes < 200


def test_link_and_directory_in_a_large_files_place_are_no_bases(tmp_path, source, out):
    for name in ("a", "b", "c"):
        (source / name).write_bytes(noise(MIB))
    (tmp_path / "elsewhere").write_bytes(noise(MIB, 1))
    (out / "a").symlink_to(tmp_path / "elsewhere")
    (out / "b").mkdir()
    os.mkfifo(out / "c")
    line = Line(backed_up(tmp_path, source))
    assert line.restore(out).problems == [
        EntryProblem(b"b", "not restored: a directory has its place")
    ]
    assert not (out / "a").is_symlink()
    assert (out / "a").read_bytes() == (out / "c").read_bytes() == noise(MIB)
    assert (tmp_path / "elsewhere").read_bytes() == noise(MIB, 1)


@pytest.mark.parametrize("change", ["other", "shorter", "longer"])
@pytest.mark.parametrize("more", [b"", b"more"])
def test_own_file_that_changes_meanwhile_spoils_nothing(
    tmp_path, source, out, monkeypatch, change, more
):
    content = noise(5 * MIB)
    (source / "image").write_bytes(content)
    (source / "next").write_bytes(noise(MIB, 2))
    (out / "image").write_bytes(content[:-1000] + bytes(1000) + more)
    as_it_was = window.describe

    def describe(basis: Basis, file_bytes: int):
        yield from as_it_was(basis, file_bytes)
        changed = {"other": bytes(MIB) + content, "shorter": b"x", "longer": b"" + content * 2}
        (out / "image").write_bytes(changed[change])

    monkeypatch.setattr(window, "describe", describe)
    line = Line(backed_up(tmp_path, source))
    assert line.restore(out).problems == []
    assert_same_tree(source, out, ignoring={"root"})
    assert sorted(os.listdir(out)) == ["image", "next"]
    # What is still where it was described is used; else the file is sent once more, whole.
    assert (line.received_bytes > 6 * MIB) == (change != "longer")


def test_own_file_that_cannot_be_read_is_replaced(tmp_path, source, out, monkeypatch):
    def describe(_basis: Basis, _file_bytes: int):
        raise OSError(errno.EIO, "Input/output error")
        yield

    monkeypatch.setattr(window, "describe", describe)
    (source / "image").write_bytes(noise(MIB))
    (out / "image").write_bytes(noise(MIB, 1))
    assert Line(backed_up(tmp_path, source)).restore(out).problems == []
    assert_same_tree(source, out, ignoring={"root"})


def test_descriptions_beyond_the_credit_wait_for_those_before(tmp_path, source, out, monkeypatch):
    monkeypatch.setattr(window, "CREDIT_BASIS_BYTES", 60_000)
    monkeypatch.setattr(requests, "CREDIT_BASIS_BYTES", 60_000)
    for number in range(10):
        (source / f"{number}").write_bytes(noise(MIB, number))
        (out / f"{number}").write_bytes(noise(MIB - 1000, number) + bytes(1001))
    line = Line(backed_up(tmp_path, source))
    assert line.restore(out).problems == []
    assert_same_tree(source, out, ignoring={"root"})
    assert line.sent_bytes > 150_000
    assert line.received_bytes < MIB


# -- damage --------------------------------------------------------------------------------------------


def stored_file(version: Version, name: str) -> Path:
    path = Path(os.fsdecode(version.path)) / "tree" / name
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("size", [1000, 5 * MIB])
@pytest.mark.parametrize("has_basis", [False, True])
def test_damaged_files_are_problems_and_the_rest_comes(tmp_path, source, out, size, has_basis):
    for name in ("changed", "cut", "fine", "gone", "grown", "link"):
        (source / name).write_bytes(noise(size))
        if has_basis:
            (out / name).write_bytes(noise(size - 100) + bytes(100))
    version = backed_up(tmp_path, source)
    for name in ("changed", "cut", "gone", "grown", "link"):
        # Equal content may be one inode.
        path = stored_file(version, name)
        path.unlink()
        path.write_bytes(noise(size))
    stored_file(version, "changed").write_bytes(noise(size, 1))
    os.truncate(stored_file(version, "cut"), size // 2)
    stored_file(version, "gone").unlink()
    with open(stored_file(version, "grown"), "ab") as file:
        file.write(b"x")
    stored_file(version, "link").unlink()
    stored_file(version, "fine").parent.joinpath("link").symlink_to("/etc/hostname")
    before = content_of(out)
    problems = {p.path: p.problem for p in Line(version).restore(out).problems}
    cannot = "not restored: its content in the store cannot be opened: "
    assert problems == {
        b"changed": DAMAGED,
        b"cut": DAMAGED,
        b"grown": DAMAGED,
        b"gone": cannot + "no such file or directory",
        b"link": cannot + "too many levels of symbolic links",
    }
    assert content_of(out) == {**before, "fine": noise(size)}


def test_file_that_cannot_be_read_to_its_end_is_a_problem(tmp_path, source, out, monkeypatch):
    (source / "image").write_bytes(noise(5 * MIB))
    (source / "next").write_bytes(b"next")
    version = backed_up(tmp_path, source)
    preadv = os.preadv

    def failing(fd: int, buffers: list, position: int, flags: int = 0) -> int:
        if position >= 2 * MIB:
            raise OSError(errno.EIO, "Input/output error")
        return preadv(fd, buffers, position, flags)

    monkeypatch.setattr(os, "preadv", failing)
    result = Line(version).restore(out)
    assert result.problems == [
        EntryProblem(b"image", "not restored: its content cannot be read: input/output error")
    ]
    assert content_of(out) == {"next": b"next"}


def test_damaged_catalog_is_the_servers_error(tmp_path, source, out):
    (source / "file").write_text("x")
    version = backed_up(tmp_path, source)
    (Path(os.fsdecode(version.path)) / "catalog.db").write_bytes(b"no database")
    server = RestoreServer(store_of(version))
    with pytest.raises(CorruptStore):
        server.restore(request_of(version), out)


@pytest.mark.parametrize("size", [1000, 5 * MIB])
def test_write_that_fails_for_one_file_is_its_problem(tmp_path, source, out, monkeypatch, size):
    for name in ("a", "b", "c"):
        (source / name).write_bytes(name.encode() * size)
    write_uncached, write_all = contents.write_uncached, target.write_all

    def check(content: bytes) -> None:
        if bytes(content[:1]) == b"b":
            raise OSError(errno.EFBIG, "File too large")

    def failing_large(fd: int, content: bytes, position: int) -> None:
        check(content)
        write_uncached(fd, content, position)

    def failing_small(fd: int, content: bytes) -> None:
        check(content)
        write_all(fd, content)

    monkeypatch.setattr(contents, "write_uncached", failing_large)
    monkeypatch.setattr(target, "write_all", failing_small)
    result = Line(backed_up(tmp_path, source)).restore(out)
    assert result.problems == [EntryProblem(b"b", "not restored: file too large")]
    assert sorted(content_of(out)) == ["a", "c"]


# -- who waits for whom --------------------------------------------------------------------------------


def narrow() -> tuple[socket.socket, socket.socket]:
    """A line that holds next to nothing."""
    ends = socket.socketpair()
    for end in ends:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    return ends


@pytest.mark.slow
def test_neither_end_waits_for_the_other_on_a_narrow_line(tmp_path, source, out):
    # The server is in the middle of a large file while signatures and requests come in.
    for number in range(8):
        (source / f"{number}-new").write_bytes(noise(MIB, number))
        (source / f"{number}-old").write_bytes(noise(2 * MIB, number))
        (out / f"{number}-old").write_bytes(noise(2 * MIB - 9, number))
        for small in range(50):
            (source / f"{number}-{small}").write_bytes(b"small" * small)
    line = Line(backed_up(tmp_path, source), join=narrow)
    assert line.restore(out).problems == []
    assert_same_tree(source, out, ignoring={"root"})


class Weigher(NullMonitor):
    """How much memory both ends hold while files are written; what SQLite holds is not counted.

    Attributes:
        most: Bytes at the heaviest moment.
    """

    most = 0

    def advance(self, _entries: int, _size_bytes: int, _path: bytes) -> None:
        self.most = max(self.most, tracemalloc.get_traced_memory()[0])


@pytest.mark.slow
def test_memory_does_not_grow_with_the_version(tmp_path, source, monkeypatch):
    # What each stage may hold, so much smaller that a version of some thousand files is a large one.
    monkeypatch.setattr(window, "_MOST_FILES", 100)
    monkeypatch.setattr(rows, "_ROWS_PER_FRAME", 100)
    monkeypatch.setattr(writer, "_PENDING_ROWS", 100)
    monkeypatch.setattr(answers, "_MOST_FILES_PER_FRAME", 50)

    def most(count: int) -> int:
        for index in range(count):
            (source / f"{index:060}").write_bytes(b"x" * 500)
        version = backed_up(tmp_path / f"{count}", source)
        weigher = Weigher()
        tracemalloc.start()
        try:
            result = Line(version).restore(tmp_path / f"out-{count}", monitor=weigher)
        finally:
            tracemalloc.stop()
        assert (result.entries, result.problems) == (count + 1, [])
        return weigher.most

    for count in (500, 1500):
        (tmp_path / f"{count}").mkdir()
    smaller = most(500)
    assert most(1500) < smaller + 200_000
    assert smaller < 8_000_000


# -- what is asked for ---------------------------------------------------------------------------------


class Expecting(NullMonitor):
    """Remembers how much there is to go through."""

    expected: tuple[int, int] | None = None

    def expect(self, entries: int, size_bytes: int) -> None:
        self.expected = (entries, size_bytes)


def test_one_folder_needs_its_own_rows_only(tmp_path, source, out):
    for directory in ("a", "a/b", "a/b/c", "other", "other/deep"):
        (source / directory).mkdir()
    for index in range(500):
        (source / "other" / "deep" / f"{index}").touch()
    (source / "a" / "b" / "file").write_text("x")
    (source / "a" / "aside").write_text("x")
    line, monitor = Line(backed_up(tmp_path, source)), Expecting()
    result = line.restore(out, "a/b", monitor=monitor)
    assert (result.entries, result.problems) == (3, [])
    assert sorted(path.name for path in out.rglob("*")) == ["b", "c", "file"]
    # The root, a, b, c and the file.
    assert monitor.expected == (5, 1)
    assert line.received_bytes < 1500


def test_paths_inside_each_other_and_beside(tmp_path, source, out):
    for directory in ("a", "a/b", "a.c", "d"):
        (source / directory).mkdir()
        (source / directory / f"in-{directory.replace('/', '-')}").write_text(directory)
    line = Line(backed_up(tmp_path, source))
    result = line.restore(out, "a/b", "a", "a.c/in-a.c", "a/b/in-a-b", "d")
    assert result.problems == []
    assert sorted(content_of(out)) == [
        "a/b/in-a-b",
        "a/in-a",
        "b/in-a-b",
        "d/in-d",
        "in-a-b",
        "in-a.c",
    ]


def test_server_says_which_version_it_was(tmp_path, source, out):
    (source / "file").write_text("x")
    backup = Backup(tmp_path / "store")
    backup.sync(source)
    backup.sync(source)
    server = RestoreServer(backup.path)
    first, last = backup.versions()
    for text, version, name in (
        ("latest", last, str(last.id)[7:17]),
        ("1", first, first.record().name),
    ):
        fetched, _ = server.restore(Fetch("main", "", text, []), out / text)
        assert fetched == Fetched(str(version.id), name, 2, 1)
    assert [(served.task, served.files, served.size_bytes) for served in server.served] == (
        [("main/task", 1, 1)] * 2
    )


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        (Fetch("none", "task", "latest", []), "No sync point"),
        (Fetch("../main", "task", "latest", []), "cannot name a sync point"),
        (Fetch("main", "none", "latest", []), "No task"),
        (Fetch("main", "../task", "latest", []), "cannot name a task"),
        (Fetch("main", "task", "9", []), "No version"),
        (Fetch("main", "", "latest", []), "several tasks: another, task"),
        (Fetch("main", "task", "latest", [b"none"]), "Not in the version"),
        (Fetch("main", "task", "latest", [b"a/x", b"b/x"]), "Another PATH has the same name"),
    ],
)
def test_wrong_requests_are_config_errors(tmp_path, source, request_, text):
    for directory in ("a", "b"):
        (source / directory).mkdir()
        (source / directory / "x").touch()
    backup = Backup(tmp_path / "store")
    backup.sync(source)
    backup.sync(source, task="another")
    with pytest.raises(ConfigError, match=text):
        RestoreServer(backup.path).restore(request_, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_only_who_may_read_a_task_gets_it(tmp_path, source, out):
    (source / "file").write_text("x")
    backup = Backup(tmp_path / "store")
    backup.sync(source)  # owned by "client"
    main = frozenset({"main"})

    def outcome(name: str, role: Role, points: frozenset[str], task: str = "task") -> object:
        server = RestoreServer(backup.path, Peer(name, frozenset({role}), points))
        with contextlib.suppress(TrustError, ConfigError):
            server.restore(Fetch("main", task, "latest", []), out)
        return type(server.errors[0]) if server.errors else len(server.served)

    assert outcome("client", Role.BACKUP, main) == 1
    assert outcome("client", Role.BACKUP, main, "") == 1
    assert outcome("other", Role.RESTORE, main) == 1
    assert outcome("other", Role.ADMIN, frozenset({"*"})) == 1
    assert outcome("other", Role.BACKUP, main) is TrustError
    assert outcome("other", Role.BACKUP, main, "") is ConfigError
    assert outcome("client", Role.BACKUP, frozenset({"elsewhere"})) is TrustError


def test_no_room_for_the_list_of_files_is_said_before_anything_is_written(
    tmp_path, source, monkeypatch
):
    (source / "file").write_text("x")
    version = backed_up(tmp_path, source)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="set TMPDIR"):
        RestoreServer(store_of(version)).restore(request_of(version), tmp_path / "out")
    assert not (tmp_path / "out").exists()
