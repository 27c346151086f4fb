"""Messages for the tests of ingest: good ones, and every kind of bad one."""

import uuid
from typing import Any

import msgspec

from ingest.decode import Device
from zenthos_core.mqtt import Publish

NOW = 1_795_400_000.0
DEVICE = "field-01"
MODEL = "esp32-s3"
FARM = uuid.UUID("0b8a5c0e-58c5-4c64-8a6e-6f1f6b0a5b11")
REGISTRY = {DEVICE: Device.of(DEVICE, FARM.bytes), "field-02": Device.of("field-02", FARM.bytes)}
SENSORS = {
    "soil_moisture": 31.5,
    "temperature": 21.25,
    "humidity": 48.0,
    "light_level": 512.0,
    "battery_voltage": 3.9,
}


def topic(message_type: str = "telemetry", device_id: str = DEVICE) -> bytes:
    """Where a device publishes."""
    return f"zenthos/{MODEL}/{device_id}/{message_type}".encode()


def telemetry(**changes: Any) -> bytes:
    """A reading; a field that is changed to ... is left out."""
    return _payload({"sensors": SENSORS, "firmware_version": "v1.2.3"} | changes)


def status(**changes: Any) -> bytes:
    """A status."""
    return _payload({"status": "online", "uptime_seconds": 12, "boot_count": 3} | changes)


def inference(**changes: Any) -> bytes:
    """A prediction."""
    return _payload(
        {
            "model_version": "m-20261101-abcdef0",
            "result": {"class": "irrigate"},
            "confidence": 0.75,
            "features": [1.0, 2.5],
        }
        | changes
    )


def log(**changes: Any) -> bytes:
    """A line of a device's log."""
    return _payload({"level": "info", "message": "joined the network"} | changes)


def _payload(fields: dict[str, Any]) -> bytes:
    document = {
        "message_id": str(uuid.uuid4()),
        "device_id": DEVICE,
        "timestamp": int(NOW) - 5,
    } | fields
    return msgspec.json.encode({k: v for k, v in document.items() if v is not ...})


def publish(
    payload: bytes, to: bytes | None = None, *, received_at: float = NOW, packet_id: int = 1
) -> Publish:
    """A message as it arrives from the broker, at QoS 1."""
    return Publish(to or topic(), payload, received_at, packet_id, 0x32)


_GOOD = telemetry()
BAD: dict[str, tuple[str, bytes, bytes]] = {
    "malformed JSON": ("malformed_json", topic(), b'{"message_id":'),
    "not an object": ("wrong_type", topic(), b"[1, 2]"),
    "not UTF-8": ("malformed_json", topic(), _GOOD.replace(b"v1.2.3", b"\xff\xfe")),
    "not UTF-8 in an unknown field": (
        "malformed_json",
        topic(),
        telemetry(note="v1.2.3").replace(b"v1.2.3", b"\xff\xfe"),
    ),
    "number as text": ("wrong_type", topic(), telemetry(sensors={"temperature": "21.5"})),
    "message_id missing": ("wrong_type", topic(), telemetry(message_id=...)),
    "sensors missing": ("wrong_type", topic(), telemetry(sensors=...)),
    "unknown topic": ("unknown_topic", b"zenthos/esp32-s3/field-01/weather", _GOOD),
    "too short a topic": ("unknown_topic", b"zenthos/telemetry", _GOOD),
    "device mismatch": ("device_mismatch", topic(), telemetry(device_id="field-02")),
    "unregistered": (
        "unregistered_device",
        topic(device_id="stranger"),
        telemetry(device_id="stranger"),
    ),
    "NaN": ("malformed_json", topic(), _GOOD.replace(b"31.5", b"NaN")),
    "Infinity": ("malformed_json", topic(), _GOOD.replace(b"31.5", b"-Infinity")),
    "infinite by exponent": ("wrong_type", topic(), _GOOD.replace(b"31.5", b"1e999")),
    "1 MB": ("payload_too_large", topic(), telemetry(padding="x" * 2**20)),
    "empty": ("empty_payload", topic(), b""),
    "U+0000": ("nul_character", topic(), telemetry(firmware_version="v\0")),
    "lone surrogate": ("malformed_json", topic(), _GOOD.replace(b"v1.2.3", rb"\ud800")),
    "deep nesting": (
        "malformed_json",
        topic("inference"),
        inference(result=...)[:-1] + b',"result":{"a":' + b"[" * 20_000 + b"]" * 20_000 + b"}}",
    ),
    "SQL in a field": (
        "wrong_type",
        topic(),
        telemetry(timestamp="'; DROP TABLE telemetry_hot; --"),
    ),
}
"""By what is wrong: the reason of quarantine, the topic, the payload."""
