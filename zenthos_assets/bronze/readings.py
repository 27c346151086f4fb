"""Telemetry messages as readings, one by one: the exact way, which every faster one must equal.

1. A payload is decoded by the wire rules of zenthos_core.messages, and its device is that of its
   topic. What breaks a rule is malformed, with the reason and detail that ingest would give.
2. `time` is the device's timestamp, or the time of receipt where that cannot be (`clock_suspect`).
3. Sensors without a column are in `extra`: JSON, sorted by name.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import polars as pl

from zenthos_assets.bronze.transforms import device_of
from zenthos_core.errors import InvalidMessageError
from zenthos_core.messages import SENSOR_COLUMNS, Telemetry, event_time, parse_payload
from zenthos_core.topics import MessageType

EXTRA_COLUMNS: Final = ("rainfall_mm", "soil_moisture_20cm", "soil_moisture_40cm")
"""Well-known extra sensors: mm since the last reading, %, %."""

SENSORS: Final = (*SENSOR_COLUMNS, *EXTRA_COLUMNS)
"""Sensors that have a column."""

READING_SCHEMA: Final = pl.Schema(
    {
        "message_id": pl.Binary(),
        "device_id": pl.String(),
        "time": pl.Datetime("us", "UTC"),
        "received_at": pl.Datetime("us", "UTC"),
        **dict.fromkeys(SENSORS, pl.Float64()),
        "extra": pl.String(),
        "signal_strength": pl.Float64(),
        "seq": pl.Int64(),
        "firmware_version": pl.String(),
        "model_version": pl.String(),
        "clock_suspect": pl.Boolean(),
        "backlog": pl.Boolean(),
    }
)
MALFORMED_SCHEMA: Final = pl.Schema(
    {
        "topic": pl.String(),
        "payload": pl.Binary(),
        "received_at": pl.Datetime("us", "UTC"),
        "reason": pl.String(),
        "detail": pl.String(),
    }
)
Row = tuple[Any, ...]


@dataclass(frozen=True)
class Parsed:
    """Readings with their `bucket`, and rows of MALFORMED_SCHEMA; each in the object's order."""

    readings: pl.DataFrame
    malformed: pl.DataFrame


def read_rows(rows: Iterable[tuple[int, str, bytes, int]]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Readings and malformed rows, by rules 1 to 3.

    Args:
        rows: (row number, topic, payload, received_at in µs). Both frames keep the number as `row`.
    """
    readings: list[Row] = []
    malformed: list[Row] = []
    for row, topic, payload, received_us in rows:
        try:
            readings.append((row, *_reading(topic, payload, received_us)))
        except InvalidMessageError as error:
            detail = str(error).removeprefix(f"{error.reason}: ")
            malformed.append((row, topic, payload, received_us, error.reason, detail))
    return _frame(readings, READING_SCHEMA), _frame(malformed, MALFORMED_SCHEMA)


def _frame(rows: list[Row], schema: pl.Schema) -> pl.DataFrame:
    """Rows that begin with their number; times are µs."""
    numbered = pl.Schema([("row", pl.UInt32()), *schema.items()])
    times = {name: pl.Int64() for name in ("time", "received_at") if name in schema}
    physical = pl.Schema([(name, times.get(name, dtype)) for name, dtype in numbered.items()])
    return pl.DataFrame(rows, schema=physical, orient="row").cast(numbered)


def _reading(topic: str, payload: bytes, received_us: int) -> Row:
    message = parse_payload(MessageType.TELEMETRY, payload)
    if not isinstance(message, Telemetry):  # pragma: no cover  (its decoder makes nothing else)
        raise TypeError(f"{topic} gave a {type(message).__name__}")
    if (device_id := device_of(topic)) != message.device_id:
        raise InvalidMessageError(
            "device_mismatch", f"the topic names {device_id}, the payload another device"
        )
    seconds, suspect = event_time(message.timestamp, received_us / 1e6)
    sensors = dict(message.sensors)
    columns = [sensors.pop(name, None) for name in SENSORS]
    return (
        message.message_id.bytes,
        message.device_id,
        received_us if suspect else round(seconds * 1_000_000),
        received_us,
        *columns,
        msgspec.json.encode(sensors, order="sorted").decode() if sensors else None,
        message.signal_strength,
        message.seq,
        message.firmware_version,
        message.model_version,
        suspect,
        message.backlog,
    )
