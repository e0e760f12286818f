"""A machine of its own for the benchmark, and what is said about the real one.

`isolated` puts this process into new namespaces of network and mounts: loopback carries nothing but what the benchmark
sends, and mounts are gone when it ends. `SshServer` is an sshd there, with keys and a configuration of its own.
"""

import contextlib
import ctypes
import os
import platform
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tools.benchmark.ends import BenchmarkError, End
from tools.benchmark.results import Machine

START_WITHIN_S = 20
NEEDED_BY_SSHD = Path("/run/sshd")

_PIECE = 1 << 20
_CLONE_NEWNS = 0x00020000
_CLONE_NEWNET = 0x40000000
_SERVER = """
ListenAddress 127.0.0.1
Port {port}
HostKey {here}/host
PidFile none
AuthorizedKeysFile {here}/client.pub
UsePAM no
StrictModes no
PasswordAuthentication no
PermitRootLogin prohibit-password
PrintLastLog no
LogLevel ERROR
Subsystem sftp internal-sftp
"""
_CLIENT = """
Host nas2
HostName 127.0.0.1
User root
Port {port}
IdentityFile {here}/client
IdentitiesOnly yes
UserKnownHostsFile {here}/known_hosts
HostKeyAlias nas2
StrictHostKeyChecking yes
BatchMode yes
ControlPath none
LogLevel ERROR
"""


def isolate() -> None:
    """Take this process, and all it starts from now on, into a network and mounts of its own.

    Raises:
        BenchmarkError: Only root may.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS | _CLONE_NEWNET) != 0:
        reason = os.strerror(ctypes.get_errno())
        raise BenchmarkError(f"Cannot make namespaces: {reason}. Run it as root")
    run("mount", "--make-rprivate", "/")
    run("ip", "link", "set", "lo", "up")


def run(*command: str | Path, environment: Mapping[str, str] | None = None) -> str:
    """Run a program that must succeed; its standard output.

    Raises:
        BenchmarkError: It failed, with what it said.
    """
    done = subprocess.run(
        command,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode != 0:
        said = (done.stderr + done.stdout)[-2000:]
        raise BenchmarkError(f"{command} ended with {done.returncode}:\n{said}")
    return done.stdout


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def wait_for_port(port: int, process: "subprocess.Popen[bytes]") -> None:
    """Wait until a server listens.

    Raises:
        BenchmarkError: It ended instead, or took too long.
    """
    ends_at = time.monotonic() + START_WITHIN_S
    while time.monotonic() < ends_at and process.poll() is None:
        with (
            contextlib.suppress(ConnectionRefusedError),
            socket.create_connection(("127.0.0.1", port)),
        ):
            return
        time.sleep(0.02)
    raise BenchmarkError(f"{process.args!r} does not listen")


class SshServer:
    """An sshd on a port of 127.0.0.1.

    Attributes:
        command: The ssh that reaches it, as the host `nas2`.
    """

    def __init__(self, directory: Path, end: End) -> None:
        directory.mkdir()
        NEEDED_BY_SSHD.mkdir(mode=0o755, exist_ok=True)
        port = free_port()
        for name in ("host", "client"):
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", directory / name)
        (directory / "known_hosts").write_text(f"nas2 {(directory / 'host.pub').read_text()}")
        for name, text in (("sshd_config", _SERVER), ("config", _CLIENT)):
            (directory / name).write_text(text.format(here=directory, port=port))
        sshd = end.command("/usr/sbin/sshd", "-D", "-f", directory / "sshd_config")
        self.process = subprocess.Popen(sshd, stdin=subprocess.DEVNULL)
        wait_for_port(port, self.process)
        self.command: Sequence[str] = ("ssh", "-F", str(directory / "config"))


def forget_caches() -> None:
    """Drop the kernel's caches of pages, names and inodes (of the whole machine)."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")


def settle(*trees: Path) -> None:
    """Let what was deleted before cost nothing any more, and have these trees in memory.

    ext4 gives no inode out again for some minutes after it was deleted, as long as its block is in the kernel's
    cache: who makes files looks at each of those first, which takes several times as long as making the file.
    """
    forget_caches()
    for tree in trees:
        for path in tree.rglob("*"):
            if path.is_file() and not path.is_symlink():
                with open(path, "rb", buffering=0) as file:
                    while file.read(_PIECE):
                        pass


def described(directory: Path) -> Machine:
    """This machine, and the file system that a directory is on."""
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return Machine(
        cpus=len(os.sched_getaffinity(0)),
        cpu_model=models[0] if models else platform.machine(),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        kernel=platform.release(),
        file_system=run("stat", "-f", "-c", "%T", directory).strip(),
        python=platform.python_version(),
        load_before=os.getloadavg()[0],
    )


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the block as Ctrl-C does."""

    def stop(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    before = {each: signal.signal(each, stop) for each in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
