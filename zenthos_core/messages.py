"""Device messages as they travel, and the rules by which they may change.

Wire rules:

1. Fields are only ever added; a new field is optional.
2. Unknown fields are ignored here and kept in bronze, which holds the bytes as they arrived.
3. A value of another type than declared is quarantined, never guessed: "21.5" is not a number.
4. NaN and infinities are not JSON and not measurements: quarantined.
5. Topic and payload agree on `device_id`.
6. `message_id` is a UUID and names the message for ever: the same id is the same message.
7. `timestamp` is UTC epoch seconds by the device's clock. Missing, before 2020 or more than ten
   minutes ahead of ours, it is replaced by the time of receipt and flagged `clock_suspect`.
8. The character U+0000 is quarantined: no database text can hold it.
9. `ack` asks for the message_id on the device's own `ack` topic once it is committed.
10. Arrays and objects nest at most 64 deep: what one reader decodes, every later reader does, too,
   however deep its own stack.
"""

import re
from datetime import UTC, datetime
from enum import StrEnum
from math import isfinite
from typing import Annotated, Final
from uuid import UUID

import msgspec

from zenthos_core.errors import InvalidMessageError
from zenthos_core.topics import MessageType

MAX_PAYLOAD_BYTES: Final = 64 * 1024
MAX_NESTING: Final = 64
EARLIEST_EPOCH_S: Final = int(datetime(2020, 1, 1, tzinfo=UTC).timestamp())
MAX_AHEAD_S: Final = 600

SENSOR_COLUMNS: Final = (
    "soil_moisture",
    "temperature",
    "humidity",
    "light_level",
    "battery_voltage",
)
"""%, °C, %RH, lux, V. Every other sensor is kept under `extra`."""

Label = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class Telemetry(msgspec.Struct, frozen=True, gc=False):
    """One reading of all sensors of a device."""

    message_id: UUID
    device_id: str
    sensors: dict[str, float]
    timestamp: float | None = None
    firmware_version: Label | None = None
    device_model: Label | None = None
    model_version: Label | None = None
    signal_strength: float | None = None
    seq: Count | None = None
    backlog: bool = False
    ack: bool = False


class DeviceStatus(StrEnum):
    """What a device says of itself; the broker says `offline` for it by last will."""

    ONLINE = "online"
    OFFLINE = "offline"
    MAINTENANCE = "maintenance"


class Status(msgspec.Struct, frozen=True, gc=False):
    """A device's own state."""

    message_id: UUID
    device_id: str
    status: DeviceStatus
    timestamp: float | None = None
    uptime_seconds: float | None = None
    free_heap_bytes: Count | None = None
    boot_count: Count | None = None
    reset_reason: Label | None = None
    firmware_version: Label | None = None
    model_version: Label | None = None
    ack: bool = False


class Inference(msgspec.Struct, frozen=True, gc=False):
    """One prediction made on the device."""

    message_id: UUID
    device_id: str
    model_version: Label
    result: dict[str, object]
    confidence: Annotated[float, msgspec.Meta(ge=0, le=1)]
    timestamp: float | None = None
    features: list[float] | None = None
    ack: bool = False


class Log(msgspec.Struct, frozen=True, gc=False):
    """One line of the device's log."""

    message_id: UUID
    device_id: str
    level: Label
    message: str
    timestamp: float | None = None
    ack: bool = False


Message = Telemetry | Status | Inference | Log

_DECODERS: Final[dict[str, msgspec.json.Decoder[Message]]] = {
    MessageType.TELEMETRY: msgspec.json.Decoder(Telemetry),
    MessageType.STATUS: msgspec.json.Decoder(Status),
    MessageType.INFERENCE: msgspec.json.Decoder(Inference),
    MessageType.LOGS: msgspec.json.Decoder(Log),
}


def parse_payload(message_type: str, payload: bytes) -> Message:
    """Decode one payload by rules 1 to 4, 8 and 10.

    Raises:
        InvalidMessageError: `empty_payload`, `payload_too_large`, `malformed_json`,
            `nul_character`, `wrong_type` or `not_finite`.
    """
    if not payload:
        raise InvalidMessageError("empty_payload", "the payload has no bytes")
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise InvalidMessageError(
            "payload_too_large", f"{len(payload)} bytes; at most {MAX_PAYLOAD_BYTES}"
        )
    if not payload.isascii():
        _check_utf8(payload)
    if rb"\u0000" in payload:
        raise InvalidMessageError("nul_character", "the payload holds the character U+0000")
    if payload.count(b"[") + payload.count(b"{") > MAX_NESTING and nesting(payload) > MAX_NESTING:
        raise InvalidMessageError("malformed_json", f"nests more than {MAX_NESTING} deep")
    try:
        message = _DECODERS[message_type].decode(payload)
    except msgspec.ValidationError as error:
        raise InvalidMessageError("wrong_type", str(error)) from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidMessageError("malformed_json", str(error)) from None
    if isinstance(message, Telemetry) and not all(map(isfinite, message.sensors.values())):
        raise InvalidMessageError("not_finite", "a sensor value is not a finite number")
    return message


def _check_utf8(payload: bytes) -> None:
    """The decoder does not look into fields that it does not know."""
    try:
        payload.decode()
    except UnicodeDecodeError as error:
        raise InvalidMessageError("malformed_json", f"not UTF-8: {error}") from None


_STRING_OR_BRACKET: Final = re.compile(rb'"(?:[^"\\]|\\.?)*"?|[\[{\]}]', re.DOTALL)
"""Never fails once it has begun, so that it takes linear time on any bytes."""


def nesting(payload: bytes) -> int:
    """How deep the arrays and objects of a JSON text nest."""
    depth = deepest = 0
    for token in _STRING_OR_BRACKET.findall(payload):
        if token in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif token in b"]}":
            depth -= 1
    return deepest


def event_time(timestamp: float | None, received_at: float) -> tuple[float, bool]:
    """The time a message is about, in epoch seconds, and whether its clock is suspect (rule 7)."""
    if timestamp is None or not EARLIEST_EPOCH_S <= timestamp <= received_at + MAX_AHEAD_S:
        return received_at, True
    return timestamp, False
