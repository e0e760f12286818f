"""Crowds at the door: strangers, revoked clients and greedy ones keep nobody out, and cost a bounded part of the server."""

import contextlib
import os
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from ssfs.net.dial import TlsTarget
from ssfs.protocol.enrolling import Enroll
from tests.fakes.arenas import changed_paths, image_of, memory_directory
from tests.system.rogues import crowd, half_open, tls_target
from tests.system.servers import Machine, ServedStore, run_ssfs, served

pytestmark = pytest.mark.slow


def check_served(machine: Machine, server: ServedStore) -> None:
    """The server hears and answers: there is no sync point yet."""
    answered = machine.ssfs("versions", server.url("main"), expect=2)
    assert "No sync point 'main'" in answered.stderr


def half_a_hello() -> bytes:
    """The beginning of a TLS handshake."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname="x").do_handshake()
    hello = outgoing.read()
    return hello[: len(hello) // 2]


def descriptors(process_id: int) -> int:
    return len(os.listdir(f"/proc/{process_id}/fd"))


def resident_bytes(process_id: int) -> int:
    pages = int(Path(f"/proc/{process_id}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_a_flood_of_half_open_connections_keeps_nobody_out(tmp_path):
    with memory_directory() as directory, served(directory / "store") as server:
        honest = Machine(tmp_path / "honest", "honest").enrol(server)
        process_id = server.process.pid
        fds, memory = descriptors(process_id), resident_bytes(process_id)
        before = image_of(directory)
        after = len(server.log)
        hello = half_a_hello()
        with contextlib.ExitStack() as stack:
            for number in range(500):
                stack.enter_context(half_open(server.port, hello if number % 2 else b""))
            check_served(honest, server)
            server.wait_for_log("refused, no certificate shown in time", after=after)
            assert descriptors(process_id) < fds + 64 + 40
            assert resident_bytes(process_id) < memory + (64 << 20)
            refused = [line for line in server.log[after:] if "no certificate shown" in line]
            assert len(refused) >= 500 - 64 - 40
        changes = changed_paths(before, image_of(directory))
        # When the client was last seen.
        assert not [path for path in changes if not path.startswith("store/pki/clients/")]
        # The server is as good as before.
        check_served(Machine(tmp_path / "other", "other").enrol(server), server)


@pytest.fixture
def narrow() -> Iterator[ServedStore]:
    """A server that takes few sessions and few strangers."""
    with memory_directory() as directory:
        store = directory / "store"
        run_ssfs("init", store, "--timezone", "UTC")
        with open(store / "store.toml", "a", encoding="ascii") as settings:
            settings.write("\n[server]\nmax_sessions = 6\nmax_half_open = 6\n")
        with served(store, make=False) as server:
            yield server


def test_strangers_with_wrong_codes_take_no_places_of_clients(narrow, tmp_path):
    honest = Machine(tmp_path / "honest", "honest").enrol(narrow)
    ca = tls_target(honest, narrow).ca_path
    stranger = TlsTarget("127.0.0.1", narrow.port, ca)
    with crowd(stranger, 20, Enroll(b"wrong", b"x")):
        check_served(honest, narrow)
    narrow.wait_for_log("code is wrong")


def test_a_revoked_client_takes_no_places_of_clients(narrow, tmp_path):
    honest = Machine(tmp_path / "honest", "honest").enrol(narrow)
    gone = Machine(tmp_path / "gone", "gone").enrol(narrow)
    run_ssfs("revoke", narrow.path, "gone")
    with crowd(tls_target(gone, narrow), 20):
        check_served(honest, narrow)
    assert any("'gone' was revoked" in line for line in narrow.log)


def test_one_client_cannot_take_all_sessions(narrow, tmp_path):
    honest = Machine(tmp_path / "honest", "honest").enrol(narrow)
    rogue = Machine(tmp_path / "rogue", "rogue").enrol(narrow)
    with crowd(tls_target(rogue, narrow), 12, b""):
        check_served(honest, narrow)
        refused = rogue.ssfs("versions", narrow.url("main"), expect=5)
        assert "'rogue' has half of all sessions" in refused.stderr
    assert any("half of all sessions" in line for line in narrow.log)
