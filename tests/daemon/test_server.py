"""The server inside the test's process, with what it needs made to wait or to fail."""

import contextlib
import logging
import os
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import trio

from ssfs.clock import SystemClock
from ssfs.daemon import server as server_module
from ssfs.daemon.server import Server
from ssfs.engine.commands import ask
from ssfs.engine.enrolment import EnrolmentDesk
from ssfs.engine.greeting import ask_to_enrol, greet_server
from ssfs.errors import ConnectionLost, PeerBusy, StoreError, TrustError
from ssfs.model.policy import Policy
from ssfs.net.dial import TlsTarget, open_session
from ssfs.net.link import LinkOptions
from ssfs.pki.certificate import make_key, make_request
from ssfs.protocol.requests import ListPoints
from ssfs.store.clients import Registry
from ssfs.store.store import Store
from tests.store.registries import enrol

pytestmark = pytest.mark.slow

_WAIT_S = 60


class Running:
    """A server and the files of one client of it."""

    def __init__(self, directory: Path, settings: str = "") -> None:
        store = Store.create(os.fsencode(directory / "store"), Policy(), "UTC", SystemClock())
        with open(directory / "store" / "store.toml", "a", encoding="ascii") as file:
            file.write(f"\n[server]\n{settings}\n")
        self.registry = Registry(store)
        self.server = Server(Store.open(store.path), SystemClock())
        self.port = 0
        self._directory = directory

    def target(self, name: str = "") -> TlsTarget:
        """As a new client with this name; "" is a stranger."""
        files = self._directory / f"files-{name}"
        files.mkdir()
        (files / "ca.pem").write_bytes(self.registry.authority().pem)
        if not name:
            return TlsTarget("127.0.0.1", self.port, ca_path=files / "ca.pem")
        machine = enrol(self.registry, name, SystemClock().now())
        (files / "key.pem").write_bytes(machine.key)
        (files / "certificate.pem").write_bytes(machine.pem)
        return TlsTarget(
            "127.0.0.1",
            self.port,
            ca_path=files / "ca.pem",
            key_path=files / "key.pem",
            certificate_path=files / "certificate.pem",
        )


@contextlib.asynccontextmanager
async def _running(directory: Path, settings: str = "") -> AsyncIterator[Running]:
    running = Running(directory, settings)
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    running.port = listeners[0].socket.getsockname()[1]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(running.server.run, listeners)
        with trio.fail_after(_WAIT_S):
            yield running
        nursery.cancel_scope.cancel()


async def _until(is_so: Callable[[], bool]) -> None:
    """Wait for what another thread or the server does."""
    while not is_so():  # noqa: ASYNC110  # nobody is there to set an event
        await trio.sleep(0.01)


def _list_points(target: TlsTarget) -> None:
    with open_session(target, LinkOptions()) as session:
        greet_server(session.channel)
        ask(session.channel, ListPoints())


def _guess(target: TlsTarget) -> str:
    try:
        with open_session(target, LinkOptions()) as session:
            greet_server(session.channel)
            ask_to_enrol(session.channel, b"a wrong secret......", make_request(make_key()))
    except TrustError:
        return "refused"
    except ConnectionLost:
        return "driven out"
    return "let in"


async def test_a_crowd_with_wrong_codes_keeps_no_client_waiting(tmp_path):
    settings = "max_sessions = 1\nmax_half_open = 2"
    async with _running(tmp_path, settings) as running:
        answers, waiting = threading.Event(), threading.Semaphore(0)

        def hold_back(_seconds: float) -> None:
            waiting.release()
            answers.wait(_WAIT_S)

        running.server._desk = EnrolmentDesk(running.registry, SystemClock(), hold_back)
        stranger, client = running.target(), running.target("nas1")
        outcomes: list[str] = []

        async def guess() -> None:
            outcomes.append(await trio.to_thread.run_sync(_guess, stranger))

        try:
            async with trio.open_nursery() as nursery:
                for _ in range(2):
                    nursery.start_soon(guess)
                    await trio.to_thread.run_sync(waiting.acquire)
                # Two wrong codes wait for their answers in the two threads that strangers have.
                await trio.to_thread.run_sync(_list_points, client)
                # Another two drive them out; still their threads are not given back.
                for _ in range(2):
                    nursery.start_soon(guess)
                await _until(lambda: len(outcomes) == 2)
                assert outcomes == ["driven out"] * 2
                await trio.to_thread.run_sync(_list_points, client)
                answers.set()
        finally:
            answers.set()
        assert len(outcomes) == 4
        assert set(outcomes) <= {"refused", "driven out"}


async def test_no_more_sessions_than_may_be_and_strangers_do_not_count(tmp_path):
    async with _running(tmp_path, "max_sessions = 1") as running:
        one, other = running.target("nas1"), running.target("nas2")
        stranger = running.target()
        is_open, may_end = trio.Event(), threading.Event()

        def stay() -> None:
            with open_session(one, LinkOptions()) as session:
                greet_server(session.channel)
                trio.from_thread.run_sync(is_open.set)
                may_end.wait(_WAIT_S)

        running.server._desk = EnrolmentDesk(running.registry, SystemClock(), lambda _: None)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.to_thread.run_sync, stay)
                await is_open.wait()
                with pytest.raises(PeerBusy, match="as many sessions as it may"):
                    await trio.to_thread.run_sync(_list_points, other)
                assert await trio.to_thread.run_sync(_guess, stranger) == "refused"
                may_end.set()
        finally:
            may_end.set()
        await _until(lambda: not running.server._sessions)
        await trio.to_thread.run_sync(_list_points, other)


async def test_a_registry_that_cannot_be_read_for_a_moment_ends_no_server(tmp_path, monkeypatch):
    monkeypatch.setattr(server_module, "_LOOK_FOR_REVOKED_S", 0.01)
    async with _running(tmp_path) as running:
        client = running.target("nas1")
        looks = 0
        real = running.registry.change_stamp

        def fail() -> bytes:
            nonlocal looks
            looks += 1
            raise StoreError("Input/output error")

        running.server._registry.change_stamp = fail
        await _until(lambda: looks >= 3)
        running.server._registry.change_stamp = real
        await trio.to_thread.run_sync(_list_points, client)


async def test_a_certificate_that_cannot_be_renewed_now_ends_no_server(
    tmp_path, monkeypatch, expected_warnings: list[logging.LogRecord]
):
    monkeypatch.setattr(server_module, "_RENEW_EVERY_S", 0.01)
    async with _running(tmp_path) as running:
        client = running.target("nas1")

        def fail() -> None:
            raise StoreError("No space left on device")

        monkeypatch.setattr(running.server, "_load_context", fail)
        await _until(lambda: len(expected_warnings) >= 2)
        monkeypatch.undo()
        await trio.to_thread.run_sync(_list_points, client)
    assert {record.message for record in expected_warnings} == {
        "the certificate is kept as it was: No space left on device"
    }


async def test_sessions_that_end_while_others_are_looked_up_are_gone(tmp_path, monkeypatch):
    monkeypatch.setattr(server_module, "_LOOK_FOR_REVOKED_S", 0.01)
    async with _running(tmp_path) as running:
        targets = [running.target(f"nas{number}") for number in range(2)]
        may_end, is_looking = threading.Event(), threading.Event()
        real = running.server._registry.identify

        def stay(target: TlsTarget, opened: trio.Event) -> None:
            with open_session(target, LinkOptions()) as session:
                greet_server(session.channel)
                trio.from_thread.run_sync(opened.set)
                may_end.wait(_WAIT_S)

        def identify_slowly(*arguments: object) -> object:
            is_looking.set()
            may_go_on.wait(_WAIT_S)
            return real(*arguments)

        may_go_on, looked_again = threading.Event(), threading.Event()
        real_stamp = running.server._registry.change_stamp

        def stamp() -> bytes:
            if may_go_on.is_set():
                looked_again.set()
            return real_stamp()

        running.server._registry.change_stamp = stamp
        async with trio.open_nursery() as nursery:
            for target in targets:
                opened = trio.Event()
                nursery.start_soon(trio.to_thread.run_sync, stay, target, opened)
                await opened.wait()
            running.server._registry.identify = identify_slowly
            running.target("another")  # a change that makes the server look at all of them again
            await trio.to_thread.run_sync(is_looking.wait)
            may_end.set()
        await _until(lambda: not running.server._sessions)
        may_go_on.set()
        # Until that look is over and the next one has begun.
        await _until(looked_again.is_set)
        assert running.server._sessions == {}
