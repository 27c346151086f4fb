"""Publishes readings at full speed: `python -m bench.publisher PORT MESSAGES SEED WHICH AHEAD`.

Of MESSAGES, every second one is this publisher's (WHICH is 0 or 1), so that a device's readings
take one connection and stay in order. AHEAD packets are encoded before the start, so that the CPU
belongs to the broker and to whoever is measured; they take 350 MB a million. The rest is encoded
as it is sent, at 1 µs each. Each line of standard input says how many messages it may have sent
by then. Ends when every message is acknowledged.
"""

import select
import socket
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, islice
from typing import Final

from bench.messages import (
    HOST,
    PASSWORD,
    USERNAME,
    count_acknowledgements,
    fill,
    message_ids,
    packet_template,
)
from bench.process import Helper, helpers, report_ready
from zenthos_core import mqtt

PUBLISHERS: Final = 2
DEVICES: Final = 1_000
AHEAD: Final = 1_000_000
IN_FLIGHT: Final = 20_000
CHUNK: Final = 250
WINDOW: Final = 50_000
"""Messages that may wait between publishers and database: a bench of throughput, not of a backlog,
which the broker saves every two seconds. With a million waiting it does little else."""

GRANT: Final = WINDOW // 10
SILENCE_S: Final = 60.0
SLOWEST_PER_S: Final = 500


def encode_chunks(messages: int, seed: int, which: int) -> Iterator[tuple[bytes, int]]:
    """Packets ready to send, some hundred at a time, with how many."""
    templates = [packet_template(number) for number in range(DEVICES)]
    numbered = enumerate(ids_of_publisher(messages, seed, which))
    while chunk := list(islice(numbered, CHUNK)):
        now_s, packets = int(time.time()), []
        for sent, message_id in chunk:
            number = which + sent * PUBLISHERS
            template = templates[number % DEVICES]
            packets.append(fill(template, sent, message_id, now_s, number // DEVICES))
        yield b"".join(packets), len(packets)


def ids_of_publisher(messages: int, seed: int, which: int) -> Iterator[bytes]:
    """The ids of one publisher's messages."""
    return message_ids(f"{seed}/{which}", len(range(which, messages, PUBLISHERS)))


def published_ids(messages: int, seed: int) -> Iterator[bytes]:
    """The ids of all that the publishers send."""
    each = (ids_of_publisher(messages, seed, which) for which in range(PUBLISHERS))
    return chain.from_iterable(each)


class Publisher:
    """One connection that keeps a bounded number of messages in flight."""

    def __init__(self, port: int, name: str) -> None:
        self._socket = connect(port, name)
        self._buffer = b""
        self._in_flight = 0

    def publish(self, chunks: Iterable[tuple[bytes, int]], allowed: Iterator[int]) -> None:
        """Send all, no more at any time than was `allowed`, and wait for their acknowledgement."""
        sent, limit = 0, next(allowed)
        for data, count in chunks:
            sent += count
            while sent > limit:
                limit = next(allowed)
            while self._in_flight + count > IN_FLIGHT:
                self._take_acknowledgements()
            self._socket.sendall(data)
            self._in_flight += count
        while self._in_flight:
            self._take_acknowledgements()
        self._socket.sendall(mqtt.DISCONNECT)

    def _take_acknowledgements(self) -> None:
        if not select.select([self._socket], [], [], SILENCE_S)[0]:
            raise TimeoutError(f"the broker acknowledged nothing for {SILENCE_S} s")
        data = self._socket.recv(65_536)
        if not data:
            raise ConnectionResetError("the broker closed the connection")
        count, self._buffer = count_acknowledgements(self._buffer + data)
        self._in_flight -= count


def connect(port: int, client_id: str) -> socket.socket:
    """A connection of a device to the broker, accepted."""
    connection = socket.create_connection((HOST, port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(
        mqtt.encode_connect(client_id, USERNAME, PASSWORD, keep_alive_s=0, clean_start=True)
    )
    answers = mqtt.PacketReader().feed(connection.recv(4096))
    if not any(isinstance(answer, mqtt.Connack) and not answer.reason for answer in answers):
        raise mqtt.MqttError(f"the broker did not accept the connection of {client_id}")
    return connection


class Publishers:
    """All publishers, as the bench sees them."""

    def __init__(self, running: list[Helper], messages: int) -> None:
        self._running, self._messages = running, messages
        self._allowed = 0

    def start(self) -> float:
        """Let them loose; returns when."""
        started = time.perf_counter()
        self.stored(0)
        return started

    def stored(self, count: int) -> None:
        """Let them send on until WINDOW messages wait."""
        allowed = min(count + WINDOW, self._messages)
        if allowed >= min(self._allowed + GRANT, self._messages) > self._allowed:
            self._allowed = allowed
            for helper in self._running:
                helper.tell(-(-allowed // PUBLISHERS))


@contextmanager
def publishers(port: int, messages: int, seed: int, *, ahead: int = AHEAD) -> Iterator[Publishers]:
    """Publishers that are ready to start. Ends when they have sent all."""
    calls = [(port, messages, seed, which, ahead) for which in range(PUBLISHERS)]
    with helpers("bench.publisher", *calls) as running:
        yield Publishers(running, messages)
        for helper in running:
            helper.finish(SILENCE_S + messages / SLOWEST_PER_S)


def publish_all(port: int, messages: int, seed: int) -> None:
    """Publish right away, with the present time in each message, whoever may store it when."""
    with publishers(port, messages, seed, ahead=0) as fleet:
        fleet.stored(messages)


def main() -> None:
    """Encode, report ready, wait for the start, publish."""
    port, messages, seed, which, ahead = map(int, sys.argv[1:6])
    chunks = encode_chunks(messages, seed, which)
    encoded = list(islice(chunks, ahead // CHUNK))
    publisher = Publisher(port, f"bench-publisher-{which}")
    publisher.publish(chain(encoded, chunks), map(int, report_ready()))


if __name__ == "__main__":
    main()
