"""What a server allows: memory, time, room, rights; each seen from outside, on the real program."""

import concurrent.futures
import contextlib
import datetime
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ssfs.clock import SystemClock
from ssfs.daemon.session import SESSION_BYTES
from ssfs.engine.commands import ask
from ssfs.engine.greeting import ask_to_enrol, greet_server
from ssfs.errors import ConnectionLost, TrustError
from ssfs.model.entry import ROOT_ID, Entry, Kind
from ssfs.model.peer import Role
from ssfs.net.channel import Channel
from ssfs.net.compression import Compression, Mode
from ssfs.net.dial import TlsTarget, open_session
from ssfs.net.link import LinkOptions
from ssfs.pki.certificate import make_key, make_request, read_certificate, to_der
from ssfs.protocol.messages import (
    Changes,
    FileAbort,
    FileBegin,
    FileDelta,
    Make,
    NoSignature,
    Open,
    Opened,
    Queued,
    SignaturePart,
    WantSignature,
)
from ssfs.protocol.requests import ListPoints
from tests.crash.disks import mounted_disk
from tests.fakes.trees import build_tree, compare_with_version
from tests.system.crowd import (
    credentials,
    dial,
    enrolled,
    is_receiving,
    registry_of,
    set_server,
    sync_through,
    versions_of,
    wait_until,
)
from tests.system.servers import Machine, ServedStore, run_ssfs, served

pytestmark = pytest.mark.slow

_BULK = 1 << 20


def _open(channel: Channel, machine: Machine, task: str) -> Opened:
    """Begin a backup that goes no further; waits for a slot."""
    channel.send(Open("main", task, machine.name, f"{machine.name}:{task}", dry_run=False))
    while isinstance(answer := channel.receive(), Queued):
        pass
    assert isinstance(answer, Opened), answer
    return answer


def _row(number: int, parent: int, name: bytes, kind: Kind, target: bytes = b"") -> Entry:
    mode = 0o40755 if kind is Kind.DIRECTORY else 0o120777
    return Entry(
        number, parent, name, int(kind), mode & 0o7777, 0, 0, 0, 0, 0, b"", target, 0, 0, 0, 0, 0
    )


# -- memory ------------------------------------------------------------------------------------

_SESSIONS = 2
_ROWS = 3_000
_BASIS_BYTES = 64 << 20
_DELTA_BYTES = 24 << 20


def _peak_bytes(pid: int) -> int:
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        (line,) = [line for line in file if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


def _be_greedy(machine: Machine, port: int, source: Path, meet: threading.Barrier) -> None:
    """What takes most of a server within the rules, all at once."""
    options = LinkOptions(compression=Compression(Mode.LEVEL, 9))
    with dial(machine, port, options) as channel:
        channel.send(
            Open("main", machine.name, machine.name, f"{machine.name}:{source}", dry_run=False)
        )
        opened = channel.receive()
        assert isinstance(opened, Opened)
        # Changes without a checkpoint, with the longest names there can be.
        first = opened.next_id
        for at in range(0, _ROWS, 200):
            rows = [
                _row(first + n, ROOT_ID, b"%0250d" % n, Kind.SYMLINK, b"%060d" % n)
                for n in range(at, min(at + 200, _ROWS))
            ]
            channel.send(Changes([Make(row) for row in rows]))
        # A signature of a large file, never read until the end: the server holds back, not in memory.
        basis = opened.next_id - 1
        channel.send(WantSignature(basis))
        channel.send(FileBegin(basis, basis, 0, 0))
        delta = b"rs\x026\x43" + _DELTA_BYTES.to_bytes(4, "big") + bytes(_DELTA_BYTES) + b"\0"
        pieces = [delta[at : at + _BULK] for at in range(0, len(delta), _BULK)]
        for piece in pieces[:-1]:
            channel.send(FileDelta(last=False, content=piece))
        meet.wait(300)
        channel.send(FileDelta(last=True, content=pieces[-1]))
        channel.send(FileAbort(basis))
        channel.send(WantSignature(1 << 40))
        while not isinstance(answer := channel.receive(), NoSignature):
            assert isinstance(answer, SignaturePart)


def test_a_session_takes_no_more_memory_than_we_say(tmp_path):
    with served(tmp_path / "store") as server:
        machines = [enrolled(server, tmp_path / f"nas{n}", f"nas{n}") for n in range(_SESSIONS)]
        sources = []
        for machine in machines:
            source = tmp_path / machine.name / "source"
            source.mkdir()
            with open(source / "large", "wb") as file:
                file.write(bytes(_BASIS_BYTES))
            sources.append(source)
            sync_through(machine, server.port, source, machine.name)
        idle = _peak_bytes(server.process.pid)
        meet = threading.Barrier(_SESSIONS)
        with concurrent.futures.ThreadPoolExecutor(_SESSIONS) as pool:
            list(
                pool.map(
                    lambda pair: _be_greedy(pair[0], server.port, pair[1], meet),
                    zip(machines, sources, strict=True),
                )
            )
        each = (_peak_bytes(server.process.pid) - idle) / _SESSIONS
    print(f"idle {idle / 2**20:.0f} MiB, each session {each / 2**20:.0f} MiB more")
    assert each <= SESSION_BYTES


# -- time --------------------------------------------------------------------------------------


def test_a_client_that_stops_dead_is_ended_and_holds_nobody_up(tmp_path):
    run_ssfs("init", tmp_path / "store", "--timezone", "UTC")
    set_server(tmp_path / "store", idle_s=30)
    with served(tmp_path / "store", make=False) as server:
        dead = enrolled(server, tmp_path / "dead", "dead")
        other = enrolled(server, tmp_path / "other", "other")
        source = build_tree(tmp_path / "dead" / "source", 1, large_bytes=2 << 20)
        run_ssfs("point", f"{server.path}::main", "--max-concurrent", "1")
        location = server.url("main/dead")
        running = dead.start("sync", source, location, "--limit", "100k", "--compress", "off")
        try:
            wait_until(lambda: is_receiving(server, "dead"))
            os.kill(running.pid, signal.SIGSTOP)
            assert running.poll() is None, "it was done before it could be stopped"
            # Those who only read are served; the next backup gets the slot as soon as it is over.
            with dial(other, server.port) as channel:
                assert ask(channel, ListPoints())
            tree = build_tree(tmp_path / "other" / "source", 2)
            sync_through(other, server.port, tree, "other")
            ended = server.wait_for_log("dead ended: ")
            assert "nothing came for 30 s" in ended
        finally:
            os.kill(running.pid, signal.SIGKILL)
            running.communicate()
        dead.sync(source, location)
        compare_with_version(source, versions_of(server, "dead")[-1])


# -- room --------------------------------------------------------------------------------------


def test_a_quota_refuses_the_next_backup_and_never_one_that_runs(tmp_path):
    with served(tmp_path / "store", "--keep-last", "9") as server:
        machine = enrolled(server, tmp_path / "nas1", "nas1")
        source = build_tree(tmp_path / "source", 1, large_bytes=3 << 20)
        run_ssfs("point", f"{server.path}::main", "--quota", "1M")
        first = machine.sync(source, server.url("main/docs"))
        assert first["version"][:6] == "000001", "it was begun when there was room"
        refused = machine.ssfs("sync", source, server.url("main/docs"), expect=6)
        assert len(refused.stderr.strip().splitlines()) == 1
        assert "over its quota" in refused.stderr
        assert "ssfs point --quota" in refused.stderr
        assert len(versions_of(server, "docs")) == 1
        run_ssfs("point", f"{server.path}::main", "--quota", "1G")
        assert machine.sync(source, server.url("main/docs"))["version"][:6] == "000002"


@pytest.mark.needs_root
@pytest.mark.parametrize("what", ["space", "inodes"])
def test_a_disk_that_is_nearly_full_takes_no_new_backup_and_finishes_one_that_runs(tmp_path, what):
    with mounted_disk(tmp_path, "ext4", 48 << 20, ["-N", "2048"]) as disk:
        with served(disk.mountpoint / "store", "--keep-last", "9") as server:
            machine = enrolled(server, tmp_path / "nas1", "nas1")
            source = build_tree(tmp_path / "source", 1, files=20, large_bytes=1000)
            sync_through(machine, server.port, source, "docs")
            # Begun before it was nearly full; done after.
            with dial(machine, server.port) as channel:
                _open(channel, machine, "begun")
                _fill(disk.mountpoint, what)
                refused = machine.ssfs("sync", source, server.url("main/other"), expect=6)
                assert len(refused.stderr.strip().splitlines()) == 1
                assert f"Too {'little' if what == 'space' else 'few'} {what}" in refused.stderr
                assert "`ssfs delete`" in refused.stderr
                channel.send(WantSignature(1 << 40))
                assert isinstance(channel.receive(), NoSignature), "it was ended"


def _fill(directory: Path, what: str) -> None:
    """Leave less than the reserve, but something."""
    if what == "space":
        status = os.statvfs(directory)
        left = status.f_bavail * status.f_frsize - status.f_blocks * status.f_frsize // 100
        fd = os.open(directory / "filler", os.O_CREAT | os.O_WRONLY)
        os.posix_fallocate(fd, 0, left)
        os.close(fd)
        return
    (directory / "many").mkdir()
    spare = os.statvfs(directory).f_files // 100
    for number in range(os.statvfs(directory).f_favail - spare):
        (directory / "many" / f"{number}").touch()


# -- rights ------------------------------------------------------------------------------------


@contextlib.contextmanager
def _two_servers(path: Path) -> Iterator[tuple[ServedStore, ServedStore]]:
    with served(path, "--keep-last", "9") as one, served(path, make=False) as other:
        yield one, other


@pytest.mark.parametrize("how", ["revoked", "other rights"])
def test_an_open_session_ends_within_a_second_at_every_server_of_the_store(tmp_path, how):
    with _two_servers(tmp_path / "store") as (one, other):
        machine = enrolled(one, tmp_path / "nas1", "nas1")
        bystander = enrolled(one, tmp_path / "nas2", "nas2")
        with contextlib.ExitStack() as stack:
            sessions = []
            for number, server in enumerate((one, other)):
                channel = stack.enter_context(_kept_open(machine, server.port))
                _open(channel, machine, f"task{number}")
                sessions.append(channel)
            calm = stack.enter_context(dial(bystander, other.port))
            _open(calm, bystander, "calm")
            clock = SystemClock()
            registry = registry_of(one.path)
            since_s = clock.monotonic_s()
            if how == "revoked":
                registry.revoke("nas1", clock.now())
            else:
                enrolled(one, tmp_path / "again", "nas1", roles=(Role.RESTORE,))
            for channel in sessions:
                with pytest.raises(ConnectionLost):
                    channel.receive()
            # A second on a quiet machine; what matters is that nothing had to be sent for it.
            assert clock.monotonic_s() - since_s < 20
            calm.send(WantSignature(1 << 40))
            assert isinstance(calm.receive(), NoSignature)
        for server in (one, other):
            server.wait_for_log(
                "nas1 ended: .*" + ("revoked" if how == "revoked" else "enrolled again since")
            )


@contextlib.contextmanager
def _kept_open(machine: Machine, port: int) -> Iterator[Channel]:
    """A session whose end by the server is nothing special."""
    with contextlib.suppress(ConnectionLost), dial(machine, port) as channel:
        yield channel


def test_a_certificate_that_ends_soon_is_renewed_by_the_next_sync(tmp_path):
    now = SystemClock().now()
    with served(tmp_path / "store", "--keep-last", "9") as server:
        fresh = enrolled(server, tmp_path / "fresh", "fresh")
        machine = enrolled(server, tmp_path / "nas1", "nas1", now=now - datetime.timedelta(days=75))
        source = build_tree(tmp_path / "source", 1, files=5, large_files=0)
        for each, is_renewed in ((fresh, False), (machine, True)):
            file = credentials(each) / "certificate.pem"
            before = file.read_bytes()
            old = Machine(tmp_path / "copies" / each.name, each.name)
            shutil.copytree(each.directory / "config", old.directory / "config")
            each.sync(source, server.url(f"main/{each.name}"))
            assert (file.read_bytes() != before) is is_renewed
            # The one before works until its own end.
            with dial(old, server.port) as channel:
                _open(channel, each, f"{each.name}-old")
        ends = read_certificate(to_der((credentials(machine) / "certificate.pem").read_bytes()))
        assert ends.not_after > now + datetime.timedelta(days=80)
        certificate = (credentials(machine) / "certificate.pem").read_bytes()
        machine.sync(source, server.url("main/nas1"))
        assert (credentials(machine) / "certificate.pem").read_bytes() == certificate


def test_an_expired_certificate_is_refused_by_the_servers_clock(tmp_path):
    now = SystemClock().now()
    with served(tmp_path / "store") as server:
        machine = enrolled(
            server, tmp_path / "nas1", "nas1", now=now - datetime.timedelta(days=500)
        )
        refused = machine.ssfs("versions", server.url("main"), expect=4)
    assert "expired on" in refused.stderr


def test_a_code_is_good_for_one_of_many_who_use_it_at_once(tmp_path):
    clock = SystemClock()
    with served(tmp_path / "store") as server:
        registry = registry_of(server.path)
        authority = tmp_path / "ca.pem"
        authority.write_bytes(registry.authority().pem)
        day = datetime.timedelta(days=1)
        secret = registry.invite("nas1", (Role.BACKUP,), ("main",), clock.now() + day, clock.now())
        target = TlsTarget("127.0.0.1", server.port, ca_path=authority)
        meet = threading.Barrier(6)

        def use() -> str:
            with open_session(target, LinkOptions()) as session:
                greet_server(session.channel)
                meet.wait(120)
                try:
                    enrolment = ask_to_enrol(session.channel, secret, make_request(make_key()))
                except TrustError:
                    return "refused"
                return enrolment.client

        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            outcomes = sorted(future.result() for future in [pool.submit(use) for _ in range(6)])
    assert outcomes == ["nas1", *["refused"] * 5]
