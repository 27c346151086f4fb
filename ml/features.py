"""The seven inputs of the irrigation model, per device and day.

A feature row of day D knows the readings up to the end of D and nothing later:

1. Windows hold the hourly means of the seven days D-6 to D, each hour with the same weight.
2. A statistic of a window is null where fewer than 84 of its 168 hours are there.
3. `temp_variability` is the coefficient of variation, standard deviation over mean. The mean of a
   Celsius scale crosses zero in winter, so the divisor is never taken below 5 °C.
4. A day is rainy from 1 mm (WMO's wet day). `days_since_rain` and `days_since_irrigation` are 0 on
   the day itself and null where nothing fell within 30 days; a null enters the model as 30.
"""

import hashlib
from datetime import date
from typing import Final

import polars as pl

FEATURES: Final = (
    "soil_7d_avg",
    "soil_7d_stddev",
    "temp_7d_avg",
    "soil_trend_slope",
    "temp_variability",
    "days_since_irrigation",
    "days_since_rain",
)
"""%, %, °C, %/day, -, days, days: the order is the model's input contract, shape [1, 7]."""

WINDOW_DAYS: Final = 7
MIN_HOURS: Final = 84
MAX_DAYS_SINCE: Final = 30
WET_DAY_MM: Final = 1.0
MIN_TEMPERATURE_DIVISOR_C: Final = 5.0

SCHEMA: Final = pl.Schema(
    {
        "device_id": pl.String(),
        "date": pl.Date(),
        "soil_7d_avg": pl.Float64(),
        "soil_7d_stddev": pl.Float64(),
        "temp_7d_avg": pl.Float64(),
        "soil_trend_slope": pl.Float64(),
        "temp_variability": pl.Float64(),
        "days_since_irrigation": pl.Int32(),
        "days_since_rain": pl.Int32(),
    }
)


def feature_schema_hash() -> str:
    """Changes when the names, order or windows of the inputs do; signed into each release."""
    contract = "\n".join([*FEATURES, f"{WINDOW_DAYS}d", f"{MIN_HOURS}h", f"cap {MAX_DAYS_SINCE}"])
    return hashlib.sha256(contract.encode()).hexdigest()[:16]


def compute_features(
    hourly: pl.DataFrame, daily: pl.DataFrame, irrigation: pl.DataFrame, first: date, last: date
) -> pl.DataFrame:
    """One row for each device and day in [first, last] that has a reading in its window.

    Args:
        hourly: `device_id`, `bucket` (hour, UTC), `soil_avg` %, `temp_avg` °C; from six days
            before `first`, one row per device and hour.
        daily: `device_id`, `day`, `rain_mm`; from 30 days before `first`.
        irrigation: `device_id`, `day` of each irrigation; from 30 days before `first`.
        first: first day wanted.
        last: last day wanted.
    """
    windows = window_statistics(hourly).filter(pl.col("date").is_between(first, last))
    rain = daily.filter(pl.col("rain_mm") >= WET_DAY_MM).select("device_id", "day")
    return (
        windows.pipe(_with_days_since, irrigation, "days_since_irrigation")
        .pipe(_with_days_since, rain, "days_since_rain")
        .select(SCHEMA.names())
        .cast(SCHEMA)
        .sort("device_id", "date")
    )


def window_statistics(hourly: pl.DataFrame) -> pl.DataFrame:
    """Mean, deviation and slope of the seven days that end with each `date`."""
    soil, temperature = pl.col("soil_avg"), pl.col("temp_avg")
    # counted within the window, so that a day's bytes do not depend on the range it is built in
    days = (pl.col("time") - pl.col("time").min()).dt.total_seconds() / 86_400
    slope = pl.cov(days, soil) / days.filter(soil.is_not_null()).var()
    variability = temperature.std() / pl.max_horizontal(
        temperature.mean().abs(), pl.lit(MIN_TEMPERATURE_DIVISOR_C)
    )
    enough_soil = soil.count() >= MIN_HOURS
    enough_temperature = temperature.count() >= MIN_HOURS
    # polars' rolling kernels carry rounding errors along; here each window is summed by itself
    days_ahead = pl.DataFrame({"ahead": range(WINDOW_DAYS)})
    return (
        hourly.join(days_ahead, how="cross")
        .with_columns(time="bucket", date=pl.col("bucket").dt.date() + pl.duration(days="ahead"))
        .sort("device_id", "date", "time")
        .group_by("device_id", "date", maintain_order=True)
        .agg(
            soil_7d_avg=pl.when(enough_soil).then(soil.mean()),
            soil_7d_stddev=pl.when(enough_soil).then(soil.std()),
            soil_trend_slope=pl.when(enough_soil).then(slope),
            temp_7d_avg=pl.when(enough_temperature).then(temperature.mean()),
            temp_variability=pl.when(enough_temperature).then(variability),
        )
    )


def _with_days_since(windows: pl.DataFrame, events: pl.DataFrame, name: str) -> pl.DataFrame:
    """Days from the device's newest event to each `date`, null beyond MAX_DAYS_SINCE."""
    newest = events.select("device_id", pl.col("day").cast(pl.Date)).unique()
    joined = windows.sort("date").join_asof(
        newest.sort("day"),
        left_on="date",
        right_on="day",
        by="device_id",
        strategy="backward",
        tolerance=f"{MAX_DAYS_SINCE}d",
        check_sortedness=False,
    )
    since = (pl.col("date") - pl.col("day")).dt.total_days()
    return joined.with_columns(since.alias(name)).drop("day")
