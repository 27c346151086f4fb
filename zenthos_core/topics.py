"""MQTT topic grammar: `zenthos/{device_model}/{device_id}/{message_type}`, QoS 1."""

import re
from enum import StrEnum
from typing import NamedTuple

from zenthos_core.errors import InvalidMessageError

ROOT = "zenthos"
DEVICE_ID = re.compile(r"[a-z0-9][a-z0-9-]{2,62}")
DEVICE_MODEL = re.compile(r"[a-z0-9][a-z0-9-]{1,31}")


class MessageType(StrEnum):
    """Upward message types; each has its own bronze table."""

    TELEMETRY = "telemetry"
    STATUS = "status"
    INFERENCE = "inference"
    LOGS = "logs"


class DownwardType(StrEnum):
    """What the platform publishes to a device."""

    OTA = "ota"
    ACK = "ack"


_UPWARD = frozenset(t.value for t in MessageType)
EVERYTHING_FILTER = f"{ROOT}/#"


class Topic(NamedTuple):
    """A parsed upward topic."""

    device_model: str
    device_id: str
    message_type: str


def parse_topic(topic: str) -> Topic:
    """Split an upward topic.

    Raises:
        InvalidMessageError: `unknown_topic`, for anything outside the grammar.
    """
    parts = topic.split("/")
    if len(parts) != 4 or parts[0] != ROOT or parts[3] not in _UPWARD:
        raise InvalidMessageError(
            "unknown_topic", f"expected {ROOT}/{{device_model}}/{{device_id}}/{{message_type}}"
        )
    _, model, device_id, message_type = parts
    if not DEVICE_MODEL.fullmatch(model) or not DEVICE_ID.fullmatch(device_id):
        raise InvalidMessageError("unknown_topic", "device_model or device_id is not well-formed")
    return Topic(model, device_id, message_type)


def telemetry_topic(device_model: str, device_id: str) -> str:
    """Where a device publishes its readings."""
    return f"{ROOT}/{device_model}/{device_id}/{MessageType.TELEMETRY}"


def status_topic(device_model: str, device_id: str) -> str:
    """Where a device, or the broker in its name (last will), publishes its status."""
    return f"{ROOT}/{device_model}/{device_id}/{MessageType.STATUS}"


def downward_topic(device_model: str, device_id: str, kind: DownwardType) -> str:
    """Where the platform publishes to a device."""
    return f"{ROOT}/{device_model}/{device_id}/{kind}"
