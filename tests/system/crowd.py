"""Many clients of one server: enrolled without a program each, syncing in threads of the test's process.

`enrolled` makes a `Machine` (`tests.system.servers`) that real commands can use. `dial` opens sessions for it from here.
"""

import contextlib
import datetime
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ssfs.clock import SystemClock
from ssfs.engine.greeting import greet_server
from ssfs.engine.remote import sync_remote
from ssfs.engine.sender import SyncRequest, SyncResult
from ssfs.model.peer import Role
from ssfs.monitor import Monitor, NullMonitor
from ssfs.net.channel import Channel
from ssfs.net.dial import TlsTarget, open_session
from ssfs.net.link import LinkOptions
from ssfs.pki.address import Address
from ssfs.pki.certificate import make_key, make_request
from ssfs.source.enrolment import Credentials, save_enrolment
from ssfs.source.exclude import ExcludeOptions
from ssfs.store.clients import Registry
from ssfs.store.store import Store
from tests.system.servers import Machine, ServedStore

_DAY = datetime.timedelta(days=1)


def registry_of(path: Path) -> Registry:
    return Registry(Store.open(os.fsencode(path)))


def enrolled(
    server: ServedStore,
    directory: Path,
    name: str,
    *,
    roles: tuple[Role, ...] = (Role.BACKUP,),
    points: tuple[str, ...] = ("main",),
    now: datetime.datetime | None = None,
) -> Machine:
    """A machine that has enrolled with a server, at the time `now` of the server's clock."""
    machine = Machine(directory, name)
    now = now or SystemClock().now()
    registry = registry_of(server.path)
    key = make_key()
    secret = registry.invite(name, roles, points, now + _DAY, now)
    issued = registry.redeem(secret, make_request(key), now)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSFS_CONFIG_DIR", machine.environment["SSFS_CONFIG_DIR"])
        save_enrolment(
            Address("127.0.0.1", server.port),
            name,
            points,
            Credentials(key, issued.certificate, registry.authority().pem),
            now,
        )
    return machine


def credentials(machine: Machine) -> Path:
    """The directory of key.pem, certificate.pem and ca.pem of a machine's only enrolment."""
    (key,) = machine.directory.glob("config/servers/*/*/key.pem")
    return key.parent


@contextlib.contextmanager
def dial(
    machine: Machine,
    port: int,
    options: LinkOptions = LinkOptions(),  # noqa: B008
) -> Iterator[Channel]:
    """A greeted session with the server behind a port."""
    files = credentials(machine)
    target = TlsTarget(
        "127.0.0.1",
        port,
        ca_path=files / "ca.pem",
        key_path=files / "key.pem",
        certificate_path=files / "certificate.pem",
    )
    with open_session(target, options) as session:
        greet_server(session.channel)
        yield session.channel


def sync_through(
    machine: Machine,
    port: int,
    source: Path,
    task: str,
    *,
    retries: int = 0,
    monitor: Monitor | None = None,
    waits: bool = True,
) -> SyncResult:
    """Sync into a task of the sync point main, from this process."""
    request = SyncRequest(
        source=os.fsencode(source),
        point="main",
        task=task,
        client=machine.name,
        source_identity=f"{machine.name}:{source}",
        exclude=ExcludeOptions(patterns=(), caches=False),
        waits=waits,
    )
    return sync_remote(
        lambda: dial(machine, port), request, monitor or NullMonitor(), SystemClock(), retries
    )


def task_path(server: ServedStore, task: str, point: str = "main") -> Path:
    return server.path / "points" / point / "tasks" / task


def only_version(server: ServedStore, task: str) -> Path:
    (version,) = versions_of(server, task)
    return version


def versions_of(server: ServedStore, task: str) -> list[Path]:
    """The directories of a task's versions, oldest first."""
    return sorted((task_path(server, task) / "versions").iterdir())


def is_receiving(server: ServedStore, task: str) -> bool:
    """Whether a backup of the task has its slot: it has a staging."""
    return (task_path(server, task) / "staging" / "catalog.db").exists()


def received_bytes(server: ServedStore, task: str) -> int:
    """How much of large files has arrived for a version that is not complete."""
    partials = task_path(server, task) / "staging" / "partials"
    total = 0
    with contextlib.suppress(FileNotFoundError):
        for path in partials.iterdir():
            with contextlib.suppress(FileNotFoundError):
                total += path.stat().st_size
    return total


def wait_until(is_so: Callable[[], bool], timeout_s: float = 120) -> None:
    """Wait for what happens on a disk or in another process."""
    deadline_s = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline_s, "it did not happen"
        time.sleep(0.02)


def set_server(path: Path, **settings: int) -> None:
    """Write `[server]` of store.toml, before a server starts or is told to look again."""
    with open(path / "store.toml", "a", encoding="ascii") as file:
        file.write(
            "\n[server]\n" + "".join(f"{key} = {value}\n" for key, value in settings.items())
        )


def raw_connection(port: int) -> socket.socket:
    """A connection to a server that has said nothing."""
    return socket.create_connection(("127.0.0.1", port), timeout=120)
