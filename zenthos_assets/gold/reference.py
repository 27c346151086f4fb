"""What gold reads of the operational database: irrigation, by the farm a device stood on then."""

import hashlib
from collections.abc import Sequence
from datetime import date
from typing import Final

import polars as pl
import psycopg

from zenthos_assets.gold.irrigation import EVENTS_SCHEMA

_IRRIGATED_DAYS: Final = """
WITH placed AS (
  SELECT device_id, farm_id, valid_from, row_number() OVER device = 1 AS is_first,
    lead(valid_from) OVER device AS until
  FROM device_placements WINDOW device AS (PARTITION BY device_id ORDER BY valid_from)
)
SELECT DISTINCT p.device_id, (e.timestamp AT TIME ZONE 'UTC')::date AS day
FROM irrigation_events e JOIN placed p ON p.farm_id = e.farm_id
  AND (p.is_first OR p.valid_from <= e.timestamp) AND (p.until IS NULL OR e.timestamp < p.until)
WHERE (e.timestamp AT TIME ZONE 'UTC')::date BETWEEN %s AND %s ORDER BY 2, 1"""
_EVENTS: Final = """
SELECT id::text, farm_id::text, timestamp, duration_minutes, water_volume_liters
FROM irrigation_events ORDER BY timestamp, id"""


def read_irrigated_days(connection: psycopg.Connection, first: date, last: date) -> pl.DataFrame:
    """`device_id` and `day` of each day on which the farm of a device was irrigated."""
    rows = connection.execute(_IRRIGATED_DAYS, [first, last]).fetchall()
    return pl.DataFrame(rows, schema={"device_id": pl.String, "day": pl.Date}, orient="row")


def read_events(connection: psycopg.Connection) -> pl.DataFrame:
    """Every irrigation: a frame of EVENTS_SCHEMA."""
    rows = connection.execute(_EVENTS).fetchall()
    return pl.DataFrame(rows, schema=EVENTS_SCHEMA, orient="row")


def digests_by_day(frame: pl.DataFrame, time: str, days: Sequence[date]) -> list[str]:
    """For each day a part of an input checksum, which changes when the day's rows do."""
    dated = frame.with_columns(_day=pl.col(time).cast(pl.Date))
    parts = dated.partition_by("_day", as_dict=True, include_key=False)
    empty = frame.clear()
    rows = (parts.get((day,), empty).write_csv(include_header=False) for day in days)
    sums = (hashlib.sha256(text.encode()).hexdigest() for text in rows)
    return [f"irrigation {day} {digest}" for day, digest in zip(days, sums, strict=True)]
