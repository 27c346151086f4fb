"""Device messages as bytes. The same device, time and salt give the same message_id."""

from hashlib import blake2b
from typing import NamedTuple
from uuid import UUID

import msgspec

from zenthos_core.mqtt import Message
from zenthos_core.topics import status_topic, telemetry_topic

_ENCODER = msgspec.json.Encoder()


class Device(NamedTuple):
    """Who speaks."""

    device_id: str
    device_model: str
    firmware_version: str | None = None
    model_version: str | None = None


def as_registered(device: Device) -> Device:
    """One that never changes."""
    return device


class Sample(NamedTuple):
    """One reading of a device; sensors as named on the wire, in wire units."""

    time: int
    sensors: dict[str, float]
    seq: int | None = None
    signal_strength: float | None = None


def message_id(device_id: str, time: int, salt: str) -> UUID:
    """A UUID with version 4 bits (RFC 9562) that names this reading in every run."""
    digest = blake2b(f"{device_id}\0{time}\0{salt}".encode(), digest_size=16).digest()
    return UUID(bytes=digest, version=4)


def telemetry(
    device: Device, sample: Sample, *, salt: str, backlog: bool, clock: int | None = None
) -> Message:
    """A reading on its topic; `clock` is what the device's clock says where it is wrong."""
    fields: dict[str, object] = {
        "message_id": message_id(device.device_id, sample.time, salt),
        "device_id": device.device_id,
        "timestamp": sample.time if clock is None else clock,
        "sensors": sample.sensors,
        "device_model": device.device_model,
        "firmware_version": device.firmware_version,
        "model_version": device.model_version,
        "signal_strength": sample.signal_strength,
        "seq": sample.seq,
        "backlog": backlog or None,
    }
    payload = _ENCODER.encode({k: v for k, v in fields.items() if v is not None})
    return Message(telemetry_topic(device.device_model, device.device_id), payload)


def status(device: Device, state: str, *, now: float, salt: str) -> Message:
    """`online` or `offline`, at `now` in epoch seconds."""
    fields = {
        "message_id": message_id(device.device_id, int(now * 1000), f"{salt}:{state}"),
        "device_id": device.device_id,
        "timestamp": int(now),
        "status": state,
        "firmware_version": device.firmware_version,
        "model_version": device.model_version,
    }
    payload = _ENCODER.encode({k: v for k, v in fields.items() if v is not None})
    return Message(status_topic(device.device_model, device.device_id), payload)
