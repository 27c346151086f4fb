"""Bronze rows to cleaned readings; values in, values out.

1. A payload is decoded by the wire rules of zenthos_core.messages; what breaks them is counted as
   malformed and left out (ingest quarantines it, so there should be none).
2. `time` is the device's timestamp, or the time of receipt where that cannot be (`clock_suspect`).
3. Of a device's messages with the same `message_id`, the first received counts. Another device's
   message of that id is another message.
4. Nothing else is dropped: a value out of range stays, and `quality` names its column.
5. `device_model`, `farm_id` and the place come from the registry.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

import msgspec
import polars as pl

from zenthos_core.errors import InvalidMessageError
from zenthos_core.messages import SENSOR_COLUMNS, Telemetry, event_time, parse_payload
from zenthos_core.topics import MessageType

EXTRA_COLUMNS: Final = ("rainfall_mm", "soil_moisture_20cm", "soil_moisture_40cm")
"""Well-known extra sensors: mm since the last reading, %, %."""

RANGES: Final[dict[str, tuple[float, float]]] = {
    "soil_moisture": (0, 100),
    "soil_moisture_20cm": (0, 100),
    "soil_moisture_40cm": (0, 100),
    "temperature": (-40, 60),
    "humidity": (0, 100),
    "light_level": (0, 200_000),
    "battery_voltage": (0, 30),
    "rainfall_mm": (0, 60),
}
"""Physically plausible values. More than 60 mm between two readings is a gauge's fault."""

READING_SCHEMA: Final = pl.Schema(
    {
        "message_id": pl.Binary(),
        "device_id": pl.String(),
        "time": pl.Datetime("us", "UTC"),
        "received_at": pl.Datetime("us", "UTC"),
        **dict.fromkeys([*SENSOR_COLUMNS, *EXTRA_COLUMNS], pl.Float64()),
        "extra": pl.String(),
        "signal_strength": pl.Float64(),
        "seq": pl.Int64(),
        "firmware_version": pl.String(),
        "model_version": pl.String(),
        "clock_suspect": pl.Boolean(),
        "backlog": pl.Boolean(),
    }
)
REGISTRY_SCHEMA: Final = pl.Schema(
    {
        "device_id": pl.String(),
        "device_model": pl.String(),
        "farm_id": pl.String(),
        "latitude": pl.Float64(),
        "longitude": pl.Float64(),
    }
)
IDENTITY: Final = ("device_id", "message_id")
"""Names a reading for ever."""

SCHEMA: Final = pl.Schema({**READING_SCHEMA, **REGISTRY_SCHEMA, "quality": pl.String()})
"""Columns of telemetry_cleaned."""


@dataclass(frozen=True)
class Parsed:
    """Decoded readings, and the payloads that could not be."""

    readings: pl.DataFrame
    malformed: int


def parse(bronze: pl.DataFrame) -> Parsed:
    """Rules 1 and 2: a frame of READING_SCHEMA in the order of receipt."""
    rows = []
    malformed = 0
    received = bronze["received_at"].dt.epoch("us")
    for payload, received_us in zip(bronze["payload"], received, strict=True):
        try:
            message = parse_payload(MessageType.TELEMETRY, payload)
        except InvalidMessageError:
            malformed += 1
            continue
        if isinstance(message, Telemetry):
            rows.append(_reading(message, received_us))
    physical = pl.Schema({**READING_SCHEMA, "time": pl.Int64(), "received_at": pl.Int64()})
    frame = pl.DataFrame(rows, schema=physical, orient="row")
    return Parsed(frame.cast(READING_SCHEMA), malformed)


def _reading(message: Telemetry, received_us: int) -> tuple[Any, ...]:
    seconds, suspect = event_time(message.timestamp, received_us / 1e6)
    time_us = received_us if suspect else round(seconds * 1_000_000)
    sensors = dict(message.sensors)
    columns = [sensors.pop(name, None) for name in (*SENSOR_COLUMNS, *EXTRA_COLUMNS)]
    return (
        message.message_id.bytes,
        message.device_id,
        time_us,
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


def clean(readings: pl.DataFrame, registry: pl.DataFrame, days: Iterable[date]) -> pl.DataFrame:
    """Rules 3 to 5 for the readings of those days, by device and time."""
    return (
        readings.filter(pl.col("time").dt.date().is_in(list(days)))
        .sort("received_at", maintain_order=True)
        .unique(IDENTITY, keep="first", maintain_order=True)
        .join(registry, on="device_id", how="left")
        .with_columns(quality=quality())
        .select(SCHEMA.names())
        .sort("device_id", "time", "message_id")
    )


def quality() -> pl.Expr:
    """Names of the columns that are out of range, separated by commas; empty where all is well."""
    names = [
        pl.when(~pl.col(name).is_between(low, high)).then(pl.lit(name))
        for name, (low, high) in RANGES.items()
    ]
    return pl.concat_str(names, separator=",", ignore_nulls=True)


def to_registry(rows: Sequence[tuple[Any, ...]]) -> pl.DataFrame:
    """Rows (device_id, device_model, farm_id, latitude, longitude) as a frame."""
    return pl.DataFrame(rows, schema=REGISTRY_SCHEMA, orient="row")


def group_days(
    contents: Sequence[tuple[date, str, int]], days: Sequence[date], max_rows: int
) -> list[tuple[list[date], list[str]]]:
    """Consecutive days with the objects to read for them, of about `max_rows` readings a group.

    Args:
        contents: (day, object key, readings of that day in it).
        days: the days wanted, in order; those without readings are grouped too.
        max_rows: a single larger day is a group of its own.
    """
    rows_of: dict[date, int] = {}
    keys_of: dict[date, set[str]] = {}
    for day, key, count in contents:
        rows_of[day] = rows_of.get(day, 0) + count
        keys_of.setdefault(day, set()).add(key)
    groups: list[list[date]] = [[]]
    size = 0
    for day in days:
        if groups[-1] and size + rows_of.get(day, 0) > max_rows:
            groups.append([])
            size = 0
        groups[-1].append(day)
        size += rows_of.get(day, 0)
    return [
        (group, sorted(set().union(*(keys_of.get(day, set()) for day in group))))
        for group in groups
        if group
    ]
