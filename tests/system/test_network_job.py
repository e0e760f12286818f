"""Two machines and a server between them: enrolled by one line, backed up, restored, refused, revoked."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.fakes.comparing import assert_same_tree
from tests.fakes.trees import build_tree, edit_tree
from tests.system.programs import mounted
from tests.system.servers import Machine, ServedStore, run_ssfs, served

pytestmark = pytest.mark.slow


@pytest.fixture
def source(tmp_path: Path) -> Path:
    build_tree(tmp_path / "source", 7, large_bytes=1 << 20)
    return tmp_path / "source"


def test_a_machine_enrols_by_one_line_and_backs_up_and_restores(tmp_path, source):
    with served(tmp_path / "store", "--keep-last", "9") as server:
        code = server.invite("nas1")
        assert "\n" not in code
        machine = Machine(tmp_path / "nas1", "nas1")
        done = machine.ssfs("enroll", code)
        assert "Enrolled with 127.0.0.1" in done.stdout
        keys = [*(tmp_path / "nas1" / "config").rglob("key.pem")]
        assert [path.stat().st_mode & 0o777 for path in keys] == [0o600]
        location = server.url("main/docs")
        first = machine.sync(source, location)
        assert (first["problems"], first["version"][:6]) == ([], "000001")
        edit_tree(source, 1)
        second = machine.sync(source, location)
        assert second["version"][:6] == "000002"
        listed = json.loads(machine.ssfs("versions", location, "--json").stdout)
        assert [line["version"] for line in listed] == [first["version"], second["version"]]
        machine.ssfs("restore", location, "latest", "--to", tmp_path / "back")
        assert_same_tree(source, tmp_path / "back")
        if os.access("/dev/fuse", os.W_OK):
            with mounted(f"{server.path}::main/docs", tmp_path / "mount") as mount:
                assert_same_tree(source, (mount / "latest").resolve())
        again = machine.ssfs("enroll", code, expect=4)
        assert "wrong, used or expired" in again.stderr
    ends = [line for line in server.log if "ended" in line and "backup main/docs" in line]
    assert len(ends) == 2
    assert all("nas1" in line and "bytes in" in line for line in ends)


def test_the_code_is_taken_from_standard_input_and_never_shown(tmp_path):
    with served(tmp_path / "store") as server:
        code = server.invite("nas1")
        machine = Machine(tmp_path / "nas1", "nas1")
        done = subprocess.run(
            [sys.executable, "-m", "ssfs", "enroll"],
            input=code + "\n",
            env=machine.environment,
            capture_output=True,
            text=True,
            check=True,
        )
    secret = code.rpartition("/")[2]
    assert secret not in done.stdout + done.stderr + "\n".join(server.log)


def test_a_client_can_add_versions_of_its_own_and_nothing_else(tmp_path, source):
    with served(tmp_path / "store", "--keep-last", "9") as server:
        one = Machine(tmp_path / "one", "one").enrol(server)
        other = Machine(tmp_path / "other", "other").enrol(server)
        reader = Machine(tmp_path / "reader", "reader").enrol(server, "--role", "restore")
        admin = Machine(tmp_path / "admin", "admin").enrol(server, "--role", "admin")
        location = server.url("main/docs")
        version = one.sync(source, location)["version"]
        one.sync(source, location)
        for machine in (one, other, reader):
            for command in (
                ("delete", location, version),
                ("expire", location),
                ("pin", location, version),
                ("point", server.url(), "--days", "1"),
            ):
                refused = machine.ssfs(*command, expect=4)
                assert machine.name in refused.stderr, refused.stderr
        other.ssfs("restore", location, "latest", "--to", tmp_path / "stolen", expect=4)
        other.sync(source, location, expect=2)
        other.sync(source, location, "--dry-run", expect=2)
        reader.sync(source, server.url("main/mine"), expect=4)
        one.sync(source, server.url("elsewhere"), expect=4)
        reader.ssfs("restore", location, "latest", "--to", tmp_path / "read")
        assert_same_tree(source, tmp_path / "read")
        admin.ssfs("pin", location, version)
        admin.ssfs("point", server.url(), "--keep-last", "1", "--yes")
        admin.ssfs("expire", location, "--yes")
        assert len(json.loads(admin.ssfs("versions", location, "--json").stdout)) == 2
        admin.ssfs("unpin", location, version)
        admin.ssfs("delete", location, version, "--yes")
        assert len(json.loads(one.ssfs("versions", location, "--json").stdout)) == 1


def test_revoking_ends_an_open_session_within_a_second_and_closes_the_door(tmp_path, source):
    with open(source / "large", "wb") as large:
        large.write(os.urandom(8 << 20))
    with served(tmp_path / "store") as server:
        machine = Machine(tmp_path / "nas1", "nas1").enrol(server)
        running = machine.start(
            *("sync", source, server.url("main/docs"), "--limit", "200k", "--retries", "0")
        )
        server.wait_for_log("nas1: backup main/docs")
        run_ssfs("revoke", server.path, "nas1")
        # On a machine with nothing else to do it is there before the command has ended.
        server.wait_for_log("nas1 ended: .*revoked", timeout_s=10)
        running.communicate(timeout=60)
        assert running.returncode != 0
        refused = machine.ssfs("sync", source, server.url("main/docs"), expect=4)
        assert "revoked" in refused.stderr
        machine.ssfs("versions", server.url("main"), expect=4)


def test_a_server_that_is_told_to_end_keeps_what_has_arrived(tmp_path, source):
    content = os.urandom(24 << 20)
    (source / "large").write_bytes(content)
    server = ServedStore(tmp_path / "store")
    machine = Machine(tmp_path / "nas1", "nas1").enrol(server)
    location = server.url("main/docs")
    running = machine.start("sync", source, location, "--limit", "8M", "--retries", "0")
    server.wait_for_log("nas1: backup main/docs")
    partials = server.path / "points" / "main" / "tasks" / "docs" / "staging" / "partials"
    _wait_until(lambda: any(path.stat().st_size > 8 << 20 for path in _files(partials)))
    asked_s = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - asked_s < 11
    running.communicate(timeout=60)
    assert running.returncode == 5
    server.start(server.port)
    try:
        summary = machine.sync(source, location)
    finally:
        server.stop()
    assert summary["bytes_sent"] < 18 << 20, "what had arrived was sent again"
    run_ssfs("restore", f"{server.path}::main/docs", "latest", "large", "--to", tmp_path / "back")
    assert (tmp_path / "back" / "large").read_bytes() == content


def test_a_client_goes_on_by_itself_when_the_server_comes_back(tmp_path, source):
    (source / "large").write_bytes(os.urandom(16 << 20))
    server = ServedStore(tmp_path / "store")
    machine = Machine(tmp_path / "nas1", "nas1").enrol(server)
    location = server.url("main/docs")
    running = machine.start("sync", source, location, "--limit", "8M", "--json")
    server.wait_for_log("nas1: backup main/docs")
    server.stop(signal.SIGKILL)
    server.start(server.port)
    try:
        stdout, stderr = running.communicate(timeout=120)
        assert running.returncode == 0, stderr
        assert json.loads(stdout)["version"][:6] == "000001"
    finally:
        server.stop()


def test_settings_are_read_again_on_sighup(tmp_path):
    with served(tmp_path / "store") as server:
        settings = server.path / "store.toml"
        before = settings.read_text()
        settings.write_text(before + "\n[server]\nmax_sessions = 0\n")
        os.kill(server.process.pid, signal.SIGHUP)
        server.wait_for_log("the settings are kept as they were: .*max_sessions")
        settings.write_text(before + "\n[server]\nhandshake_s = 1\n")
        os.kill(server.process.pid, signal.SIGHUP)
        server.wait_for_log("settings read again")
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as silent:
            begun_s = time.monotonic()
            assert silent.recv(1) == b""
            assert time.monotonic() - begun_s < 9, "the default is 10 s"


def test_a_client_with_a_wrong_clock_changes_nothing(tmp_path, source):
    faketime = shutil.which("faketime")
    assert faketime, "tools/setup --dev installs it"
    with served(tmp_path / "store", "--keep-last", "9") as server:
        machine = Machine(tmp_path / "nas1", "nas1").enrol(server)
        location = server.url("main/docs")
        for when in ("1990-01-01 00:00:00", "2060-01-01 00:00:00"):
            done = subprocess.run(
                [faketime, "-f", when, sys.executable, "-m", "ssfs", "sync", source, location],
                env=machine.environment,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
        listed = json.loads(machine.ssfs("versions", location, "--json").stdout)
    years = {line["started"][:4] for line in listed}
    assert years == {time.strftime("%Y", time.gmtime())}
    assert len(listed) == 2


def test_two_servers_serve_one_store_and_exclude_each_other_where_they_must(tmp_path, source):
    (source / "large").write_bytes(os.urandom(8 << 20))
    with (
        served(tmp_path / "store", "--keep-last", "9") as first,
        served(tmp_path / "store", make=False) as second,
    ):
        machine = Machine(tmp_path / "nas1", "nas1").enrol(first)
        same = Machine(tmp_path / "nas1-again", "nas1")
        shutil.copytree(machine.directory / "config", same.directory / "config")
        _enrolled_at(same, first.port, second.port)
        running = machine.start("sync", source, first.url("main/docs"), "--limit", "1M", "--json")
        first.wait_for_log("nas1: backup main/docs")
        busy = same.ssfs("sync", source, second.url("main/docs"), expect=6)
        assert "Another sync" in busy.stderr
        assert same.sync(source, second.url("main/other"))["version"][:6] == "000001"
        _, stderr = running.communicate(timeout=120)
        assert running.returncode == 0, stderr
        assert same.sync(source, second.url("main/docs"))["version"][:6] == "000002"


def _enrolled_at(machine: Machine, old: int, new: int) -> None:
    """Make an enrolment with one server one with another server of the same store."""
    servers = machine.directory / "config" / "servers"
    (servers / f"127.0.0.1_{old}").rename(servers / f"127.0.0.1_{new}")
    record = servers / f"127.0.0.1_{new}" / "server.toml"
    record.write_text(record.read_text().replace(f":{old}", f":{new}"))


def _files(directory: Path) -> list[Path]:
    with contextlib.suppress(FileNotFoundError):
        return list(directory.iterdir())
    return []


def _wait_until(is_so, timeout_s: float = 60) -> None:
    deadline_s = time.monotonic() + timeout_s
    while True:
        with contextlib.suppress(FileNotFoundError):
            if is_so():
                return
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
