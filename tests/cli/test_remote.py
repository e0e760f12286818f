"""Commands on a store behind a server: the same bytes, exit codes and errors as on a store here.

The command line runs in this process; only the way to the server is a test's (`tests.fakes.remote`).
"""

import io
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from ssfs.cli import session
from ssfs.cli.location import TlsPlace
from ssfs.cli.main import main
from ssfs.model.peer import LOCAL, Peer, Role
from tests.cli.support import run
from tests.fakes.catalogs import Catalogs
from tests.fakes.histories import add_two_months, make_store, make_task
from tests.fakes.remote import RemoteStore
from tests.fakes.syncs import Backup

Commands = Callable[..., "Result"]


class Result(NamedTuple):
    """What a command printed, and its exit code."""

    code: int
    out: bytes
    err: bytes


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with two months of versions in main, two tasks in other, and catalogs in asked."""
    path = tmp_path_factory.mktemp("made") / "store"
    store = make_store(path)
    add_two_months(make_task(store, "docs"))
    for name in ("a", "b"):
        make_task(store, name, point="other")
    catalogs = Catalogs(make_task(store, "home", point="asked"))
    with catalogs.next_version() as version:
        version.directory("ann")
        version.file("ann/report.odt", b"one")
        version.file("caf\udce9\n", b"odd")
    with catalogs.next_version() as version:
        version.file("ann/report.odt", b"second")
        version.move("ann", "eva")
        version.remove("caf\udce9\n")
    return path


@pytest.fixture
def here(made: Path, tmp_path: Path) -> Path:
    """That store, to be used here."""
    return Path(shutil.copytree(made, tmp_path / "here", symlinks=True))


@pytest.fixture
def server(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RemoteStore:
    """That store, behind a server: every remote place leads to it."""
    there = RemoteStore(Path(shutil.copytree(made, tmp_path / "there", symlinks=True)), LOCAL)
    monkeypatch.setattr(session, "open_channel", there.open_channel)
    return there


@pytest.fixture
def ssfs(
    monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> Iterator[Commands]:
    """Runs a command line in this process."""

    def run_here(command: str, **places: object) -> Result:
        words = [word.format(**places) for word in shlex.split(command)]
        monkeypatch.setattr(sys, "argv", ["ssfs", *words])
        code = main()
        return Result(code, *capfdbinary.readouterr())

    on_sigterm = signal.getsignal(signal.SIGTERM)
    yield run_here
    signal.signal(signal.SIGTERM, on_sigterm)


POINTS = ("main", "other", "asked", "new")
LOOKING = [
    "points {store}",
    "points -v {store}",
    "points --json {store}",
    "versions {main}",
    "versions -v {main}/docs",
    "versions -q {main}",
    "versions --json {main}",
    "point {main}",
    "point --json {main}",
    "expire --dry-run {main}",
    "expire --dry-run --json {main}/docs",
    "find {asked} '*'",
    "find -v {asked}/home 'ann/**' --deleted",
    "find -q {asked} 'CAF*' -i",
    "find --json {asked} '*.odt' --from 2024-01-02",
    "history {asked} eva/report.odt",
    "history -v {asked} ann/report.odt",
    "history --json {asked} ann/report.odt",
    "diff {asked} 1 2",
    "diff -v {asked}/home latest~1 latest eva",
    "diff -q {asked} 2 1",
    "diff --json {asked} 1 latest",
    "du {asked}",
    "du -v {asked}/home",
    "du -q {asked}",
    "du --json {asked}",
]
CHANGING = [
    "point --days 20 {main}",
    "point --days 20 -v {main}",
    "point --json --days 57 --quota 5G --max-concurrent 3 {main}",
    "point --json {new}",
    "pin {main} 2024-01-05",
    "pin -v {main}/docs latest~3",
    "unpin {main} 7",
    "delete -v {main} 1 2024-01-02 000003-2024-01-03T020000Z",
    "delete -q {main} 000061-2024-02-29T143000Z",
]
WRONG = [
    "versions {other}",
    "versions {other}/c",
    "versions {new}",
    "point {main}/docs --days 3",
    "pin {main} 2024-01-32",
    "delete {main} 1 latest",
    "delete {main} 1 99",
    "expire {new}",
    "find {asked} '[z-a]'",
    "find {asked} '*' --from today",
    "find {other}/c '*'",
    "history {asked} absent",
    "history {other} a",
    "diff {asked} 1 3",
    "diff {asked} 1 2 absent",
    "du {new}",
]


def compare(ssfs: Commands, here: Path, server: RemoteStore, command: str) -> Result:
    """Run a command on both stores; what it did, if that was the same."""
    results = []
    for store, inside in ((f"{here}", f"{here}::"), ("ssfs://nas", "ssfs://nas/")):
        places = {name: f"{inside}{name}" for name in POINTS}
        results.append(ssfs(command, store=store, **places))
    local, remote = results
    # Where a store is, each calls by its own name.
    theirs = local.err.replace(os.fsencode(here) + b"::", b".../")
    assert remote.code == local.code
    assert remote.out == local.out
    assert remote.err.replace(os.fsencode(server.path) + b"::", b".../") == theirs.replace(
        os.fsencode(here), os.fsencode(server.path)
    )
    return remote


@pytest.mark.parametrize("command", LOOKING)
def test_looking_prints_the_same_bytes(ssfs, here, server, command: str):
    result = compare(ssfs, here, server, command)
    assert (result.code, result.err) == (0, b"")
    assert result.out
    assert server.asked == 1


@pytest.mark.parametrize("command", CHANGING)
def test_changing_does_the_same(ssfs, here, server, command: str):
    assert compare(ssfs, here, server, command).code == 0
    for look in ("points --json {store}", "versions --json {main}", "point --json {main}"):
        assert compare(ssfs, here, server, look).code == 0
    assert [str(path.relative_to(here)) for path in sorted(here.rglob("*"))] == [
        str(path.relative_to(server.path)) for path in sorted(server.path.rglob("*"))
    ]


@pytest.mark.parametrize("command", WRONG)
def test_what_is_wrong_is_said_alike(ssfs, here, server, command: str):
    result = compare(ssfs, here, server, command)
    assert (result.code, result.out) == (2, b"")
    assert result.err.startswith(b"ssfs: ")
    assert result.err.count(b"\n") == 1


def test_expiry_does_the_same(ssfs, here, server):
    compare(ssfs, here, server, "point -q --days 3 --keep-last 1 {main}")
    result = compare(ssfs, here, server, "expire --json {main}")
    assert result.out.count(b'"keep":[]') == 58
    assert len(ssfs("versions -q ssfs://nas").out.splitlines()) == 3


def test_damaged_version_is_exit_3(ssfs, here, server):
    for store in (here, server.path):
        (record,) = store.glob("points/main/tasks/docs/versions/000007-*/version.toml")
        record.write_bytes(b"")
    for command in ("versions {main}", "versions --json {main}"):
        result = compare(ssfs, here, server, command)
        assert (result.code, b"000007" in result.err) == (3, True)


def test_version_left_out_is_exit_3(ssfs, here, server):
    for store in (here, server.path):
        (record,) = store.glob("points/asked/tasks/home/versions/000002-*/version.toml")
        record.write_bytes(b"")
    for command in ("find {asked} '*'", "history {asked} ann/report.odt", "du {asked}"):
        for form in ("", " --json", " -q"):
            result = compare(ssfs, here, server, command + form)
            assert result.code == 3
            assert (b"000002" in result.err) == (form != " --json")
            assert result.out


def test_directory_is_compared_with_a_version_of_a_server(ssfs, tmp_path, monkeypatch):
    source = tmp_path / "source"
    (source / "docs").mkdir(parents=True)
    (source / "docs" / "letter").write_text("Dear reader\n")
    (source / "big").write_bytes(bytes(200_000))
    Backup(tmp_path / "store").sync(source)
    server = RemoteStore(tmp_path / "store", LOCAL)
    monkeypatch.setattr("ssfs.cli.diff.open_channel", server.open_channel)
    (source / "docs").rename(source / "papers")
    (source / "big").write_bytes(bytes(200_001))
    (source / "papers" / "letter").chmod(0o600)
    for words in ("", "-q", "-v", "--json"):
        command = f"diff {words} {{store}} latest --live {source}"
        here = ssfs(command, store=f"{tmp_path}/store::main/task")
        there = ssfs(command, store="ssfs://nas/main/task")
        assert there == here
        assert (here.code, here.out.count(b"papers") > 0) == (0, True)
    command = f"diff ssfs://nas/main/task latest --live {source} big"
    assert ssfs(command).out.splitlines()[0] == b"modified  big  (200.0 kB -> 200.0 kB)"
    assert ssfs(f"diff ssfs://nas/main latest --live {source} absent").code == 2
    server.peer = Peer("nas2", frozenset({Role.BACKUP}), frozenset({"main"}))
    assert ssfs(command).code == 4


def test_locations_of_tasks_are_spelled_as_the_store_was(ssfs, server):
    tasks = ("asked/home", "main/docs", "other/a", "other/b")
    for store, sign in (("ssfs://[::1]:4711", "/"), ("ssh://eva@nas/srv/store", "::")):
        expected = [f"{store}{sign}{task}" for task in tasks]
        assert ssfs(f"points -q {store}").out.decode().splitlines() == expected


def test_command_goes_to_the_place_that_is_named(ssfs, server, monkeypatch):
    asked: list[object] = []

    def open_channel(place: object):
        asked.append(place)
        return server.open_channel(place)

    monkeypatch.setattr(session, "open_channel", open_channel)
    assert ssfs("versions -q ssfs://nas.example.org:4711/main/docs").code == 0
    assert asked == [TlsPlace("nas.example.org", 4711, "main", "docs")]


# -- questions ------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    """Somebody who has typed an answer already."""

    def isatty(self) -> bool:
        return True


ASKING = [
    "point --days 5 ssfs://nas",
    "delete ssfs://nas 1 2",
    "expire ssfs://nas",
]


@pytest.mark.parametrize("command", ASKING)
def test_nothing_is_done_before_somebody_agrees(ssfs, server, monkeypatch, command: str):
    if command.startswith("expire"):
        ssfs("point -q --days 5 --keep-last 1 ssfs://nas")
    before = [ssfs(look) for look in ("versions -q ssfs://nas", "point ssfs://nas")]
    monkeypatch.setattr(sys, "stdin", Terminal("n\n"))
    refused = ssfs(command)
    assert (refused.code, b"[y/N]" in refused.err) == (130, True)
    assert b"Nothing was changed" in refused.err
    assert [ssfs(look) for look in ("versions -q ssfs://nas", "point ssfs://nas")] == before
    monkeypatch.setattr(sys, "stdin", Terminal("y\n"))
    assert ssfs(command).code == 0
    assert [ssfs(look) for look in ("versions -q ssfs://nas", "point ssfs://nas")] != before


# -- rights ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [*CHANGING, "expire {main}"])
def test_who_may_only_read_is_told_so_before_any_question(ssfs, server, monkeypatch, command: str):
    server.peer = Peer("nas1", frozenset({Role.RESTORE}), frozenset({"*"}))
    monkeypatch.setattr(sys, "stdin", Terminal("y\n"))
    result = ssfs(command, main="ssfs://nas/main", new="ssfs://nas/new")
    assert (result.code, result.out) == (4, b"")
    assert b"Client 'nas1' may not " in result.err
    assert b"`ssfs invite STORE nas1 --role admin`" in result.err
    assert b"[y/N]" not in result.err
    assert len(server.refusals) == 1


def test_other_sync_points_are_not_shown(ssfs, server):
    server.peer = Peer("nas1", frozenset(Role), frozenset({"other"}))
    assert ssfs("points -q ssfs://nas").out == b"ssfs://nas/other/a\nssfs://nas/other/b\n"
    assert ssfs("versions ssfs://nas").code == 4


# -- from afar not --------------------------------------------------------------------------------


def test_init_is_done_on_the_machine_itself():
    assert "not from here" in run("init", "ssh://nas/srv/store", expect=2).error
