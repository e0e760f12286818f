"""A TCP proxy that cuts connections: each after as many bytes as it is told to carry.

    with CuttingProxy(port, lambda: rng.randrange(100_000)) as proxy:
        ... connect to 127.0.0.1, proxy.port ...

A cut is a reset: what is under way is lost, at both ends.
"""

import contextlib
import selectors
import socket
import struct
import threading
from collections.abc import Callable
from typing import Self

_PIECE_BYTES = 1 << 14
_RESET = struct.pack("ii", 1, 0)


class CuttingProxy:
    """Carries connections to a port of this machine until each has had its bytes.

    Attributes:
        port: Where it listens, on 127.0.0.1.
        connections: How many there were.
        cuts: How many of them were cut.
    """

    def __init__(self, target_port: int, next_budget: Callable[[], int | None]) -> None:
        """Start to listen.

        Args:
            target_port: Where connections go, on 127.0.0.1.
            next_budget: Called for each connection, by one thread at a time: after how many bytes,
                both ways together, it is cut; None for never.
        """
        self.connections = 0
        self.cuts = 0
        self._target_port = target_port
        self._next_budget = next_budget
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self._listener.getsockname()[1]
        self._threads: list[threading.Thread] = []
        self._acceptor = threading.Thread(target=self._accept)
        self._acceptor.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            thread = threading.Thread(target=self._carry, args=(client, self._next_budget()))
            self._threads.append(thread)
            thread.start()

    def _carry(self, client: socket.socket, budget: int | None) -> None:
        with client, contextlib.suppress(OSError):
            with socket.create_connection(("127.0.0.1", self._target_port)) as server:
                if not _carry_some(client, server, budget):
                    with self._lock:
                        self.cuts += 1
                    for end in (client, server):
                        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Stop listening; waits for connections that are still carried."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._acceptor.join()
        for thread in self._threads:
            thread.join()


def _carry_some(one: socket.socket, other: socket.socket, budget: int | None) -> bool:
    """Carry both ways; whether both ends had their say before the bytes were used up."""
    left = float("inf") if budget is None else budget
    with selectors.DefaultSelector() as selector:
        selector.register(one, selectors.EVENT_READ, other)
        selector.register(other, selectors.EVENT_READ, one)
        while selector.get_map():
            for key, _ in selector.select():
                piece = key.fileobj.recv(_PIECE_BYTES)
                if not piece:
                    selector.unregister(key.fileobj)
                    key.data.shutdown(socket.SHUT_WR)
                    continue
                left -= len(piece)
                if left < 0:
                    return False
                key.data.sendall(piece)
    return True
