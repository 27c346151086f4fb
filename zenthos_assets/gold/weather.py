"""Hours of a farm's weather to days; values in, values out.

1. Rain is the sum of the hours, null where no hour had a gauge.
2. Temperatures are the least, the mean and the greatest of the hourly means.
3. The dominant condition is the one of most hours; of equally many, the first by name.
"""

from typing import Final

import polars as pl

WEATHER_SCHEMA: Final = pl.Schema(
    {
        "farm_id": pl.String(),
        "day": pl.Date(),
        "hour_count": pl.Int64(),
        "rain_mm": pl.Float64(),
        "temp_min": pl.Float64(),
        "temp_avg": pl.Float64(),
        "temp_max": pl.Float64(),
        "humidity_avg": pl.Float64(),
        "light_avg": pl.Float64(),
        "weather_condition": pl.String(),
    }
)


def weather_by_day(hourly: pl.DataFrame) -> pl.DataFrame:
    """One row (WEATHER_SCHEMA) for each farm and day of weather_hourly."""
    condition = pl.col("weather_condition").drop_nulls()
    rain = pl.col("rain_mm")
    return (
        hourly.sort("farm_id", "hour")
        .group_by("farm_id", pl.col("hour").dt.date().alias("day"), maintain_order=True)
        .agg(
            hour_count=pl.len().cast(pl.Int64),
            rain_mm=pl.when(rain.count() > 0).then(rain.sum()),
            temp_min=pl.col("temp_avg").min(),
            temp_avg=pl.col("temp_avg").mean(),
            temp_max=pl.col("temp_avg").max(),
            humidity_avg=pl.col("humidity_avg").mean(),
            light_avg=pl.col("light_avg").mean(),
            weather_condition=condition.mode().sort().first(),
        )
        .select(WEATHER_SCHEMA.names())
        .cast(WEATHER_SCHEMA)
    )
