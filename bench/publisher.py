"""Publishes readings at full speed: `python -m bench.publisher PORT FIRST COUNT SEED`.

Packets are encoded before the start, which a line on standard input gives; afterwards the CPU
belongs to the broker and to whoever is measured. Ends when every message is acknowledged.
"""

import random
import select
import socket
import sys
import time
import uuid
from collections.abc import Iterator
from typing import Final

import msgspec

from zenthos_core import mqtt
from zenthos_core.topics import telemetry_topic

HOST: Final = "127.0.0.1"
USERNAME: Final = "svc-bench"
PASSWORD: Final = "bench"  # noqa: S105  (of a broker that lives as long as the bench)
DEVICES: Final = 1_000
MODEL: Final = "esp32-s3"
IN_FLIGHT: Final = 20_000
CHUNK: Final = 250
SILENCE_S: Final = 60.0


def device_id(number: int) -> str:
    """The registered device that sends message `number`."""
    return f"bench-{number % DEVICES:04d}"


def message_ids(seed: int, first: int, count: int) -> list[uuid.UUID]:
    """The ids of these messages, the same ones each time."""
    numbers = random.Random(f"{seed}/{first}")
    return [uuid.UUID(int=numbers.getrandbits(128), version=4) for _ in range(count)]


def reading(number: int, message_id: uuid.UUID, now_s: int) -> bytes:
    """A reading of about 300 bytes."""
    return msgspec.json.encode(
        {
            "message_id": str(message_id),
            "device_id": device_id(number),
            "timestamp": now_s,
            "sensors": {
                "soil_moisture": 20 + number % 300 / 10,
                "temperature": 10 + number % 200 / 10,
                "humidity": 40 + number % 500 / 10,
                "light_level": 100 + number % 9000 / 10,
                "battery_voltage": 3.3 + number % 90 / 100,
            },
            "firmware_version": "v1.4.2",
            "device_model": MODEL,
            "signal_strength": -50 - number % 40,
            "seq": number // DEVICES,
        }
    )


def encode_chunks(seed: int, first: int, count: int) -> Iterator[tuple[bytes, int]]:
    """Packets ready to send, some hundred at a time, with how many."""
    now_s = int(time.time())
    ids = message_ids(seed, first, count)
    for start in range(0, count, CHUNK):
        numbers = range(start, min(start + CHUNK, count))
        packets = [
            mqtt.encode_publish(
                mqtt.Message(
                    telemetry_topic(MODEL, device_id(first + n)),
                    reading(first + n, ids[n], now_s),
                ),
                1 + n % mqtt.MAX_PACKET_IDS,
            )
            for n in numbers
        ]
        yield b"".join(packets), len(packets)


def count_acknowledgements(buffer: bytes) -> tuple[int, bytes]:
    """How many packets are in the buffer, and what is left of it; only acknowledgements come."""
    count = start = 0
    while len(buffer) - start >= 2 and len(buffer) - start >= 2 + buffer[start + 1]:
        count += 1
        start += 2 + buffer[start + 1]
    return count, buffer[start:]


class Publisher:
    """One connection that keeps a bounded number of messages in flight."""

    def __init__(self, port: int, name: str) -> None:
        self._socket = socket.create_connection((HOST, port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.sendall(
            mqtt.encode_connect(name, USERNAME, PASSWORD, keep_alive_s=0, clean_start=True)
        )
        answers = mqtt.PacketReader().feed(self._socket.recv(4096))
        if not any(isinstance(answer, mqtt.Connack) and not answer.reason for answer in answers):
            raise mqtt.MqttError("the broker did not accept the connection")
        self._buffer = b""
        self._in_flight = 0

    def publish(self, chunks: list[tuple[bytes, int]]) -> None:
        """Send all and wait for their acknowledgement."""
        for data, count in chunks:
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


def main() -> None:
    """Encode, report ready, wait for the start, publish."""
    port, first, count, seed = map(int, sys.argv[1:5])
    chunks = list(encode_chunks(seed, first, count))
    publisher = Publisher(port, f"bench-publisher-{first}")
    print("ready", flush=True)
    sys.stdin.readline()
    publisher.publish(chunks)


if __name__ == "__main__":
    main()
