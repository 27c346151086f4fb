"""Days of gold from what the lake holds: objects in, frames out. No Dagster belongs here."""

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Final

import polars as pl

from ml.features import MAX_DAYS_SINCE, WINDOW_DAYS, compute_features
from zenthos_assets import parquet
from zenthos_assets.gold.reading import read_slices, read_window
from zenthos_assets.gold.transforms import DAILY_SCHEMA, HOURLY_SCHEMA, Period, rollup
from zenthos_assets.silver.transforms import RANGES
from zenthos_assets.silver.transforms import SCHEMA as SILVER_SCHEMA
from zenthos_core import lake
from zenthos_core.blobs import BlobStore

SILVER: Final = (lake.SILVER, "telemetry_cleaned")
HOURLY: Final = (lake.GOLD, "telemetry_hourly")
DAILY: Final = (lake.GOLD, "telemetry_daily")

_READINGS: Final = pl.Schema(
    {name: SILVER_SCHEMA[name] for name in ("device_id", "time", "farm_id", *RANGES)}
)
_SOIL_AND_TEMPERATURE: Final = pl.Schema(
    {n: HOURLY_SCHEMA[n] for n in ("device_id", "bucket", "soil_avg", "temp_avg")}
)
_RAIN: Final = pl.Schema({n: DAILY_SCHEMA[n] for n in ("device_id", "day", "rain_mm")})


def rollup_days(
    store: BlobStore, days: Sequence[date], rows: Mapping[date, int], period: Period
) -> pl.DataFrame:
    """The rollup of days of silver, slice by slice; `rows` says how large each day is."""
    schema = HOURLY_SCHEMA if period == "hour" else DAILY_SCHEMA
    slices = read_slices(store, SILVER, days, _READINGS, rows)
    rolled = [rollup(readings, period) for readings in slices]
    return pl.concat([schema.to_frame(), *rolled]).sort("device_id", schema.names()[0])


def feature_days(
    store: BlobStore, first: date, last: date, irrigation: pl.DataFrame
) -> pl.DataFrame:
    """The features of a range of days; `irrigation` is as `compute_features` takes it."""
    hours = parquet.day_range(first - timedelta(days=WINDOW_DAYS - 1), last)
    hourly = read_window(store, HOURLY, hours, _SOIL_AND_TEMPERATURE)
    rain_days = parquet.day_range(first - timedelta(days=MAX_DAYS_SINCE), last)
    daily = read_window(store, DAILY, rain_days, _RAIN)
    return compute_features(hourly, daily, irrigation, first, last)
