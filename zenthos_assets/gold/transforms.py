"""Cleaned readings to rollups; values in, values out. Features are ml.features.

1. A value out of its plausible range counts as missing; the reading still counts as a sample.
2. Rain is the sum over the period, null where no gauge reported.
3. Deviations are of the sample (n - 1), null below two values.
"""

from typing import Final, Literal

import polars as pl

from zenthos_assets.silver.transforms import RANGES

_MEASURES: Final = {
    "soil_avg": pl.Float64(),
    "soil_min": pl.Float64(),
    "soil_max": pl.Float64(),
    "soil_stddev": pl.Float64(),
    "temp_avg": pl.Float64(),
    "temp_min": pl.Float64(),
    "temp_max": pl.Float64(),
    "temp_stddev": pl.Float64(),
    "humidity_avg": pl.Float64(),
    "light_avg": pl.Float64(),
    "battery_min": pl.Float64(),
    "rain_mm": pl.Float64(),
    "soil_20cm_avg": pl.Float64(),
    "soil_40cm_avg": pl.Float64(),
}
HOURLY_SCHEMA: Final = pl.Schema(
    {
        "bucket": pl.Datetime("us", "UTC"),
        "device_id": pl.String(),
        "farm_id": pl.String(),
        "sample_count": pl.Int64(),
        **_MEASURES,
    }
)
DAILY_SCHEMA: Final = pl.Schema(
    {
        "day": pl.Date(),
        "device_id": pl.String(),
        "farm_id": pl.String(),
        "sample_count": pl.Int64(),
        **_MEASURES,
    }
)


Period = Literal["hour", "day"]


def plausible(name: str) -> pl.Expr:
    """A sensor's value, or null where it is out of range (rule 1)."""
    return pl.when(pl.col(name).is_between(*RANGES[name])).then(pl.col(name))


def rollup(silver: pl.DataFrame, period: Period) -> pl.DataFrame:
    """Statistics per device and hour (HOURLY_SCHEMA) or day (DAILY_SCHEMA)."""
    name, start, schema = (
        ("bucket", pl.col("time").dt.truncate("1h"), HOURLY_SCHEMA)
        if period == "hour"
        else ("day", pl.col("time").dt.date(), DAILY_SCHEMA)
    )
    sensors = [plausible(sensor) for sensor in RANGES]
    # A group is a run of rows: sums in one order, the same bytes. Numbered runs cost a third of
    # what texts as keys do.
    runs = pl.struct("device_id", name).rle_id().set_sorted()
    return (
        _by_device(silver)
        .select("device_id", "farm_id", start.alias(name), *sensors)
        .rechunk()
        .with_columns(_run=runs)
        .group_by("_run", maintain_order=True)
        .agg(pl.col("device_id", "farm_id", name).first(), **_statistics())
        .select(schema.names())
        .sort("device_id", name)
    )


def _by_device(silver: pl.DataFrame) -> pl.DataFrame:
    """Each device's readings together and in order; silver has them so, whatever else its order."""
    device = silver["device_id"].rle_id()
    later = (silver["time"] >= silver["time"].shift()) | (device != device.shift())
    runs, devices = device.n_unique(), silver["device_id"].n_unique()
    if later.all() and runs == devices:
        return silver
    return silver.sort("device_id", "time", maintain_order=True)


def _statistics() -> dict[str, pl.Expr]:
    soil, temperature, rain = (
        pl.col(name) for name in ("soil_moisture", "temperature", "rainfall_mm")
    )
    return {
        "sample_count": pl.len().cast(pl.Int64),
        "soil_avg": soil.mean(),
        "soil_min": soil.min(),
        "soil_max": soil.max(),
        "soil_stddev": soil.std(),
        "temp_avg": temperature.mean(),
        "temp_min": temperature.min(),
        "temp_max": temperature.max(),
        "temp_stddev": temperature.std(),
        "humidity_avg": pl.col("humidity").mean(),
        "light_avg": pl.col("light_level").mean(),
        "battery_min": pl.col("battery_voltage").min(),
        "rain_mm": pl.when(rain.count() > 0).then(rain.sum()),
        "soil_20cm_avg": pl.col("soil_moisture_20cm").mean(),
        "soil_40cm_avg": pl.col("soil_moisture_40cm").mean(),
    }
