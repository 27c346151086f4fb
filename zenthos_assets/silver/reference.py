"""What silver knows beside the readings: placements, weather and irrigation, as frames.

1. A placement holds from `valid_from` to the device's next one; the first holds before, too. A
   device that is moved keeps its past, and one that is registered late gets all of it.
2. An irrigation lasts from its start for its duration, or DEFAULT_IRRIGATION where that is unknown.
3. What happens to the fleet after a day changes nothing of what holds on it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Final

import polars as pl
import psycopg

_TIME: Final = pl.Datetime("us", "UTC")

DEFAULT_IRRIGATION: Final = timedelta(hours=1)

PLACEMENTS_SCHEMA: Final = pl.Schema(
    {
        "device_id": pl.String(),
        "valid_from": _TIME,
        "farm_id": pl.String(),
        "device_type": pl.String(),
        "device_model": pl.String(),
        "latitude": pl.Float64(),
        "longitude": pl.Float64(),
    }
)
IRRIGATION_SCHEMA: Final = pl.Schema({"farm_id": pl.String(), "begins": _TIME, "ends": _TIME})
WEATHER_SCHEMA: Final = pl.Schema(
    {
        "farm_id": pl.String(),
        "hour": _TIME,
        "rain_mm": pl.Float64(),
        "temp_avg": pl.Float64(),
        "humidity_avg": pl.Float64(),
        "light_avg": pl.Float64(),
        "weather_condition": pl.String(),
    }
)
"""Columns of weather_hourly; `hour` is its beginning."""

_IRRIGATION: Final = """
SELECT farm_id::text, timestamp, ends FROM irrigation_events, LATERAL (
  SELECT timestamp + coalesce(make_interval(mins => duration_minutes), %(usual)s) AS ends) _
WHERE timestamp < %(end)s::date AND ends > %(first)s::date ORDER BY farm_id, timestamp"""


@dataclass(frozen=True)
class Reference:
    """Frames of PLACEMENTS_SCHEMA, WEATHER_SCHEMA and IRRIGATION_SCHEMA, in any order."""

    placements: pl.DataFrame
    weather: pl.DataFrame = field(default_factory=WEATHER_SCHEMA.to_frame)
    irrigation: pl.DataFrame = field(default_factory=IRRIGATION_SCHEMA.to_frame)


def read_placements(connection: psycopg.Connection) -> pl.DataFrame:
    """Every placement of every device."""
    rows = connection.execute(
        "SELECT device_id, valid_from, farm_id::text, device_type, device_model,"
        " latitude, longitude FROM device_placements ORDER BY device_id, valid_from"
    ).fetchall()
    return pl.DataFrame(rows, schema=PLACEMENTS_SCHEMA, orient="row")


def read_irrigation(connection: psycopg.Connection, days: Sequence[date]) -> pl.DataFrame:
    """Every irrigation that lasts into those days (rule 2)."""
    first, end = min(days), max(days) + timedelta(days=1)
    rows = connection.execute(
        _IRRIGATION, {"first": first, "end": end, "usual": DEFAULT_IRRIGATION}
    )
    return pl.DataFrame(rows.fetchall(), schema=IRRIGATION_SCHEMA, orient="row")


def read_intervals(connection: psycopg.Connection) -> dict[str, float | None]:
    """Every device, with the seconds between its reports where it was registered with them."""
    return dict(connection.execute("SELECT id, report_interval_s FROM devices").fetchall())
