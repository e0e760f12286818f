"""A line between two sockets: with a delay, and counting what passes.

Bytes arrive `delay_s` after they were sent, however many are under way (a long line, not a narrow one): what
is sent while nothing has come back yet costs nothing extra, each round trip costs twice the delay.
"""

import collections
import select
import socket
import threading
import time


class Relay:
    """A long line; `join` gives its two ends.

    Attributes:
        passed_bytes: Bytes from the first end to the second, and from the second to the first.
    """

    def __init__(self, delay_s: float = 0.0):
        self.passed_bytes = [0, 0]
        self._delay_s = delay_s
        self._threads: list[threading.Thread] = []

    def join(self) -> tuple[socket.socket, socket.socket]:
        first, here = socket.socketpair()
        there, second = socket.socketpair()
        ended: list[int] = []
        for number, (source, sink) in enumerate(((here, there), (there, here))):
            thread = threading.Thread(
                target=self._carry_to_end, args=(number, source, sink, ended), daemon=True
            )
            thread.start()
            self._threads.append(thread)
        return first, second

    def _carry_to_end(
        self, number: int, source: socket.socket, sink: socket.socket, ended: list[int]
    ) -> None:
        self._carry(number, source, sink)
        ended.append(number)
        if len(ended) == 2:
            source.close()
            sink.close()

    def _carry(self, number: int, source: socket.socket, sink: socket.socket) -> None:
        under_way: collections.deque[tuple[float, bytes]] = collections.deque()
        is_open = True
        try:
            while is_open or under_way:
                wait_s = max(under_way[0][0] - time.monotonic(), 0) if under_way else None
                ready = select.select([source] if is_open else [], [], [], wait_s)[0]
                if ready:
                    content = source.recv(1 << 18)
                    is_open = bool(content)
                    self.passed_bytes[number] += len(content)
                    under_way.append((time.monotonic() + self._delay_s, content))
                while under_way and under_way[0][0] <= time.monotonic():
                    content = under_way.popleft()[1]
                    if content:
                        sink.sendall(content)
                    else:
                        sink.shutdown(socket.SHUT_WR)
        except OSError:
            for end in (source, sink):
                end.close()
