"""Downloads over many connections at once, by one process that does as little as it can.

`python -m bench.ota_load`: each line of standard input is an Order as JSON, each line of output its
Outcome.
"""

import errno
import itertools
import json
import resource
import select
import socket
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from bench.process import report_ready

BUFFER_BYTES: Final = 1024 * 1024
POLL_S: Final = 0.05
SMALL_WINDOW_BYTES: Final = 4096
GIVE_UP_S: Final = 120.0


@dataclass(frozen=True)
class Order:
    """What to fetch: over each connection `repeat` of the requests, which take turns."""

    port: int
    requests: list[str]
    connections: int
    repeat: int
    body_bytes: int
    slow_s: float = 0.0
    """So long, connections read a little at a time; then they read the rest."""
    slow_bytes_per_s: int = 0


@dataclass
class Outcome:
    """What came of it; a connection that breaks or gets another status is an error."""

    seconds: float = 0.0
    bodies: int = 0
    errors: list[str] = field(default_factory=list)


class Connection:
    """One client, which sends a request and reads its answer whole."""

    def __init__(self, order: Order, requests: list[bytes], outcome: Outcome) -> None:
        self._order, self._outcome = order, outcome
        self._requests = iter(requests)
        self._head = b""
        self._left_bytes: int | None = None
        self.socket = socket.socket()
        if order.slow_s:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_WINDOW_BYTES)
        self.socket.connect(("127.0.0.1", order.port))
        self.socket.setblocking(False)

    def ask(self) -> bool:
        """Send the next request; false where all have been answered."""
        request = next(self._requests, None)
        if request is None:
            return False
        self._head, self._left_bytes = b"", None
        self.socket.send(request)
        return True

    def read(self, buffer: memoryview) -> bool:
        """Take what has come; false once there is nothing more to come."""
        try:
            count = self.socket.recv_into(buffer)
        except BlockingIOError:
            return True
        except OSError as error:
            return self._fail(errno.errorcode.get(error.errno or 0, "?"))
        if not count:
            return self._fail("closed")
        if self._left_bytes is None:
            count = self._read_head(buffer[:count])
            if self._left_bytes is None:
                return count >= 0
        self._left_bytes -= count
        if self._left_bytes > 0:
            return True
        self._outcome.bodies += 1
        return self.ask()

    def _read_head(self, piece: memoryview) -> int:
        """Bytes of the body that came with the head; -1 where it is not the answer wanted."""
        self._head += bytes(piece[:4096])
        head, end, _ = self._head.partition(b"\r\n\r\n")
        if not end:
            return 0
        if not head.startswith((b"HTTP/1.1 206", b"HTTP/1.1 200")):
            self._fail(head[:60].decode(errors="replace"))
            return -1
        self._left_bytes = self._order.body_bytes
        before = len(self._head) - len(bytes(piece[:4096]))
        return len(piece) - (len(head) + 4 - before)

    def _fail(self, what: str) -> bool:
        self._outcome.errors.append(what)
        return False


def carry_out(order: Order) -> Outcome:
    """All downloads of an order, measured from the first request to the last byte."""
    outcome = Outcome()
    turns = itertools.cycle(text.encode() for text in order.requests)
    clients = [
        Connection(order, list(itertools.islice(turns, order.repeat)), outcome)
        for _ in range(order.connections)
    ]
    began = time.perf_counter()
    for client in clients:
        client.ask()
    if order.slow_s:
        clients = _read_slowly(order, clients)
    _read_all(clients)
    outcome.seconds = time.perf_counter() - began
    return outcome


def _read_slowly(order: Order, clients: Sequence[Connection]) -> list[Connection]:
    """Each reads so many bytes a second; gives those that are still there."""
    rounds = max(1, round(order.slow_s))
    buffer = memoryview(bytearray(order.slow_bytes_per_s))
    reading = list(clients)
    for _ in range(rounds):
        ends = time.perf_counter() + order.slow_s / rounds
        reading = [client for client in reading if client.read(buffer)]
        time.sleep(max(0.0, ends - time.perf_counter()))
    return reading


def _read_all(clients: Sequence[Connection]) -> None:
    buffer = memoryview(bytearray(BUFFER_BYTES))
    poller = select.epoll()
    reading = {client.socket.fileno(): client for client in clients}
    for descriptor in reading:
        poller.register(descriptor, select.EPOLLIN)
    deadline = time.monotonic() + GIVE_UP_S
    while reading and time.monotonic() < deadline:
        for descriptor, _ in poller.poll(POLL_S):
            client = reading[descriptor]
            if not client.read(buffer):
                poller.unregister(descriptor)
                del reading[descriptor]
                client.socket.close()
    for client in reading.values():
        client._fail("not finished")
        client.socket.close()


def main() -> None:
    """Carry out orders until standard input ends."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    for line in report_ready():
        order: dict[str, Any] = json.loads(line)
        print(json.dumps(asdict(carry_out(Order(**order)))), flush=True)


if __name__ == "__main__":
    main()
