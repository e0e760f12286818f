"""The proxy that other tests use as their bad network does what it says."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.fakes.delay_proxy import DelayProxy, Direction

MIB = 1 << 20


class Echo:
    """Sends back what it hears, for any number of connections."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                stream, _ = self._listener.accept()
            except OSError:
                return
            self._threads.append(threading.Thread(target=self._echo, args=(stream,)))
            self._threads[-1].start()

    def _echo(self, stream: socket.socket) -> None:
        with stream:
            try:
                while piece := stream.recv(MIB):
                    stream.sendall(piece)
            except OSError:
                return

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()


@pytest.fixture
def echo() -> Iterator[Echo]:
    server = Echo()
    yield server
    server.close()


def dial(proxy: DelayProxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=20)


def exchange(stream: socket.socket, said: bytes) -> bytes:
    """Say it and hear as much back, at the same time."""
    sender = threading.Thread(target=stream.sendall, args=(said,))
    sender.start()
    heard = bytearray()
    while len(heard) < len(said):
        piece = stream.recv(MIB)
        assert piece
        heard += piece
    sender.join()
    return bytes(heard)


def exchange_often(stream: socket.socket) -> None:
    for _ in range(100):
        exchange(stream, bytes(5000))


def test_each_byte_takes_its_time_each_way(echo):
    with DelayProxy(echo.port, delay_s=0.05) as proxy, dial(proxy) as stream:
        began = time.monotonic()
        assert exchange(stream, b"hello") == b"hello"
        assert time.monotonic() - began >= 0.1


def test_bandwidth_is_not_limited_by_the_delay(echo):
    """Waiting for each 64 KiB would take 320 s."""
    with DelayProxy(echo.port, delay_s=0.5) as proxy, dial(proxy) as stream:
        began = time.monotonic()
        said = bytes(20 * MIB)
        assert exchange(stream, said) == said
        assert time.monotonic() - began < 20
    # Once it has ended: the last piece is heard before it is recorded.
    assert proxy.sent_bytes(Direction.UP) == proxy.sent_bytes(Direction.DOWN) == 20 * MIB


def test_ends_are_passed_on(echo):
    with DelayProxy(echo.port) as proxy, dial(proxy) as stream:
        stream.sendall(b"bye")
        stream.shutdown(socket.SHUT_WR)
        assert stream.recv(3, socket.MSG_WAITALL) == b"bye"
        assert stream.recv(1) == b""


@pytest.mark.parametrize("direction", Direction)
def test_cut_after_so_many_bytes_once(direction, echo):
    with DelayProxy(echo.port) as proxy:
        proxy.cut_after(direction, 100_001)
        with dial(proxy) as stream, pytest.raises(OSError, match=r"reset|Broken"):
            exchange_often(stream)
        assert proxy.sent_bytes(direction) == 100_001
        assert proxy.cuts == 1
        with dial(proxy) as stream:
            assert exchange(stream, bytes(200_000)) == bytes(200_000)
        assert (proxy.connections, proxy.cuts) == (2, 1)


@pytest.mark.parametrize("reset", [True, False])
def test_cut_on_demand(reset, echo):
    with DelayProxy(echo.port) as proxy, dial(proxy) as stream:
        assert exchange(stream, b"hello") == b"hello"
        proxy.cut(reset=reset)
        if reset:
            with pytest.raises(ConnectionResetError):
                stream.recv(1)
        else:
            assert stream.recv(1) == b""


def test_black_hole_holds_everything_until_it_is_resumed(echo):
    with DelayProxy(echo.port) as proxy, dial(proxy) as stream:
        assert exchange(stream, b"hello") == b"hello"
        proxy.black_hole()
        stream.sendall(b"into the hole")
        stream.settimeout(0.2)
        with pytest.raises(TimeoutError):
            stream.recv(1)
        proxy.resume()
        stream.settimeout(20)
        assert stream.recv(13, socket.MSG_WAITALL) == b"into the hole"


def test_server_that_is_not_there_resets(echo):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with (
        DelayProxy(port) as proxy,
        # As early as while dialling, if the proxy is quick.
        pytest.raises(ConnectionResetError),
        dial(proxy) as stream,
    ):
        stream.recv(1)


def test_rates_are_those_of_complete_windows():
    proxy = DelayProxy(1)
    proxy._records[Direction.UP] = [(0.0, 10), (0.5, 20), (1.0, 30), (1.5, 40), (2.5, 50)]
    assert proxy.window_rates(Direction.UP, 1) == [30, 50, 70, 40]
    assert proxy.window_rates(Direction.UP, 2) == [50, 45]
    assert proxy.window_rates(Direction.DOWN, 1) == []
