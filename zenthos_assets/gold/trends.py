"""Long-term trends by device and week; values in, values out.

1. A week is an ISO week, Monday to Sunday UTC, named by its Monday. Its windows end with its Sunday
   and are WINDOWS weeks long.
2. The slope is that of the least-squares line through the daily means, each day with the same
   weight, per week. Slope and mean are null where fewer than half of the window's days are there.
3. `soil_days` and `temp_days` say how many days there are. A device without any has no row.
"""

from collections.abc import Iterable
from datetime import date, timedelta
from typing import Final

import polars as pl

WINDOWS: Final = (4, 12, 52)
DAYS: Final = 7 * max(WINDOWS)
"""Days that a week needs, its own included."""

MIN_SHARE: Final = 0.5

TRENDS_SCHEMA: Final = pl.Schema(
    {
        "device_id": pl.String(),
        "week": pl.Date(),
        "weeks": pl.Int64(),
        "farm_id": pl.String(),
        "soil_days": pl.Int64(),
        "soil_avg": pl.Float64(),
        "soil_slope": pl.Float64(),
        "temp_days": pl.Int64(),
        "temp_avg": pl.Float64(),
        "temp_slope": pl.Float64(),
    }
)


def monday_of(day: date) -> date:
    """The Monday of a day's ISO week (rule 1)."""
    return day - timedelta(days=day.weekday())


def weeks_between(first: date, last: date) -> list[date]:
    """The weeks from that of `first` to the last one that is over by the end of `last`."""
    monday, weeks = monday_of(first), []
    while monday + timedelta(days=6) <= last:
        weeks.append(monday)
        monday += timedelta(days=7)
    return weeks


def trends(daily: pl.DataFrame, weeks: Iterable[date]) -> pl.DataFrame:
    """A row (TRENDS_SCHEMA) for each device, week and window that has a day.

    Args:
        daily: `device_id`, `farm_id`, `day`, `soil_avg` %, `temp_avg` °C; from DAYS before the end
            of the first week on.
        weeks: Mondays.
    """
    found = [_trend(daily, week, length) for week in weeks for length in WINDOWS]
    return pl.concat([TRENDS_SCHEMA.to_frame(), *found]).sort("device_id", "week", "weeks")


def _trend(daily: pl.DataFrame, week: date, length: int) -> pl.DataFrame:
    last = week + timedelta(days=6)
    first = last - timedelta(days=7 * length - 1)
    soil, temperature = pl.col("soil_avg"), pl.col("temp_avg")
    return (
        daily.filter(pl.col("day").is_between(first, last))
        .sort("device_id", "day")
        .with_columns(age=(pl.col("day") - first).dt.total_days() / 7)
        .group_by("device_id", maintain_order=True)
        .agg(
            farm_id=pl.col("farm_id").last(),
            soil_days=soil.count(),
            soil_avg=_where_enough(soil, soil.mean(), length),
            soil_slope=_where_enough(soil, _slope(soil), length),
            temp_days=temperature.count(),
            temp_avg=_where_enough(temperature, temperature.mean(), length),
            temp_slope=_where_enough(temperature, _slope(temperature), length),
        )
        .with_columns(week=pl.lit(week), weeks=pl.lit(length))
        .select(TRENDS_SCHEMA.names())
        .cast(TRENDS_SCHEMA)
    )


def _where_enough(values: pl.Expr, statistic: pl.Expr, length: int) -> pl.Expr:
    return pl.when(values.count() >= 7 * length * MIN_SHARE).then(statistic)


def _slope(values: pl.Expr) -> pl.Expr:
    """Of the least-squares line over `age`, in weeks."""
    age = pl.col("age").filter(values.is_not_null())
    return pl.cov(age, values.drop_nulls()) / age.var()
