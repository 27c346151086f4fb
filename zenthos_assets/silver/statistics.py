"""What a day of each device looked like: a row small enough to keep, compare and plot.

1. A row says what the readings of one device and UTC day hold, and depends on nothing else.
2. A gap is the time between two readings that follow each other; what lies before the first
   reading of a day and after the last one, who compares knows: `first_time`, `last_time`.
3. `missing_seq` counts the numbers that the device's own counter skipped. A counter that goes back
   has been reset, and skipped nothing.
4. Least and greatest value are those of all readings, the implausible ones included.
"""

from typing import Final

import polars as pl

from zenthos_assets.silver.transforms import RANGES

_TIME: Final = pl.Datetime("us", "UTC")

SENSORS: Final = tuple(RANGES)
HOURS: Final = 24
DEVICE_DAY: Final = ("day", "device_id")

SCHEMA: Final = pl.Schema(
    {
        "day": pl.Date(),
        "device_id": pl.String(),
        "farm_id": pl.String(),
        "readings": pl.Int64(),
        "first_time": _TIME,
        "last_time": _TIME,
        "interval_s": pl.Float64(),
        "longest_gap_s": pl.Float64(),
        "missing_seq": pl.Int64(),
        "clock_suspect": pl.Int64(),
        "implausible": pl.Int64(),
        "readings_by_hour": pl.List(pl.Int64()),
        **{f"{name}_missing": pl.Int64() for name in SENSORS},
        **{f"{name}_min": pl.Float64() for name in SENSORS},
        **{f"{name}_max": pl.Float64() for name in SENSORS},
    }
)
"""`interval_s` is the median time between two readings; `implausible` counts readings with a value
out of range; `{sensor}_missing` those without a value."""


def describe(cleaned: pl.DataFrame) -> pl.DataFrame:
    """Rules 1 to 4 for cleaned readings in their order: a frame of SCHEMA by day and device."""
    gap_s = pl.col("time").diff().dt.total_microseconds() / 1e6
    dated = cleaned.with_columns(day=pl.col("time").dt.date())
    return (
        dated.group_by(*DEVICE_DAY)
        .agg(
            farm_id=pl.col("farm_id").last(),
            readings=pl.len().cast(pl.Int64),
            first_time=pl.col("time").first(),
            last_time=pl.col("time").last(),
            interval_s=gap_s.median(),
            longest_gap_s=gap_s.max(),
            missing_seq=(pl.col("seq").diff() - 1).clip(lower_bound=0).sum(),
            clock_suspect=pl.col("clock_suspect").sum().cast(pl.Int64),
            implausible=(~pl.col("quality").is_in(["", "time"])).sum().cast(pl.Int64),
            **{f"{n}_missing": pl.col(n).null_count().cast(pl.Int64) for n in SENSORS},
            **{f"{name}_min": pl.col(name).min() for name in SENSORS},
            **{f"{name}_max": pl.col(name).max() for name in SENSORS},
        )
        .join(_by_hour(dated), on=DEVICE_DAY)
        .select(SCHEMA.names())
        .sort(DEVICE_DAY)
    )


def _by_hour(dated: pl.DataFrame) -> pl.DataFrame:
    """The number of readings in each hour, as a list for each day and device."""
    counts = dated.group_by(*DEVICE_DAY, hour=pl.col("time").dt.hour()).len("count")
    hours = pl.DataFrame({"hour": range(HOURS)}, schema={"hour": pl.Int8()})
    return (
        counts.select(DEVICE_DAY)
        .unique()
        .join(hours, how="cross")
        .join(counts, on=[*DEVICE_DAY, "hour"], how="left")
        .sort(*DEVICE_DAY, "hour")
        .group_by(DEVICE_DAY, maintain_order=True)
        .agg(readings_by_hour=pl.col("count").fill_null(0).cast(pl.Int64))
    )
