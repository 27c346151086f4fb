"""What each gold table is, for the UI: what a column means, and what it is computed from."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import dagster as dg
import polars as pl

from zenthos_assets.gold.checks import DAILY_KEY, HOURLY_KEY
from zenthos_assets.gold.warehouse import Table
from zenthos_assets.silver.checks import SILVER_KEY
from zenthos_assets.silver.views import COLUMNS as SILVER_COLUMNS
from zenthos_assets.tables import column_schema
from zenthos_core import lake

IRRIGATION_EVENTS_KEY = dg.AssetKey("irrigation_events")
SILVER_WEATHER_KEY = dg.AssetKey(["silver", "weather_hourly"])


@dataclass(frozen=True)
class Column:
    """What a column means, and the columns of other assets it is computed from."""

    meaning: str
    sources: tuple[dg.TableColumnDep, ...]


def describe_table(
    table: Table, schema: pl.Schema, columns: Mapping[str, Column], *, in_lake: bool = True
) -> dict[str, Any]:
    """Metadata of an asset: column schema and lineage, table name and objects."""
    known = {name: columns[name] for name in schema}
    objects = {"object_path": f"{lake.GOLD}/{table.name}/YYYY/MM/DD.parquet"} if in_lake else {}
    return {
        "dagster/column_schema": column_schema(schema, {n: c.meaning for n, c in known.items()}),
        "dagster/column_lineage": dg.TableColumnLineage(
            {name: list(column.sources) for name, column in known.items() if column.sources}
        ),
        "dagster/table_name": f"zenthos_analytics.public.{table.name}",
    } | objects


def _of(key: dg.AssetKey, *names: str) -> tuple[dg.TableColumnDep, ...]:
    return tuple(dg.TableColumnDep(asset_key=key, column_name=name) for name in names)


def _statistics(prefix: str, unit: str, source: str, *kinds: str) -> dict[str, Column]:
    words = {"avg": "mean", "min": "least", "max": "greatest", "stddev": "sample deviation"}
    return {
        f"{prefix}_{kind}": Column(f"{unit}, {words[kind]}", _of(SILVER_KEY, source))
        for kind in kinds
    }


ROLLUP_COLUMNS: Final = {
    "bucket": Column("beginning of the hour, UTC", _of(SILVER_KEY, "time")),
    "day": Column("UTC", _of(SILVER_KEY, "time")),
    "device_id": Column("", _of(SILVER_KEY, "device_id")),
    "farm_id": Column("of the first reading", _of(SILVER_KEY, "farm_id")),
    "sample_count": Column("readings, implausible ones too", _of(SILVER_KEY, "message_id")),
    **_statistics("soil", "% at 5 cm", "soil_moisture", "avg", "min", "max", "stddev"),
    **_statistics("temp", "°C", "temperature", "avg", "min", "max", "stddev"),
    **_statistics("humidity", "%RH", "humidity", "avg"),
    **_statistics("light", "lux", "light_level", "avg"),
    **_statistics("battery", "V", "battery_voltage", "min"),
    "rain_mm": Column("sum, null without a gauge", _of(SILVER_KEY, "rainfall_mm")),
    **_statistics("soil_20cm", "%", "soil_moisture_20cm", "avg"),
    **_statistics("soil_40cm", "%", "soil_moisture_40cm", "avg"),
}

_SOIL: Final = _of(HOURLY_KEY, "soil_avg", "bucket")
_TEMPERATURE: Final = _of(HOURLY_KEY, "temp_avg", "bucket")
FEATURES_COLUMNS: Final = {
    "device_id": Column("", _of(HOURLY_KEY, "device_id")),
    "date": Column("last day of the window, UTC", _of(HOURLY_KEY, "bucket")),
    "soil_7d_avg": Column("%", _SOIL),
    "soil_7d_stddev": Column("%", _SOIL),
    "temp_7d_avg": Column("°C", _TEMPERATURE),
    "soil_trend_slope": Column("%/day", _SOIL),
    "temp_variability": Column("deviation over mean", _TEMPERATURE),
    "days_since_irrigation": Column(
        "days, null beyond 30",
        (*_of(IRRIGATION_EVENTS_KEY, "timestamp", "farm_id"), *_of(HOURLY_KEY, "farm_id")),
    ),
    "days_since_rain": Column("days, null beyond 30", _of(DAILY_KEY, "rain_mm", "day")),
}

WEATHER_COLUMNS: Final = {
    "farm_id": Column("", _of(SILVER_WEATHER_KEY, "farm_id")),
    "day": Column("UTC", _of(SILVER_WEATHER_KEY, "hour")),
    "hour_count": Column("hours with a report", _of(SILVER_WEATHER_KEY, "hour")),
    "rain_mm": Column("sum, null without a gauge", _of(SILVER_WEATHER_KEY, "rain_mm")),
    "temp_min": Column("°C, least hourly mean", _of(SILVER_WEATHER_KEY, "temp_avg")),
    "temp_avg": Column("°C", _of(SILVER_WEATHER_KEY, "temp_avg")),
    "temp_max": Column("°C, greatest hourly mean", _of(SILVER_WEATHER_KEY, "temp_avg")),
    "humidity_avg": Column("%RH", _of(SILVER_WEATHER_KEY, "humidity_avg")),
    "light_avg": Column("lux", _of(SILVER_WEATHER_KEY, "light_avg")),
    "weather_condition": Column("of most hours", _of(SILVER_WEATHER_KEY, "weather_condition")),
}

_EVENT: Final = _of(IRRIGATION_EVENTS_KEY, "timestamp")
RESPONSE_COLUMNS: Final = {
    "device_id": Column("of the farm", _of(HOURLY_KEY, "device_id")),
    "started_at": Column("", _EVENT),
    "event_id": Column("", _of(IRRIGATION_EVENTS_KEY, "id")),
    "farm_id": Column("", _of(IRRIGATION_EVENTS_KEY, "farm_id")),
    "duration_minutes": Column("min", _of(IRRIGATION_EVENTS_KEY, "duration_minutes")),
    "water_volume_liters": Column("l", _of(IRRIGATION_EVENTS_KEY, "water_volume_liters")),
    "soil_before": Column("%, mean of the 6 h before", (*_SOIL, *_EVENT)),
    "soil_after_avg": Column("%, mean of the 24 h after", (*_SOIL, *_EVENT)),
    "soil_after_max": Column("%, highest hourly mean of the 24 h after", (*_SOIL, *_EVENT)),
    "soil_change": Column("%, highest after less mean before", (*_SOIL, *_EVENT)),
    "hours_before": Column("hours known, of 6", (*_SOIL, *_EVENT)),
    "hours_after": Column("hours known, of 24", (*_SOIL, *_EVENT)),
    "dry_again_hours": Column(
        "hours until the soil was back; null where that was not seen in 7 days", (*_SOIL, *_EVENT)
    ),
}

TRENDS_COLUMNS: Final = {
    "device_id": Column("", _of(DAILY_KEY, "device_id")),
    "week": Column("Monday of the ISO week that ends the window", _of(DAILY_KEY, "day")),
    "weeks": Column("length of the window: 4, 12 or 52", ()),
    "farm_id": Column("the latest", _of(DAILY_KEY, "farm_id")),
    "soil_days": Column("days with soil moisture", _of(DAILY_KEY, "soil_avg")),
    "soil_avg": Column("%", _of(DAILY_KEY, "soil_avg")),
    "soil_slope": Column("%/week, least squares", _of(DAILY_KEY, "soil_avg", "day")),
    "temp_days": Column("days with temperature", _of(DAILY_KEY, "temp_avg")),
    "temp_avg": Column("°C", _of(DAILY_KEY, "temp_avg")),
    "temp_slope": Column("°C/week, least squares", _of(DAILY_KEY, "temp_avg", "day")),
}

HISTORICAL_COLUMNS: Final = {
    name: Column(SILVER_COLUMNS[name], _of(SILVER_KEY, name))
    for name in (
        "device_id",
        "time",
        "message_id",
        "farm_id",
        "received_at",
        "soil_moisture",
        "temperature",
        "humidity",
        "light_level",
        "battery_voltage",
        "rainfall_mm",
        "soil_moisture_20cm",
        "soil_moisture_40cm",
        "signal_strength",
        "firmware_version",
        "model_version",
        "quality",
        "weather_condition",
        "irrigation_event",
    )
}
