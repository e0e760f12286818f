"""Backups over ssh: a real sshd with a configuration of its own, on a port of 127.0.0.1."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.comparing import assert_same_tree
from tests.fakes.trees import build_tree, edit_tree
from tests.system.namespaces import program_directory
from tests.system.programs import TIMEOUT_S, run
from tests.system.servers import run_ssfs

pytestmark = [pytest.mark.slow, pytest.mark.needs_root]

_ROOT = Path(__file__).resolve().parent.parent.parent
_FORCED = re.compile(r"^    (restrict,command=.*) ssh-ed25519 AAAA\.\.\.$", re.MULTILINE)
_SERVER = """
ListenAddress 127.0.0.1
Port {port}
HostKey {here}/host
PidFile {here}/pid
AuthorizedKeysFile {here}/authorized_keys
UsePAM no
StrictModes no
PasswordAuthentication no
PermitRootLogin prohibit-password
SetEnv PATH={path} PYTHONPATH={root}
LogLevel VERBOSE
Subsystem sftp internal-sftp
"""
_CLIENT = """
Host nas2 bound
HostName 127.0.0.1
HostKeyAlias nas2
Port {port}
UserKnownHostsFile {here}/known_hosts
StrictHostKeyChecking yes
IdentitiesOnly yes
BatchMode yes
Host nas2
IdentityFile {here}/anybody
Host bound
IdentityFile {here}/nas1
"""
_NEEDED_BY_SSHD = "/run/sshd"


class SshServer:
    """An sshd, and a client's configuration for it.

    The host `nas2` is reached with a key that may do everything, `bound` with one that stands behind the forced command
    of README.md.
    """

    def __init__(self, directory: Path, store: Path) -> None:
        self.directory = directory
        self.store = store
        directory.mkdir()
        for name in ("host", "anybody", "nas1"):
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", directory / name)
        host = (directory / "host.pub").read_text()
        (directory / "known_hosts").write_text(f"nas2 {host}")
        forced = _FORCED.search((_ROOT / "README.md").read_text())[1]
        bound = forced.replace("/srv/backup", str(store))
        assert bound != forced
        (directory / "authorized_keys").write_text(
            (directory / "anybody.pub").read_text()
            + f"{bound} {(directory / 'nas1.pub').read_text()}"
        )
        self._programs = program_directory(directory)
        self._start()

    def _start(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        words = {
            "here": self.directory,
            "port": port,
            "path": f"{self._programs}:/usr/bin:/bin",
            "root": _ROOT,
        }
        (self.directory / "sshd_config").write_text(_SERVER.format(**words))
        (self.directory / "config").write_text(_CLIENT.format(**words))
        # sshd insists on being started by its full path.
        command = ["/usr/sbin/sshd", "-D", "-f", "sshd_config", "-E", "log"]
        self.process = subprocess.Popen(command, cwd=self.directory)
        wait_until(lambda: "Server listening" in self.log or self.process.poll() is not None)
        assert self.process.poll() is None, self.log

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text()

    @property
    def ssh(self) -> list[str]:
        return ["ssh", "-F", str(self.directory / "config")]

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "SSFS_SSH": " ".join(self.ssh)}

    def location(self, host: str = "nas2", inside: str = "main/docs") -> str:
        return f"ssh://root@{host}{self.store}" + (f"::{inside}" if inside else "")

    def ssfs(self, *arguments: str | Path, expect: int = 0) -> subprocess.CompletedProcess[str]:
        return run_ssfs(*arguments, expect=expect, environment=self.environment)

    def ask(self, *arguments: str | Path) -> object:
        """What a command says with --json."""
        return json.loads(self.ssfs(*arguments, "--json").stdout)

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(TIMEOUT_S)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SshServer]:
    # It stays, as the one that the system's own sshd makes when it starts: another test may need it.
    os.makedirs(_NEEDED_BY_SSHD, 0o755, exist_ok=True)
    run_ssfs("init", tmp_path / "store", "--timezone", "UTC", "--keep-last", "9")
    with contextlib.closing(SshServer(tmp_path / "ssh", tmp_path / "store")) as ssh_server:
        yield ssh_server


@pytest.fixture
def source(tmp_path: Path) -> Path:
    build_tree(tmp_path / "source", 5, large_bytes=1 << 20)
    return tmp_path / "source"


def test_every_command_works_over_ssh(tmp_path, server, source):
    location = server.location()
    first = server.ask("sync", source, location)["version"]
    edit_tree(source, 2)
    second = server.ask("sync", source, location)["version"]
    assert [line["version"] for line in server.ask("versions", location)] == [first, second]
    server.ssfs("restore", location, "latest", "--to", tmp_path / "back", "--limit", "50M")
    assert_same_tree(source, tmp_path / "back")
    server.ssfs("pin", location, first)
    assert server.ask("versions", location)[0]["pinned"]
    (point,) = server.ask("points", server.location(inside=""))
    assert [task["task"] for task in point["tasks"]] == ["docs"]
    server.ssfs("point", server.location(inside="main"), "--keep-last", "1", "--yes")
    server.ssfs("expire", location, "--yes")
    assert [line["version"] for line in server.ask("versions", location)] == [first, second]
    server.ssfs("unpin", location, first)
    server.ssfs("delete", location, first, "--yes")
    assert [line["version"] for line in server.ask("versions", location)] == [second]


def test_a_forced_command_binds_a_key_to_one_client_role_and_store(tmp_path, server, source):
    others = server.ask("sync", source, server.location(inside="main/others"))["version"]
    run_ssfs("init", tmp_path / "elsewhere", "--timezone", "UTC")
    bound = server.location("bound")
    version = server.ask("sync", source, bound)["version"]
    (point,) = server.ask("points", server.location(inside=""))
    assert {task["task"]: task["owner"] for task in point["tasks"]}["docs"] == "nas1"
    server.ssfs("restore", bound, "latest", "--to", tmp_path / "back")
    assert_same_tree(source, tmp_path / "back")
    for command in (
        ("delete", bound, version, "--yes"),
        ("pin", bound, version),
        ("expire", bound, "--yes"),
        ("point", server.location("bound", "main"), "--days", "1", "--yes"),
        ("delete", server.location("bound", "main/others"), others, "--yes"),
        ("restore", server.location("bound", "main/others"), "latest", "--to", tmp_path / "no"),
        ("sync", source, server.location("bound", "elsewhere/docs")),
    ):
        refused = server.ssfs(*command, expect=4)
        assert "nas1" in refused.stderr, refused.stderr
    # The path is part of the command that ssh is asked to run, and that is another one now.
    server.ssfs("sync", source, f"ssh://root@bound{tmp_path}/elsewhere::main/docs")
    assert run_ssfs("points", tmp_path / "elsewhere", "-q").stdout.strip() in {"", "main"}
    assert len(server.ask("versions", bound)) == 2


def test_a_bound_key_opens_nothing_else(tmp_path, server):
    for command in (
        [*server.ssh, "bound", "touch", str(tmp_path / "was here")],
        [*server.ssh, "-tt", "bound"],
        [*server.ssh, "-W", f"127.0.0.1:{_ssh_port(server)}", "bound"],
        ["sftp", "-F", str(server.directory / "config"), "-b", "/dev/null", "bound"],
    ):
        done = subprocess.run(
            command,
            input=b"touch '%b'\n" % os.fsencode(tmp_path / "was here"),
            capture_output=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert done.returncode != 0 or b"SSH-2" not in done.stdout, (command, done)
        assert not (tmp_path / "was here").exists()
    # The other key shows that it was the forced command that prevented it.
    subprocess.run([*server.ssh, "nas2", f"touch '{tmp_path}/was here'"], check=True)
    assert (tmp_path / "was here").exists()


def _ssh_port(server: SshServer) -> str:
    return re.search(r"Port (\d+)", (server.directory / "config").read_text())[1]


@pytest.mark.parametrize("retries", [0, 3])
def test_a_killed_ssh_costs_little(tmp_path, server, source, retries):
    content = os.urandom(24 << 20)
    (source / "large").write_bytes(content)
    location = server.location()
    running = subprocess.Popen(
        [
            *(sys.executable, "-m", "ssfs", "sync", source, location, "--json"),
            *("--limit", "8M", "--retries", str(retries)),
        ],
        env=server.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    partials = server.store / "points/main/tasks/docs/staging/partials"
    try:
        wait_until(lambda: any(path.stat().st_size > 8 << 20 for path in partials.iterdir()))
        (ssh,) = _children(running.pid, "ssh")
        os.kill(ssh, signal.SIGKILL)
        told, problems = running.communicate(timeout=TIMEOUT_S)
    finally:
        running.kill()
        running.communicate()
    if retries:
        assert running.returncode == 0, problems
        assert json.loads(told)["bytes_sent"] < 40 << 20, "what had arrived was sent again"
    else:
        assert running.returncode == 5
        assert "ended by SIGKILL" in problems
        assert server.ask("sync", source, location)["bytes_sent"] < 18 << 20
    server.ssfs("restore", location, "latest", "large", "--to", tmp_path / "back")
    assert (tmp_path / "back" / "large").read_bytes() == content


def test_what_goes_wrong_is_said_plainly(tmp_path, server, source):
    no_store = server.ssfs("sync", source, f"ssh://root@nas2{tmp_path}/nothing", expect=6)
    assert no_store.stderr.count("Not a store") == 1, "it was tried again"
    unknown = server.ssfs("sync", source, "ssh://nowhere.invalid/store", "--retries=0", expect=5)
    assert "ssh ended with exit status 255" in unknown.stderr
    environment = {**server.environment, "SSFS_SSH": "/no/such/ssh"}
    (server.directory / "bin" / "ssfs").unlink()
    no_program = server.ssfs("sync", source, server.location(), expect=2)
    assert "is ssfs installed on the other machine" in no_program.stderr
    missing = run_ssfs(
        "sync", source, server.location(), "--retries=0", expect=2, environment=environment
    )
    assert "/no/such/ssh" in missing.stderr
    for done in (no_store, unknown, missing, no_program):
        assert "Traceback" not in done.stderr


def _children(pid: int, name: str) -> list[int]:
    """Processes of this name that a process has started, from any of its threads."""
    return [
        int(child)
        for thread in Path(f"/proc/{pid}/task").iterdir()
        for child in (thread / "children").read_text().split()
        if Path(f"/proc/{child}/comm").read_text().strip() == name
    ]


def wait_until(is_so, timeout_s: float = 120) -> None:
    deadline_s = time.monotonic() + timeout_s
    while True:
        with contextlib.suppress(FileNotFoundError):
            if is_so():
                return
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
