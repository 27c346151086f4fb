"""Rows as they are copied into Postgres: the columns of each table and how a row is packed."""

from functools import lru_cache
from struct import Struct
from typing import Final

import msgspec

from ingest import pgcopy
from ingest.decode import Device, Route
from ingest.pgcopy import NULL
from zenthos_core.errors import InvalidMessageError
from zenthos_core.messages import SENSOR_COLUMNS, Inference, Telemetry
from zenthos_core.mqtt import Publish

RAW_COLUMNS: Final = (
    *("message_type", "topic", "payload"),
    *("received_at", "qos", "retain", "redelivered"),
)
TELEMETRY_COLUMNS: Final = (
    *("time", "message_id", "device_id", "farm_id", *SENSOR_COLUMNS, "signal_strength"),
    *("firmware_version", "model_version", "seq", "received_at", "clock_suspect", "backlog"),
    "extra",
)
INFERENCE_COLUMNS: Final = (
    *("time", "message_id", "device_id", "model_version", "result", "confidence", "features"),
    "received_at",
)
QUARANTINE_COLUMNS: Final = ("received_at", "topic", "device_id", "payload", "reason", "detail")

_COUNT: Final = Struct(">h").pack
_RAW_COUNT: Final = _COUNT(len(RAW_COLUMNS))
_LENGTH: Final = Struct(">i").pack
_INT2: Final = Struct(">ih").pack
_TIME_AND_ID: Final = Struct(">hiqi16s").pack
_FIVE_SENSORS: Final = Struct(">" + "id" * len(SENSOR_COLUMNS)).pack
_SENSORS: Final = frozenset(SENSOR_COLUMNS)
_encode_json: Final = msgspec.json.Encoder().encode


def raw_row(publish: Publish, route: Route) -> bytes:
    """The message as it arrived."""
    payload = publish.payload
    return b"".join(
        (
            _RAW_COUNT,
            route.columns,
            _LENGTH(len(payload)),
            payload,
            _arrival(publish.received_at, publish.flags),
        )
    )


@lru_cache(maxsize=256)
def _arrival(received_at: float, flags: int) -> bytes:
    """The last columns of a raw row; `flags` as in Publish."""
    return (
        pgcopy.timestamptz(received_at)
        + _INT2(2, flags >> 1 & 3)
        + pgcopy.boolean(bool(flags & 1))
        + pgcopy.boolean(bool(flags & 8))
    )


def telemetry_row(
    message: Telemetry,
    message_id: bytes,
    device: Device,
    *,
    time: float,
    received_at: float,
    suspect: bool,
) -> bytes:
    """One reading."""
    sensors, extra = _sensor_columns(message.sensors)
    return b"".join(
        (
            _head(TELEMETRY_COLUMNS, time, message_id),
            device.columns,
            sensors,
            pgcopy.float8(message.signal_strength),
            pgcopy.label(message.firmware_version),
            pgcopy.label(message.model_version),
            pgcopy.int8(message.seq),
            pgcopy.timestamptz(received_at),
            pgcopy.boolean(suspect),
            pgcopy.boolean(message.backlog),
            extra,
        )
    )


def _sensor_columns(sensors: dict[str, float]) -> tuple[bytes, bytes]:
    """The known sensors, and all others as `extra`."""
    if sensors.keys() == _SENSORS:
        a, b, c, d, e = [sensors[name] for name in SENSOR_COLUMNS]
        return _FIVE_SENSORS(8, a, 8, b, 8, c, 8, d, 8, e), NULL
    known = b"".join([pgcopy.float8(sensors.get(name)) for name in SENSOR_COLUMNS])
    extra = {name: value for name, value in sensors.items() if name not in _SENSORS}
    return known, pgcopy.jsonb(_encode_json(extra)) if extra else NULL


def inference_row(message: Inference, device: Device, time: float, received_at: float) -> bytes:
    """One prediction made on a device."""
    return b"".join(
        (
            _head(INFERENCE_COLUMNS, time, message.message_id.bytes),
            pgcopy.text(device.id),
            pgcopy.label(message.model_version),
            pgcopy.jsonb(_encode_json(message.result)),
            pgcopy.float8(message.confidence),
            pgcopy.float8_array(message.features),
            pgcopy.timestamptz(received_at),
        )
    )


def _head(columns: tuple[str, ...], time: float, message_id: bytes) -> bytes:
    """How many fields follow, `time` and `message_id`."""
    return _TIME_AND_ID(len(columns), 8, pgcopy.postgres_us(time), 16, message_id)


def quarantine_row(publish: Publish, device_id: str | None, error: InvalidMessageError) -> bytes:
    """A message that breaks a rule, whole, and which rule it breaks."""
    return b"".join(
        (
            _COUNT(len(QUARANTINE_COLUMNS)),
            pgcopy.timestamptz(publish.received_at),
            pgcopy.text(_storable(publish.topic.decode(errors="replace"))),
            pgcopy.label(device_id),
            pgcopy.binary(publish.payload),
            pgcopy.text(error.reason),
            pgcopy.text(_storable(error.detail)),
        )
    )


def _storable(value: str) -> str:
    """Text that any UTF-8 database can hold."""
    return value.replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()
