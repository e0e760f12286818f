"""A real smbd on loopback, with all it writes in a directory of its own."""

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.mount.mounts import wait_until

_GLOBAL = """
[global]
    workgroup = SSFS
    netbios name = SSFS
    server role = standalone server
    smb ports = {port}
    interfaces = 127.0.0.1
    bind interfaces only = yes
    map to guest = Bad User
    guest account = nobody
    guest ok = yes
    disable spoolss = yes
    load printers = no
    log file = {top}/log
"""
_DIRECTORIES = (
    "lock directory", "state directory", "cache directory", "pid directory", "private dir",
    "ncalrpc dir",
)  # fmt: skip


class Samba:
    """What smbclient sees of a running smbd."""

    def __init__(self, port: int, config: Path) -> None:
        self._port = port
        self._config = config

    def run(self, share: str, command: str, *, check: bool = True) -> str:
        """What smbclient prints on both of its outputs."""
        words = ["smbclient", "-N", "-s", self._config, "-p", str(self._port)]
        done = subprocess.run(
            [*words, f"//127.0.0.1/{share}", "-c", command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        assert not check or done.returncode == 0, done.stdout
        return done.stdout

    def previous_versions(self, share: str, path: str) -> list[str]:
        """The names of the previous versions of a file, as `allinfo` lists them."""
        lines = self.run(share, f'allinfo "{path}"').splitlines()
        return [line for line in lines if line.startswith("@GMT-")]

    def fetch(self, share: str, path: str, to: Path) -> bytes:
        """The content of a file."""
        self.run(share, f'get "{path}" "{to}"')
        return to.read_bytes()


@contextlib.contextmanager
def smbd(top: Path, shares: Sequence[str]) -> Iterator[Samba]:
    """Serve shares, each given as the lines of its section."""
    top.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    text = _GLOBAL.format(port=port, top=top)
    for name in _DIRECTORIES:
        path = top / name.replace(" ", "-")
        path.mkdir(mode=0o755)
        text += f"    {name} = {path}\n"
    config = top / "smb.conf"
    config.write_text("\n".join([text, *shares]) + "\n")
    with open(top / "output", "wb") as output:
        process = subprocess.Popen(
            ["smbd", "--foreground", "--no-process-group", "-s", config],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        wait_until(lambda: process.poll() is not None or _answers(port))
        assert process.poll() is None, (top / "output").read_text()
        yield Samba(port, config)
    finally:
        # Its children are in its own group, which is nobody else's.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
