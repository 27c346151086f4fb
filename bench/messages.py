"""What the devices of the benches send, and the account they share.

A message is a template of its device, filled in with packet id, message id, time and counter, so
that encoding one costs about a microsecond and takes nothing away from what is measured.
"""

import random
import struct
import uuid
from collections.abc import Iterator
from typing import Final

import msgspec

from zenthos_core import mqtt
from zenthos_core.topics import telemetry_topic

HOST: Final = "127.0.0.1"
USERNAME: Final = "svc-bench"
PASSWORD: Final = "bench"  # noqa: S105  (of a broker that lives as long as the bench)
MODEL: Final = "esp32-s3"
FIRST_SEQ: Final = 1_000_000
"""Of seven digits, as all that follow: a template has one length."""

_EXAMPLE_ID: Final = uuid.UUID(int=0)
_EXAMPLE_S: Final = 1_700_000_000
_PACKET_ID: Final = struct.Struct(">H")


def device_id(number: int) -> str:
    """The device of this number, as registered."""
    return f"bench-{number:05d}"


def message_ids(seed: str, count: int) -> Iterator[bytes]:
    """UUIDs of version 4 as text, the same ones for the same seed."""
    random_bytes = random.Random(seed).randbytes
    for _ in range(count):
        digits = random_bytes(16).hex()
        text = f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"
        yield text.encode()


def packet_template(number: int) -> bytes:
    """A PUBLISH of a reading of about 300 bytes, for `fill`."""
    payload = msgspec.json.encode(
        {
            "message_id": _EXAMPLE_ID,
            "device_id": device_id(number),
            "timestamp": _EXAMPLE_S,
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
            "seq": FIRST_SEQ,
        }
    )
    topic = telemetry_topic(MODEL, device_id(number))
    packet = mqtt.encode_publish(mqtt.Message(topic, payload), packet_id=0)
    head, body = packet.split(topic.encode() + b"\0\0", 1)
    for example, place in (
        (str(_EXAMPLE_ID), b"%b"),
        (str(_EXAMPLE_S), b"%d"),
        (str(FIRST_SEQ), b"%d"),
    ):
        body = body.replace(example.encode(), place, 1)
    return head.replace(b"%", b"%%") + topic.encode() + b"%b" + body


def fill(template: bytes, packet_number: int, message_id: bytes, now_s: int, sent: int) -> bytes:
    """The packet of a device that has sent `sent` messages before.

    `packet_number` counts the packets of its connection.
    """
    packet_id = _PACKET_ID.pack(1 + packet_number % mqtt.MAX_PACKET_IDS)
    return template % (packet_id, message_id, now_s, FIRST_SEQ + sent)


def count_acknowledgements(buffer: bytes) -> tuple[int, bytes]:
    """How many packets are in the buffer, and what is left of it; only acknowledgements come."""
    count = start = 0
    while len(buffer) - start >= 2 and len(buffer) - start >= 2 + buffer[start + 1]:
        count += 1
        start += 2 + buffer[start + 1]
    return count, buffer[start:]
