"""A store is verified from afar, and healed from one that is far away: real servers, over what stands in for ssh."""

import os
import subprocess

import pytest

from ssfs.cli import session
from ssfs.cli.location import parse_location
from ssfs.engine import seeking, verify_remote
from ssfs.engine.verify import heal_from
from ssfs.errors import RemoteProtocolError
from ssfs.fsio.lock import FileLock
from ssfs.model.peer import Peer, Role
from ssfs.monitor import NullMonitor
from ssfs.protocol.seeking import ContentPart, Sought
from ssfs.protocol.verification import VerifyVersions
from tests.cli.support import run, ssfs_json
from tests.damage.damages import damaged, flip, truncate, verify
from tests.fakes.remote import RemoteStore


@pytest.fixture
def second(history, tmp_path):
    """The store, copied elsewhere: other inode numbers, the same content."""
    copied = tmp_path / "second" / "store"
    copied.parent.mkdir()
    subprocess.run(["cp", "-a", history.backup.path, copied], check=True)
    return copied


@pytest.fixture
def hurt(history, second):
    """Of `history` a file of all versions, one of one version and a sparse one are damaged."""
    flip(history.stored(1, "large"))
    truncate(history.stored(2, "grows"))
    return history


# -- healing from there ----------------------------------------------------------------------------


def test_store_is_healed_from_a_server(hurt, second, far_off):
    report = ssfs_json("verify", hurt.backup.path, "--from", far_off(second))
    assert {(item["path"], item["healed"]) for item in report["damaged"]} == {
        ("large", 3),
        ("grows", 1),
    }
    assert damaged(verify(hurt.backup.path)) == {}
    hurt.check(*hurt.versions)
    assert len({hurt.stored(number, "large").stat().st_ino for number in (1, 2, 3)}) == 1
    assert not (hurt.task_path / "healing").exists()


def test_sparse_and_empty_files_are_healed_from_a_server(history, far_off, tmp_path):
    with open(history.source / "sparse", "wb") as file:
        file.seek(1 << 20)
        file.write(b"data" * 1024)
        file.truncate(3 << 20)
    (history.source / "holes alone").touch()
    os.truncate(history.source / "holes alone", 1 << 20)
    (history.source / "empty").touch()
    history.sync()
    copied = tmp_path / "second"
    subprocess.run(["cp", "-a", history.backup.path, copied], check=True)
    flip(history.stored(4, "sparse"), (1 << 20) + 5)
    for name in ("holes alone", "empty"):
        history.stored(4, name).unlink()
    outcome = run("verify", history.backup.path, "4", "--from", far_off(copied), expect=0)
    assert "healed 3 damaged paths" in outcome.out
    history.check(history.versions[3])
    assert history.stored(4, "holes alone").stat().st_blocks == 0


def test_content_that_is_damaged_there_too_is_not_taken(hurt, second, far_off):
    for version in second.glob("points/main/tasks/task/versions/*"):
        # Which is not known there.
        flip(version / "tree" / "grows")
    flip(next(second.glob("points/main/tasks/task/versions/*")) / "tree" / "large")
    report = ssfs_json("verify", hurt.backup.path, "--from", far_off(second), expect=6)
    assert [item["healed"] for item in report["damaged"]] == [0, 0]
    assert damaged(verify(hurt.backup.path)) == {"large": 3, "grows": 1}


def test_another_version_there_has_the_content_if_one_is_damaged(history, far_off, tmp_path):
    (history.source / "second large").write_bytes((history.source / "large").read_bytes())
    history.sync()
    copied = tmp_path / "copied"
    subprocess.run(["cp", "-a", history.backup.path, copied], check=True)
    newest = max(copied.glob("points/main/tasks/task/versions/*"))
    # One inode, until now: the newest version's file, the first to be looked at, goes bad alone.
    content = (newest / "tree" / "large").read_bytes()
    (newest / "tree" / "large").unlink()
    (newest / "tree" / "large").write_bytes(content[:-1] + b"?")
    flip(history.stored(1, "large"))
    report = ssfs_json("verify", history.backup.path, "--from", far_off(copied))
    assert {item["path"] for item in report["damaged"]} == {"large", "second large"}


def test_task_and_sync_point_there_may_be_named(hurt, second, far_off):
    other = second / "points" / "main" / "tasks" / "other"
    (second / "points" / "main" / "tasks" / "task").rename(other)
    assert run("verify", hurt.backup.path, "--from", far_off(second) + "::main/task").code == 6
    outcome = run("verify", hurt.backup.path, "--from", far_off(second) + "::main/other", expect=0)
    assert "healed 2 damaged paths" in outcome.out


@pytest.mark.parametrize(("role", "code"), [("restore", 0), ("admin", 0), ("backup", 6)])
def test_only_what_a_client_may_read_there_heals(hurt, second, far_off, role, code):
    location = far_off(second, role, points=["main"])
    # The task is that of another client.
    outcome = run("verify", hurt.backup.path, "--from", location, expect=code)
    assert ("healed 2 damaged paths" in outcome.out) is (code == 0)


def test_server_that_refuses_heals_nothing_and_the_report_is_not_lost(hurt, second, far_off):
    location = far_off(second, "restore", points=["main"]) + "::secret"
    outcome = run("verify", hurt.backup.path, "--from", location, expect=6)
    assert "large: its content has changed" in outcome.err
    assert "may not use sync point 'secret'" in outcome.err.splitlines()[-1]


def test_way_to_a_server_that_is_not_there_is_found_out_before_anything_is_read(hurt, monkeypatch):
    monkeypatch.setenv("SSFS_SSH", "/no/such/ssh")
    assert (
        "Cannot run /no/such/ssh"
        in run("verify", hurt.backup.path, "--from", "ssh://nas2/store", expect=2).error
    )
    assert not any(version.damage() for version in hurt.versions)


class _Saying:
    """A server that says these things, whatever it is asked."""

    def __init__(self, *messages):
        self._messages = [*messages, Sought()]

    def send(self, _message):
        pass

    def receive(self):
        return self._messages.pop(0)


@pytest.mark.parametrize(
    "parts",
    [
        [ContentPart(5, last=True, content=b"x")],
        [ContentPart(0, last=False, content=b"x"), ContentPart(1, last=True, content=b"x")],
        [ContentPart(0, last=False, content=bytes(400_000))],
        [ContentPart(-1, last=True, content=b"")],
    ],
    ids=["unasked", "mixed", "too much", "negative"],
)
def test_server_that_sends_what_was_not_asked_for_heals_nothing(hurt, parts):
    report = verify(hurt.backup.path)
    source = seeking.ChannelSource(_Saying(*parts), "", "", NullMonitor())
    with pytest.raises(RemoteProtocolError):
        heal_from(report, [hurt.backup.task()], source.gather)
    assert len(report.left) == 2
    assert not (hurt.task_path / "healing").exists()


@pytest.mark.parametrize("content", [b"", b"other", bytes(300_000)])
def test_server_that_sends_other_content_heals_nothing(hurt, content):
    report = verify(hurt.backup.path)
    parts = [ContentPart(number, last=True, content=content[:5000]) for number in (0, 1, 0)]
    source = seeking.ChannelSource(_Saying(*parts), "", "", NullMonitor())
    heal_from(report, [hurt.backup.task()], source.gather)
    assert damaged(verify(hurt.backup.path)) == {"large": 3, "grows": 1}


def test_full_disk_ends_healing_and_not_the_session(hurt, second, monkeypatch):
    report = verify(hurt.backup.path)
    channel = RemoteStore(second, Peer("nas1", frozenset({Role.RESTORE}), frozenset({"main"})))

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, channel.open_channel() as open_channel:
        source = seeking.ChannelSource(open_channel, "", "", NullMonitor())
        patch.setattr("ssfs.store.healing.write_at", full)
        heal_from(report, [hurt.backup.task()], source.gather)
        assert len(report.left) == 2
        patch.undo()
        heal_from(report, [hurt.backup.task()], source.gather)
    assert not report.left
    hurt.check(*hurt.versions)


# -- verifying there -------------------------------------------------------------------------------


def test_store_of_another_machine_is_verified_there(hurt, far_off):
    there = ssfs_json("verify", far_off(hurt.backup.path), expect=6)
    here = ssfs_json("verify", hurt.backup.path, expect=6)
    assert there["damaged"] == here["damaged"]
    assert there["files"] == here["files"] > 0
    assert there["recorded"]
    assert all(version.damage() for version in hurt.versions)
    outcome = run("verify", far_off(hurt.backup.path) + "::main/task", "3", expect=6)
    assert "main/task: large: its content has changed (in 3 versions: " in outcome.err


def test_whole_store_of_another_machine_is_right(history, far_off):
    outcome = run("verify", far_off(history.backup.path), "--sample", "100%", expect=0)
    assert "Nothing is damaged" in outcome.out
    assert "Verified 3 versions" in outcome.out


@pytest.mark.parametrize("role", ["backup", "restore"])
@pytest.mark.parametrize("inside", ["", "::main", "::main/task"])
def test_only_an_administrator_may_verify(hurt, far_off, role, inside):
    location = far_off(hurt.backup.path, role, points=["main"]) + inside
    error = run("verify", location, expect=4).error
    assert "may not verify" in error
    assert "--role admin" in error
    assert not any(version.damage() for version in hurt.versions)


def test_administrator_verifies_the_sync_points_it_has_and_no_others(hurt, far_off):
    run("point", f"{hurt.backup.path}::other", "--days", "3", expect=0)
    location = far_off(hurt.backup.path, "admin", points=["other"])
    assert ssfs_json("verify", location)["versions"] == 0
    run("verify", f"{location}::main", expect=4)
    location = far_off(hurt.backup.path, "admin", points=["main"])
    assert ssfs_json("verify", location, expect=6)["versions"] == 3
    assert ssfs_json("verify", f"{location}::main", "latest", expect=6)["versions"] == 1


def test_store_of_another_machine_is_healed_there(hurt, second, far_off):
    error = run("verify", far_off(hurt.backup.path), "--from", second, expect=2).error
    assert "log in there" in error


def test_second_verify_of_a_task_is_refused_from_afar_too(hurt, far_off):
    with FileLock(os.path.join(hurt.backup.task().path, b"verify.lock")) as lock:
        assert lock.exclusive_nowait()
        error = run("verify", far_off(hurt.backup.path), expect=6).error
    assert "Another verify" in error


def test_client_hears_how_far_it_is(hurt, monkeypatch):
    """And the thread that reads steps aside, not that of the session."""
    monkeypatch.setattr(verify_remote, "_TELL_EVERY_S", 0)
    aside = []
    monkeypatch.setattr(verify_remote, "lower_priority", lambda: aside.append(os.getpriority(0, 0)))
    there = RemoteStore(hurt.backup.path, Peer("nas1", frozenset({Role.ADMIN}), frozenset({"*"})))
    monkeypatch.setattr(session, "open_channel", there.open_channel)
    heard = []

    class Heard(NullMonitor):
        def expect(self, entries, size_bytes):
            heard.append(("expect", entries))

        def advance(self, entries, size_bytes, path):
            heard.append(("advance", entries))

        def phase(self, text):
            heard.append(("phase", text))

    with session.open_session(parse_location(b"ssfs://nas2/main")) as asked:
        report = asked.ask(VerifyVersions("main", ""), Heard())
    assert len(report.left) == 2
    entries = sum(version.record().counts.entries for version in hurt.versions)
    assert ("expect", entries) in heard
    roots = len(hurt.versions)
    assert sum(count for what, count in heard if what == "advance") == entries - roots
    assert any("verifying main/task" in str(text) for what, text in heard if what == "phase")
    assert aside


def test_verify_that_is_broken_off_from_afar_goes_on_where_it_was(history, monkeypatch):
    monkeypatch.setattr(verify_remote, "_TELL_EVERY_S", 0)
    there = RemoteStore(history.backup.path, Peer("a", frozenset({Role.ADMIN}), frozenset({"*"})))
    monkeypatch.setattr(session, "open_channel", there.open_channel)

    class Leaves(NullMonitor):
        def phase(self, text):
            raise KeyboardInterrupt

    request = VerifyVersions("main", "")
    with (
        pytest.raises(KeyboardInterrupt),
        session.open_session(parse_location(b"ssfs://nas2/main")) as asked,
    ):
        asked.ask(request, Leaves())
    with session.open_session(parse_location(b"ssfs://nas2/main")) as asked:
        report = asked.ask(request)
    assert report.resumed
    assert report.left == []
