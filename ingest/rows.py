"""Rows as they are copied into Postgres: the columns of each table and how a row is packed."""

from functools import lru_cache
from operator import itemgetter
from struct import Struct
from typing import Final, NamedTuple

import msgspec

from ingest import pgcopy
from ingest.decode import Device, Route
from ingest.pgcopy import NULL
from zenthos_core.messages import SENSOR_COLUMNS, Inference, Log, Status, Telemetry
from zenthos_core.mqtt import Publish


class Table(NamedTuple):
    """A table that takes each message of a device once."""

    name: str
    columns: tuple[str, ...]
    by_day: bool = True
    """Whether it has a partition for each day of `time`."""


RAW_COLUMNS: Final = (
    *("message_type", "topic", "payload"),
    *("received_at", "qos", "retain", "redelivered"),
)
_ARRIVAL: Final = ("received_at", "clock_suspect")
TELEMETRY: Final = Table(
    "telemetry_hot",
    (
        *("time", "message_id", "device_id", "farm_id", *SENSOR_COLUMNS, "signal_strength"),
        *("firmware_version", "model_version", "seq", *_ARRIVAL, "backlog", "extra"),
    ),
)
INFERENCE: Final = Table(
    "inference_results",
    (
        *("time", "message_id", "device_id", "model_version", "result", "confidence"),
        *("features", *_ARRIVAL),
    ),
    by_day=False,
)
STATUS: Final = Table(
    "device_status",
    (
        *("time", "message_id", "device_id", "status", "uptime_seconds", "free_heap_bytes"),
        *("boot_count", "reset_reason", "firmware_version", "model_version", *_ARRIVAL),
    ),
)
LOGS: Final = Table(
    "device_logs", ("time", "message_id", "device_id", "level", "message", *_ARRIVAL)
)
COLD: Final = Table("cold_messages", ("message_id", "device_id", "received_at"), by_day=False)
TABLES: Final = (TELEMETRY, INFERENCE, STATUS, LOGS, COLD)


Arrival = tuple[bytes, float, float, bool]
"""A message's id, what time it is about, when it was received (epoch seconds), whether its clock is
suspect. A plain tuple: one is made for each message."""


_COUNT: Final = Struct(">h").pack
_RAW_COUNT: Final = _COUNT(len(RAW_COLUMNS))
_COLD_COUNT: Final = _COUNT(len(COLD.columns))
_LENGTH: Final = Struct(">i").pack
_INT2: Final = Struct(">ih").pack
_TIME_AND_ID: Final = Struct(">hiqi16s").pack
_SIX_FLOATS: Final = Struct(">" + "id" * (len(SENSOR_COLUMNS) + 1)).pack
_SENSORS: Final = frozenset(SENSOR_COLUMNS)
_five_sensors: Final = itemgetter(*SENSOR_COLUMNS)
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
            _arrival_and_flags(publish.received_at, publish.flags),
        )
    )


@lru_cache(maxsize=256)
def _arrival_and_flags(received_at: float, flags: int) -> bytes:
    """The last columns of a raw row; `flags` as in Publish."""
    return (
        pgcopy.timestamptz(received_at)
        + _INT2(2, flags >> 1 & 3)
        + pgcopy.boolean(bool(flags & 1))
        + pgcopy.boolean(bool(flags & 8))
    )


def telemetry_row(message: Telemetry, device: Device, arrival: Arrival) -> bytes:
    """One reading."""
    message_id, time, received_at, suspect = arrival
    measured, extra = _measured(message.sensors, message.signal_strength)
    return b"".join(
        (
            _TIME_AND_ID(len(TELEMETRY.columns), 8, pgcopy.postgres_us(time), 16, message_id),
            device.columns,
            measured,
            _versions(message.firmware_version, message.model_version),
            pgcopy.int8(message.seq),
            _arrival(received_at, suspect),
            pgcopy.TRUE if message.backlog else pgcopy.FALSE,
            extra,
        )
    )


def _measured(sensors: dict[str, float], signal_strength: float | None) -> tuple[bytes, bytes]:
    """The columns of known sensors and of the signal's strength; all other sensors as `extra`."""
    if signal_strength is not None and sensors.keys() == _SENSORS:
        a, b, c, d, e = _five_sensors(sensors)
        return _SIX_FLOATS(8, a, 8, b, 8, c, 8, d, 8, e, 8, signal_strength), NULL
    values = [*map(sensors.get, SENSOR_COLUMNS), signal_strength]
    extra = {name: value for name, value in sensors.items() if name not in _SENSORS}
    packed = b"".join(map(pgcopy.float8, values))
    return packed, pgcopy.jsonb(_encode_json(extra)) if extra else NULL


@lru_cache(maxsize=4096)
def _versions(firmware: str | None, model: str | None) -> bytes:
    return pgcopy.label(firmware) + pgcopy.label(model)


def inference_row(message: Inference, device: Device, arrival: Arrival) -> bytes:
    """One prediction made on a device."""
    return b"".join(
        (
            _head(INFERENCE, arrival),
            device.id_column,
            pgcopy.label(message.model_version),
            pgcopy.jsonb(_encode_json(message.result)),
            pgcopy.float8(message.confidence),
            pgcopy.float8_array(message.features),
            _arrival(*arrival[2:]),
        )
    )


def status_row(message: Status, device: Device, arrival: Arrival) -> bytes:
    """One report of a device's own state."""
    return b"".join(
        (
            _head(STATUS, arrival),
            device.id_column,
            pgcopy.label(message.status),
            pgcopy.float8(message.uptime_seconds),
            pgcopy.int8(message.free_heap_bytes),
            pgcopy.int8(message.boot_count),
            pgcopy.label(message.reset_reason),
            _versions(message.firmware_version, message.model_version),
            _arrival(*arrival[2:]),
        )
    )


def log_row(message: Log, device: Device, arrival: Arrival) -> bytes:
    """One line of a device's log."""
    return b"".join(
        (
            _head(LOGS, arrival),
            device.id_column,
            pgcopy.label(message.level),
            pgcopy.text(message.message),
            _arrival(*arrival[2:]),
        )
    )


def cold_row(message_id: bytes, device: Device, received_at: float) -> bytes:
    """The id of a message that only the archive keeps."""
    return b"".join(
        (
            _COLD_COUNT,
            pgcopy.binary(message_id),
            device.id_column,
            pgcopy.timestamptz(received_at),
        )
    )


def _head(table: Table, arrival: Arrival) -> bytes:
    """How many fields follow, `time` and `message_id`."""
    message_id, time, _, _ = arrival
    return _TIME_AND_ID(len(table.columns), 8, pgcopy.postgres_us(time), 16, message_id)


@lru_cache(maxsize=256)
def _arrival(received_at: float, suspect: bool) -> bytes:
    """The columns of _ARRIVAL."""
    return pgcopy.timestamptz(received_at) + pgcopy.boolean(suspect)
